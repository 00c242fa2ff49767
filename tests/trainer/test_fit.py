"""Fine-tuning learns the labels, keeps the best checkpoint and is reproducible."""

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


def test_fine_tuning_learns_and_logs(pairs: Path) -> None:
    encoder = load(TINY)
    logged: list[tuple[dict[str, Any], int]] = []
    history = fit(
        encoder,
        pairs,
        lambda: {"ndcg_10": margin(encoder)},
        cfg=CFG,
        on_log=lambda logs, step: logged.append((logs, step)),
    )
    assert margin(encoder) > 4  # a difference of logits
    losses = [row["loss"] for row in history.logs if "loss" in row]
    assert losses[-1] < 0.2 < 0.5 < losses[0]
    assert history.n_steps == 78  # 6 epochs of 13 steps (200 / 16, rounded up)
    assert [step for logs, step in logged if "dev_ndcg_10" in logs] == [26, 52, 78]
    assert {"loss", "learning_rate", "grad_norm"} <= set(logged[0][0])
    assert history.pairs_per_s > 0
    steps = [row for row in history.logs if "loss" in row]
    assert all(row["tokens_per_s"] > row["pairs_per_s"] > 0 for row in steps)
    assert all(row["padding_fraction"] == 0 < row["spread"] for row in steps)


def test_the_best_checkpoint_is_kept_not_the_last(pairs: Path) -> None:
    encoder = load(TINY)
    margins: list[float] = []

    def score_dev() -> dict[str, float]:
        margins.append(margin(encoder))
        return {"ndcg_10": [0.2, 0.9, 0.5][len(margins) - 1]}

    history = fit(encoder, pairs, score_dev, cfg=CFG)
    assert (history.best_step, history.best_dev) == (52, 0.9)
    assert margin(encoder) == pytest.approx(margins[1], abs=1e-5)
    assert margins[1] != pytest.approx(margins[2], abs=1e-3)


@pytest.mark.parametrize(("max_steps", "expected"), [(7, [2, 4, 6, 7]), (3, [1, 2, 3]), (1, [1])])
def test_dev_lists_are_scored_at_most_n_evaluations_times_and_after_the_last_step(
    pairs: Path, max_steps: int, expected: list[int]
) -> None:
    values: list[float] = []

    def rising() -> dict[str, float]:
        values.append(0.1 * (len(values) + 1))
        return {"ndcg_10": values[-1]}

    cfg = TrainerConfig(max_steps=max_steps, n_evaluations=4, log_steps=100)
    history = fit(load(TINY), pairs, rising, cfg=cfg)
    assert [row["step"] for row in history.logs if "dev_ndcg_10" in row] == expected
    assert len(values) == len(expected)
    assert (history.best_step, history.best_dev) == (max_steps, values[-1])


@given(n_steps=st.integers(1, 10_000), n_evaluations=st.integers(1, 50))
def test_evaluations_have_equal_distances(n_steps: int, n_evaluations: int) -> None:
    steps = [0, *sorted(evaluation_steps(n_steps, TrainerConfig(n_evaluations=n_evaluations)))]
    assert len(steps) == 1 + min(n_steps, n_evaluations)
    assert steps[-1] == n_steps
    gaps = np.diff(steps)
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


@given(n_steps=st.integers(1, 2000), every=st.integers(1, 3000))
def test_evaluation_steps_are_the_multiples_and_the_last_step(n_steps: int, every: int) -> None:
    steps = sorted(evaluation_steps(n_steps, TrainerConfig(evaluation_steps=every)))
    assert steps[-1] == n_steps
    assert steps[:-1] == [step for step in range(1, n_steps) if step % every == 0]


def test_every_metric_of_an_evaluation_is_logged_and_ndcg_10_chooses_the_weights(
    pairs: Path,
) -> None:
    values = iter([{"ndcg_10": 0.5, "map": 0.1}, {"ndcg_10": 0.4, "map": 0.9}])
    logged: list[tuple[dict[str, Any], int]] = []
    history = fit(
        load(TINY),
        pairs,
        lambda: next(values),
        cfg=TrainerConfig(max_steps=5, evaluation_steps=3),
        on_log=lambda logs, step: logged.append((logs, step)),
    )
    assert (history.best_step, history.best_dev) == (3, 0.5)
    assert [log for log in logged if "dev_map" in log[0]] == [
        ({"dev_ndcg_10": 0.5, "dev_map": 0.1}, 3),
        ({"dev_ndcg_10": 0.4, "dev_map": 0.9}, 5),
    ]


