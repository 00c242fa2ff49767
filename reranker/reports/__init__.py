"""HTML reports, figures and terminal summaries."""
