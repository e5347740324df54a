"""Processes that turn tokens into noise: masks (absorbing) or uniformly random tokens.

Both keep a clean token with probability 1 - m(t), each position on its own. A level of a run is the share m itself: the
flow frame's s, with alpha = 1 - m. So the grids of continuous models that are made for flow models (`flow`,
`flow:shift=3`) lay out token runs too, and a decoder reads a `Level` as a float.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ..errors import ScheduleError, UnknownNameError
from ..process.level import FLOW_FRAME
from ..process.schedule import Schedule

FORMS = ("log-linear", "linear", "cosine", "polynomial")


@dataclass(frozen=True)
class Process(Schedule):
    """P(not clean at t) = m(t), 0 <= t <= 1, rising.

    Args:
        form: "log-linear": m = (1 - eps) t (RADD, MDLM, LLaDA); "linear": the total noise is linear, m = 1 -
            exp(-sigma_max t); "cosine": m = 1 - cos(pi t / 2); "polynomial": m = 1 - (1 - t)^power.
        eps: Clean share that is left at t = 1 (log-linear); RADD and MDLM train with 1e-3.
        sigma_max: Total noise at t = 1 (linear).
        power: Of the polynomial.

    Raises:
        UnknownNameError: another form.
        ScheduleError: a parameter out of its range.
    """

    form: str = "log-linear"
    eps: float = 0.0
    sigma_max: float = 10.0
    power: float = 2.0
    frame: ClassVar[int] = FLOW_FRAME
    noise: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise UnknownNameError("form of a token process", self.form, FORMS)
        if not (0 <= self.eps < 1 and 0 < self.sigma_max < math.inf and 0 < self.power < math.inf):
            raise ScheduleError(
                f"a token process needs 0 <= eps < 1, sigma_max > 0 and power > 0, got eps={self.eps}, "
                f"sigma_max={self.sigma_max}, power={self.power}."
            )

    def share(self, t: float) -> float:
        """m(t)."""
        if self.form == "log-linear":
            return (1 - self.eps) * t
        if self.form == "linear":
            return -math.expm1(-self.sigma_max * t)
        if self.form == "cosine":
            return 1 - math.cos(math.pi / 2 * t)
        return float(1 - (1 - t) ** self.power)

    def slope(self, t: float) -> float:
        """dm / dt."""
        if self.form == "log-linear":
            return 1 - self.eps
        if self.form == "linear":
            return self.sigma_max * math.exp(-self.sigma_max * t)
        if self.form == "cosine":
            return math.pi / 2 * math.sin(math.pi / 2 * t)
        return float(self.power * (1 - t) ** (self.power - 1)) if t < 1 or self.power >= 1 else math.inf

    def time_of(self, m: float) -> float:
        """t with m(t) = m; 1 for a share that the process does not reach."""
        if self.form == "log-linear":
            t = m / (1 - self.eps)
        elif self.form == "linear":
            t = -math.log1p(-m) / self.sigma_max if m < 1 else 1.0
        elif self.form == "cosine":
            t = 2 / math.pi * math.acos(1 - m)
        else:
            t = 1 - (1 - m) ** (1 / self.power)
        return min(t, 1.0)

    @property
    def ratio_max(self) -> float:
        return math.inf

    @property
    def ratio_min(self) -> float:
        return 1e-3

    def time(self, ratio: float) -> float:
        return self.time_of(1.0 if math.isinf(ratio) else ratio / (1 + ratio))

    def ratio(self, time: float) -> float:
        m = self.share(time)
        return math.inf if m >= 1 else m / (1 - m)

    def alpha_sigma(self, ratio: float) -> tuple[float, float]:
        m = 1.0 if math.isinf(ratio) else ratio / (1 + ratio)
        return 1 - m, m


@dataclass(frozen=True)
class Absorbing(Process):
    """A token is masked at t with probability m(t), and stays so (Austin et al. 2021; Ou et al. 2025, eq. 2.4)."""

    noise: ClassVar[str] = "absorbing"


@dataclass(frozen=True)
class Uniform(Process):
    """q(x_t | x_0) = (1 - m) 1[x_t = x_0] + m / V: a token is replaced by a uniformly random one (Austin et al. 2021)."""

    noise: ClassVar[str] = "uniform"
