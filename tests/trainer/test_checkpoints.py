"""A checkpoint is whole or absent; a damaged one is passed over, another training's refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from reranker.errors import TrainingError
from reranker.trainer.checkpoints import Checkpoints

pytestmark = pytest.mark.slow
IDENTITY = {"trainer.seed": 0, "pairs": "abc"}


@pytest.fixture
def kept(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "kept", IDENTITY)


def state(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "model": {"weight": torch.full((3,), float(step))},
        "logs": [{"loss": 0.5}],
    }


def test_the_newest_comes_back_and_two_stay(kept: Checkpoints) -> None:
    assert kept.newest("cpu") is None
    for step in (3, 20, 100):
        kept.save(step, state(step))
    found = kept.newest("cpu")
    assert found is not None
    assert found["step"] == 100
    assert found["logs"] == [{"loss": 0.5}]
    torch.testing.assert_close(found["model"]["weight"], torch.full((3,), 100.0))
    assert sorted(p.name for p in kept.folder.iterdir()) == [
        f"step-{step:08d}.{ending}" for step in (20, 100) for ending in ("json", "pt")
    ]


@pytest.mark.parametrize("ending", [".pt", ".json"])
@pytest.mark.parametrize("keep", [0, 40])
def test_a_damaged_one_is_passed_over_with_a_warning(
    kept: Checkpoints, ending: str, keep: int
) -> None:
    kept.save(1, state(1))
    kept.save(2, state(2))
    path = kept.folder / f"step-00000002{ending}"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.warns(UserWarning, match="step-00000002.pt is damaged"):
        found = kept.newest("cpu")
    assert found is not None
    assert found["step"] == 1


def test_damaged_ones_alone_are_an_error_not_a_fresh_start(kept: Checkpoints) -> None:
    kept.save(1, state(1))
    (kept.folder / "step-00000001.pt").unlink()
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(TrainingError, match="every checkpoint is damaged"),
    ):
        kept.newest("cpu")


def test_one_that_was_never_finished_is_not_seen(
    kept: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.save(1, state(1))

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    for stage in ("torch.save", "os.replace", "pathlib.Path.write_text"):
        with monkeypatch.context() as patch:
            patch.setattr(stage, full)
            with pytest.raises(OSError, match="No space"):
                kept.save(2, state(2))
        found = kept.newest("cpu")
        assert found is not None
        assert found["step"] == 1
        assert not list(kept.folder.glob("*.tmp"))


def test_what_a_killed_process_left_is_removed(kept: Checkpoints) -> None:
    kept.save(1, state(1))
    (kept.folder / "step-00000002.4711.tmp").write_bytes(b"half")
    assert kept.newest("cpu") is not None
    assert [p.name for p in kept.folder.glob("*.tmp")] == []


def test_another_training_is_refused_and_what_differs_is_named(kept: Checkpoints) -> None:
    kept.save(1, state(1))
    with pytest.raises(
        TrainingError, match=r"holds another training: trainer\.seed was 0 and is 1\. Give"
    ):
        Checkpoints(kept.folder, IDENTITY | {"trainer.seed": 1}).newest("cpu")
