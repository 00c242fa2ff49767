"""HTML reports, figures and terminal summaries."""

from reranker.reports.artifacts import write_data_report, write_pairs_report, write_run_report
from reranker.reports.run.summary import print_summary

__all__ = ["print_summary", "write_data_report", "write_pairs_report", "write_run_report"]
