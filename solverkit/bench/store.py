"""Result rows: one JSON object a line, appended as they come, and where they were measured."""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..errors import BenchError, LoadError
from ..files.regular_file import require_file

Row = dict[str, Any]
CELL_KEYS = ("model", "model_fingerprint", "sampler", "options", "grid", "budget", "num_samples", "seed")


def require_writable(path: Path) -> None:
    """Open a file of rows for appending (it is made where it is not there), before anything costly is done.

    Raises:
        BenchError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            require_file(path)
        path.open("ab").close()
    except LoadError as error:
        raise BenchError(f"results cannot be written: {error}") from None
    except (FileExistsError, NotADirectoryError):
        raise BenchError(f"cannot write {path}: a part of the path is a file, not a folder.") from None
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror or error}.") from None


def append(path: Path, row: Row) -> None:
    """Append one row and flush it, so that what was measured survives an interruption.

    Raises:
        BenchError: the file cannot be written.
    """
    line = json.dumps(row, ensure_ascii=False, allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            if file.tell() and _last_byte(file) != b"\n":  # an earlier run was cut off in the middle of a line
                file.write(b"\n")
            file.write(line.encode() + b"\n")
            file.flush()
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror or error}.") from None


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    return bytes(file.read(1))


def read(path: Path) -> list[Row]:
    """The rows of a file. Lines that were cut off (a run was killed while writing) are left out.

    Raises:
        BenchError: the file cannot be read, or holds no result row.
    """
    try:
        lines = require_file(path).read_text(encoding="utf-8", errors="replace").split("\n")
    except LoadError as error:
        raise BenchError(f"cannot read results: {error}") from None
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror or error}.") from None
    rows, broken = [], 0
    for line in filter(str.strip, lines):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            broken += 1
            continue
        if not isinstance(row, dict) or any(key not in row for key in (*CELL_KEYS, "status")):
            raise BenchError(f"{path} holds a line that is no result row of `solverkit bench`: {line[:80]}")
        rows.append(row)
    if not rows:
        raise BenchError(f"{path} holds no result rows" + (f" ({broken} broken lines)." if broken else "."))
    return rows


def latest(rows: Iterable[Row]) -> list[Row]:
    """One row a cell, the last that was measured, in the order of the first."""
    kept: dict[str, Row] = {}
    for row in rows:
        kept[json.dumps([row[key] for key in CELL_KEYS], sort_keys=True)] = row
    return list(kept.values())


def provenance() -> Row:
    """Versions, machine, threads and how they wait, commit and time, as columns of a row."""
    import torch

    # threads that spin while they wait take the core from whoever computes: seconds depend on the policy
    waits = {"threads": torch.get_num_threads(), "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "").lower() or None}
    return {**_fixed_provenance(), **waits, "time": datetime.now(timezone.utc).isoformat(timespec="seconds")}


@functools.lru_cache(maxsize=1)
def _fixed_provenance() -> Row:
    return {
        "solverkit_version": _version("solverkit"),
        "torch_version": _version("torch"),
        "diffusers_version": _version("diffusers"),
        "python_version": platform.python_version(),
        "machine": _machine(),
        "git_commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _machine() -> str:
    """System, processor and threads; no host name, which is nobody's business."""
    import torch

    model = platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
    except OSError:
        pass
    parts = [platform.system(), model, f"{os.cpu_count()} cores", f"{torch.get_num_threads()} threads"]
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
