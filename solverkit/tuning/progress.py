"""How far a calibration is, in rows: a sample through the network once is a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .asked import Asked
from .fit import CALLS, FIRST, SEARCH, batch_of
from .references import AT_ONCE


class Progress(NamedTuple):
    """What is running.

    Attributes:
        text: In words.
        done, total: Rows, the latter by estimate.
        ratio: The best ratio of RMS to the best untuned solver's so far.
        finished: Figures of a budget that has just been done.
    """

    text: str
    done: int
    total: int
    ratio: float | None = None
    finished: Mapping[str, Any] | None = None


class Work:
    """Rows done, of the rows that a calibration will take by estimate.

    Args:
        asked: Its counts.
        evaluations: Of a converged run.
        told: Called at each change.
    """

    def __init__(self, asked: Asked, evaluations: int, told: Callable[[Progress], None]) -> None:
        self.asked, self.told = asked, told
        self.done, self.text = 0, ""
        self.ratio: float | None = None
        self.total = (asked.samples + asked.validation) * evaluations + sum(self._budget(n) for n in asked.nfe)

    def say(self, text: str) -> None:
        """What is running now."""
        self.text = text
        self._tell()

    def did(self, rows: int) -> None:
        """So many rows more."""
        self.done += rows
        self._tell()

    def skip(self, n: int) -> None:
        """A budget that is done already."""
        self.skip_rows(self._budget(n))

    def skip_rows(self, rows: int) -> None:
        """Rows that are not needed."""
        self.total -= rows

    def finished(self, n: int, figures: Mapping[str, Any]) -> None:
        """A budget is done, with its figures."""
        self.ratio = min(figures["ratio_rms"], self.ratio or figures["ratio_rms"])
        self.text = f"NFE {n}: done"
        self.total = max(self.total, self.done)
        self.told(Progress(self.text, self.done, self.total, self.ratio, {"nfe": n, **figures}))

    def _tell(self) -> None:
        self.told(Progress(self.text, self.done, max(self.total, self.done), self.ratio))

    def _budget(self, n: int) -> int:
        """Rows of a budget: search, batches, and untuned solvers."""
        asked = self.asked
        search = n * (CALLS * min(SEARCH, asked.samples) + min(AT_ONCE, asked.samples))
        if asked.fast:
            return search + n * (32 * 8 + 16 * 32 + 5 * asked.validation)
        features = sum((n - 1 - i) * (2 + min(i, asked.history)) for i in range(n))
        sample = features + sum(n - i for i in range(n)) + 6 * n
        first = asked.starts * FIRST * batch_of(asked.samples) if asked.starts > 1 else 0
        noises = first + int(1.25 * asked.passes * asked.samples)
        judging = (asked.starts + 5) * n * asked.samples
        return asked.starts * search + sample * noises + judging + n * (120 * 8 + 16 * 32 + 5 * asked.validation)
