"""Noise schedules: what a network was trained on, as a two-way map between its time and sigma / alpha.

A schedule answers four questions: which alpha and sigma belong to a ratio r = sigma / alpha (`scale`), what the network
is told there (`time`), what ratio a told time means (`ratio`), and where the model starts and ends (`ratio_max`,
`ratio_min`). Everything else about a run follows from r.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from .errors import GridError, ScheduleError, UnknownNameError
from .level import FLOW_FRAME, SIGMA_FRAME, Level, from_ratio


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
        ratio = s if self.frame == SIGMA_FRAME else (math.inf if s >= 1 else s / (1 - s))
        if snap and self.integer_time:
            return self.level(ratio)
        alpha, sigma = self.alpha_sigma(ratio)
        time = self.time(ratio)
        return Level(s, round(time) if self.integer_time else time, alpha + self.frame * sigma, self.frame)

    def at_time(self, time: float) -> Level:
        """The level that a told time means."""
        return self.level(self.ratio(time))


@dataclass(frozen=True)
class DiscreteVP(Schedule):
    """VP in discrete or continuous time: alpha^2 + sigma^2 = 1 (Song et al. 2021, eq. 11; Ho et al. 2020, eq. 4)."""

    betas: str | tuple[float, ...] = "linear"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    num_train_timesteps: int = 1000
    integer_time: bool = False  # type: ignore[misc]
    zero_terminal_snr: bool = False
    snr_shift_scale: float = 1.0

    @cached_property
    def log_ratios(self) -> np.ndarray:
        """log(sigma / alpha) at the trained timesteps 0 .. N-1, float64, ascending; the last is inf at zero SNR."""
        abar = np.cumprod(1.0 - self._beta_array())
        if self.snr_shift_scale != 1.0:
            abar = abar / (self.snr_shift_scale + (1 - self.snr_shift_scale) * abar)
        if self.zero_terminal_snr:
            root = np.sqrt(abar)
            root = (root - root[-1]) * root[0] / (root[0] - root[-1])  # Lin et al. 2024, algorithm 1
            abar = root**2
        with np.errstate(divide="ignore"):
            return 0.5 * (np.log1p(-abar) - np.log(abar))

    def _beta_array(self) -> np.ndarray:
        n = self.num_train_timesteps
        if not isinstance(self.betas, str):
            return np.asarray(self.betas, dtype=np.float64)
        if self.betas == "linear":
            return np.linspace(self.beta_start, self.beta_end, n)
        if self.betas == "scaled_linear":
            return np.linspace(self.beta_start**0.5, self.beta_end**0.5, n) ** 2
        if self.betas in ("squaredcos_cap_v2", "cosine"):
            f = np.cos((np.arange(n + 1) / n + 0.008) / 1.008 * math.pi / 2) ** 2  # Nichol and Dhariwal 2021, eq. 17
            return np.minimum(1 - f[1:] / f[:-1], 0.999)
        raise UnknownNameError("beta schedule", self.betas, ["linear", "scaled_linear", "squaredcos_cap_v2", "cosine"])

    @property
    def frame(self) -> int:  # type: ignore[override]
        return FLOW_FRAME if self.zero_terminal_snr or math.isinf(self.log_ratios[-1]) else SIGMA_FRAME

    @property
    def ratio_max(self) -> float:
        return float(np.exp(self.log_ratios[-1]))

    @property
    def ratio_min(self) -> float:
        return float(np.exp(self.log_ratios[0]))

    def time(self, ratio: float) -> float:
        if ratio <= 0:
            return 0.0
        table = self.log_ratios
        if math.isinf(table[-1]) and math.log(ratio) > table[-2]:
            # between the last finite level and zero SNR: linear in alpha / sigma, which is 0 at the end
            return float(len(table) - 1 - math.exp(table[-2]) / ratio)
        return float(np.interp(math.log(ratio), table, np.arange(len(table))))

    def ratio(self, time: float) -> float:
        table = self.log_ratios
        last = len(table) - 1
        if math.isinf(table[-1]) and time > last - 1:
            return math.inf if time >= last else math.exp(table[-2]) / (last - time)
        return float(np.exp(np.interp(time, np.arange(len(table)), table)))


@dataclass(frozen=True)
class ContinuousVP(Schedule):
    """VP with beta(t) = beta_min + t (beta_max - beta_min), t in [t_min, 1] (Song et al. 2021, eq. 32-33)."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    time_scale: float = 999.0

    def __post_init__(self) -> None:
        if not (0 < self.beta_min <= self.beta_max < math.inf and 0 < self.t_min < 1 and self.time_scale > 0):
            raise ScheduleError(
                f"continuous VP needs 0 < beta_min <= beta_max, 0 < t_min < 1 and time_scale > 0, got {self.beta_min}, "
                f"{self.beta_max}, {self.t_min} and {self.time_scale}."
            )

    def _integral(self, t: float) -> float:
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t * t

    def _t(self, integral: float) -> float:
        slope = self.beta_max - self.beta_min
        if slope == 0:
            return integral / self.beta_min
        root = math.sqrt(self.beta_min**2 + 2 * slope * integral)
        return 2 * integral / (root + self.beta_min)

    @property
    def ratio_max(self) -> float:
        return self.ratio(self.time_scale)

    @property
    def ratio_min(self) -> float:
        return self.ratio(self.time_scale * self.t_min)

    def time(self, ratio: float) -> float:
        return self.time_scale * self._t(math.log1p(ratio * ratio))  # alpha^2 = exp(-B), r^2 = e^B - 1

    def ratio(self, time: float) -> float:
        return math.sqrt(math.expm1(self._integral(time / self.time_scale)))


