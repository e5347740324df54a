"""Adaptive DPM-Solver-12 and -23: a pair of orders that shares its evaluations chooses the step in lam.

Pull-only: the steps depend on what the network answers. By default each sample chooses its own steps, so that a sample does
not depend on its batch; norm="batch" is the published rule, the largest error of the batch for all.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch

from solverkit import Grid, Level
from solverkit.errors import BudgetError, OptionError
from solverkit.process.level import from_log_snr
from solverkit.steps import exact_step, phi, step_length

FINITE_START = 80.0  # sigma / alpha at which adaptive steps begin after the exact step from alpha = 0


def _between(grid: Grid, lam: float) -> Level:
    """A level at lam; only the told time is rounded for a network that knows only integers, never lam itself."""
    return grid.schedule.at(from_log_snr(lam, grid.frame), snap=False)


def _pair(model: Any, x: torch.Tensor, e0: torch.Tensor, s: Level, t: Level, order: int, grid: Grid) -> tuple[Any, Any]:
    """(low, high): orders 1 and 2 with r1 = 1/2, or 2 and 3 with r1 = 1/3, r2 = 2/3; noise form."""
    h = step_length(s, t)
    r1 = 0.5 if order == 2 else 1 / 3
    first = (t.alpha / s.alpha) * x - (t * math.expm1(h)) * e0
    one = _between(grid, s.lam + r1 * h)
    y = (one.alpha / s.alpha) * x - (one * math.expm1(r1 * h)) * e0
    e1 = (y - one.alpha * model(y, one)) / one
    second = first - (t * math.expm1(h) / (2 * r1)) * (e1 - e0)
    if order == 2:
        return first, second
    r2 = 2 / 3
    two = _between(grid, s.lam + r2 * h)
    y = (two.alpha / s.alpha) * x - (two * math.expm1(r2 * h)) * e0
    y = y - (two * (r2 / r1) * r2 * h * phi(2, r2 * h)) * (e1 - e0)
    e2 = (y - two.alpha * model(y, two)) / two
    return second, first - (t * h * phi(2, h) / r2) * (e2 - e0)


def _integrate(
    model: Any, x: torch.Tensor, grid: Grid, order: int, atol: float, rtol: float, h_init: float, safety: float,
    max_nfe: int,
) -> torch.Tensor:  # fmt: skip
    s, end, spent = grid[0], grid[-1], 0
    if not math.isfinite(s.lam):
        t = end if end.ratio >= FINITE_START else grid.schedule.level(FINITE_START, grid.frame)
        x, s, spent = exact_step(x, model(x, s), s, t), t, 1
    last = end if end > 0 else grid.schedule.level(min(grid.schedule.ratio_min, s.ratio), grid.frame)
    h, previous, e0 = h_init, x * s.scale, None
    while last.lam - s.lam > 1e-5:
        t = last if h >= last.lam - s.lam else _between(grid, s.lam + h)
        if e0 is None:
            e0, spent = (x - s.alpha * model(x, s)) / s, spent + 1
        low, high = _pair(model, x, e0, s, t, order, grid)
        spent += order - 1
        own_low, own_high = low * t.scale, high * t.scale
        delta = torch.clamp(rtol * torch.maximum(own_low.abs(), previous.abs()), min=atol)
        error = float(((own_high - own_low) / delta).reshape(len(x), -1).square().mean(1).sqrt().max())
        h = step_length(s, t)
        if not math.isfinite(error):
            h /= 4
        else:
            if error <= 1:
                x, s, previous, e0 = high, t, own_low, None
            growth = safety * error ** (-1 / order) if error > 0 else math.inf
            h = min(h * growth, last.lam - s.lam)
        if spent > max_nfe:
            raise BudgetError(
                f"more than max_nfe={max_nfe} evaluations at s = {float(s):.4g}; raise atol and rtol, or max_nfe."
            )
    if end == 0:
        x = exact_step(x, model(x, s), s, end)
    return x


def _adaptive(
    model: Any, x: torch.Tensor, grid: Grid, order: int, atol: float, rtol: float, h_init: float, safety: float,
    norm: str, max_nfe: int,
) -> torch.Tensor:  # fmt: skip
    if atol <= 0 or rtol < 0 or h_init <= 0 or not 0 < safety < 1:
        raise OptionError(f"need atol > 0, rtol >= 0, h_init > 0, 0 < safety < 1; got {atol}, {rtol}, {h_init}, {safety}.")
    if norm == "batch":
        return _integrate(model, x, grid, order, atol, rtol, h_init, safety, max_nfe)
    rows = [_integrate(model, row, grid, order, atol, rtol, h_init, safety, max_nfe) for row in x.split(1)]
    return torch.cat(rows)


def dpm_solver_12(
    model: Any,
    x: Any,
    grid: Grid,
    noise: Any,
    atol: float = 0.0078,
    rtol: float = 0.05,
    h_init: float = 0.05,
    safety: float = 0.9,
    norm: Literal["sample", "batch"] = "sample",
    max_nfe: int = 10000,
) -> Any:
    """Adaptive DPM-Solver-12: orders 1 and 2 (r1 = 1/2), the second goes on.

    Only the ends of the grid matter. A trial costs 2 evaluations (1 after a rejection: E_0 is kept). A step is accepted
    where E = RMS((high - low) / max(atol, rtol max(|low|, |previous low|))) <= 1; h <- safety h E^(-1/2), in lam.
    Source: Lu et al. 2022 (DPM-Solver), appendix C and Algorithm 3.

    Args:
        atol, rtol: Tolerances in the model's own coordinates (0.0078 = 2/256 for data in [-1, 1]).
        h_init: First step in lam.
        safety: Factor on the next step.
        norm: "sample": own steps for each; "batch": the largest error of the batch decides, as published.
        max_nfe: Give up beyond this many evaluations.

    Raises:
        BudgetError: more than max_nfe evaluations.
    """
    return _adaptive(model, x, grid, 2, atol, rtol, h_init, safety, norm, max_nfe)


def dpm_solver_23(
    model: Any,
    x: Any,
    grid: Grid,
    noise: Any,
    atol: float = 0.0078,
    rtol: float = 0.05,
    h_init: float = 0.05,
    safety: float = 0.9,
    norm: Literal["sample", "batch"] = "sample",
    max_nfe: int = 10000,
) -> Any:
    """Adaptive DPM-Solver-23: orders 2 (r1 = 1/3) and 3 (r1 = 1/3, r2 = 2/3), the third goes on.

    As `dpm-solver-12` with 3 evaluations a trial and h <- safety h E^(-1/3).
    Source: Lu et al. 2022 (DPM-Solver), appendix C and Algorithm 3.

    Args:
        atol, rtol, h_init, safety, norm, max_nfe: As in `dpm-solver-12`.

    Raises:
        BudgetError: more than max_nfe evaluations.
    """
    return _adaptive(model, x, grid, 3, atol, rtol, h_init, safety, norm, max_nfe)
