"""The terminal summary of a run: verdicts follow the intervals, commands have no password."""

from __future__ import annotations

import dataclasses
import io
import re

import pandas as pd
import pytest
from rich.console import Console

from reranker.config import BASELINES, Config
from reranker.eval import Evaluation
from reranker.reports.run.summary import _short, print_summary, verdict
from reranker.reports.scorers import scorer_name
from reranker.serving.registry import Registered
from tests.helpers.tracked import SECRET, config, evaluation, full_evaluation, one_user_evaluation


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.01, 0.09, "beats"),
        (-0.09, -0.01, "loses to"),
        (-0.01, 0.05, "does not differ significantly from"),
        (0.0, 0.05, "does not differ significantly from"),
        (-0.05, 0.0, "does not differ significantly from"),
    ],
)
def test_the_verdict_follows_the_sign_of_the_interval(low: float, high: float, word: str) -> None:
    lift = pd.DataFrame(
        {
            "model": "fine_tuned",
            "over": ["random", "bm25"],
            "is_best": [False, True],
            "lift": [0.9, (low + high) / 2],
            "low": low,
            "high": high,
        }
    )
    text = verdict(lift)
    assert text.startswith(
        f"The fine-tuned model {word} the best baseline, BM25: NDCG@10 {(low + high) / 2:+.3f} "
    )
    assert f"[{low:+.3f}, {high:+.3f}] (95 %" in text


def test_every_model_has_its_own_verdict() -> None:
    e = full_evaluation()
    fine_tuned, fused = verdict(e.lift[e.lift["kind"] == "uniform"]).split("\n")
    assert fine_tuned.startswith(
        "The fine-tuned model beats the best baseline, BM25: NDCG@10 +0.200"
    )
    assert fused.startswith("The fused model loses to the best baseline, BM25: NDCG@10 -0.200")


def printed(cfg: Config, registered: Registered, results: Evaluation | None = None) -> str:
    console = Console(record=True, width=100, file=io.StringIO(), highlight=False)
    print_summary(results or evaluation(), registered, cfg, console=console)
    return console.export_text()


def test_the_summary_has_a_row_per_scorer_and_list_kind_with_the_best_last() -> None:
    cfg = config()
    cfg.eval.list_kinds = ["uniform", "popularity"]
    text = printed(
        cfg, Registered(4, "models:/book-reranker/4", "m-1", True, "no version was champion before")
    )
    rows = re.findall(
        r"^ *(random|BM25|fine-tuned) +(\.\d{3} \[.*?\]) .* \.500 *$", text, re.MULTILINE
    )
    assert rows == [
        ("random", ".200 [.100, .300]"),
        ("BM25", ".400 [.300, .500]"),
        ("fine-tuned", ".600 [.500, .700]"),
        ("random", ".100 [.000, .200]"),
        ("BM25", ".300 [.200, .400]"),
        ("fine-tuned", ".500 [.400, .600]"),
    ]
    assert (
        text.count(
            "The fine-tuned model beats the best baseline, BM25: NDCG@10 +0.200 [+0.150, +0.250]"
        )
        == 2
    )
    assert "model models:/book-reranker/4: now champion (no version was champion before)" in text
    assert (
        "rerank --tracking-uri sqlite:////nowhere/mlflow.db --model models:/book-reranker@champion "
        in text
    )


def test_the_table_fits_in_80_columns_with_every_scorer_and_metric() -> None:
    metrics = ("ndcg_10", "ndcg_10_low", "ndcg_10_high", "ndcg_3", "ndcg_5", "map", "ap", "auc")
    rows = [
        {"scorer": name, "kind": "uniform", "n_users": 4, **{m: 0.1 + i / 100 for m in metrics}}
        for i, name in enumerate((*BASELINES, "untrained", "fine_tuned", "fused"))
    ]
    results = dataclasses.replace(evaluation(), summary=pd.DataFrame(rows).assign(ap=0.123))
    console = Console(record=True, width=80, file=io.StringIO(), highlight=False)
    registered = Registered(4, "models:/book-reranker/4", "m-1", True, "first")
    print_summary(results, registered, config(), console=console)
    text = console.export_text()
    assert "…" not in text
    assert re.search(r"scorer +NDCG@10 +@5 +@3 +MAP +AP +AUC *\n", text)
    for row in rows:
        name, value = scorer_name(str(row["scorer"])), f"{row['auc']:.3f}".lstrip("0")
        cells = [f"{value} [{value}, {value}]", value, value, value, ".123", value]
        line = " +".join(map(re.escape, [name, *cells]))
        assert re.search(rf"^ *{line} *$", text, re.MULTILINE), name


@pytest.mark.parametrize(
    ("value", "text"), [(0.3694, ".369"), (1.0, "1.000"), (0.0, ".000"), (0.9999, "1.000")]
)
def test_values_have_three_decimals_without_a_leading_zero(value: float, text: str) -> None:
    assert _short(value) == text


def test_the_summary_of_one_user_explains_the_missing_interval() -> None:
    text = printed(
        config(),
        Registered(4, "models:/book-reranker/4", "m-1", True, "first"),
        one_user_evaluation(),
    )
    assert re.search(r"fine-tuned +\.600 \(no interval\) ", text)
    assert (
        "the best baseline, BM25: NDCG@10 +0.200; an interval needs at least two test users" in text
    )
    assert "nan" not in text


def test_a_model_that_was_not_logged_is_named_by_its_folder() -> None:
    reason = "tracking.log_model is false"
    text = printed(config(), Registered(None, "/runs/my run/bundle-1", None, False, reason))
    assert "model /runs/my run/bundle-1: tracking.log_model is false" in text
    assert " --model '/runs/my run/bundle-1' " in text


def test_the_commands_name_the_registered_version_and_no_password() -> None:
    cfg = config(f"postgresql://me:{SECRET}@db/runs?sslmode=on&a=1")
    text = printed(
        cfg, Registered(4, "models:/book-reranker/4", "m-1", False, "version 3 did better")
    )
    assert "model models:/book-reranker/4: not champion (version 3 did better)" in text
    assert "reranker ui --tracking-uri 'postgresql://***@db/runs?sslmode=on&a=1'\n" in text
    assert " --model models:/book-reranker/4 " in text
