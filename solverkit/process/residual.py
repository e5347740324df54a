"""Paths whose mean moves from the data to a given y: ResShift and its students, as an ordinary path of x - y."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ScheduleError
from .level import Level
from .schedule import Schedule


@dataclass(frozen=True)
class Residual(Schedule):
    """ResShift: x_t = x_0 + eta_t (y - x_0) + kappa sqrt(eta_t) eps, t = 0 .. steps - 1 (Yue et al. 2023).

    In z = x - y this is z_t = alpha (x_0 - y) + sigma eps, alpha = 1 - eta and sigma = kappa sqrt(eta). Between its steps

        sqrt(eta_t) = first (last / first)^((t / (steps - 1))^power)    (eq. 10 and 11)

    Source: arXiv 2307.12348.

    Args:
        kappa: Strength of the noise.
        steps: T.
        power: Growth of the schedule.
        first, last: sqrt(eta) at t = 0 and at t = T - 1.
        time_scale: The network is told time_scale t; 1 is the number of the step.
    """

    kappa: float = 2.0
    steps: int = 15
    power: float = 0.3
    first: float = 0.02
    last: float = 0.99
    time_scale: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.first < self.last < 1 and self.kappa > 0 and self.power > 0 and self.time_scale > 0):
            raise ScheduleError(f"Residual needs 0 < first < last < 1, and kappa, power and time_scale > 0; got {self}.")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 2:
            raise ScheduleError(f"Residual needs at least 2 steps, got {self.steps!r}.")

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Residual:
        """From ResShift-type settings: kappa, steps, etas_end, min_noise_level, schedule_kwargs.power.

        Raises:
            ScheduleError: another kind of schedule, or a setting that is missing.
        """
        kind = settings.get("schedule_name", "exponential")
        if kind != "exponential":
            raise ScheduleError(f"schedule_name={kind!r} is not known here, only 'exponential'.")
        try:
            kappa, least = float(settings["kappa"]), float(settings["min_noise_level"])
            first = min(least / kappa, least)
            power = float(settings["schedule_kwargs"]["power"])
            last = math.sqrt(float(settings["etas_end"]))
            return cls(kappa, int(settings["steps"]), power, first, last)
        except KeyError as error:
            wanted = "kappa, steps, etas_end, min_noise_level and schedule_kwargs.power"
            raise ScheduleError(f"the settings lack {error}; expected {wanted}.") from None

    @property
    def ratio_max(self) -> float:
        return self.ratio(self.time_scale * (self.steps - 1))

    @property
    def ratio_min(self) -> float:
        return self.ratio(0.0)

    def alpha_sigma(self, ratio: float) -> tuple[float, float]:
        root = 2 * ratio / (self.kappa + math.hypot(self.kappa, 2 * ratio))  # r eta + kappa sqrt(eta) - r = 0
        return 1 - root * root, self.kappa * root

    def prior_std(self, level: Level) -> float:
        return float(level) * level.scale

    def time(self, ratio: float) -> float:
        root = self.alpha_sigma(ratio)[1] / self.kappa
        grown = math.log(max(root, self.first) / self.first) / math.log(self.last / self.first)
        return self.time_scale * (self.steps - 1) * grown ** (1 / self.power)

    def ratio(self, time: float) -> float:
        grown = (max(time, 0.0) / (self.time_scale * (self.steps - 1))) ** self.power
        root = self.first * (self.last / self.first) ** grown
        return self.kappa * root / (1 - root * root)

    def input_scale(self, level: Level) -> float:
        """1 / sqrt(sigma^2 + 1): what the network's x is multiplied by (normalised input)."""
        return 1 / math.hypot(float(level) * level.scale, 1.0)
