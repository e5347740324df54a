"""The split of a reverse SDE that S4 steps through: the linear part over half a step, the score's over a whole one.

Forward, dx = f(u) x du + g(u) dw in the clock u of systems (`solverkit.joint.clock`); from m up to s, x_s = rho x_m + G z,
rho = alpha_s / alpha_m and G^2 = sigma_s^2 - rho^2 sigma_m^2 in own coordinates.
"""

from __future__ import annotations

import math
from typing import Literal

from solverkit import VE, Flow, Grid, Level
from solverkit.joint.clock import clock, ratio_at
from solverkit.process.level import from_ratio
from solverkit.process.schedule import Schedule
from solverkit.process.variance_preserving import ContinuousVP, SubVP

NoiseOf = Literal["exact", "forward"]
STEP = 1e-5  # of the clock, for its derivatives in float64


def own(level: Level) -> tuple[float, float]:
    """The model's own (alpha, sigma)."""
    return level.alpha * level.scale, float(level) * level.scale


def middle(grid: Grid, s: Level, t: Level) -> Level:
    """The level halfway in time. Nothing is evaluated there, so it is not snapped to what a network knows."""
    schedule = grid.schedule
    ratio = ratio_at(schedule, (clock(schedule, s.ratio) + clock(schedule, t.ratio)) / 2)
    alpha, sigma = schedule.alpha_sigma(ratio)
    return Level(from_ratio(ratio, grid.frame), scale=alpha + grid.frame * sigma, frame=grid.frame)


def half(s: Level, m: Level, noise_of: NoiseOf) -> tuple[float, float]:
    """(1 / rho, std) of the linear part from s down to m: x_m = x_s / rho + std z.

    std is G / rho backwards (on VP e^B - 1, B the integral of beta), G as released (1 - e^-B): they differ in second order.
    """
    (alpha_s, sigma_s), (alpha_m, sigma_m) = own(s), own(m)
    rho = alpha_s / alpha_m
    G = math.sqrt(max(sigma_s**2 - (rho * sigma_m) ** 2, 0.0))
    return 1 / rho, G / rho if noise_of == "exact" else G


def drift(schedule: Schedule, s: Level, t: Level) -> tuple[float, float]:
    """(f dt, g^2 dt) at s in own coordinates, dt the whole step to t in the clock."""
    u = clock(schedule, s.ratio)
    f, g_squared = _process(schedule, u, s)
    dt = u - clock(schedule, t.ratio)
    return f * dt, g_squared * dt


def _process(schedule: Schedule, u: float, s: Level) -> tuple[float, float]:
    """f = d log alpha / du and g^2 = d sigma^2 / du - 2 f sigma^2: closed forms, central differences for tables."""
    if isinstance(schedule, VE):
        return 0.0, 2 * s.ratio**2 * math.log(schedule.sigma_max / schedule.sigma_min)
    if isinstance(schedule, Flow):
        return -1 / (1 - u), 2 * u / (1 - u)
    if isinstance(schedule, ContinuousVP):
        beta = schedule.beta_min + u * (schedule.beta_max - schedule.beta_min)
        return -beta / 2, beta * (1 - own(s)[0] ** 4) if isinstance(schedule, SubVP) else beta
    high, low = min(u + STEP, 1.0), u - STEP
    (alpha_h, sigma_h), (alpha_l, sigma_l) = (schedule.alpha_sigma(ratio_at(schedule, v)) for v in (high, low))
    f = math.log(alpha_h / alpha_l) / (high - low)
    return f, (sigma_h**2 - sigma_l**2) / (high - low) - 2 * f * own(s)[1] ** 2
