"""Report on training pairs."""
