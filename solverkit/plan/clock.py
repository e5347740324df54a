"""How long planning takes: tracing, fitting a budget, and whatever a sampler searches before its first evaluation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Clock:
    """Seconds spent in `planning` blocks while this clock was open."""

    def __init__(self) -> None:
        self.seconds = 0.0


_clock: ContextVar[Clock | None] = ContextVar("planning_clock", default=None)
_inside: ContextVar[bool] = ContextVar("inside_planning", default=False)


@contextmanager
def clocked() -> Iterator[Clock]:
    """Measure the planning that happens inside the block, in this thread; a clock that is open further out sees it too."""
    clock, outer = Clock(), _clock.get()
    token = _clock.set(clock)
    try:
        yield clock
    finally:
        _clock.reset(token)
        if outer is not None and not _inside.get():
            outer.seconds += clock.seconds


@contextmanager
def planning() -> Iterator[None]:
    """What is done inside the block is planning, not running; blocks inside one another count once."""
    clock = _clock.get()
    if clock is None or _inside.get():
        yield
        return
    token, start = _inside.set(True), time.perf_counter()
    try:
        yield
    finally:
        _inside.reset(token)
        clock.seconds += time.perf_counter() - start
