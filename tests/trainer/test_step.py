"""Loss and gradients of a step equal those of one padded batch for any micro-batches and ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from reranker.config import CHOICES, ON_SCORES, ModelConfig, TrainerConfig
from reranker.model import Encoder, load
from reranker.trainer import losses
from reranker.trainer.dataset import PairDataset, read
from reranker.trainer.distributed import ProcessGroup
from reranker.trainer.optimiser import Optimiser
from reranker.trainer.step import Stepper

pytestmark = pytest.mark.slow
TINY = ModelConfig(name="tiny", source="random", max_length=48, dropout=0.0)
N_GROUPS = 7
ONE_PROCESS = ProcessGroup()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write groups of 2 to 8 pairs, texts of 1 to 40 letters; the first pair is the last row."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "user_ctx": "r" * (3 * g + 1),
            "book_text": "".join(rng.choice(list("abcdef "), rng.integers(1, 40))) + "z",
            "label": int(i == 0) + int(i == 5),
            "score": float(rng.normal()),
        }
        for g in range(N_GROUPS)
        for i in range(g + 2)
    ]
    path = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    pd.DataFrame(rows[1:] + rows[:1]).to_parquet(path)
    return path


def stepper(
    encoder: Encoder,
    dataset: PairDataset,
    cfg: TrainerConfig,
    processes: ProcessGroup = ONE_PROCESS,
) -> Stepper:
    optimiser = Optimiser(encoder, cfg, n_steps=4)
    return Stepper(encoder, dataset, optimiser, cfg=cfg, processes=processes, bf16=False)


def gradient(encoder: Encoder) -> torch.Tensor:
    """Return all gradients as one vector, with 0 for parameters without a gradient."""
    return torch.cat(
        [
            (torch.zeros_like(p) if p.grad is None else p.grad).flatten()
            for p in encoder.model.parameters()
        ]
    )


def padded_batch(encoder: Encoder, pairs: Path, cfg: TrainerConfig) -> tuple[float, torch.Tensor]:
    """Return loss and gradient of one padded batch of all pairs, computed by the stock model."""
    frame = pd.read_parquet(pairs)
    texts = [list(frame["user_ctx"]), list(frame["book_text"])]
    options = {"padding": True, "truncation": "longest_first", "return_tensors": "pt"}
    features = encoder.model.tokenizer(*texts, **options)
    scores = encoder.model(dict(features))["scores"].squeeze(-1)
    column = "score" if cfg.loss in ON_SCORES else "label"
    target = torch.tensor(frame[column].to_numpy(np.float32))
    group = torch.tensor(frame["user_ctx"].str.len().to_numpy())
    total, n = losses.choose(cfg.loss, pos_weight=cfg.pos_weight)(scores, target, group)
    distance = (scores - torch.tensor(frame["score"].to_numpy(np.float32))).square().mean()
    loss = total / n + cfg.teacher_weight * distance
    loss.backward()
    found = gradient(encoder)
    encoder.model.zero_grad()
    return float(loss.detach()), found


@pytest.mark.parametrize(
    ("loss", "weight"),
    [(x, 0.0) for x in CHOICES["trainer.loss"]] + [(x, 0.7) for x in ("bce", "softmax", "ranknet")],
)
def test_loss_and_gradients_equal_those_of_one_padded_batch(
    pairs: Path, loss: str, weight: float
) -> None:
    cfg = TrainerConfig(
        loss=loss,
        pos_weight=2.0 if loss == "bce" else 1.0,
        batch_tokens=150,
        teacher_weight=weight,
        teacher="model",
    )
    encoder = load(TINY)
    expected_loss, expected = padded_batch(encoder, pairs, cfg)
    dataset = read(pairs, encoder, cfg)
    rows = np.random.default_rng(1).permutation(len(dataset.target))
    for world_size in (1, 3):
        numbers = torch.zeros(8, dtype=torch.float64)
        for rank in range(world_size):  # gradients add up in the parameters
            one = stepper(encoder, dataset, cfg, ProcessGroup(rank, world_size))
            numbers += one.accumulate_gradients(rows)
        assert float(numbers[0] / numbers[1]) == pytest.approx(expected_loss, abs=1e-6)
        torch.testing.assert_close(
            gradient(encoder) / numbers[1].float(),
            expected,
            atol=1e-6 * max(1.0, expected_loss),
            rtol=1e-4,
        )
        encoder.model.zero_grad()


def test_a_step_without_positives_still_learns_from_the_teacher(pairs: Path) -> None:
    encoder, cfg = load(TINY), TrainerConfig(loss="softmax", teacher="model", teacher_weight=0.7)
    dataset = read(pairs, encoder, cfg)
    rows = np.flatnonzero(dataset.target == 0)
    frame = pd.read_parquet(pairs)
    scores = encoder.score(list(frame["user_ctx"]), list(frame["book_text"]))
    off = (scores - frame["score"])[frame["label"] == 0]
    result = stepper(encoder, dataset, cfg).take(0, rows)
    assert result.loss == pytest.approx(0.7 * (off**2).mean(), rel=1e-5)
    assert result.grad_norm > 0


def test_the_result_of_a_step_has_loss_norm_rate_spread_and_work(pairs: Path) -> None:
    encoder = load(TINY)
    cfg = TrainerConfig(loss="ranknet", learning_rate=1e-3, warmup_fraction=0.5, batch_tokens=300)
    expected_loss, expected = padded_batch(encoder, pairs, cfg)
    dataset = read(pairs, encoder, cfg)
    rows = np.arange(len(dataset.target))
    frame = pd.read_parquet(pairs)
    scores = pd.Series(encoder.score(list(frame["user_ctx"]), list(frame["book_text"])))
    off = scores - scores.groupby(frame["user_ctx"]).transform("mean")
    result = stepper(encoder, dataset, cfg).take(0, rows)
    assert result.loss == pytest.approx(expected_loss, abs=1e-6)
    assert result.grad_norm == pytest.approx(float(expected.norm()), rel=1e-4)
    assert result.learning_rate == 0.5e-3  # step 1 of 2 of the warm-up
    spread = float(np.sqrt((off**2).sum() / (len(frame) - N_GROUPS)))
    assert result.spread == pytest.approx(spread, rel=1e-3)
    assert result.total_spread == pytest.approx(scores.std(), rel=1e-3)
    work, n_tokens = result.work, dataset.length.sum()
    assert (work.n_pairs, work.n_tokens, work.n_rows) == (len(frame), n_tokens, n_tokens)
    assert all(p.grad is None for p in encoder.model.parameters())


def test_dropout_is_a_function_of_seed_and_step(pairs: Path) -> None:
    cfg = TrainerConfig()

    def loss(step: int, seed: int = 0) -> float:
        encoder = load(ModelConfig(name="tiny", source="random", max_length=48, dropout=0.3))
        dataset = read(pairs, encoder, cfg)
        torch.rand(3)  # other draws have no effect
        return stepper(encoder, dataset, TrainerConfig(seed=seed)).take(step, np.arange(8)).loss

    assert loss(1) == loss(1)
    assert len({loss(1), loss(2), loss(1, seed=1)}) == 3
