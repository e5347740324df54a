"""The key of a cell: a hash of everything that its samples and figures depend on.

A sampler that can be traced is known by its plan on this grid, so that the key stays where a change of code changes
nothing; another one by its source; a scheduler of another library by that library's version and its source.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..model.fingerprint import fingerprint, try_fingerprint
from ..plan.trace import trace
from ..registry.catalogue import metrics as metric_cards
from ..registry.registry import SamplerCard
from ..run.choose import choose_grid
from .cell import CellTimeout, limited
from .digest import file_digest
from .named import find_sampler, is_peer
from .peers import peer_digest
from .reference import VERSION
from .subject import Subject
from .suite import Cell

SCHEME = 1  # raise it when what a row says of the same samples changes


def cell_key(
    cell: Cell, subject: Subject, grid: str, wanted: Sequence[str], given: Mapping[str, Any], timeout: float | None = None
) -> str:
    """32 hex digits.

    Args:
        cell: What is measured.
        subject: Its model.
        grid: The grid that it runs on.
        wanted: The metrics.
        given: Objects behind names (`Suite.given`).
        timeout: Seconds after which a sampler is known by its source alone, and no more by what it does.
    """
    denoiser, entry = subject.denoiser, cell.model
    content = {
        "scheme": SCHEME,
        "model": subject.fingerprint or f"unknown {entry.name} {sorted(entry.options.items(), key=str)}",
        "sampler": cell.sampler,
        "code": _code(cell, denoiser, grid, given, timeout),
        "options": cell.options,
        "grid": grid,
        "nfe": cell.nfe,
        "samples": [cell.seed, 0, entry.num_samples],
        "batch": subject.batch_size,
        "cache": cell.cache,
        "dtype": str(getattr(denoiser, "dtype", None)),
        "device": str(getattr(denoiser, "device", "cpu")).partition(":")[0],
        "metrics": {name: _metric_code(name) for name in wanted},
        "reference": [entry.reference_steps, VERSION],
        "data": None if entry.data is None else file_digest(entry.data),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _code(cell: Cell, denoiser: Any, grid: str, given: Mapping[str, Any], timeout: float | None) -> str:
    if is_peer(cell.sampler):
        return peer_digest(cell.sampler)
    card = find_sampler(cell.sampler, given)
    if isinstance(card, SamplerCard) and card.takes_budget:
        try:
            with limited(timeout):
                return ("" if card.traceable else _source(card.fn)) + _plan(card, denoiser, grid, cell)
        except (Exception, CellTimeout):  # whatever it is, it happens again when the sampler runs, and is stored as that
            pass
    return _source(card.fn)


def _plan(card: SamplerCard, denoiser: Any, grid: str, cell: Cell) -> str:
    card, options = card.pace(card.prepared(denoiser, cell.options, (cell.model.num_samples, *denoiser.shape)))
    plan = trace(card, choose_grid(card, denoiser.schedule, cell.nfe, None, grid, None, options), **options)
    ops = [i.payload[0] for segment in plan.segments for i in segment.instructions if i.kind == "op"]
    return fingerprint(plan) + "".join(sorted({_source(op) for op in ops}))


def _source(function: Any) -> str:
    """A digest of the text of the module that a function stands in, or of the function where there is no such text."""
    function = inspect.unwrap(getattr(function, "func", function))
    try:
        return file_digest(inspect.getsourcefile(function) or "")
    except (TypeError, OSError):
        return try_fingerprint(function) or repr(getattr(function, "__qualname__", function))


@functools.lru_cache(maxsize=256)
def _metric_code(name: str) -> str:
    return _source(metric_cards()[name].fn)
