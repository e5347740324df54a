"""Trajectory consistency sampling: down past the next level, and up again with new noise."""

from __future__ import annotations

import math
from typing import Any

import solverkit as sk
from solverkit import Grid, Level
from solverkit.errors import OptionError


def _below(grid: Grid, t: Level, gamma: float) -> Level:
    """The level at (1 - gamma) of the network's timestep, rounded down; of s itself where time is continuous."""
    if hasattr(grid.schedule, "num_train_timesteps"):
        return grid.schedule.level(grid.schedule.ratio(float(math.floor((1 - gamma) * t.time))), t.frame)
    return grid.schedule.at((1 - gamma) * t, snap=False)


@sk.sampler(
    "tcd",
    order=lambda options: 1 if options["gamma"] == 0 else None,
    student=True,
    reference="Zheng et al. 2024, arXiv 2402.19159, Algorithm 4",
    cite="zheng2024tcd",
    variants=({"gamma": 0.0}, {"gamma": 1.0}),
)
def tcd(model: Any, x: Any, grid: Grid, noise: Any, gamma: float = 0.3) -> Any:
    """Strategic stochastic sampling: DDIM to a level below t, at (1 - gamma) of its time, then the forward process up to t.

    With v that level, eps = (x - alpha_s D) / s and q = alpha_t v / alpha_v:

    x+ = alpha_t D + q eps + sqrt(t^2 - q^2) z.

    gamma = 0 is DDIM, gamma = 1 nearly `renoise` (timestep 0 has a little noise). A run that ends at 0 returns the last D;
    the TCD of diffusers ends at timestep 0, alpha_0 D + sigma_0 eps: levels that end there do the same.
    Source: Zheng et al. 2024 (TCD), Algorithm 4; eta of diffusers' TCDScheduler.

    Args:
        gamma: Stochasticity, 0 to 1; the paper's 0.3, more for more steps.
    """
    if not 0 <= gamma <= 1:
        raise OptionError(f"gamma must be 0 (deterministic) to 1, got {gamma}.")
    for s, t in grid.steps():
        denoised = model(x, s)
        q = 0.0
        if t > 0:
            v = _below(grid, t, gamma) if gamma > 0 else t
            q = min(float(t), t.alpha * v / v.alpha)
        x = (q / s) * x + (t.alpha - q / s * s.alpha) * denoised
        if q < t:
            x = x + math.sqrt(t * t - q * q) * noise(s, t)
    return x