@dataclass(frozen=True)
class SubVP(ContinuousVP):
    """Sub-VP: alpha^2 = exp(-B(t)), sigma = 1 - alpha^2 (Song et al. 2021, eq. 14)."""

    def alpha_sigma(self, ratio: float) -> tuple[float, float]:
        alpha = 2.0 / (ratio + math.hypot(ratio, 2.0))  # alpha^2 + r alpha - 1 = 0
        return alpha, ratio * alpha

    def time(self, ratio: float) -> float:
        alpha, _ = self.alpha_sigma(ratio)
        return self.time_scale * self._t(-2 * math.log(alpha))

    def ratio(self, time: float) -> float:
        integral = self._integral(time / self.time_scale)
        return -math.expm1(-integral) * math.exp(0.5 * integral)


def VP(
    betas: str | tuple[float, ...] | list[float] = "linear",
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    num_train_timesteps: int = 1000,
    *,
    continuous: bool = False,
    integer_time: bool = False,
    zero_terminal_snr: bool = False,
    snr_shift_scale: float = 1.0,
    beta_min: float = 0.1,
    beta_max: float = 20.0,
    t_min: float = 1e-3,
    time_scale: float = 999.0,
) -> Schedule:
    """A variance-preserving schedule.

    Args:
        betas: "linear", "scaled_linear", "squaredcos_cap_v2" ("cosine"), or the betas themselves.
        beta_start, beta_end, num_train_timesteps: of a discrete schedule by name; the network is told 0 .. N-1.
        continuous: beta(t) = beta_min + t (beta_max - beta_min) on t in [t_min, 1]; the network is told time_scale t.
        integer_time: The network knows only the integers that it was trained on; levels snap to them.
        zero_terminal_snr: Rescale so that the last alpha is 0 (Lin et al. 2024); the run is then in the flow frame.
        snr_shift_scale: Divide the SNR by this factor (CogVideoX).

    Raises:
        ScheduleError: betas outside (0, 1).
        UnknownNameError: a beta schedule that does not exist.
    """
    if continuous:
        if integer_time or zero_terminal_snr or snr_shift_scale != 1.0:
            raise ScheduleError(
                "continuous=True takes beta_min, beta_max, t_min and time_scale only; integer_time, zero_terminal_snr and "
                "snr_shift_scale belong to discrete betas. Leave them out, or leave out continuous."
            )
        return ContinuousVP(beta_min, beta_max, t_min, time_scale)
    if not isinstance(betas, str):
        try:
            betas = tuple(float(b) for b in betas)
        except (TypeError, ValueError):
            raise ScheduleError(f"betas must be a name or a sequence of numbers, got {betas!r}.") from None
        num_train_timesteps = len(betas)
    schedule = DiscreteVP(
        betas=betas,
        beta_start=beta_start,
        beta_end=beta_end,
        num_train_timesteps=num_train_timesteps,
        integer_time=integer_time,
        zero_terminal_snr=zero_terminal_snr,
        snr_shift_scale=snr_shift_scale,
    )
    made = schedule._beta_array() if num_train_timesteps > 0 else np.zeros(0)
    if len(made) == 0 or not np.all((made > 0) & (made <= 1)):  # NaN fails both
        raise ScheduleError(f"betas must be numbers in (0, 1], got {made[:3].tolist()}...; pass alphas? 1 - them.")
    if not 0 < snr_shift_scale < math.inf:
        raise ScheduleError(f"snr_shift_scale must be positive, got {snr_shift_scale!r}.")
    return schedule


@dataclass(frozen=True)
class VE(Schedule):
    """Variance exploding: alpha = 1, sigma from sigma_min to sigma_max (Song et al. 2021, eq. 9).

    told: "sigma" (the network is told sigma), "log" (log sigma), or "index" (0 at sigma_max .. num_levels - 1 at sigma_min,
    the discrete NCSN convention).
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    told: str = "sigma"
    num_levels: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min <= self.sigma_max < math.inf:
            raise ScheduleError(f"VE needs 0 < sigma_min <= sigma_max < inf, got {self.sigma_min} and {self.sigma_max}.")
        if self.told not in ("sigma", "log", "quarter-log", "index"):
            raise UnknownNameError("told time", self.told, ["sigma", "log", "quarter-log", "index"])

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
        log_sigma = math.log(max(ratio, 1e-20))
        if self.told == "index":
            span = math.log(self.sigma_max / self.sigma_min) or 1.0
            return (self.num_levels - 1) * (math.log(self.sigma_max) - max(log_sigma, math.log(self.sigma_min))) / span
        return log_sigma if self.told == "log" else log_sigma / 4

    def ratio(self, time: float) -> float:
        if self.told == "sigma":
            return time
        if self.told == "index":
            return self.sigma_max * (self.sigma_min / self.sigma_max) ** (time / (self.num_levels - 1))
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

    Args:
        shift: Default time shift t -> shift t / (1 + (shift - 1) t) of the "flow" grid (Esser et al. 2024, eq. 23).
        time_scale: The network is told time_scale t (1000 for diffusers models, 1 for most others).
        t_min: The smallest t that the network was trained on.
    """

    shift: float = 1.0
    time_scale: float = 1.0
    t_min: float = 1e-3
    frame: ClassVar[int] = FLOW_FRAME

    def __post_init__(self) -> None:
        if not (0 < self.shift < math.inf and 0 < self.time_scale < math.inf and 0 < self.t_min < 1):
            raise ScheduleError(
                f"Flow needs shift > 0, time_scale > 0 and 0 < t_min < 1, got {self}."
            )

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
        return self.time_scale * from_ratio(ratio, FLOW_FRAME)

    def ratio(self, time: float) -> float:
        t = time / self.time_scale
        return math.inf if t >= 1 else t / (1 - t)
