"""Where a row was measured: versions, machine, threads and how they wait, commit, time."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def provenance() -> dict[str, Any]:
    """Versions, machine, threads and how they wait, commit and time, as columns of a row."""
    import torch

    # threads that spin while they wait take the core from whoever computes: seconds depend on the policy
    waits = {"threads": torch.get_num_threads(), "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "").lower() or None}
    return {**_fixed_provenance(), **waits, "time": datetime.now(timezone.utc).isoformat(timespec="seconds")}


@functools.lru_cache(maxsize=1)
def _fixed_provenance() -> dict[str, Any]:
    return {
        "solverkit_version": _version("solverkit"),
        "torch_version": _version("torch"),
        "diffusers_version": _version("diffusers"),
        "python_version": platform.python_version(),
        "machine": machine(),
        "git_commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@functools.lru_cache(maxsize=1)
def machine() -> str:
    """System, processor and accelerator; no host name, which is nobody's business."""
    import torch

    model = platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
    except OSError:
        pass
    parts = [platform.system(), model, f"{os.cpu_count()} cores"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def _commit() -> str | None:
    """The commit of the checkout that this file belongs to; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
        dirty = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")
