"""Adaptive Runge-Kutta of orders 5 and 4 (Dormand and Prince 1980) on batches, in float64.

Forward or backward in the variable. Either all samples share their steps (the largest error decides, one call a stage), or
each has its own, so that its result does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from ..errors import BudgetError, OptionError

# Dormand and Prince 1980, Table 2: nodes, stages, the fifth-order weights (= the last stage), and fifth minus fourth
NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
DIFFERENCE = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)

Slope = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Solution(NamedTuple):
    """Where each sample arrived, and how many steps (accepted, and tried) it took; all (B, ...) or (B,)."""

    y: torch.Tensor
    accepted: torch.Tensor
    tried: torch.Tensor


def integrate(
    slope: Slope,
    y: torch.Tensor,
    start: float,
    end: float,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    shared: bool = True,
    max_steps: int = 10_000,
) -> Solution:
    """Solve dy/du = slope(y, u, rows) from u = start to u = end.

    A step is accepted where the root mean square of (error / (atol + rtol max(|y|, |y_new|))) over a sample is at most 1.

    Args:
        slope: slope(y, u, rows) -> dy/du of the samples `rows` (indices into the batch); y (b, ...), u (b,) float64.
        y: (B, ...), float64.
        start, end: Of the variable; end may lie below start.
        rtol, atol: Tolerances of one step.
        shared: All samples take the same steps; False gives each its own.
        max_steps: Most steps that one sample may try.

    Raises:
        OptionError: tolerances that are not positive.
        BudgetError: more than max_steps.
    """
    if not (rtol >= 0 and atol >= 0 and rtol + atol > 0 and max_steps > 0):
        raise OptionError(f"tolerances must be positive, got rtol={rtol}, atol={atol}, max_steps={max_steps}.")
    y, n = y.clone(), len(y)
    sign = 1.0 if end >= start else -1.0
    u = torch.full((n,), start, dtype=torch.float64)
    h = torch.full((n,), abs(end - start) / 100, dtype=torch.float64)
    tried, accepted = torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.long)
    first = torch.zeros_like(y)  # the slope at (y, u): the last stage of an accepted step is the first of the next
    known = torch.zeros(n, dtype=torch.bool)
    active = (u - end).abs() > 1e-12 * max(abs(start), abs(end), 1.0)
    while bool(active.any()):
        rows = active.nonzero().flatten()
        fresh = rows[~known[rows]]
        if len(fresh):
            first[fresh], known[fresh] = slope(y[fresh], u[fresh], fresh), True
        step = torch.minimum(h[rows], (end - u[rows]).abs())
        slopes, here = [first[rows]], y[rows]
        wide = (sign * step).reshape(-1, *[1] * (y.ndim - 1)).to(y)
        for node, weights in zip(NODES[1:], STAGES[1:]):
            moved = here + wide * sum(w * k for w, k in zip(weights, slopes) if w)
            slopes.append(slope(moved, u[rows] + sign * node * step, rows))
        error = wide * sum(w * k for w, k in zip(DIFFERENCE, slopes) if w)
        scale = atol + rtol * torch.maximum(here.abs(), moved.abs())
        ratio = (error / scale).flatten(1).square().mean(1).sqrt().cpu()
        if shared:
            ratio = ratio.max().expand_as(ratio)
        good = ratio <= 1
        tried[rows] += 1
        done = rows[good]
        accepted[done] += 1
        y[done], first[done] = moved[good], slopes[-1][good]
        u[done] = u[done] + sign * step[good]
        growth = torch.where(torch.isfinite(ratio), (0.9 * ratio.clamp_min(1e-10) ** -0.2).clamp(0.2, 5.0), 0.2)
        h[rows] = step * torch.where(good, growth, growth.clamp_max(1.0))
        active = (u - end).abs() > 1e-12 * max(abs(start), abs(end), 1.0)
        if int(tried.max()) >= max_steps and bool(active.any()):
            raise BudgetError(
                f"more than max_steps={max_steps} steps at u = {float(u[rows[0]]):.4g}; raise rtol and atol, or max_steps."
            )
    return Solution(y, accepted, tried)
