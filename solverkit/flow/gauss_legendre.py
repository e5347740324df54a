"""Implicit Gauss-Legendre integration of order 4 on batches: symmetric, so that the way back undoes the way there.

One step h from z, stages i = 1, 2 (Butcher 1964; Hairer, Lubich and Wanner, Geometric Numerical Integration, table II.1.1):

    Z_i = z + h sum_j a_ij K_j,   K_i = f(u + c_i h, Z_i),   z' = z + h (K_1 + K_2) / 2

The method is its own adjoint (the same book, theorem V.2.1): the step -h from z' solves the same equations and returns z,
up to how exactly they are solved. The stages are found by fixed-point iteration, which converges where |h| |df/dz| is
below about 1.
"""

from __future__ import annotations

import math

import torch

from ..errors import BudgetError, OptionError
from .dormand_prince import Slope

ROOT = math.sqrt(3) / 6
NODES = (1 / 2 - ROOT, 1 / 2 + ROOT)
STAGES = ((1 / 4, 1 / 4 - ROOT), (1 / 4 + ROOT, 1 / 4))
SETTLED = 1e-12  # of h K, where states are of order 1
ROUNDING = 1e-5  # an iteration that no longer falls is at the network's rounding if it is below this
DIVERGED = 1e6  # stages that move so far never settle; further on they would only overflow
MOST = 100  # iterations of one step


def integrate(slope: Slope, z: torch.Tensor, start: float, end: float, steps: int) -> torch.Tensor:
    """Solve dz/du = slope(z, u, rows) from u = start to u = end in equal steps; z (B, ...) float64, of order 1.

    Each sample iterates until its own stages settle.

    Raises:
        OptionError: steps is no positive integer.
        BudgetError: a step whose stages do not settle; more steps are needed.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise OptionError(f"steps must be a positive integer, or None to integrate adaptively, got {steps!r}.")
    h = (end - start) / steps
    guess = None
    for i in range(steps):
        u = start + i * h
        if guess is None:
            guess = slope(z, torch.full((len(z),), u, dtype=torch.float64), torch.arange(len(z)))
        first, second = _stages(slope, z, guess, u, h)
        z, guess = z + h / 2 * (first + second), second
    return z


def _stages(
    slope: Slope, z: torch.Tensor, guess: torch.Tensor, u: float, h: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """K_1 and K_2, each (B, ...), from one guess of both; Gauss-Seidel: K_2 sees the new K_1."""
    slopes = [guess.clone(), guess.clone()]
    rows = torch.arange(len(z))
    before = torch.full((len(z),), math.inf, dtype=torch.float64)
    for _ in range(MOST):
        change = torch.zeros(len(rows), dtype=torch.float64)
        for stage, (node, (a, b)) in enumerate(zip(NODES, STAGES)):
            state = z[rows] + h * (a * slopes[0][rows] + b * slopes[1][rows])
            new = slope(state, torch.full((len(rows),), u + node * h, dtype=torch.float64), rows)
            moved = h * (new - slopes[stage][rows])
            change = torch.maximum(change, moved.flatten(1).square().mean(1).sqrt().cpu())
            slopes[stage][rows] = new
        done = (change <= SETTLED) | ((change >= 0.9 * before) & (change <= ROUNDING))
        rows, before = rows[~done], change[~done]
        if not len(rows):
            return slopes[0], slopes[1]
        if not bool((before <= DIVERGED).all()):
            break
    raise BudgetError(
        f"the stages of the step at u = {u:.4g} do not settle (they still move by {float(before.max()):.2g}): "
        f"the step {h:.3g} is too long for this network; use more steps, or steps=None to integrate adaptively."
    )
