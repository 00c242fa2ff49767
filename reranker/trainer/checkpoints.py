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

N_KEPT = 2  # the newest, and one more in case the newest is damaged


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training run, in a folder.

    A checkpoint is `step-00000026.pt` (tensors and plain values) and `step-00000026.json`, with the
    SHA-256 of the first file and the identity of the training. The JSON file is written last, so
    its existence means that the first file is complete.

    Attributes:
        identity: Everything that determines the result: configuration, pairs, weights. Checkpoints
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
            saved = _read_manifest(manifest)
            if saved is None or not path.exists() or digest_file(path) != saved["sha256"]:
                warnings.warn(f"{path} is damaged; trying the checkpoint before it.", stacklevel=2)
                continue
            self._check_identity(saved["identity"])
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            return state
        if manifests:
            raise TrainingError(
                f"{self.folder}: every checkpoint is damaged. Remove the folder to start again."
            )
        return None

    def _check_identity(self, saved: dict[str, Any]) -> None:
        now = json.loads(json.dumps(self.identity))
        names = sorted(n for n in now.keys() | saved.keys() if now.get(n) != saved.get(n))
        if names:
            differences = ", ".join(
                f"{name} was {saved.get(name)!r} and is {now.get(name)!r}" for name in names
            )
            raise TrainingError(
                f"trainer.checkpoint_dir={self.folder} belongs to another training: {differences}. "
                "Use the same configuration, pairs and weights to resume it, or another folder to "
                "start again."
            )


def read_identity(folder: Path) -> dict[str, Any]:
    """Return the identity of the newest checkpoint with a readable manifest; {} without one."""
    manifests = (_read_manifest(path) for path in _newest_first(folder))
    return next((manifest["identity"] for manifest in manifests if manifest is not None), {})


def _newest_first(folder: Path) -> list[Path]:
    """Return the paths of the manifests, the highest step first."""
    return sorted(folder.glob("step-*.json"), reverse=True)


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """Return the manifest of a checkpoint; None if it is damaged."""
    try:
        found = json.loads(path.read_text())
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"sha256", "identity"} <= found.keys() else None
