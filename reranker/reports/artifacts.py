"""Write the reports and figures of a run, and log them as its artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from reranker.data import Corpus
    from reranker.eval import EvalSet, Evaluation
    from reranker.reports.data.summary import TokenCounter
    from reranker.sampling import Pairs
    from reranker.tracking import RunLog
    from reranker.trainer import History

DPI = 120  # of figures logged as images


def write_data_report(
    log: RunLog,
    corpus: Corpus,
    pairs: Pairs,
    *,
    audit_counts: Mapping[str, int],
    encoder: TokenCounter,
) -> None:
    """Log the data report: its numbers as metrics `data/…`, and its page `data_report.html`.

    Args:
        log: The run; its folder gets the page too.
        corpus: What the pairs were made from.
        pairs: The training pairs.
        audit_counts: Rows that the leakage audit checked, by check.
        encoder: Counts and truncates tokens; an `Encoder` in a run.

    Example:
        >>> write_data_report(log, corpus, pairs, audit_counts=checked, encoder=encoder)
    """
    from reranker.reports.data.page import page
    from reranker.reports.data.summary import metrics, summarise

    summary = summarise(corpus.tables, pairs, audit_counts, encoder=encoder)
    log.metrics(metrics(summary))
    _log_page(log, "data_report", page(summary))


def write_pairs_report(log: RunLog, pairs: Path) -> None:
    """Log `pairs_report.html`, which describes a pairs file of any origin.

    Args:
        log: The run; its folder gets the page too.
        pairs: A parquet file or a folder of part files.

    Example:
        >>> write_pairs_report(log, pairs.path)
    """
    from reranker.reports.pairs import summarise
    from reranker.reports.pairs.page import page
    from reranker.sampling.pair_files import read_pairs

    _log_page(log, "pairs_report", page(summarise(read_pairs(pairs))))


def write_run_report(
    log: RunLog, evaluation: Evaluation, history: History, *, test: EvalSet
) -> None:
    """Log the figures `plots/*.png` of the training and the evaluation, and `run_report.html`.

    Args:
        log: The run; its folder gets the page too.
        evaluation: The results on the test lists.
        history: The training.
        test: The test lists with the scores of every scorer.

    Example:
        >>> write_run_report(log, evaluation, history, test=test)
    """
    from reranker.reports.run.overview_plots import evaluation_figures
    from reranker.reports.run.page import RunSummary, find_examples, page
    from reranker.reports.run.plots import training

    figures = {"training": training(history.logs), **evaluation_figures(evaluation)}
    for name, figure in figures.items():
        _log_figure(log, name, figure)
    examples = find_examples(evaluation, test)
    summary = RunSummary(log.cfg, evaluation, examples, history, log.result)
    _log_page(log, "run_report", page(summary))


def _log_figure(log: RunLog, name: str, figure: Figure) -> None:
    figure.set_dpi(DPI)
    log.client.log_figure(log.run_id, figure, f"plots/{name}.png")


def _log_page(log: RunLog, name: str, html: str) -> None:
    """Write `<run_dir>/<name>.html`, log it, and add its path to `result.json`."""
    from reranker.reports.page import write_page

    path = log.run_dir / f"{name}.html"
    write_page(path, html)
    log.artifact(path)
    log.result["paths"][name] = str(path)
