"""First-stage retrievers that rank the whole catalogue."""
