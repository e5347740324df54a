"""Any number of samples of one sampler, block by block into a folder: resumable, by any engine, with a manifest.

    manifest.json           what was asked for, and the files that hold it
    00000000.safetensors    samples 0 .. of the first block, as "x"; or a folder of pictures, 00000000/00000000.png ...
    00000000.json           written after its block: a block without it is made again
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from ..errors import BenchError, LoadError, OptionError
from .engine import Engine, Local, tasks_of
from .key import cell_key
from .outcome import Outcome, grid_of
from .page.sheets import as_pixels
from .provenance import provenance
from .store import written
from .subject import Subject
from .suite import Cell
from .task import Done

MANIFEST, VERSION = "manifest.json", 1
FORMATS = ("safetensors", "png")


def write_shards(
    cell: Cell, subject: Subject, folder: Path, engine: Engine | Local, kind: str = "safetensors",
    given: Mapping[str, Any] | None = None, batches: int = 1, tell: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Make the samples of a cell that are not in the folder yet.

    Args:
        cell, subject: What is sampled.
        folder: Where to.
        engine: Where blocks are made.
        kind: "safetensors", or "png" for images.
        given: Objects behind names.
        batches: Batches of a block.
        tell: Told how many samples are there, of how many.

    Returns:
        The manifest.

    Raises:
        OptionError: the folder holds another run.
        BenchError: a block cannot be made, or written; what was written stays, and the same call goes on.
    """
    if kind not in FORMATS:
        raise OptionError(f"format must be one of {', '.join(FORMATS)}, got {kind!r}.")
    key = cell_key(cell, subject, grid_of(cell, subject, given or {}), (), given or {}) + f"-{batches}-{kind}"
    _begin(folder, key, cell)
    tasks = tasks_of(cell, subject, given or {}, batches=batches)
    made = {task.start: record for task in tasks if (record := _record(folder, task.start, task.stop, key)) is not None}
    total = cell.model.num_samples
    for task, done in engine.results([task for task in tasks if task.start not in made]):
        made[task.start] = _keep(folder, task.start, task.stop, key, kind, done)
        if tell is not None:
            tell(sum(record["stop"] - record["start"] for record in made.values()), total)
    records = [made[start] for start in sorted(made)]
    manifest = {
        **_asked(key, cell), "complete": True, "nfe": sum(record["rows"] for record in records) / total,
        "passes": sum(record["passes"] for record in records), "shards": records, **provenance(),
    }  # fmt: skip
    written(folder / MANIFEST, lambda: json.dumps(manifest, indent=2).encode())
    return manifest


def read_shards(folder: Path) -> torch.Tensor:
    """All samples of a folder of safetensors, in order.

    Raises:
        LoadError: no manifest, an unfinished run, or a file that is missing.
    """
    from safetensors.torch import load_file

    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not manifest["complete"]:
            raise LoadError(f"the run in {folder} is not complete: the same command goes on with it.")
        return torch.cat([load_file(folder / record["file"])["x"] for record in manifest["shards"]])
    except (OSError, ValueError, KeyError) as error:
        raise LoadError(f"cannot read the samples in {folder}: {error}") from None


def _asked(key: str, cell: Cell) -> dict[str, Any]:
    return {
        "version": VERSION, "key": key, "model": cell.model.name, "sampler": cell.sampler, "options": cell.options,
        "grid": cell.grid, "budget": cell.nfe, "seed": cell.seed, "num_samples": cell.model.num_samples,
    }  # fmt: skip


def _begin(folder: Path, key: str, cell: Cell) -> None:
    """Take the folder, or refuse one that another run has."""
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except (OSError, ValueError) as error:
        raise BenchError(f"cannot read {path}: {error}.") from None
    if found is not None and found.get("key") != key:
        raise OptionError(
            f"{folder} holds {found.get('num_samples')} samples of {found.get('model')} by {found.get('sampler')}, another "
            "run: choose another folder, or the same model, sampler, options, seed and numbers."
        )
    if found is None:
        written(path, lambda: json.dumps({**_asked(key, cell), "complete": False}, indent=2).encode())


def _record(folder: Path, start: int, stop: int, key: str) -> dict[str, Any] | None:
    """What is known of a block that is there."""
    try:
        record: dict[str, Any] = json.loads((folder / f"{start:08d}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    there = (folder / str(record.get("file"))).exists()
    same = (record.get("key"), record.get("start"), record.get("stop")) == (key, start, stop)
    return record if there and same else None


def _keep(folder: Path, start: int, stop: int, key: str, kind: str, done: Done) -> dict[str, Any]:
    if isinstance(done, str):
        raise BenchError(f"samples {start} to {stop - 1}: {done}")
    name = f"{start:08d}.safetensors" if kind == "safetensors" else f"{start:08d}"
    if kind == "safetensors":
        written(folder / name, lambda: save({"x": done.x.contiguous()}))
    else:
        _pictures(folder / name, start, done)
    record = {"file": name, "start": start, "stop": stop, "key": key, "rows": done.rows, "passes": done.passes}
    written(folder / f"{start:08d}.json", lambda: json.dumps(record).encode())
    return record


def _pictures(folder: Path, start: int, done: Outcome) -> None:
    import io

    from PIL import Image

    pixels = as_pixels(done.x)
    if pixels is None:
        raise OptionError(f"samples of shape {tuple(done.x.shape[1:])} are no pictures: write safetensors.")
    for i, image in enumerate(pixels):
        out = io.BytesIO()
        Image.fromarray((image[0] if len(image) == 1 else image.permute(1, 2, 0)).contiguous().numpy()).save(out, "PNG")
        written(folder / f"{start + i:08d}.png", out.getvalue)
