"""Checkpoints are atomic; damaged ones are skipped, those of another training are rejected."""

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
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", IDENTITY)


def state(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "model": {"weight": torch.full((3,), float(step))},
        "logs": [{"loss": 0.5}],
    }


def test_the_newest_is_restored_and_two_are_kept(checkpoints: Checkpoints) -> None:
    assert checkpoints.newest("cpu") is None
    for step in (3, 20, 100):
        checkpoints.save(step, state(step))
    found = checkpoints.newest("cpu")
    assert found is not None
    assert found["step"] == 100
    assert found["logs"] == [{"loss": 0.5}]
    torch.testing.assert_close(found["model"]["weight"], torch.full((3,), 100.0))
    assert sorted(p.name for p in checkpoints.folder.iterdir()) == [
        f"step-{step:08d}.{ending}" for step in (20, 100) for ending in ("json", "pt")
    ]


@pytest.mark.parametrize("ending", [".pt", ".json"])
@pytest.mark.parametrize("n_bytes", [0, 40])
def test_a_damaged_checkpoint_is_skipped_with_a_warning(
    checkpoints: Checkpoints, ending: str, n_bytes: int
) -> None:
    checkpoints.save(1, state(1))
    checkpoints.save(2, state(2))
    path = checkpoints.folder / f"step-00000002{ending}"
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.warns(UserWarning, match="step-00000002.pt is damaged"):
        found = checkpoints.newest("cpu")
    assert found is not None
    assert found["step"] == 1


def test_if_every_checkpoint_is_damaged_it_is_an_error(checkpoints: Checkpoints) -> None:
    checkpoints.save(1, state(1))
    (checkpoints.folder / "step-00000001.pt").unlink()
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(TrainingError, match="every checkpoint is damaged"),
    ):
        checkpoints.newest("cpu")


def test_an_incomplete_checkpoint_is_ignored(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.save(1, state(1))

    def raise_full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    for stage in ("torch.save", "os.replace", "pathlib.Path.write_text"):
        with monkeypatch.context() as patch:
            patch.setattr(stage, raise_full)
            with pytest.raises(OSError, match="No space"):
                checkpoints.save(2, state(2))
        found = checkpoints.newest("cpu")
        assert found is not None
        assert found["step"] == 1
        assert not list(checkpoints.folder.glob("*.tmp"))


def test_temporary_files_of_killed_processes_are_removed(checkpoints: Checkpoints) -> None:
    checkpoints.save(1, state(1))
    (checkpoints.folder / "step-00000002.4711.tmp").write_bytes(b"half")
    assert checkpoints.newest("cpu") is not None
    assert [p.name for p in checkpoints.folder.glob("*.tmp")] == []


def test_another_training_is_rejected_with_the_differences(checkpoints: Checkpoints) -> None:
    checkpoints.save(1, state(1))
    message = r"belongs to another training: trainer\.seed was 0 and is 1\. Use"
    with pytest.raises(TrainingError, match=message):
        Checkpoints(checkpoints.folder, IDENTITY | {"trainer.seed": 1}).newest("cpu")
