"""What a run cannot choose: the versions, the machine, the commit, and the command line it was started with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import yaml

from reranker.config import ROOT
from reranker.redaction import redact

PACKAGES = (
    "reranker",
    "torch",
    "transformers",
    "sentence-transformers",
    "mlflow",
    "numpy",
    "pandas",
    "pyarrow",
)


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that decide numbers; None for one that is not installed."""
    out: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            out[name] = None
    return out


def machine() -> dict[str, object]:
    """What ran it: platform, processor, cores of the machine and of this process, memory, NVIDIA GPUs."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    gpus = [
        file.read_text().split("Model:", 1)[-1].splitlines()[0].strip() for file in _gpu_files()
    ]
    return {
        "platform": platform.platform(),
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "n_cores": os.cpu_count(),
        "n_usable_cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "gpus": gpus,
    }


def _gpu_files() -> list[Path]:
    """The driver's own notes: they are there without torch, which this package does not import here."""
    return sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))


def git_commit() -> str | None:
    """The commit of this checkout; None where the project is not its own checkout, or git is missing."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError:
        return None
    lines = done.stdout.split("\n")
    return lines[1] if done.returncode == 0 and Path(lines[0]).resolve() == ROOT else None


def overrides(run_dir: Path) -> list[str]:
    """The command line's overrides, from the file that Hydra leaves in the run's folder."""
    path = run_dir / ".hydra" / "overrides.yaml"
    given = yaml.safe_load(path.read_text()) if path.exists() else None
    return [redact(str(override)) for override in given or []]
