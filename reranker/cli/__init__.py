"""The `reranker` command."""
