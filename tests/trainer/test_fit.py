"""Fine-tuning learns what the pairs say, keeps the best checkpoint, and gives the same weights twice."""

from __future__ import annotations

import dataclasses
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rich
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from reranker.config import ModelConfig, TrainerConfig
from reranker.errors import TrainingError
from reranker.model import Encoder, load
from reranker.trainer import Event, fit
from reranker.trainer.fit import evaluation_steps

pytestmark = pytest.mark.slow
TINY = ModelConfig(name="tiny", source="random", max_length=32)
CFG = TrainerConfig(epochs=6, batch_size=16, learning_rate=3e-3, n_evaluations=3, log_steps=5)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """The label is 1 where the candidate starts with `a`, 0 where it starts with `z`."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 200)
    text = ["az"[1 - y] + "qwxyz"[i % 5] for i, y in enumerate(label)]
    path = tmp_path / "pairs.parquet"
    pd.DataFrame(
        {"user_ctx": "reader", "book_text": text, "label": label.astype(np.int8)}
    ).to_parquet(path)
    return path


def margin(encoder: Encoder) -> float:
    a, z = encoder.score(["reader"] * 2, ["ak", "zk"])
    return float(a - z)


def test_fine_tuning_learns_and_reports(pairs: Path) -> None:
    encoder = load(TINY)
    logged: list[tuple[dict[str, Any], int]] = []
    history = fit(
        encoder,
        pairs,
        lambda: margin(encoder),
        cfg=CFG,
        on_log=lambda logs, step: logged.append((logs, step)),
    )
    assert margin(encoder) > 4  # logits; a positive is e^4 times as likely as a negative
    losses = [row["loss"] for row in history.logs if "loss" in row]
    assert losses[-1] < 0.2 < 0.5 < losses[0]
    assert history.n_steps == 78  # 6 epochs of 200 / 16 rounded up
    assert [step for logs, step in logged if "dev_ndcg_10" in logs] == [26, 52, 78]
    assert {"loss", "learning_rate", "grad_norm"} <= set(logged[0][0])
    assert history.pairs_per_s > 0
    steps = [row for row in history.logs if "loss" in row]
    assert all(row["tokens_per_s"] > row["pairs_per_s"] > 0 for row in steps)
    assert all(row["padding_fraction"] == 0 < row["spread"] for row in steps)


def test_the_best_checkpoint_is_kept_not_the_last(pairs: Path) -> None:
    encoder = load(TINY)
    margins: list[float] = []

    def score_dev() -> float:
        margins.append(margin(encoder))
        return [0.2, 0.9, 0.5][len(margins) - 1]

    history = fit(encoder, pairs, score_dev, cfg=CFG)
    assert (history.best_step, history.best_dev) == (52, 0.9)
    assert margin(encoder) == pytest.approx(margins[1], abs=1e-5)
    assert margins[1] != pytest.approx(margins[2], abs=1e-3)


@pytest.mark.parametrize(("max_steps", "expected"), [(7, [2, 4, 6, 7]), (3, [1, 2, 3]), (1, [1])])
def test_dev_lists_are_scored_so_often_at_most_and_for_the_last_time_after_the_last_step(
    pairs: Path, max_steps: int, expected: list[int]
) -> None:
    values: list[float] = []

    def rising() -> float:
        values.append(0.1 * (len(values) + 1))
        return values[-1]

    cfg = TrainerConfig(max_steps=max_steps, n_evaluations=4, log_steps=100)
    history = fit(load(TINY), pairs, rising, cfg=cfg)
    assert [row["step"] for row in history.logs if "dev_ndcg_10" in row] == expected
    assert len(values) == len(expected)
    assert (history.best_step, history.best_dev) == (
        max_steps,
        values[-1],
    )  # so the last weights can be chosen


@given(n_steps=st.integers(1, 10_000), n_evaluations=st.integers(1, 50))
def test_evaluations_are_even(n_steps: int, n_evaluations: int) -> None:
    steps = [0, *evaluation_steps(n_steps, n_evaluations)]
    assert len(steps) == 1 + min(n_steps, n_evaluations)
    assert steps[-1] == n_steps
    gaps = np.diff(steps)
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


def test_scores_are_fp32_during_and_after_a_training_in_bf16(pairs: Path, tmp_path: Path) -> None:
    encoder = load(TINY)
    queries, candidates = ["reader"] * 40, [f"{c} {i}" for i, c in enumerate("az" * 20)]

    def saved(name: str) -> Encoder:
        encoder.save(tmp_path / name)
        return load(ModelConfig(source="path", path=str(tmp_path / name), max_length=32))

    def score_dev() -> float:
        twin = saved(f"during {len(list(tmp_path.iterdir()))}")
        np.testing.assert_allclose(
            encoder.score(queries, candidates), twin.score(queries, candidates), atol=1e-5
        )
        return 0.5

    cfg = TrainerConfig(max_steps=6, n_evaluations=2, learning_rate=3e-3, precision="bf16")
    fit(encoder, pairs, score_dev, cfg=cfg)
    scores = encoder.score(queries, candidates)
    np.testing.assert_allclose(saved("after").score(queries, candidates), scores, atol=1e-5)
    assert scores.std() > 0.05  # so that 1e-5 says something
    features = encoder.model.tokenizer(["reader"], ["a 0"], return_tensors="pt")
    with torch.no_grad():  # whoever calls the model itself gets fp32 too
        assert float(encoder.model(dict(features))["scores"]) == pytest.approx(
            float(scores[0]), abs=1e-5
        )


def test_an_error_in_training_leaves_the_model_whole_and_the_terminals_cursor_visible(
    pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, force_interactive=True)
    monkeypatch.setattr(rich, "_console", terminal)
    encoder = load(TINY)

    def interrupted() -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(encoder, pairs, interrupted, cfg=TrainerConfig(max_steps=2, precision="bf16"))
    out = terminal.file.getvalue()
    assert "fine-tuning" in out
    assert out.rindex("\x1b[?25h") > out.rindex("\x1b[?25l")  # shown again after it was last hidden
    assert "forward" not in vars(encoder.model)


def test_no_bar_is_written_where_there_is_no_terminal(
    pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(load(TINY), pairs, lambda: 0.5, cfg=TrainerConfig(max_steps=2))
    assert capsys.readouterr().out == ""


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(pairs: Path) -> None:
    margins = []
    for seed in (0, 0, 1):
        encoder = load(TINY)
        fit(encoder, pairs, lambda: 0.5, cfg=TrainerConfig(max_steps=8, seed=seed))
        margins.append(margin(encoder))
    assert margins[0] == margins[1] != margins[2]


def test_max_steps_takes_the_place_of_epochs(pairs: Path) -> None:
    encoder = load(TINY)
    history = fit(encoder, pairs, lambda: 0.5, cfg=TrainerConfig(epochs=9, max_steps=3))
    assert history.n_steps == 3


def test_training_ends_when_patience_does(pairs: Path) -> None:
    values = iter([0.3, 0.5, 0.4, 0.5, 0.9])
    cfg = TrainerConfig(max_steps=10, n_evaluations=5, patience=2)
    history = fit(load(TINY), pairs, lambda: next(values), cfg=cfg)
    assert (history.n_steps, history.best_step, history.best_dev) == (
        8,
        4,
        0.5,
    )  # an equal value is not a new best


def test_a_callback_sees_every_step_and_evaluation_and_ends_the_training(pairs: Path) -> None:
    seen: list[tuple[int, float | None]] = []

    def watch(event: Event) -> bool:
        assert event.n_steps == 10
        assert (event.result is None) == (event.dev_ndcg_10 is not None)
        seen.append((event.step, event.dev_ndcg_10))
        return event.step == 3

    values = iter([0.3, 0.5])
    cfg = TrainerConfig(max_steps=10, n_evaluations=5)
    history = fit(load(TINY), pairs, lambda: next(values), cfg=cfg, callbacks=[watch])
    assert seen == [
        (1, None),
        (2, None),
        (2, 0.3),
        (3, None),
        (3, 0.5),
    ]  # scored once more, so that step 3 can be kept
    assert (history.n_steps, history.best_step, history.best_dev) == (3, 3, 0.5)


def test_a_callback_can_end_the_training_by_an_evaluation(pairs: Path) -> None:
    cfg = TrainerConfig(max_steps=10, n_evaluations=5)
    good_enough = [lambda event: None, lambda event: (event.dev_ndcg_10 or 0) > 0.4]
    history = fit(load(TINY), pairs, lambda: 0.5, cfg=cfg, callbacks=good_enough)
    assert (history.n_steps, history.best_step) == (2, 2)


def test_recomputing_layers_gives_the_same_training(pairs: Path) -> None:
    traces = []
    for recompute in (False, True):
        cfg = TrainerConfig(
            max_steps=4, log_steps=1, gradient_checkpointing=recompute
        )  # with the dropout of tiny, 0.1
        history = fit(load(TINY), pairs, lambda: 0.5, cfg=cfg)
        traces.append([[row["loss"], row["grad_norm"]] for row in history.logs if "loss" in row])
    np.testing.assert_allclose(traces[1], traces[0], rtol=1e-5)


def test_training_below_the_untrained_model_stops_and_says_so(pairs: Path) -> None:
    values = iter([0.6, 0.5, 0.4])
    cfg = TrainerConfig(max_steps=4, n_evaluations=4, stop_below_start=True)
    with pytest.raises(
        TrainingError, match=r"step 2: after 2 evaluations .* 0\.5000, below 0\.6000"
    ):
        fit(load(TINY), pairs, lambda: next(values), cfg=cfg)


def test_dev_lists_without_a_value_stop_the_training_at_once(pairs: Path) -> None:
    values = iter([0.5, math.nan])
    cfg = TrainerConfig(max_steps=4, n_evaluations=4)
    with pytest.raises(TrainingError, match=r"the evaluation after step 2: .* is nan"):
        fit(load(TINY), pairs, lambda: next(values), cfg=cfg)


def test_weights_that_diverge_stop_the_training_before_they_are_worse(pairs: Path) -> None:
    encoder = load(TINY)
    with torch.no_grad():
        next(encoder.model.parameters())[:] = math.nan
    with pytest.raises(TrainingError, match="step 1: the loss is nan"):
        fit(encoder, pairs, lambda: 0.5, cfg=CFG)


@pytest.mark.parametrize("n_users", [1, 200])  # the second: no step holds two pairs of a group
def test_one_score_for_all_candidates_stops_the_training(pairs: Path, n_users: int) -> None:
    encoder, users = load(TINY), [f"user {i % n_users}" for i in range(200)]
    pd.read_parquet(pairs).assign(book_text="always the same", user_id=users).to_parquet(pairs)
    cfg = dataclasses.replace(CFG, log_steps=1)
    with pytest.raises(
        TrainingError, match=r"step 3: .* gives all candidates of a user the same score"
    ):
        fit(load(ModelConfig(**{**vars(TINY), "dropout": 0.0})), pairs, lambda: 0.5, cfg=cfg)
    assert encoder.model.training is False


@pytest.mark.parametrize("loss", ["margin_mse", "lambdaloss"])
def test_other_objectives_learn_too(pairs: Path, loss: str) -> None:
    encoder, frame = load(TINY), pd.read_parquet(pairs)
    frame["score"] = 6.0 * frame["label"] - 3  # the teacher's margin is 6
    frame["user_id"] = [f"user {i // 8}" for i in range(len(frame))]
    frame.to_parquet(pairs)
    fit(encoder, pairs, lambda: margin(encoder), cfg=dataclasses.replace(CFG, loss=loss))
    assert 4 < margin(encoder) < (8 if "mse" in loss else 99)


def test_negatives_that_no_step_holds_are_counted_on_stderr(
    pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pd.read_parquet(pairs)
    frame.assign(label=(frame.index == 7).astype(np.int8)).to_parquet(pairs)
    fit(load(TINY), pairs, lambda: 0.5, cfg=TrainerConfig(loss="softmax", max_steps=1))
    assert (
        f"{pairs}: 168 negatives are not used for training, because trainer.group_size=32"
        in capsys.readouterr().err
    )


def test_torchs_random_state_is_left_as_it_was(pairs: Path) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    fit(load(TINY), pairs, lambda: 0.5, cfg=TrainerConfig(max_steps=1))
    assert torch.rand(1) == wanted
