"""What authors of samplers need again and again: exact steps, phi-functions, usable orders, shapes of one number a sample.

From s to t in any frame, h = lam_t - lam_s, r = e^{-h} = t alpha_s / (alpha_t s), finite at both ends. With the denoised
prediction D frozen the probability flow is solved exactly by

    x+ = (t / s) x + alpha_t (1 - r) D                      (data form)
    x+ = (alpha_t / alpha_s) x - t (e^h - 1) E              (noise form, E = (x - alpha_s D) / s: the same step)

and higher orders add phi-functions of h times differences of D (or E).
"""

from __future__ import annotations

import math
from typing import Any

import torch

from .grid.grid import Grid
from .process.level import Level, from_ratio
from .registry.spelled import parse_options

__all__ = [
    "OVERSHOOTS", "History", "contraction", "exact_step", "from_ratio", "norm", "parse_options", "per_sample", "phi",
    "posterior_std", "step_length", "usable_orders",
]  # fmt: skip

History = list[tuple[Level, Any]]

GROWTH = 2.5  # times the step before: over a longer one a multistep method extrapolates too far
OVERSHOOTS = 2.0  # in log-SNR: over longer steps the exact weight of a difference makes too much of it
LONGEST = 0.88  # in log-SNR: over longer steps a parabola through three predictions is worse than a line through two
FLAT = 4.0  # sigma / alpha above which predictions hardly change, whatever the step


def phi(k: int, z: float) -> float:
    """phi_0 = e^z, phi_{k+1}(z) = (phi_k(z) - 1/k!) / z: integral of e^{(1-u) z} u^{k-1} / (k-1)! over [0, 1].

    A Taylor series where the recursion would cancel. Source: Hochbruck and Ostermann 2010, eq. 2.10-2.11.
    """
    if k == 0:
        return math.exp(z)
    if abs(z) < (0.0, 1e-3, 0.1, 0.2, 0.4, 0.8)[min(k, 5)]:
        return sum(z**j / math.factorial(j + k) for j in range(16))
    value = math.expm1(z) / z
    for j in range(1, k):
        value = (value - 1.0 / math.factorial(j)) / z
    return value


def contraction(s: Level, t: Level) -> float:
    """r = e^{-h} = t alpha_s / (alpha_t s), finite at alpha_s = 0 and at t = 0."""
    return t * s.alpha / (t.alpha * s)


def posterior_std(s: Level, t: Level, eta: float) -> float:
    """u = min(t, eta t sqrt(1 - r^2)): of the noise of an ancestral step; at eta = 1 that of x_t given x_s and x_0.

    Source: Song et al. 2021 (DDIM), eq. 16, in the frame.
    """
    return min(t, eta * t * math.sqrt(1 - contraction(s, t) ** 2))


def exact_step(x: Any, denoised: Any, s: Level, t: Level) -> Any:
    """(t / s) x + alpha_t (1 - r) D: DDIM, Euler in s, DPM-Solver-1. x and D are states (B, ...) of the frame."""
    return (t / s) * x + (t.alpha * (1 - contraction(s, t))) * denoised


def step_length(s: Level, t: Level) -> float:
    """h = lam_t - lam_s; inf where the step starts at alpha = 0 or ends at 0."""
    return t.lam - s.lam


def usable_orders(
    order: int, grid: Grid, lower_order_final: bool = True, released: bool = False, longest: float = math.inf,
    stretch: float = 1.0,
) -> list[int]:  # fmt: skip
    """The order of each step of a multistep method in log-SNR: as named where the steps allow it, else lower.

    * A step of infinite length, from alpha = 0 or to 0, is of first order, and no history reaches over it.
    * History fills: the first finite step is of first order, the second of second.
    * No order above 1 where a step is more than 2.5 times as long in log-SNR as the one before it, and no third order where
      that holds of the one before.
    * Third order only where every step that could have it is at most 0.88 long; steps from above sigma / alpha = 4, where
      predictions hardly change, are not asked.
    * lower_order_final: the last step is of first order, the one before it at most of second, and so on.

    Args:
        order: 1 to 3.
        grid: Of the run.
        lower_order_final: See above.
        longest: Steps that are longer in log-SNR are of first order.
        stretch: Lengths count so many times (1 + eta in a reverse SDE).
        released: The rule of the published codes instead: full order whatever the steps, and an ending only in runs of
            fewer than 15 steps.
    """
    n = len(grid) - 1
    finite = [math.isfinite(s.lam) and math.isfinite(t.lam) for s, t in zip(grid.levels, grid.levels[1:])]
    steps = zip(finite, grid.levels, grid.levels[1:])
    length = [stretch * abs(step_length(s, t)) if ok else math.inf for ok, s, t in steps]
    calm = [i > 0 and finite[i] and finite[i - 1] and (released or length[i] <= GROWTH * length[i - 1]) for i in range(n)]
    orders = []
    for i in range(n):
        k = next((k for k in range(order, 1, -1) if i >= k - 1 and all(calm[i - j] for j in range(k - 1))), 1)
        if not released and length[i] > longest:
            k = 1
        if lower_order_final and (not released or grid.run_steps < 15):
            k = min(k, n - i)
        orders.append(k)
    if not released and any(orders[i] > 2 and grid[i].ratio <= FLAT and length[i] > LONGEST for i in range(n)):
        orders = [min(k, 2) for k in orders]
    return orders


def per_sample(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """One number a sample (B,), shaped (B, 1, ...) to multiply x (B, ...). Inside an `@sk.op` only."""
    return values.reshape(-1, *[1] * (x.ndim - 1))


def norm(x: torch.Tensor) -> torch.Tensor:
    """Euclidean norm of each sample of x (B, ...), shaped (B, 1, ...) to multiply it. Inside an `@sk.op` only."""
    return per_sample(torch.linalg.vector_norm(x.flatten(1), dim=1), x)
