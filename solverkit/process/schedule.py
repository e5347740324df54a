"""Noise schedules: what a network was trained on, as a two-way map between its time and sigma / alpha.

A schedule answers four questions: which alpha and sigma belong to a ratio r = sigma / alpha (`scale`), what the network
is told there (`time`), what ratio a told time means (`ratio`), and where the model starts and ends (`ratio_max`,
`ratio_min`). Everything else about a run follows from r.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ..errors import GridError, ScheduleError, UnknownNameError
from .level import FLOW_FRAME, SIGMA_FRAME, Level, from_ratio, to_ratio


@dataclass(frozen=True)
class Schedule:
    """Base of all schedules: turns a ratio sigma / alpha into a `Level`.

    Subclasses define `time(ratio)`, `ratio(time)`, `ratio_max`, `ratio_min` and, where alpha is not 1 or VP's,
    `alpha_sigma(ratio)`.
    """

    integer_time: ClassVar[bool] = False
    frame: ClassVar[int] = SIGMA_FRAME

    @property
    def ratio_max(self) -> float:
        """sigma / alpha where sampling starts."""
        raise NotImplementedError

    @property
    def ratio_min(self) -> float:
        """The smallest sigma / alpha that the network was trained on."""
        raise NotImplementedError

    def time(self, ratio: float) -> float:
        """What the network is told at sigma / alpha = ratio."""
        raise NotImplementedError

    def ratio(self, time: float) -> float:
        """sigma / alpha at a told time."""
        raise NotImplementedError

    def alpha_sigma(self, ratio: float) -> tuple[float, float]:
        """The model's own (alpha, sigma) at sigma / alpha = ratio. Here: variance preserving."""
        if math.isinf(ratio):
            return 0.0, 1.0
        alpha = 1.0 / math.hypot(1.0, ratio)
        return alpha, ratio * alpha

    def prior_std(self, level: Level) -> float:
        """Standard deviation, in the model's own coordinates, of the noise that a run starts from. Here: 1."""
        return 1.0

    def level(self, ratio: float, frame: int | None = None) -> Level:
        """The level at sigma / alpha = ratio, snapped to a trained one if the network knows only integers."""
        frame = self.frame if frame is None else frame
        time = self.time(ratio)
        if self.integer_time:
            time = float(round(time))
            if ratio > 0:
                ratio = self.ratio(time)
        alpha, sigma = self.alpha_sigma(ratio)
        return Level(from_ratio(ratio, frame), time, alpha + frame * sigma, frame)

    def at(self, s: float, snap: bool = True) -> Level:
        """The level at s in the schedule's own frame. snap=False rounds only the told time, never s itself."""
        if isinstance(s, Level):
            return s
        s = float(s)
        if not s >= 0:
            raise GridError(f"a noise level must be a number >= 0, got {s!r}.")
        ratio = to_ratio(s, self.frame)
        if snap and self.integer_time:
            return self.level(ratio)
        alpha, sigma = self.alpha_sigma(ratio)
        time = self.time(ratio)
        return Level(s, round(time) if self.integer_time else time, alpha + self.frame * sigma, self.frame)


TOLD = ("sigma", "log", "quarter-log", "arctan", "index", "unit")


