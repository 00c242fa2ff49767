"""The terminal summary of a run: verdicts follow the intervals, commands have no password."""

from __future__ import annotations

import io
import re

import pandas as pd
import pytest
from rich.console import Console

from reranker.config import Config
from reranker.eval import Evaluation
from reranker.reports.run.summary import print_summary, verdict
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
        r"^ *(random|BM25|fine-tuned) +(0\.\d{3} \[.*?\]) .* 0\.500 *$", text, re.MULTILINE
    )
    assert rows == [
        ("random", "0.200 [0.100, 0.300]"),
        ("BM25", "0.400 [0.300, 0.500]"),
        ("fine-tuned", "0.600 [0.500, 0.700]"),
        ("random", "0.100 [0.000, 0.200]"),
        ("BM25", "0.300 [0.200, 0.400]"),
        ("fine-tuned", "0.500 [0.400, 0.600]"),
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


def test_the_summary_of_one_user_explains_the_missing_interval() -> None:
    text = printed(
        config(),
        Registered(4, "models:/book-reranker/4", "m-1", True, "first"),
        one_user_evaluation(),
    )
    assert re.search(r"fine-tuned +0\.600 \(no interval\) ", text)
    assert (
        "the best baseline, BM25: NDCG@10 +0.200; an interval needs at least two test users" in text
    )
    assert "nan" not in text


def test_the_commands_name_the_registered_version_and_no_password() -> None:
    cfg = config(f"postgresql://me:{SECRET}@db/runs?sslmode=on&a=1")
    text = printed(
        cfg, Registered(4, "models:/book-reranker/4", "m-1", False, "version 3 did better")
    )
    assert "model models:/book-reranker/4: not champion (version 3 did better)" in text
    assert "reranker ui --tracking-uri 'postgresql://***@db/runs?sslmode=on&a=1'\n" in text
    assert " --model models:/book-reranker/4 " in text