def test_scores_are_fp32_during_and_after_a_training_in_bf16(pairs: Path, tmp_path: Path) -> None:
    encoder = load(TINY)
    queries, candidates = ["reader"] * 40, [f"{c} {i}" for i, c in enumerate("az" * 20)]

    def saved(name: str) -> Encoder:
        encoder.save(tmp_path / name)
        return load(ModelConfig(source="path", path=str(tmp_path / name), max_length=32))

    def score_dev() -> dict[str, float]:
        reloaded = saved(f"during {len(list(tmp_path.iterdir()))}")
        expected = reloaded.score(queries, candidates)
        np.testing.assert_allclose(encoder.score(queries, candidates), expected, atol=1e-5)
        return {"ndcg_10": 0.5}

    cfg = TrainerConfig(max_steps=6, n_evaluations=2, learning_rate=3e-3, precision="bf16")
    fit(encoder, pairs, score_dev, cfg=cfg)
    scores = encoder.score(queries, candidates)
    np.testing.assert_allclose(saved("after").score(queries, candidates), scores, atol=1e-5)
    assert scores.std() > 0.05  # much more than the tolerance of 1e-5
    features = encoder.model.tokenizer(["reader"], ["a 0"], return_tensors="pt")
    with torch.no_grad():  # a direct call of the model is fp32 too
        direct = float(encoder.model(dict(features))["scores"])
    assert direct == pytest.approx(float(scores[0]), abs=1e-5)


def test_after_an_error_the_model_is_usable_and_the_terminals_cursor_visible(
    pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, force_interactive=True)
    monkeypatch.setattr(rich, "_console", terminal)
    encoder = load(TINY)

    def interrupted() -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(encoder, pairs, interrupted, cfg=TrainerConfig(max_steps=2, precision="bf16"))
    out = terminal.file.getvalue()
    assert "fine-tuning" in out
    assert out.rindex("\x1b[?25h") > out.rindex("\x1b[?25l")  # the cursor is shown again
    assert "forward" not in vars(encoder.model)


