"""Order of convergence, measured against the exact ODE map of a Gaussian."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..grid.grid import Grid
from ..process.schedule import Schedule
from ..registry.registry import SamplerCard
from ..targets.exact import gaussian
from .driving import framed, run, schedules
from .finding import at_least

ORDER_STEPS = (26, 50, 80, 158)  # 2 more than a multiple of 6: packed single-step solvers then end alike, with full steps


ORDER_SLACK = 0.25


def order_grid(
    schedule: Schedule, order: int, n: int, high: float = 5.0, low: float = 0.2, jagged: bool = True
) -> tuple[Grid, float]:
    """n steps between two ratios, and the length h of a regular one, in log-SNR, after a ramp of small ones.

    The ramp begins with steps of relative length h^(order - 1) and doubles them until they are regular. It gives a
    multistep method starting values of its own accuracy (without it the first-order first step hides the order), and it
    doubles because a polynomial through nearly equal nodes would amplify their errors. Regular steps alternate between
    1.3 h and 0.7 h (jagged), so that a method which forgets the ratio of its steps is found out. The grid ends well above
    0, where the jump to 0 would hide the order again.
    """
    ramp: list[float] = []
    if order > 2:
        ramp = [2.0**k * n ** (2.0 - order) for k in range(math.ceil((order - 2) * math.log2(n)))]
    swing = 0.3 if jagged else 0.0
    lengths = np.array(ramp + [1.0 + swing * (-1.0) ** i for i in range(n - len(ramp) - 1, -1, -1)])
    u = np.concatenate([[0.0], np.cumsum(lengths)]) / lengths.sum()
    ratios = np.exp(math.log(high) + u * math.log(low / high))
    return Grid.from_ratios(schedule, [float(v) for v in ratios]), float(math.log(high / low) / lengths.sum())


def check_order(card: SamplerCard, options: Mapping[str, Any]) -> str | None:
    """Against the exact ODE map of a Gaussian, log error falls with at least the declared order - 0.25, in every frame."""
    order = card.order_of(options)
    if order is None:
        return "no order is declared (order=), none was measured"
    settings = {**card.order_options, **options}
    for schedule in schedules():
        with framed(schedule):
            slope, errors = measured_order(card, settings, schedule, order)
            at_least(
                slope, order - ORDER_SLACK,
                f"declared order {order}, measured {slope:.2f} "
                f"(errors {', '.join(f'{e:.2e}' for e in errors)} at {ORDER_STEPS} steps)",
                _why(slope, order, errors),
            )  # fmt: skip
    return None


def _why(slope: float, order: int, errors: list[float]) -> str:
    """The usual cause of a measured order that is too low."""
    if not errors[-1] < math.inf:
        return "the run diverges: a sign, or a weight that grows with the number of steps"
    if slope < 0.5:
        return (
            "the method converges to something else: a wrong sign or factor (dx/ds = (x - D)/s, s > t, so t - s < 0), "
            "alpha left out (x = alpha x_0 + s eps), or weights that do not sum to 1"
        )
    if slope < 1.25 and order > 1:
        return (
            "one coefficient is wrong, or the weights forget how long the last step was (steps of the proof are of uneven "
            "length; smooth_steps=True says that the order needs even ones); or it is order 1 in one frame only: a formula "
            "in sigma that leaves out alpha"
        )
    return (
        "an order is lost somewhere: in the first steps (the history fills), in the last (order_options names "
        "the option that "
        "turns a lower-order ending off), or by a coefficient that is right to first order; or too much is declared"
    )


def measured_order(
    card: SamplerCard, options: Mapping[str, Any], schedule: Schedule, order: int
) -> tuple[float, list[float]]:
    """Slope of log error against log h on `order_grid`s that serve `order`, and the errors (RMS to the exact ODE map)."""
    target = gaussian(dim=6, condition=100.0, schedule=schedule)
    errors, lengths = [], []
    for n in ORDER_STEPS:
        grid, h = order_grid(schedule, order, n, jagged=not card.smooth_steps)
        x = grid[0] * torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        exact = target.transport(x, grid[0], grid[-1])
        errors.append(float((run(card, target, x, grid, options) - exact).square().mean().sqrt()))
        lengths.append(h)
    slope = np.polyfit(np.log(lengths[1:]), np.log(np.maximum(errors[1:], 1e-300)), 1)[0]
    return float(slope), errors
