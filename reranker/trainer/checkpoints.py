"""Checkpoints of a training: whole or absent, refused by another training, the newest whole one is gone on from."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reranker.cache import digest_file
from reranker.errors import TrainingError

KEPT = 2  # the newest, and one more should that be damaged


@dataclass(frozen=True)
class Checkpoints:
    """A folder of checkpoints of one training.

    A checkpoint is `step-00000026.pt`, tensors and plain values, and `step-00000026.json`, which names its SHA-256 and
    what decided the training; the second is written last, so that its existence means that the first is whole.

    Attributes:
        identity: What decides the result: configuration, pairs, weights. Another identity is refused.
    """

    folder: Path
    identity: dict[str, Any]

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Keep the state after `step` steps, and drop all but the newest two."""
        import torch

        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:08d}.pt"
        temp = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            torch.save(state, temp)
            manifest = {"sha256": digest_file(temp), "identity": self.identity}
            os.replace(temp, path)
            temp.write_text(json.dumps(manifest, indent=1))
            os.replace(temp, path.with_suffix(".json"))
        finally:
            temp.unlink(missing_ok=True)
        for old in self._manifests()[KEPT:]:
            old.unlink()
            old.with_suffix(".pt").unlink(missing_ok=True)

    def newest(self, device: str) -> dict[str, Any] | None:
        """The state of the newest whole checkpoint, its tensors on the device; None where the folder has none at all.

        What processes that were killed while they saved have left is removed.

        Raises:
            TrainingError: They are another training's (what differs is named), or all are damaged.
        """
        import torch

        for left in self.folder.glob("step-*.tmp"):
            left.unlink(missing_ok=True)  # of several processes another may be faster
        manifests = self._manifests()
        for manifest in manifests:
            path = manifest.with_suffix(".pt")
            found = _read(manifest)
            if found is None or not path.exists() or digest_file(path) != found["sha256"]:
                warnings.warn(
                    f"{path} is damaged; the checkpoint before it is tried.", stacklevel=2
                )
                continue
            self._check_identity(found["identity"])
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            return state
        if manifests:
            raise TrainingError(
                f"{self.folder}: every checkpoint is damaged. Remove the folder to train afresh."
            )
        return None

    def _manifests(self) -> list[Path]:
        return _newest_first(self.folder)

    def _check_identity(self, found: dict[str, Any]) -> None:
        mine = json.loads(json.dumps(self.identity))
        names = sorted(
            name for name in mine.keys() | found.keys() if mine.get(name) != found.get(name)
        )
        if names:
            differ = ", ".join(
                f"{name} was {found.get(name)!r} and is {mine.get(name)!r}" for name in names
            )
            raise TrainingError(
                f"trainer.checkpoint_dir={self.folder} holds another training: {differ}. Give the same configuration, "
                "pairs and weights to go on with it, or another folder to train afresh."
            )


def decided(folder: Path) -> dict[str, Any]:
    """What decided the training of the newest checkpoint in a folder; nothing where there is none."""
    read = (_read(manifest) for manifest in _newest_first(folder))
    return next((found["identity"] for found in read if found is not None), {})


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.json"), reverse=True)


def _read(manifest: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(manifest.read_text())
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"sha256", "identity"} <= found.keys() else None
