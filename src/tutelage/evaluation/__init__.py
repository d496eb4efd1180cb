"""Metrics, statistics, bias correction and profiling of trained models."""
