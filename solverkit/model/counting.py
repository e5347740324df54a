"""NFE is counted, never computed: networks report the rows that they evaluated to whoever is counting.

A context variable, so that two threads that share one network do not mix their counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Count:
    """Rows (samples x passes) that networks evaluated while this count was open."""

    rows: int = 0
    passes: int = 0


_open: ContextVar[tuple[Count, ...]] = ContextVar("open_counts", default=())


@contextmanager
def counting() -> Iterator[Count]:
    """Count what networks evaluate inside the block, in this thread."""
    count = Count()
    token = _open.set((*_open.get(), count))
    try:
        yield count
    finally:
        _open.reset(token)


def record(rows: int) -> None:
    """Report one pass over `rows` samples."""
    for count in _open.get():
        count.rows += rows
        count.passes += 1


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
