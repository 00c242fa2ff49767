"""Report on pairs files of any origin."""

from reranker.reports.pairs.page import write_page
from reranker.reports.pairs.summary import PairsSummary, summarise
from reranker.reports.pairs.terminal import print_summary

__all__ = ["PairsSummary", "print_summary", "summarise", "write_page"]
