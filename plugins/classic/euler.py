"""Euler and Heun on the probability-flow ODE dx/ds = (x - D) / s, in either frame."""

from __future__ import annotations

import math
from typing import Any

import solverkit as sk
from solverkit import Grid
from solverkit.errors import OptionError


@sk.sampler("euler", order=1, reference="Karras et al. 2022, Algorithm 1", cite="karras2022")
def euler(model: Any, x: Any, grid: Grid, noise: Any) -> Any:
    """Euler's method: x+ = x + (t - s) (x - D) / s.

    Order 1, one evaluation a step. Equal to DDIM and to DPM-Solver-1 in every frame.
    Source: Karras et al. 2022, Algorithm 1 without its correction.
    """
    for s, t in grid.steps():
        x = x + (t - s) * ((x - model(x, s)) / s)
    return x


def _heun_order(options: dict[str, Any]) -> int | None:
    return 2 if options["s_churn"] == 0 else None


@sk.sampler(
    "heun",
    order=_heun_order,
    reference="Karras et al. 2022, Algorithms 1 and 2",
    cite="karras2022",
    variants=({"s_churn": 5.0, "s_noise": 1.003},),
)
def heun(
    model: Any,
    x: Any,
    grid: Grid,
    noise: Any,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Any:
    """Heun's second-order method, with the noise injection ("churn") of EDM.

    Order 2; two evaluations a step, one in a step that ends at 0 (2 N - 1 in all). With churn, a level
    rho = sigma / alpha in [s_tmin, s_tmax] is first raised to (1 + gamma) rho, gamma = min(s_churn / N, sqrt 2 - 1), by
    adding noise; never above the largest trained level, and not at alpha = 0.
    Source: Karras et al. 2022, Algorithms 1 and 2.

    Args:
        s_churn: Total churn, spread over the steps; 0 is deterministic.
        s_tmin, s_tmax: The sigma / alpha between which churn acts.
        s_noise: Standard deviation of the injected noise.
    """
    if s_churn < 0:
        raise OptionError(f"s_churn must be at least 0, got {s_churn}.")
    gamma = min(s_churn / grid.run_steps, math.sqrt(2.0) - 1)
    for s, t in grid.steps():
        if gamma > 0 and s.alpha > 0 and s_tmin <= s.ratio <= s_tmax:
            raised = min(s.ratio * (1 + gamma), grid.schedule.ratio_max)
            hat = grid.schedule.level(raised, grid.frame)
            if hat > s:
                spread = math.sqrt(hat.ratio**2 - s.ratio**2)
                x = (hat.alpha / s.alpha) * x + (hat.alpha * spread * s_noise) * noise(s, hat)
                s = hat
        d = (x - model(x, s)) / s
        y = x + (t - s) * d
        if t > 0:
            d = (d + (y - model(y, t)) / t) / 2
            y = x + (t - s) * d
        x = y
    return x
