"""NFE is counted, never computed: networks report the rows that they evaluated to whoever is counting.

A context variable, so that two threads that share one network do not mix their counts. A thread that a denoiser starts does
not see it (`ThreadPoolExecutor`): its passes belong to the evaluation that has their x or their level, or to the only one
that is open.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import DenoiserError


@dataclass
class Count:
    """What networks evaluated while this count was open.

    Attributes:
        rows: Samples x passes.
        passes: Calls of a network.
        products: Products with a Jacobian: passes backwards through a network.
    """

    rows: int = 0
    passes: int = 0
    products: int = 0


@dataclass(eq=False)
class _Evaluation:
    """A block that counts: its counts (its own and those around it), and what is evaluated in it, where that is known."""

    counts: tuple[Count, ...]
    x: torch.Tensor | None = None
    level: Any = None
    closed: bool = False

    def has_level(self, level: Any) -> bool:
        own = self.level if isinstance(self.level, tuple) else (self.level,)
        return level is not None and any(level is one for one in (self.level, *own))

    def has_x(self, x: torch.Tensor | None) -> bool:
        return x is not None and self.x is not None and (x is self.x or _memory(x) == _memory(self.x))


_current: ContextVar[_Evaluation | None] = ContextVar("open_count", default=None)
_lock = threading.Lock()
# The innermost blocks of all threads. One for the process, since a thread of a pool knows nothing of who waits for it.
_innermost: dict[int, _Evaluation] = {}


@contextmanager
def counting(x: torch.Tensor | None = None, level: Any = None) -> Iterator[Count]:
    """Count what networks evaluate inside the block, in this thread and in threads that work for it.

    Args:
        x, level: What is evaluated, where it is one evaluation: passes in other threads are told apart by them when two
            runs are counted at once.
    """
    count, outer = Count(), _current.get()
    inner = _Evaluation((*(outer.counts if outer is not None else ()), count), x, level)
    with _lock:
        if outer is not None:
            _innermost.pop(id(outer), None)
        _innermost[id(inner)] = inner
    token = _current.set(inner)
    try:
        yield count
    finally:
        _current.reset(token)
        with _lock:
            inner.closed = True
            _innermost.pop(id(inner), None)
            if outer is not None and not outer.closed:
                _innermost[id(outer)] = outer


def counted(count: Count, rows: int) -> None:
    """Add one pass over `rows` samples to a count, whatever thread it is made in."""
    with _lock:
        count.rows += rows
        count.passes += 1


def record(rows: int, x: torch.Tensor | None = None, level: Any = None) -> None:
    """Report one pass over `rows` samples: of x at a level, where the caller knows them.

    Raises:
        DenoiserError: the pass is made in a thread of its own, and two runs evaluate the same level, so that it could be
            either's.
    """
    evaluation = _current.get()
    with _lock:
        evaluation = evaluation or _owner(x, level)
        for count in evaluation.counts if evaluation is not None else ():
            count.rows += rows
            count.passes += 1


def record_product() -> None:
    """Report one product with a network's Jacobian, to the counts that are open in this thread."""
    evaluation = _current.get()
    if evaluation is not None:
        with _lock:
            for count in evaluation.counts:
                count.products += 1


def _owner(x: torch.Tensor | None, level: Any) -> _Evaluation | None:
    """The evaluation that a pass in a thread without one belongs to."""
    candidates = list(_innermost.values())
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    same = [e for e in candidates if e.has_x(x)] or [e for e in candidates if e.has_level(level)]
    if len(same) > 1:
        raise DenoiserError(
            "a pass in a thread of its own could belong to either of two runs that evaluate the same level: it cannot "
            "be counted. Submit it in the run's context, pool.submit(contextvars.copy_context().run, denoiser, x, "
            "level), or give each run a grid of its own."
        )
    return same[0] if same else None


def _memory(x: torch.Tensor) -> tuple[torch.device, int]:
    return x.device, x.untyped_storage().data_ptr()


_reports: ContextVar[dict[str, list[float | str]] | None] = ContextVar("reports", default=None)


@contextmanager
def reporting() -> Iterator[dict[str, list[float | str]]]:
    """Collect what a sampler says about its run inside the block, in this thread."""
    reports: dict[str, list[float | str]] = {}
    token = _reports.set(reports)
    try:
        yield reports
    finally:
        _reports.reset(token)


def report(name: str, value: float | str) -> None:
    """Say something about the run that is neither a sample nor a count: an acceptance rate, the name of a layout.

    `Result.reports` has the mean of the numbers, or the last string.
    """
    reports = _reports.get()
    if reports is not None:
        reports.setdefault(name, []).append(value if isinstance(value, str) else float(value))
