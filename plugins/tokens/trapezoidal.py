"""The theta-trapezoidal method for masked models."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import solverkit as sk
from solverkit import Grid
from solverkit.errors import OptionError
from solverkit.process.level import Level
from solverkit.tokens import numbered

from .ancestral import reveal


@sk.sampler(
    "theta-trapezoidal", order=1, evaluations=lambda n, options: 2 * n - 1, variants=({"theta": 0.3},),
    reference="Ren et al. 2025, arXiv 2502.00234",
    cite="ren2025",
)  # fmt: skip
def theta_trapezoidal(model: Any, x: Tensor, grid: Grid, noise: Any, theta: float = 0.5) -> Tensor:
    """Two leaps a step of u = -log m, in which a masked token is revealed at the rates mu_v = c_v (1 in all).

    First theta h with mu of x, to x*; then (1 - theta) h with (a_1 mu of x* - a_2 mu of x)_+, where
    a_1 = 1 / (2 theta (1 - theta)) and a_2 = ((1 - theta)^2 + theta^2) a_1. The step to level 0 reveals all.
    Weak order 2 only where the positive part never acts: weakly dependent tokens (`benchmarks/tokens_findings.py
    trapezoidal`); on strongly dependent ones order 1, which is what is declared.
    """
    if not 0 < theta < 1:
        raise OptionError(f"theta-trapezoidal needs 0 < theta < 1, got {theta}.")
    a_1 = 1 / (2 * theta * (1 - theta))
    a_2 = ((1 - theta) ** 2 + theta**2) * a_1
    for k, s, t in numbered(grid):
        log_c = model(x, s)
        if t == 0:
            return reveal(model, x, log_c, 1.0, k, noise)
        h = math.log(s / t)
        middle = grid.at(s * math.exp(-theta * h))
        x = reveal(model, x, log_c, -math.expm1(-theta * h), k, noise)
        x = second_leap(model, x, (a_1, log_c, a_2), middle, (1 - theta) * h, k, noise)
    return x


def second_leap(
    model: Any, x: Tensor, rates: tuple[float, Tensor, float], middle: Level, h: float, k: int, noise: Any
) -> Tensor:
    a_1, log_c, a_2 = rates
    mu = (a_1 * model(x, middle).double().exp() - a_2 * log_c.double().exp()).clamp(min=0)
    total = mu.sum(dim=-1)
    revealed = noise.happens(-torch.expm1(-h * total), k, x == model.mask)
    return torch.where(revealed, noise.token(mu.log(), k, revealed), x)
