"""How long the next step of an adaptive solver is: one length for a batch, or one for each sample on a ladder.

A sample whose steps are its own does not depend on its batch, but if the lengths are any numbers no two samples are ever at
one place, and each is asked alone. On a ladder lengths are a power of two times the first, and a step of length h starts
at a multiple of h from the beginning (the block steps of N-body integrators: McMillan 1986; Aarseth 2003, Gravitational
N-Body Simulations). A sample's steps still depend on itself alone, and samples meet again and again: those furthest behind
go first.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch

from ..errors import BudgetError

DEPTH = 40  # halvings of the first length, after which a step underflows


class Control(NamedTuple):
    """h <- h clamp(safety ratio^(-1 / order), least, most), where a step is accepted if ratio <= 1.

    Attributes:
        order: The error of a step is of this order in h.
        safety: Factor on the next length.
        least, most: Bounds of the change; after a step whose ratio is NaN or inf it is a quarter.
    """

    order: int
    safety: float = 0.9
    least: float = 0.2
    most: float = 5.0

    def growth(self, ratio: torch.Tensor) -> torch.Tensor:
        """What h is multiplied by, (b,)."""
        free = (self.safety * ratio.clamp_min(1e-30) ** (-1 / self.order)).clamp(self.least, self.most)
        return torch.where(torch.isfinite(ratio), free, 0.25)


class Steps(Protocol):
    """Where the samples of a batch are in the variable u, and where each goes next."""

    def rows(self) -> torch.Tensor:
        """The samples that step next, indices into the batch; none when all have arrived."""

    def ends(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(u, v): where their next steps start and end, each (b,) float64."""

    def judge(self, rows: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
        """Accept the steps whose error ratio is at most 1 and choose the next lengths; which were accepted, (b,)."""


class SharedSteps:
    """All samples take the same steps; the largest error decides."""

    def __init__(self, n: int, start: float, end: float, first: float, control: Control) -> None:
        self.n, self.u, self.end, self.control = n, start, end, control
        self.sign = 1.0 if end >= start else -1.0
        self.h = min(first, abs(end - start))
        self.least = self.h * 2.0**-DEPTH
        self.slack = 1e-12 * max(abs(start), abs(end), 1.0)

    def rows(self) -> torch.Tensor:
        return torch.arange(self.n if abs(self.end - self.u) > self.slack else 0)

    def _next(self) -> float:
        return self.end if self.h >= abs(self.end - self.u) - self.slack else self.u + self.sign * self.h

    def ends(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        wide = torch.ones(len(rows), dtype=torch.float64)
        return self.u * wide, self._next() * wide

    def judge(self, rows: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
        worst = ratio.max()  # NaN if any is
        growth, good = float(self.control.growth(worst)), bool(worst <= 1)
        tried = abs(self._next() - self.u)
        if good:
            self.u = self._next()
        self.h = tried * (growth if good else min(growth, 1.0))
        if not good and self.h < self.least:
            raise underflow(self.u, self.h)
        return torch.full((len(rows),), good)


class LadderSteps:
    """Each sample has steps of its own, on a ladder: the change of h is rounded down to a power of two, without the safety.

    Args:
        n: Samples.
        start, end: Of u; end may lie below start.
        first: Length of the first step.
        control: Of the lengths.
        together: All samples step in every round, wherever they are: for denoisers that take a level a row.
    """

    def __init__(self, n: int, start: float, end: float, first: float, control: Control, together: bool = False) -> None:
        self.start, self.end, self.control, self.together = start, end, control, together
        self.sign, span = (1.0 if end >= start else -1.0), abs(end - start)
        first = min(max(first, span * 2.0**-20), span) or 1.0  # so that places are whole numbers below 2^61
        self.unit = first * 2.0**-DEPTH
        self.last = math.ceil(span / self.unit * (1 - 1e-12))  # the place where a sample has arrived
        self.place = torch.zeros(n, dtype=torch.long)  # in units from the start
        self.rung = torch.full((n,), DEPTH)  # the next step is 2^rung units long

    def rows(self) -> torch.Tensor:
        active = self.place < self.last
        if not self.together and bool(active.any()):
            active &= self.place == self.place[active].min()
        return active.nonzero().flatten()

    def _at(self, place: torch.Tensor) -> torch.Tensor:
        u = self.start + self.sign * self.unit * place.double()
        return torch.where(place < self.last, u, self.end)

    def ends(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        place = self.place[rows]
        return self._at(place), self._at(place + (1 << self.rung[rows]))

    def judge(self, rows: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
        growth, good = self.control.growth(ratio), ratio <= 1
        place, rung = self.place[rows], self.rung[rows]
        tried = torch.minimum(1 << rung, self.last - place)  # in units: the last step may be cut short
        # rounding down to a rung is safety enough, and an accepted step is not halved: the next is judged by itself
        growth = growth / self.control.safety
        growth = torch.where(good, growth.clamp_min(1.0), growth.clamp_max(0.5))
        wanted = _exponent((tried * growth.double()).clamp_min(0.5))
        lost = (~good & (wanted < 0)).nonzero().flatten()
        if len(lost):
            raise underflow(float(self._at(place[lost])[0]), float(tried[lost[0]]) * self.unit)
        place = torch.where(good, (place + tried).clamp_max(self.last), place)
        aligned = torch.where(place > 0, _exponent((place & -place).clamp_min(1).double()), 60)
        self.place[rows], self.rung[rows] = place, torch.minimum(wanted.clamp_min(0), aligned)
        return good


def _exponent(x: torch.Tensor) -> torch.Tensor:
    """The largest k with 2^k <= x, exactly (a logarithm may round down at a power of two)."""
    return (torch.frexp(x).exponent - 1).long()


def underflow(u: float, h: float) -> BudgetError:
    """The error of a step that has become too short to go on."""
    return BudgetError(
        f"the step underflows at u = {u:.6g}: h = {h:.3g}, and still the error is above the tolerance. The network jumps "
        "or grows without bound there; check its answers near that level, or end the integration before it."
    )
