"""Adaptive Runge-Kutta of orders 5 and 4 (Dormand and Prince 1980) on batches, in float64.

Forward or backward in the variable. Each sample has its own steps, so that its result does not depend on its batch, or all
share them (the largest error decides, one call a stage); see `step_size`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from ..errors import BudgetError, OptionError
from .precision import column
from .step_size import Control, LadderSteps, SharedSteps, Steps

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

CONTROL = Control(order=5)
FIRST = 128  # the first step is this part of the way

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
    shared: bool = False,
    max_steps: int = 10_000,
    together: bool = False,
) -> Solution:
    """Solve dy/du = slope(y, u, rows) from u = start to u = end.

    A step is accepted where the root mean square of (error / (atol + rtol max(|y|, |y_new|))) over a sample is at most 1.

    Args:
        slope: slope(y, u, rows) -> dy/du of the samples `rows` (indices into the batch); y (b, ...), u (b,) float64.
        y: (B, ...), float64, on any device that has it.
        start, end: Of the variable; end may lie below start.
        rtol, atol: Tolerances of one step.
        shared: All samples take the same steps; False gives each its own.
        max_steps: Most steps that one sample may try.
        together: Ask about all samples in every round, where slope answers as quickly at many u as at one.

    Raises:
        OptionError: tolerances that are not positive.
        BudgetError: more than max_steps, or a step that underflows.
    """
    if not (rtol >= 0 and atol >= 0 and rtol + atol > 0 and max_steps > 0):
        raise OptionError(f"tolerances must be positive, got rtol={rtol}, atol={atol}, max_steps={max_steps}.")
    y, n, first = y.clone(), len(y), abs(end - start) / FIRST
    steps: Steps = (
        SharedSteps(n, start, end, first, CONTROL) if shared else LadderSteps(n, start, end, first, CONTROL, together)
    )
    tried, accepted = torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.long)
    known = torch.zeros(n, dtype=torch.bool)
    begun = torch.zeros_like(y)  # the slope at (y, u): the last stage of an accepted step is the first of the next
    while len(rows := steps.rows()):
        if int(tried[rows].max()) >= max_steps:
            raise BudgetError(
                f"more than max_steps={max_steps} steps at u = {float(steps.ends(rows)[0][0]):.4g}; raise rtol and "
                "atol, or max_steps."
            )
        u, v = steps.ends(rows)
        fresh = ~known[rows]
        if bool(fresh.any()):
            new = rows[fresh]
            begun[new], known[new] = slope(y[new], u[fresh], new), True
        slopes, here, h = [begun[rows]], y[rows], column(v - u, y)
        for node, weights in zip(NODES[1:], STAGES[1:]):
            moved = here + h * sum(w * k for w, k in zip(weights, slopes) if w)
            slopes.append(slope(moved, u + node * (v - u), rows))
        error = h * sum(w * k for w, k in zip(DIFFERENCE, slopes) if w)
        scale = atol + rtol * torch.maximum(here.abs(), moved.abs())
        ratio = (error / scale).flatten(1).square().mean(1).sqrt().cpu()
        good = steps.judge(rows, ratio)
        tried[rows] += 1
        done = rows[good]
        accepted[done] += 1
        y[done], begun[done] = moved[good], slopes[-1][good]
    return Solution(y, accepted, tried)
