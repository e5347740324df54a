"""The cosine schedule in continuous time (Nichol and Dhariwal 2021, eq. 17), as Wuerstchen and Dance Diffusion have it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ScheduleError
from .level import FLOW_FRAME, SIGMA_FRAME
from .schedule import Schedule


@dataclass(frozen=True)
class CosineVP(Schedule):
    """VP with alpha^2 = f(u) / f(0), f(u) = cos^2((u + s) / (1 + s) pi / 2); the network is told t in [0, 1].

    Wuerstchen (Pernias et al. 2023) keeps alpha^2 in [1e-4, 1 - 1e-4]. Dance Diffusion has s = 0 and no bounds: alpha =
    cos(pi t / 2), sigma = sin(pi t / 2), so that alpha is 0 at t = 1.

    Args:
        offset: s.
        bound: alpha^2 is kept in [bound, 1 - bound]; 0 does not.
        power: p of the share of the way u that is told as t: u = 1 - (1 - t)^p where p > 1, t^p where p < 1.

    Raises:
        ScheduleError: a number outside its range.
    """

    offset: float = 0.008
    bound: float = 1e-4
    power: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.offset < math.inf and 0 <= self.bound < 0.5 and 0 < self.power < math.inf):
            raise ScheduleError(
                f"the continuous cosine schedule needs offset >= 0, 0 <= bound < 0.5 and power > 0, got {self.offset}, "
                f"{self.bound} and {self.power}."
            )

    @property
    def frame(self) -> int:  # type: ignore[override]
        return SIGMA_FRAME if self.bound else FLOW_FRAME

    @property
    def ratio_max(self) -> float:
        return math.sqrt((1 - self.bound) / self.bound) if self.bound else math.inf

    @property
    def ratio_min(self) -> float:
        return math.sqrt(self.bound / (1 - self.bound)) if self.bound else self.ratio(1e-3)

    @property
    def _first(self) -> float:
        """The angle at t = 0."""
        return self.offset / (1 + self.offset) * math.pi / 2

    def ratio(self, time: float) -> float:
        t = min(max(time, 0.0), 1.0)
        u = 1 - (1 - t) ** self.power if self.power > 1 else t**self.power
        way = u / (1 + self.offset) * math.pi / 2
        angle = self._first + way
        # f(0) - f(u) = sin(angle - first) sin(angle + first)
        free = math.sqrt(math.sin(way) * math.sin(angle + self._first)) / math.cos(angle) if u < 1 else math.inf
        return min(max(free, self.ratio_min), self.ratio_max) if self.bound else free

    def time(self, ratio: float) -> float:
        if ratio >= self.ratio_max:
            return 1.0
        if self.bound and ratio <= self.ratio_min:
            return 0.0
        angle = math.atan2(math.hypot(ratio, math.sin(self._first)), math.cos(self._first))
        u = min((angle - self._first) / (math.pi / 2) * (1 + self.offset), 1.0)
        return 1 - (1 - u) ** (1 / self.power) if self.power > 1 else u ** (1 / self.power)
