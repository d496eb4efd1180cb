"""Training of one model: batches, optimizers, schedules, checkpoints."""
