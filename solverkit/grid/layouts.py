"""The named ways to lay out the noise levels of a run.

A layout takes a schedule and a number of steps n and returns n + 1 ratios sigma / alpha (fewer after equal neighbours are
merged), the last of them 0 unless `last="min"` asks for an end at the smallest trained level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np

from ..errors import GridError, OptionError
from ..process.level import FLOW_FRAME, from_ratio, to_ratio
from ..process.schedule import Schedule
from ..registry.hookspecs import hookimpl
from .beta import beta_quantile

Last = Literal["zero", "min"]


def _range(schedule: Schedule, ratio_max: float | None, ratio_min: float | None) -> tuple[float, float]:
    high = schedule.ratio_max if ratio_max is None else float(ratio_max)
    low = schedule.ratio_min if ratio_min is None else float(ratio_min)
    if not 0 < low < high:
        raise GridError(f"a grid needs 0 < ratio_min < ratio_max, got {low!r} and {high!r}.")
    return high, low


def _ended(ratios: Iterable[float], last: str) -> list[float]:
    return [*ratios, 0.0] if last == "zero" else list(ratios)


def _nodes(n: int, last: str) -> np.ndarray:
    """Fractions 0 .. 1: n of them before a jump to 0, n + 1 when the run ends at the smallest level."""
    if last not in ("zero", "min"):
        raise OptionError(f"last must be 'zero' or 'min', got {last!r}.")
    count = n if last == "zero" else n + 1
    return np.linspace(0.0, 1.0, count) if count > 1 else np.zeros(1)


def karras(
    schedule: Schedule,
    n: int,
    rho: float = 7.0,
    ratio_max: float | None = None,
    ratio_min: float | None = None,
    last: Last = "zero",
) -> list[float]:
    """sigma^(1/rho) uniform (Karras et al. 2022, eq. 5); in the flow frame the same rule on s."""
    if rho <= 0:
        raise OptionError(f"rho must be positive, got {rho!r}.")
    high, low = _range(schedule, ratio_max, ratio_min)
    u = _nodes(n, last)
    frame = schedule.frame if math.isinf(high) else 0
    a, b = from_ratio(high, frame) ** (1 / rho), from_ratio(low, frame) ** (1 / rho)
    s = [float(v) for v in (a + u * (b - a)) ** rho]
    s[0] = from_ratio(high, frame)
    return _ended((to_ratio(v, frame) for v in s), last)


def beta(
    schedule: Schedule,
    n: int,
    alpha: float = 0.6,
    beta: float = 0.6,
    ratio_max: float | None = None,
    ratio_min: float | None = None,
    last: Last = "zero",
) -> list[float]:
    """sigma at even quantiles of a Beta(alpha, beta) distribution between its ends; in the flow frame the same rule on s.

    alpha = beta = 1 is uniform in sigma; below 1 levels crowd at both ends. Lee et al. 2024 (arXiv 2407.12173),
    who lay out timesteps so; on sigma as diffusers has it (`use_beta_sigmas`).
    """
    if not (0 < alpha < math.inf and 0 < beta < math.inf):
        raise OptionError(f"alpha and beta must be positive, got {alpha!r} and {beta!r}.")
    high, low = _range(schedule, ratio_max, ratio_min)
    frame = schedule.frame if math.isinf(high) else 0
    a, b = from_ratio(high, frame), from_ratio(low, frame)
    s = [b + beta_quantile(1 - float(u), alpha, beta) * (a - b) for u in _nodes(n, last)]
    s[0] = a
    return _ended((to_ratio(v, frame) for v in s), last)


def log_snr(
    schedule: Schedule,
    n: int,
    ratio_max: float | None = None,
    ratio_min: float | None = None,
    finite_max: float = 80.0,
    last: Last = "zero",
) -> list[float]:
    """log-SNR uniform (Lu et al. 2022, section 3.3).

    Where the start is at alpha = 0 the levels are uniform from `finite_max` down and the first of them moves to the start.
    """
    high, low = _range(schedule, ratio_max, ratio_min)
    top = min(high, finite_max) if math.isinf(high) else high
    ratios = np.exp(math.log(top) + _nodes(n, last) * math.log(low / top)).tolist()
    ratios[0] = high
    return _ended(ratios, last)


def _require_time(schedule: Schedule, high: float, low: float) -> None:
    """Grids in the network's own time need one that falls from the start to 0."""
    if not schedule.time(high) > schedule.time(low) >= 0:
        raise GridError(
            f"the time that this network is told does not fall from {schedule.time(high):.4g} to 0 with the noise; "
            "use a grid in the noise level, such as karras or log-snr."
        )


