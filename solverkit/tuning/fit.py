"""The plan of one budget: starts of the search of levels, the best of them improved over all noises."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from ..process.schedule import Schedule
from .gauss_newton import Improving
from .least_squares import fitted
from .loss import mean_error, per_sample, rms
from .references import References
from .rows import Model, Rows
from .search import compass, family

SEARCH, CALLS = 16, 20  # noises and calls of a search of levels
BATCHES, FIRST, LAST = 8, 1, 5  # batches of a pass, those that every start is given, and plans of which the best is taken
# Where searches start: the last level over that of the budget (below), and rho of the levels' family.
STARTS = ((1.0, 1.0), (1.0, 1.4), (0.5, 1.0), (2.0, 0.75), (0.5, 1.75), (1.5, 1.9))


def last_level(n: int, frame: int) -> float:
    """The usual last level of n evaluations."""
    return (0.6 if frame == 0 else 0.4) * 5 / n


def batch_of(noises: int) -> int:
    """Noises of a batch."""
    return min(max(noises // BATCHES, 16), noises)


def product(errors: torch.Tensor) -> float:
    """RMS times median of the samples' errors: what the better of two plans has less of."""
    value = rms(errors) * float(errors.median())
    return value if math.isfinite(value) else math.inf


def on(model: Model, rows: Rows, references: References) -> torch.Tensor:
    """The error of each of the noises, (B,)."""
    return per_sample(references.ends.end - rows.run(model, references.ends.start))


class Fit:
    """Fits plans to a network.

    Args:
        model: E[x_0 | x] in the frame.
        schedule: Of the network; where it knows only integer times the levels snap to them and the weights follow.
        references: Of the noises to fit to.
        rho: 0.8 for networks, 1.3 for exact denoisers: how their trajectories bend.
        history: The most differences of predictions that a step weighs.
        passes: How often each noise is used.
        say: Called with what is running.
    """

    def __init__(
        self, model: Model, schedule: Schedule, references: References, rho: float, history: int, passes: int,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.model, self.schedule, self.references, self.rho = model, schedule, references, rho
        self.history, self.passes, self.say = history, passes, say
        self.frame = references.ends.frame

    def levels(self, n: int, start: tuple[float, float]) -> Rows:
        """The levels of a local search, and the weights that fit them."""
        way, top = self.references.way, self.references.top
        few, most = way.rows(slice(0, SEARCH)), 0.5 * min(top, 1.0)

        def at(last: float, rho: float) -> tuple[float, ...]:
            return family(n, top, min(last, most), rho, self.frame)

        def loss(last: float, rho: float) -> float:
            value = mean_error(per_sample(few.end - fitted(self.model, few, at(last, rho), self.history)[1]))
            return value if math.isfinite(value) else math.inf

        last, rho, _ = compass(loss, *start, calls=CALLS)
        return fitted(self.model, way, at(last, rho), self.history)[0]

    def quick(self, n: int) -> Rows:
        """Levels and least squares from one start."""
        self.say(f"NFE {n}: levels")
        rows = self.levels(n, (last_level(n, self.frame), self.rho))
        return fitted(self.model, self.references.way, snapped(rows.levels, self.schedule), self.history)[0]

    def plan(self, n: int, starts: int) -> Rows:
        """The plan of n evaluations."""
        begun = []
        for k, (share, bend) in enumerate(STARTS[:starts]):
            self.say(f"NFE {n}: start {k + 1} of {starts}")
            rows = self.levels(n, (last_level(n, self.frame) * share, self.rho * bend))
            begun.append(self._improving(rows))
        if len(begun) > 1:
            for one in begun:
                for _ in range(FIRST):
                    one.step()
        best = min(begun, key=lambda one: self._loss(one.rows))
        once = len(self.references.ends.start) // best.batch
        batches = self.passes * once + max(once // 4, 1)
        candidates = []
        for k in range(batches):
            self.say(f"NFE {n}: batch {k + 1} of {batches}")
            best.step()
            candidates.append(best.rows)
        rows = self._least(candidates[-LAST:])
        return self._snapped(rows) if self.schedule.integer_time else rows

    def _improving(self, rows: Rows, held: bool = False) -> Improving:
        return Improving(self.model, rows, self.references.ends, batch_of(len(self.references.ends.start)), held=held)

    def _loss(self, rows: Rows) -> float:
        return product(on(self.model, rows, self.references))

    def _least(self, choices: Sequence[Rows]) -> Rows:
        return min(choices, key=self._loss)

    def _snapped(self, rows: Rows) -> Rows:
        """On levels that the network knows, the weights fitted again."""
        there = fitted(self.model, self.references.way, snapped(rows.levels, self.schedule), self.history)[0]
        kept = self._improving(rows.with_levels(there.levels), held=True)
        again = self._improving(there, held=True)
        for one in (kept, again):
            for _ in range(max(len(self.references.ends.start) // one.batch // 2, 1)):
                one.step()
        return self._least([kept.rows, again.rows])


def snapped(levels: Sequence[float], schedule: Schedule) -> tuple[float, ...]:
    """Levels that the network knows, falling; as they are where it knows all."""
    if not schedule.integer_time:
        return tuple(levels)
    out: list[float] = []
    for s in levels:
        level = schedule.at(s)
        while out and float(level) >= out[-1]:  # two levels on one step: the later takes the next smaller
            level = schedule.level(schedule.ratio(level.time - 1))
        out.append(float(level))
    return tuple(out)
