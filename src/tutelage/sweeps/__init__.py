"""Sweeps over settings: search space, trial queue, workers, results."""
