"""First-stage retrievers that rank all books of the catalogue."""
