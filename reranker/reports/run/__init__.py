"""Report on a run: its page, figures and terminal summary."""
