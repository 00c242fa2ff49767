"""Implementations of the benchmark of pairs: `prepare(task)` returns the measured function."""
