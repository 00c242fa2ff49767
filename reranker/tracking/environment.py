"""Collect the versions, machine, commit and command-line overrides of a run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import yaml

from reranker.config import ROOT
from reranker.redaction import redact

# Packages whose version may affect results.
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
    """Return the versions of Python and of PACKAGES; None for one that is not installed."""
    out: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            out[name] = None
    return out


def machine() -> dict[str, object]:
    """Return the platform, processor, number of cores, memory and NVIDIA GPUs of this machine."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    gpu_texts = [file.read_text() for file in _gpu_files()]
    return {
        "platform": platform.platform(),
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "n_cores": os.cpu_count(),
        "n_usable_cores": _n_usable_cores(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "gpus": [text.split("Model:", 1)[-1].splitlines()[0].strip() for text in gpu_texts],
    }


def _n_usable_cores() -> int | None:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _gpu_files() -> list[Path]:
    """Return the files in which the NVIDIA driver describes the GPUs; this needs no torch."""
    return sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))


def git_commit() -> str | None:
    """Return the commit of the project's checkout; None without git or if it is not a checkout."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError:
        return None
    lines = done.stdout.split("\n")
    return lines[1] if done.returncode == 0 and Path(lines[0]).resolve() == ROOT else None


def overrides(run_dir: Path) -> list[str]:
    """Return the command-line overrides, from the file that Hydra writes into the run's folder."""
    path = run_dir / ".hydra" / "overrides.yaml"
    found = yaml.safe_load(path.read_text()) if path.exists() else None
    return [redact(str(override)) for override in found or []]
