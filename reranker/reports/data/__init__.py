"""The report on training pairs."""
