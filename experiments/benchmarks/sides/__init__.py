"""The sides of the benchmark of pairs: each module's `prepare(task)` returns the work that is timed."""
