"""Atomic checkpoints: a run resumes from the newest valid one and rejects those of another run."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reranker.cache import digest_file
from reranker.errors import TrainingError

N_KEPT = 2  # the newest, and one more in case that it is damaged


@dataclass(frozen=True)
class Checkpoints:
    """A folder of checkpoints of one training.

    A checkpoint is `step-00000026.pt` (tensors and plain values) and `step-00000026.json`, with the
    SHA-256 of the first file and the identity of the training. The second file is written last:
    its existence means that the first is complete.

    Attributes:
        identity: Everything that decides the result: configuration, pairs, weights. Checkpoints
            with another identity are rejected.
    """

    folder: Path
    identity: dict[str, Any]

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Save the state after `step` steps, and delete all but the newest two checkpoints."""
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
        for old in _newest_first(self.folder)[N_KEPT:]:
            old.unlink()
            old.with_suffix(".pt").unlink(missing_ok=True)

    def newest(self, device: str) -> dict[str, Any] | None:
        """Return the state of the newest valid checkpoint on the device; None in an empty folder.

        Temporary files of interrupted processes are removed.

        Raises:
            TrainingError: The checkpoints belong to another training (the message lists the
                differences), or all of them are damaged.
        """
        import torch

        for temp in self.folder.glob("step-*.tmp"):
            temp.unlink(missing_ok=True)  # another process may have removed it
        manifests = _newest_first(self.folder)
        for manifest in manifests:
            path = manifest.with_suffix(".pt")
            found = _read(manifest)
            if found is None or not path.exists() or digest_file(path) != found["sha256"]:
                warnings.warn(f"{path} is damaged; trying the checkpoint before it.", stacklevel=2)
                continue
            self._check_identity(found["identity"])
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            return state
        if manifests:
            raise TrainingError(
                f"{self.folder}: every checkpoint is damaged. Remove the folder to start again."
            )
        return None

    def _check_identity(self, found: dict[str, Any]) -> None:
        mine = json.loads(json.dumps(self.identity))
        names = sorted(n for n in mine.keys() | found.keys() if mine.get(n) != found.get(n))
        if names:
            differences = ", ".join(
                f"{name} was {found.get(name)!r} and is {mine.get(name)!r}" for name in names
            )
            raise TrainingError(
                f"trainer.checkpoint_dir={self.folder} belongs to another training: {differences}. "
                "Use the same configuration, pairs and weights to resume it, or another folder to "
                "start again."
            )


def read_identity(folder: Path) -> dict[str, Any]:
    """Return the identity of the newest checkpoint with a readable manifest; {} without one."""
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
