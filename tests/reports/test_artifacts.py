"""Reports and figures are written to the run's folder and logged as its artifacts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from reranker import reports
from reranker.cache import Cache
from reranker.config import Config, EvalConfig
from reranker.data import Contexts, Corpus, Tables
from reranker.eval import EvalSet, evaluate
from reranker.tracking.lifecycle import start
from reranker.trainer import History
from tests.helpers.paired import AUDIT, WordCounter, drawn
from tests.helpers.tracked import artifacts, find_runs, read_result

pytestmark = pytest.mark.slow

HISTORY = History(
    logs=[{"step": 5, "loss": 0.7}, {"step": 5, "dev_ndcg_10": 0.3}], best_step=5, best_dev=0.3
)


def test_the_data_report_is_logged_as_metrics_and_a_page(
    run_cfg: Config, tmp_path: Path, tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    corpus = Corpus(tables, contexts)
    pairs = drawn(tables, contexts, cache)
    with start(run_cfg, tmp_path / "run") as log:
        encoder = WordCounter()
        reports.write_data_report(log, corpus, pairs, audit_counts=AUDIT, encoder=encoder)
    page = tmp_path / "run" / "data_report.html"
    result = read_result(tmp_path / "run")
    assert result["paths"]["data_report"] == str(page)
    assert result["skipped_metrics"] == []
    assert result["metrics"]["data/n_pairs"] == len(pairs.codes)
    assert result["metrics"]["data/audit/pairs_checked"] == AUDIT["pairs_checked"]
    _, [run] = find_runs(run_cfg)
    logged = {key: value for key, value in run.data.metrics.items() if key.startswith("data/")}
    assert logged == {key: pytest.approx(value) for key, value in result["metrics"].items()}
    stored = artifacts(run_cfg, log.run_id) / "data_report.html"
    assert stored.read_bytes() == page.read_bytes()


def test_the_run_report_is_logged_as_figures_and_a_page(
    run_cfg: Config, tmp_path: Path, tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    run_cfg.eval = EvalConfig(list_kinds=["uniform"], n_candidates=12, n_bootstrap=100)
    corpus = Corpus(tables, contexts)
    test = EvalSet.from_lists(corpus, run_cfg.eval, cache, split="test")
    rng = np.random.default_rng(0)
    for name in ("fine_tuned", "random"):
        test.scores[name] = rng.normal(size=len(test.rows))
    with start(run_cfg, tmp_path / "run") as log:
        reports.write_run_report(log, evaluate(test), HISTORY, test=test)
    page = tmp_path / "run" / "run_report.html"
    assert read_result(tmp_path / "run")["paths"]["run_report"] == str(page)
    stored = artifacts(run_cfg, log.run_id)
    assert (stored / "run_report.html").read_bytes() == page.read_bytes()
    assert log.run_id in page.read_text()
    names = ("ndcg_by_k", "users", "slices", "calibration")
    figures = {"training", "ndcg_10", *(f"{name}_uniform" for name in names)}
    assert {file.stem for file in (stored / "plots").iterdir()} == figures


def test_a_page_that_cannot_be_written_leaves_no_temporary_file(
    tmp_path: Path, tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    run_dir = tmp_path / "run"
    (run_dir / "data_report.html").mkdir(parents=True)
    log = SimpleNamespace(run_dir=run_dir, metrics=lambda values: None)
    with pytest.raises(OSError, match=r"data_report\.html"):
        reports.write_data_report(
            log,
            Corpus(tables, contexts),
            drawn(tables, contexts, cache),
            audit_counts=AUDIT,
            encoder=WordCounter(),
        )
    assert [path.name for path in run_dir.iterdir()] == ["data_report.html"]