def _in_time(schedule: Schedule, u: np.ndarray, high: float, low: float, power: float, last: str) -> list[float]:
    if power != 1:
        _require_time(schedule, high, low)
    a, b = schedule.time(high) ** (1 / power), schedule.time(low) ** (1 / power)
    ratios = [schedule.ratio(float(t)) for t in (a + u * (b - a)) ** power]
    ratios[0] = high
    return _ended(ratios, last)


def time_uniform(
    schedule: Schedule, n: int, ratio_max: float | None = None, ratio_min: float | None = None, last: Last = "zero"
) -> list[float]:
    """Uniform in the network's own time, down to the smallest trained level (Lu et al. 2022, appendix D)."""
    return _in_time(schedule, _nodes(n, last), *_range(schedule, ratio_max, ratio_min), 1.0, last)


def time_quadratic(
    schedule: Schedule, n: int, ratio_max: float | None = None, ratio_min: float | None = None, last: Last = "zero"
) -> list[float]:
    """Uniform in the square root of time (Song et al. 2021, DDIM, appendix D.2)."""
    return _in_time(schedule, _nodes(n, last), *_range(schedule, ratio_max, ratio_min), 2.0, last)


def _trained(schedule: Schedule) -> int | None:
    return getattr(schedule, "num_train_timesteps", None)


def trailing(schedule: Schedule, n: int) -> list[float]:
    """Timesteps round(N - i N / n) - 1 (Lin et al. 2024, Table 2); T (1 - i / n) in continuous time.

    From n = N on every trained timestep is there, and more lie between them.
    """
    total = _trained(schedule)
    if total is None:
        _require_time(schedule, schedule.ratio_max, schedule.ratio_min)
        top = schedule.time(schedule.ratio_max)
        return [schedule.ratio_max, *(schedule.ratio(top * (1 - i / n)) for i in range(1, n)), 0.0]
    if n >= total:
        return linspace(schedule, n)
    return [*(schedule.ratio(round(total - i * total / n) - 1) for i in range(n)), 0.0]