def test_without_a_terminal_there_is_no_progress_bar(
    pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(load(TINY), pairs, lambda: {"ndcg_10": 0.5}, cfg=TrainerConfig(max_steps=2))
    assert capsys.readouterr().out == ""


def test_equal_seeds_give_equal_weights(pairs: Path) -> None:
    margins = []
    for seed in (0, 0, 1):
        encoder = load(TINY)
        fit(encoder, pairs, lambda: {"ndcg_10": 0.5}, cfg=TrainerConfig(max_steps=8, seed=seed))
        margins.append(margin(encoder))
    assert margins[0] == margins[1] != margins[2]


def test_max_steps_overrides_epochs(pairs: Path) -> None:
    encoder = load(TINY)
    history = fit(
        encoder, pairs, lambda: {"ndcg_10": 0.5}, cfg=TrainerConfig(epochs=9, max_steps=3)
    )
    assert history.n_steps == 3


def test_patience_ends_the_training(pairs: Path) -> None:
    values = iter([0.3, 0.5, 0.4, 0.5, 0.9])
    cfg = TrainerConfig(max_steps=10, n_evaluations=5, patience=2)
    history = fit(load(TINY), pairs, lambda: {"ndcg_10": next(values)}, cfg=cfg)
    # An equal value is not a new best.
    assert (history.n_steps, history.best_step, history.best_dev) == (8, 4, 0.5)


def test_a_callback_receives_every_step_and_evaluation_and_can_end_the_training(
    pairs: Path,
) -> None:
    seen: list[tuple[int, float | None]] = []

    def watch(event: Event) -> bool:
        assert event.n_steps == 10
        assert (event.result is None) == (event.dev_ndcg_10 is not None)
        seen.append((event.step, event.dev_ndcg_10))
        return event.step == 3

    values = iter([0.3, 0.5])
    cfg = TrainerConfig(max_steps=10, n_evaluations=5)
    history = fit(load(TINY), pairs, lambda: {"ndcg_10": next(values)}, cfg=cfg, callbacks=[watch])
    # After step 3 the dev lists are scored once more.
    assert seen == [(1, None), (2, None), (2, 0.3), (3, None), (3, 0.5)]
    assert (history.n_steps, history.best_step, history.best_dev) == (3, 3, 0.5)


def test_a_callback_can_end_the_training_after_an_evaluation(pairs: Path) -> None:
    cfg = TrainerConfig(max_steps=10, n_evaluations=5)
    good_enough = [lambda event: None, lambda event: (event.dev_ndcg_10 or 0) > 0.4]
    history = fit(load(TINY), pairs, lambda: {"ndcg_10": 0.5}, cfg=cfg, callbacks=good_enough)
    assert (history.n_steps, history.best_step) == (2, 2)


def test_gradient_checkpointing_gives_the_same_training(pairs: Path) -> None:
    traces = []
    for recompute in (False, True):
        # The dropout of `tiny` is 0.1.
        cfg = TrainerConfig(max_steps=4, log_steps=1, gradient_checkpointing=recompute)
        history = fit(load(TINY), pairs, lambda: {"ndcg_10": 0.5}, cfg=cfg)
        traces.append([[row["loss"], row["grad_norm"]] for row in history.logs if "loss" in row])
    np.testing.assert_allclose(traces[1], traces[0], rtol=1e-5)


def test_a_training_below_the_untrained_model_is_an_error(pairs: Path) -> None:
    values = iter([0.6, 0.5, 0.4])
    cfg = TrainerConfig(max_steps=4, n_evaluations=4, stop_below_start=True)
    message = r"step 2: after 2 evaluations .* 0\.5000, below 0\.6000"
    with pytest.raises(TrainingError, match=message):
        fit(load(TINY), pairs, lambda: {"ndcg_10": next(values)}, cfg=cfg)


def test_a_dev_metric_of_nan_is_an_error(pairs: Path) -> None:
    values = iter([0.5, math.nan])
    cfg = TrainerConfig(max_steps=4, n_evaluations=4)
    with pytest.raises(TrainingError, match=r"the evaluation after step 2: .* is nan"):
        fit(load(TINY), pairs, lambda: {"ndcg_10": next(values)}, cfg=cfg)


def test_diverged_weights_are_an_error(pairs: Path) -> None:
    encoder = load(TINY)
    with torch.no_grad():
        next(encoder.model.parameters())[:] = math.nan
    with pytest.raises(TrainingError, match="step 1: the loss is nan"):
        fit(encoder, pairs, lambda: {"ndcg_10": 0.5}, cfg=CFG)


@pytest.mark.parametrize("n_users", [1, 200])  # with 200 users no step has two pairs of a group
def test_equal_scores_for_all_candidates_are_an_error(pairs: Path, n_users: int) -> None:
    encoder = load(dataclasses.replace(TINY, dropout=0.0))
    users = [f"user {i % n_users}" for i in range(200)]
    pd.read_parquet(pairs).assign(book_text="always the same", user_id=users).to_parquet(pairs)
    cfg = dataclasses.replace(CFG, log_steps=1)
    message = r"step 3: .* gives all candidates of a user the same score"
    with pytest.raises(TrainingError, match=message):
        fit(encoder, pairs, lambda: {"ndcg_10": 0.5}, cfg=cfg)
    assert encoder.model.training is False


@pytest.mark.parametrize("loss", ["margin_mse", "lambdaloss"])
def test_other_objectives_learn(pairs: Path, loss: str) -> None:
    encoder, frame = load(TINY), pd.read_parquet(pairs)
    frame["score"] = 6.0 * frame["label"] - 3  # the teacher's margin is 6
    frame["user_id"] = [f"user {i // 8}" for i in range(len(frame))]
    frame.to_parquet(pairs)
    fit(
        encoder,
        pairs,
        lambda: {"ndcg_10": margin(encoder)},
        cfg=dataclasses.replace(CFG, loss=loss),
    )
    assert 4 < margin(encoder) < (8 if "mse" in loss else 99)


def test_negatives_that_are_left_out_are_reported_on_stderr(
    pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pd.read_parquet(pairs)
    frame.assign(label=(frame.index == 7).astype(np.int8)).to_parquet(pairs)
    fit(load(TINY), pairs, lambda: {"ndcg_10": 0.5}, cfg=TrainerConfig(loss="softmax", max_steps=1))
    message = f"{pairs}: 168 negatives are not used for training, because trainer.group_size=32"
    assert message in capsys.readouterr().err


def test_torchs_random_state_is_restored(pairs: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fit(load(TINY), pairs, lambda: {"ndcg_10": 0.5}, cfg=TrainerConfig(max_steps=1))
    assert torch.rand(1) == expected
