"""Variance-preserving schedules, discrete and continuous, and sub-VP (Ho et al. 2020; Song et al. 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import ScheduleError, UnknownNameError
from .level import FLOW_FRAME, SIGMA_FRAME
from .schedule import Schedule


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
    beta_cap: float = 0.999

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
            return np.minimum(1 - f[1:] / f[:-1], self.beta_cap)
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


def _betas_of(alphas_cumprod: Any) -> tuple[float, ...]:
    """beta_i = 1 - abar_i / abar_(i-1), abar_(-1) = 1 (Ho et al. 2020, eq. 4)."""
    given = alphas_cumprod.tolist() if hasattr(alphas_cumprod, "tolist") else alphas_cumprod
    try:
        abar = np.array([1.0, *(float(a) for a in given)])
    except (TypeError, ValueError):
        raise ScheduleError(f"alphas_cumprod must be one number a timestep, got {type(alphas_cumprod).__name__}.") from None
    if len(abar) < 2 or not (np.all(np.diff(abar) < 0) and abar[-1] >= 0):  # NaN fails
        raise ScheduleError(
            "alphas_cumprod must fall at each timestep from below 1 (least noise) to at least 0, got "
            f"{[float(f'{a:.6g}') for a in abar[1:4]]}...; alphas_cumprod are products of 1 - beta: betas and sigmas rise."
        )
    return tuple((1.0 - abar[1:] / abar[:-1]).tolist())


def VP(
    betas: str | tuple[float, ...] | list[float] = "linear",
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    num_train_timesteps: int = 1000,
    *,
    alphas_cumprod: Any = None,
    beta_cap: float = 0.999,
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
        alphas_cumprod: In place of betas, the products of 1 - beta up to each timestep, alpha^2 of x = alpha x_0 + sigma
            eps: a tensor, array or sequence that falls from below 1 to at least 0.
        beta_cap: The largest beta of the cosine schedule. 0.999 is that of Nichol and Dhariwal 2021 and of diffusers; other
            code has 0.9999, 0.02, or none (1, zero terminal SNR).
        continuous: beta(t) = beta_min + t (beta_max - beta_min) on t in [t_min, 1]; the network is told time_scale t.
        integer_time: The network knows only the integers that it was trained on; levels snap to them.
        zero_terminal_snr: Rescale so that the last alpha is 0 (Lin et al. 2024); the run is then in the flow frame.
        snr_shift_scale: Divide the SNR by this factor (CogVideoX).

    Raises:
        ScheduleError: betas outside (0, 1], alphas_cumprod that do not fall from below 1 to at least 0, or arguments that
            contradict each other.
        UnknownNameError: a beta schedule that does not exist.
    """
    if alphas_cumprod is not None:
        if continuous or not isinstance(betas, str) or betas != "linear":
            raise ScheduleError("alphas_cumprod says what betas would: give one of alphas_cumprod=, betas and continuous=.")
        betas = _betas_of(alphas_cumprod)
    cosine = isinstance(betas, str) and betas in ("squaredcos_cap_v2", "cosine") and not continuous
    if beta_cap != 0.999 and not cosine:
        raise ScheduleError('beta_cap= belongs to the cosine schedule: sk.VP("cosine", beta_cap=...).')
    if not 0 < beta_cap <= 1:
        raise ScheduleError(f"beta_cap must be in (0, 1], got {beta_cap!r}.")
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
        beta_cap=beta_cap,
    )
    made = schedule._beta_array() if num_train_timesteps > 0 else np.zeros(0)
    if len(made) == 0 or not np.all((made > 0) & (made <= 1)):  # NaN fails both
        raise ScheduleError(f"betas must be numbers in (0, 1], got {made[:3].tolist()}...; pass alphas? 1 - them.")
    if not 0 < snr_shift_scale < math.inf:
        raise ScheduleError(f"snr_shift_scale must be positive, got {snr_shift_scale!r}.")
    return schedule