def leading(schedule: Schedule, n: int, steps_offset: int = 0) -> list[float]:
    """Timesteps (n - 1 - i) floor(N / n) + steps_offset, the layout of the original DDIM code (N = 1000).

    From n = N on every trained timestep is there, and more lie between them.
    """
    total = _trained(schedule)
    if total is None:
        raise GridError("the leading grid is made of trained timesteps; this schedule has none. Use time-uniform.")
    if n >= total:
        return linspace(schedule, n)
    return [*(schedule.ratio((n - 1 - i) * (total // n) + steps_offset) for i in range(n)), 0.0]


def linspace(schedule: Schedule, n: int) -> list[float]:
    """Timesteps N - 1 .. 0, evenly spaced and not rounded."""
    total = _trained(schedule)
    if total is None:
        return time_uniform(schedule, n)
    return [*(schedule.ratio(t) for t in np.linspace(total - 1, 0, n)), 0.0]


def sgm_uniform(schedule: Schedule, n: int) -> list[float]:
    """Even steps in the network's own time from its start to the smallest trained level, which is left out, then 0.

    Source: generative-models (Stability AI), the discretisation of SDXL; ComfyUI's sgm_uniform.
    """
    low = schedule.time(schedule.ratio_min)
    top = schedule.time(schedule.ratio_max)
    inner = [schedule.ratio(top + (low - top) * i / n) for i in range(1, n)]
    return [schedule.ratio_max, *inner, 0.0]


def simple(schedule: Schedule, n: int) -> list[float]:
    """Trained timesteps N - 1 - floor(i N / n): ComfyUI's simple."""
    total = _trained(schedule)
    if total is None:
        raise GridError("the simple grid is made of trained timesteps; this schedule has none. Use time-uniform.")
    if n >= total:
        return linspace(schedule, n)
    return [*(schedule.ratio(total - 1 - int(i * total / n)) for i in range(n)), 0.0]


def kl_optimal(
    schedule: Schedule,
    n: int,
    ratio_max: float | None = None,
    ratio_min: float | None = None,
    finite_max: float = 80.0,
    last: str = "zero",
) -> list[float]:
    """arctan(sigma) uniform, of least KL divergence on unit Gaussian data (Sabour et al. 2024, theorem 3.1).

    Where the start is at alpha = 0 the levels go from `finite_max` down and the first of them moves to the start.
    """
    high, low = _range(schedule, ratio_max, ratio_min)
    top = min(high, finite_max) if math.isinf(high) else high
    ratios = np.tan(math.atan(top) + _nodes(n, last) * (math.atan(low) - math.atan(top))).tolist()
    ratios[0] = high
    return _ended(ratios, last)


def flow(schedule: Schedule, n: int, shift: float | None = None, last: Last = "zero") -> list[float]:
    """t = sigma / (alpha + sigma) evenly spaced, then shifted: t -> shift t / (1 + (shift - 1) t).

    Esser et al. 2024, eq. 23. The default shift is the schedule's own, or 1.
    """
    shift = getattr(schedule, "shift", 1.0) if shift is None else float(shift)
    if shift <= 0:
        raise OptionError(f"shift must be positive, got {shift!r}.")
    _nodes(n, last)  # refuses another `last`
    high, low = from_ratio(schedule.ratio_max, 1), from_ratio(schedule.ratio_min, 1)
    u = np.linspace(0.0, 1.0, n + 1)
    start = high / (shift - (shift - 1) * high)  # so that the shifted grid begins at the start
    end = 0.0 if last == "zero" else low / (shift - (shift - 1) * low)
    t = start + u * (end - start)
    t = shift * t / (1 + (shift - 1) * t)
    ratios = [to_ratio(float(v), FLOW_FRAME) for v in t]
    ratios[0] = schedule.ratio_max
    return ratios


@hookimpl
def register_grids(register: Callable[..., None]) -> None:
    ends: dict[str, Any] = {"to_zero": lambda options: options["last"] == "zero", "variants": ({"last": "min"},)}
    register("karras", karras, reference="Karras et al. 2022, eq. 5", **ends)
    register("beta", beta, reference="Lee et al. 2024, arXiv 2407.12173", **ends)
    register("log-snr", log_snr, reference="Lu et al. 2022, section 3.3", **ends)
    register("time-uniform", time_uniform, reference="Lu et al. 2022, appendix D", **ends)
    register("time-quadratic", time_quadratic, reference="Song et al. 2021 (DDIM), appendix D.2", **ends)
    register("trailing", trailing, reference="Lin et al. 2024, Table 2")
    register("leading", leading, reference="Song et al. 2021 (DDIM), released code", from_the_top=False)
    register("linspace", linspace, reference="Nichol and Dhariwal 2021, released code")
    register("sgm-uniform", sgm_uniform, reference="Stability AI, generative-models; ComfyUI, sgm_uniform")
    register("simple", simple, reference="ComfyUI, simple")
    register("kl-optimal", kl_optimal, reference="Sabour et al. 2024, arXiv 2404.14507, theorem 3.1", **ends)
    register("flow", flow, reference="Esser et al. 2024, eq. 23", **ends)
