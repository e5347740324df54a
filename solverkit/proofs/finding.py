"""What a check finds: a figure, its limit, and what usually causes it where it lies beyond.

A check calls `at_most`, `at_least` or `holds` for each thing that it proves. Whoever opened `findings` learns the figures
of what held, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

NAN = "0 / 0 or inf - inf: at alpha = 0 (a flow's start, where log-SNR is infinite), at t = 0, or in a step of no length"


class Finding(NamedTuple):
    """One figure of a check that held, its bound ("at most" or "at least" the limit), and how near it is (1 is at it)."""

    figure: float
    limit: float
    bound: str
    nearness: float


class CheckError(AssertionError):
    """A check that failed.

    Attributes:
        cause: What usually causes it.
        figure, limit, bound: What was measured, and that it had to be "at most" or "at least" the limit; None, None and ""
            where nothing is measured.
    """

    def __init__(
        self, text: str, cause: str, figure: float | None = None, limit: float | None = None, bound: str = ""
    ) -> None:
        super().__init__(text)
        self.cause, self.figure, self.limit, self.bound = cause, figure, limit, bound

    def on(self, name: str) -> CheckError:
        """The same, found on the process of that name."""
        return CheckError(f"{name}: {self}", self.cause, self.figure, self.limit, self.bound)


_found: ContextVar[list[Finding] | None] = ContextVar("findings", default=None)


@contextmanager
def findings() -> Iterator[list[Finding]]:
    """Collect the figures of what holds inside the block, in this thread."""
    found: list[Finding] = []
    token = _found.set(found)
    try:
        yield found
    finally:
        _found.reset(token)


def nearest_to_its_limit(found: list[Finding]) -> Finding | None:
    """The figure that says most of a check that passed."""
    return max(found, key=lambda one: one.nearness, default=None)


def at_most(figure: float, limit: float, text: str, cause: str) -> None:
    """figure <= limit; NaN is not.

    Raises:
        CheckError: with the text, the figures and the cause.
    """
    if not figure <= limit:
        raise CheckError(text, NAN if math.isnan(figure) else cause, float(figure), float(limit), "at most")
    _note(figure, limit, "at most", figure / limit if limit > 0 else float(figure >= limit))


def at_least(figure: float, limit: float, text: str, cause: str) -> None:
    """figure >= limit; NaN is not.

    Raises:
        CheckError: with the text, the figures and the cause.
    """
    if not figure >= limit:
        raise CheckError(text, NAN if math.isnan(figure) else cause, float(figure), float(limit), "at least")
    _note(figure, limit, "at least", limit / figure if figure > 0 else 1.0)


def holds(condition: bool, text: str, cause: str) -> None:
    """Something that is so or not.

    Raises:
        CheckError: with the text and the cause.
    """
    if not condition:
        raise CheckError(text, cause)


def _note(figure: float, limit: float, bound: str, nearness: float) -> None:
    found = _found.get()
    if found is not None and math.isfinite(nearness):
        found.append(Finding(float(figure), float(limit), bound, float(nearness)))
