"""Noise along one forward trajectory: z at every level, correlated as the noises of one diffused sample are."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..process.level import Level

LOWEST, HIGHEST = math.log(1e-6), math.log(1e6)  # of sigma / alpha; beyond them z stays what it is at the end
DEPTH = 14  # halvings: two levels that are nearer than 1.7e-3 in the logarithm share the draw of their interval


def chain_noise(draw: Any, level: Level) -> torch.Tensor:
    """z ~ N(0, I) at a level, with Cov(z_s, z_t) = t / s for ratios t < s: x_0 + s z is then a Brownian motion in s^2.

    z is a stationary Ornstein-Uhlenbeck process in log(sigma / alpha). It is drawn by halving the axis, each midpoint given
    the two ends, from draws that belong to the whole run: so a level's z does not depend on what levels were asked before.

    Args:
        draw: Of a constraint; its `fixed(number)` are used.
        level: Where.
    """
    a, b = LOWEST, HIGHEST
    at_b = draw.fixed(1)
    correlation = math.exp(a - b)
    at_a = correlation * at_b + math.sqrt(1 - correlation**2) * draw.fixed(2)
    ratio = level.ratio
    place = HIGHEST if math.isinf(ratio) else min(max(math.log(ratio) if ratio > 0 else LOWEST, LOWEST), HIGHEST)
    if place == HIGHEST:
        return at_b
    if place == LOWEST:
        return at_a
    node = 1
    for _ in range(DEPTH):
        middle = (a + b) / 2
        at_middle = _between(at_a, at_b, middle - a, b - middle, draw.fixed(2 + node))
        if place < middle:
            b, at_b, node = middle, at_middle, 2 * node
        else:
            a, at_a, node = middle, at_middle, 2 * node + 1
    return _between(at_a, at_b, place - a, b - place, draw.fixed(2 + node))


def _between(at_a: torch.Tensor, at_b: torch.Tensor, below: float, above: float, z: torch.Tensor) -> torch.Tensor:
    """The process at a distance `below` from a and `above` from b, given both."""
    p, q = math.exp(-below), math.exp(-above)
    both = -math.expm1(-2 * (below + above))  # 1 - (p q)^2
    left, right = -math.expm1(-2 * below), -math.expm1(-2 * above)
    return (p * right / both) * at_a + (q * left / both) * at_b + math.sqrt(left * right / both) * z
