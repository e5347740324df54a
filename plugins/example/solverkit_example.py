"""A complete solverkit plugin: a sampler and a grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import solverkit as sk


def ralston(model: Any, x: Any, grid: sk.Grid, noise: Any, c: float = 2 / 3) -> Any:
    """Ralston's second-order method: a stage at s + c (t - s), then x+ = x + (t - s) ((1 - 1/(2c)) d_s + 1/(2c) d_u).

    Order 2, two evaluations a step. c = 1/2 is the midpoint rule; c = 2/3 minimises the bound of the truncation error.
    Source: Ralston 1962, eq. 3.5.

    Args:
        c: Where the stage is, as a share of the step.
    """
    if not 0 < c < 1:
        raise sk.errors.OptionError(f"the stage must lie inside the step: 0 < c < 1, got {c}.")
    for s, t in grid.steps():
        u = grid.at(s + c * (t - s))
        c_u = (u - s) / (t - s)  # a network that knows only integers rounds the stage: read it back
        d = (x - model(x, s)) / s
        y = x + (u - s) * d
        d_u = (y - model(y, u)) / u
        x = x + (t - s) * ((1 - 1 / (2 * c_u)) * d + (1 / (2 * c_u)) * d_u)
    return x


def power(schedule: sk.Schedule, n: int, exponent: float = 3.0) -> list[float]:
    """sigma / alpha falls as (1 - i / n)^exponent, from the largest trained level (at most 80) to 0."""
    top = min(schedule.ratio_max, 80.0)
    return [top * (1 - i / n) ** exponent for i in range(n + 1)]


@sk.hookimpl
def register_samplers(register: Callable[..., None]) -> None:
    register("ralston", ralston, order=2, reference="Ralston 1962", variants=({"c": 0.75},))


@sk.hookimpl
def register_grids(register: Callable[..., None]) -> None:
    register("power", power)