@dataclass(frozen=True)
class VE(Schedule):
    """Variance exploding: alpha = 1, sigma from sigma_min to sigma_max (Song et al. 2021, eq. 9).

    told: "sigma" (the network is told sigma), "log" (log sigma), "quarter-log" (log(sigma) / 4, EDM's c_noise), "arctan"
    (2 / pi atan(sigma)), "index" (0 at sigma_max .. num_levels - 1 at sigma_min, the discrete NCSN convention), or "unit"
    (t in [0, 1] of sigma = sigma_min (sigma_max / sigma_min)^t, eq. 30).
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    told: str = "sigma"
    num_levels: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min <= self.sigma_max < math.inf:
            raise ScheduleError(f"VE needs 0 < sigma_min <= sigma_max < inf, got {self.sigma_min} and {self.sigma_max}.")
        if self.told not in TOLD:
            raise UnknownNameError("told time", self.told, TOLD)

    @property
    def ratio_max(self) -> float:
        return self.sigma_max

    @property
    def ratio_min(self) -> float:
        return self.sigma_min

    def alpha_sigma(self, ratio: float) -> tuple[float, float]:
        return 1.0, ratio

    def prior_std(self, level: Level) -> float:
        return float(level)

    def time(self, ratio: float) -> float:
        if self.told == "sigma":
            return ratio
        if self.told == "arctan":
            return 2 / math.pi * math.atan(ratio)
        log_sigma = math.log(max(ratio, 1e-20))
        if self.told == "index":
            span = math.log(self.sigma_max / self.sigma_min) or 1.0
            return (self.num_levels - 1) * (math.log(self.sigma_max) - max(log_sigma, math.log(self.sigma_min))) / span
        if self.told == "unit":
            return (log_sigma - math.log(self.sigma_min)) / (math.log(self.sigma_max / self.sigma_min) or 1.0)
        return log_sigma if self.told == "log" else log_sigma / 4

    def ratio(self, time: float) -> float:
        if self.told == "sigma":
            return time
        if self.told == "arctan":
            return math.tan(time * math.pi / 2)
        if self.told == "index":
            return self.sigma_max * (self.sigma_min / self.sigma_max) ** (time / (self.num_levels - 1))
        if self.told == "unit":
            return self.sigma_min * (self.sigma_max / self.sigma_min) ** time
        return math.exp(time if self.told == "log" else 4 * time)


@dataclass(frozen=True)
class EDM(VE):
    """Karras et al. 2022: alpha = 1, sigma in [0.002, 80]. `sigma_data` is used by prediction="edm" (their Table 1)."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.sigma_data < math.inf:
            raise ScheduleError(f"EDM needs sigma_data > 0, got {self.sigma_data}.")


@dataclass(frozen=True)
class Flow(Schedule):
    """Flow matching on the linear path x = (1 - t) x_0 + t eps (Lipman et al. 2023; Liu et al. 2023).

    Two conventions are in use, and a network that is told the wrong one still answers:

        data_at=0   told t, 0 at data and 1 at noise; velocity dx/dt = eps - x_0       diffusers (SD3, Flux), minRF
        data_at=1   told 1 - t, 0 at noise and 1 at data; velocity x_0 - eps           torchcfm, flow_matching, SiT,
                                                                                       RectifiedFlow, Lumina

    `prediction="flow_prediction"` is the velocity in the network's own time, so the sign goes with `data_at`. Look at the
    training code: where the network's time is 0, is x data or noise?

    Args:
        shift: Default time shift t -> shift t / (1 + (shift - 1) t) of the "flow" grid (Esser et al. 2024, eq. 23).
        time_scale: The network is told time_scale t (1000 for diffusers models, 1 for most others).
        t_min: The smallest t, the share of noise, that the network was trained on, whatever it is told.
        data_at: The told time (over time_scale) at which x is data, 0 or 1.
    """

    shift: float = 1.0
    time_scale: float = 1.0
    t_min: float = 1e-3
    data_at: int = 0
    frame: ClassVar[int] = FLOW_FRAME

    def __post_init__(self) -> None:
        if isinstance(self.data_at, bool) or self.data_at not in (0, 1):
            raise ScheduleError(
                f"data_at must be 0 (the network's time runs from data to noise) or 1 (from noise to data), got "
                f"{self.data_at!r}."
            )
        if not (0 < self.shift < math.inf and 0 < self.time_scale < math.inf and 0 < self.t_min < 1):
            raise ScheduleError(f"Flow needs shift > 0, time_scale > 0 and 0 < t_min < 1, got {self}.")

    @property
    def ratio_max(self) -> float:
        return math.inf

    @property
    def ratio_min(self) -> float:
        return self.t_min / (1 - self.t_min)

    def alpha_sigma(self, ratio: float) -> tuple[float, float]:
        t = from_ratio(ratio, FLOW_FRAME)
        return 1.0 - t, t

    def prior_std(self, level: Level) -> float:
        return from_ratio(level.ratio, FLOW_FRAME)

    def time(self, ratio: float) -> float:
        t = from_ratio(ratio, FLOW_FRAME)
        return self.time_scale * (1.0 - t if self.data_at else t)

    def ratio(self, time: float) -> float:
        t = time / self.time_scale
        return to_ratio(1.0 - t if self.data_at else t, FLOW_FRAME)
