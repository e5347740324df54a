"""One reverse step of a predictor: x_mean = c_x x + c_score score, x = x_mean + std z, in the model's own coordinates.

The forward process from a lower level t to a higher one s is x_s = rho x_t + G z with rho = alpha_s / alpha_t and
G^2 = sigma_s^2 - rho^2 sigma_t^2, whatever the levels are: VE has rho = 1 and VP rho^2 = 1 - beta_i, G^2 = beta_i.

    reverse diffusion   x_mean = (2 - rho) x + G^2 score,       std G            Song et al. 2021, eq. 46
    probability flow    x_mean = (2 - rho) x + G^2 score / 2,   std 0            eq. 47
    ancestral           x_mean = (x + G^2 score) / rho,         std G sigma_t / sigma_s      eq. 4; Ho et al. 2020, eq. 6-7
    Euler-Maruyama      x_mean = (1 - f dt) x + g^2 dt score,   std g sqrt(dt)   section 3.2; f and g^2 of the process
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from solverkit import VE, Grid, Level


class Transition(NamedTuple):
    """x_mean = c_x x + c_score score; x = x_mean + std z."""

    c_x: float
    c_score: float
    std: float


Predictor = Callable[[Level, Level, Grid], Transition]


def own(level: Level) -> tuple[float, float]:
    """The model's own (alpha, sigma)."""
    return level.alpha * level.scale, float(level) * level.scale


def forward(s: Level, t: Level) -> tuple[float, float]:
    """(rho, G^2) of the forward process from t up to s."""
    (alpha_s, sigma_s), (alpha_t, sigma_t) = own(s), own(t)
    rho = alpha_s / alpha_t
    return rho, sigma_s**2 - (rho * sigma_t) ** 2


def reverse_diffusion(s: Level, t: Level, grid: Grid) -> Transition:
    rho, power = forward(s, t)
    return Transition(2 - rho, power, math.sqrt(power))


def probability_flow(s: Level, t: Level, grid: Grid) -> Transition:
    rho, power = forward(s, t)
    return Transition(2 - rho, power / 2, 0.0)


def ancestral(s: Level, t: Level, grid: Grid) -> Transition:
    """Where alpha_s = 0 the score says nothing about x_0, and (x + G^2 score) / rho is 0 / 0: see `pc`."""
    rho, power = forward(s, t)
    return Transition(1 / rho, power / rho, math.sqrt(power) * own(t)[1] / own(s)[1])


def euler_maruyama(s: Level, t: Level, grid: Grid) -> Transition:
    """In the network's own time; in log sigma for VE and EDM, as published."""
    f, g_squared, dt = drift(s, t, grid)
    return Transition(1 - f * dt, g_squared * dt, math.sqrt(g_squared * dt))


def drift(s: Level, t: Level, grid: Grid) -> tuple[float, float, float]:
    """(f, g^2, dt): dx = f x dtau + g dw at s, and how far tau falls from s to t.

    f = d log alpha / dtau and g^2 = d sigma^2 / dtau - 2 f sigma^2, by central differences in float64.
    """
    schedule = grid.schedule
    if isinstance(schedule, VE):
        return 0.0, 2 * s.ratio**2, math.log(s.ratio / t.ratio)
    tau = schedule.time(s.ratio)
    step = 1e-5 * max(abs(schedule.time(schedule.ratio_max)), 1e-3)
    high, low = tau + step, max(tau - step, 0.0)
    if not math.isfinite(schedule.ratio(high)):
        high = tau
    (alpha_h, sigma_h), (alpha_l, sigma_l) = (schedule.alpha_sigma(schedule.ratio(u)) for u in (high, low))
    _, sigma = own(s)
    f = math.log(alpha_h / alpha_l) / (high - low)
    g_squared = (sigma_h**2 - sigma_l**2) / (high - low) - 2 * f * sigma**2
    return f, g_squared, tau - schedule.time(t.ratio)


def unmoved(s: Level, t: Level, grid: Grid) -> Transition:
    return Transition(1.0, 0.0, 0.0)


PREDICTORS: dict[str, Predictor] = {
    "reverse-diffusion": reverse_diffusion,
    "euler-maruyama": euler_maruyama,
    "ancestral": ancestral,
    "probability-flow": probability_flow,
    "none": unmoved,
}
