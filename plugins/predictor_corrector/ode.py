"""The probability-flow ODE by an adaptive Runge-Kutta method: the black-box solver of Song et al. 2021."""

from __future__ import annotations

from typing import Any, Literal

import torch

import solverkit as sk
from solverkit import Grid, Level
from solverkit.flow.flow_map import norm as spread
from solverkit.flow.precision import precise, sent
from solverkit.flow.rows import takes_rows
from solverkit.flow_map import FlowField
from solverkit.process.level import from_ratio

LARGEST = 1e6  # sigma / alpha where an integration from alpha = 0 begins: there x is pure noise to six digits


class _Asked:
    """A sampler's model on its grid, as a denoiser."""

    def __init__(self, model: Any, grid: Grid) -> None:
        self.model, self.schedule, self.takes_rows = model, grid.schedule, takes_rows(model)

    def __call__(self, x: torch.Tensor, level: Any) -> torch.Tensor:
        return self.model(x, level)  # type: ignore[no-any-return]


@sk.sampler(
    "rk45", traceable=False,
    reference="Dormand and Prince 1980; Song et al. 2021, section 4.3", cite="dormand1980 song2021sde",
)
def rk45(
    model: Any,
    x: Any,
    grid: Grid,
    noise: Any,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    norm: Literal["sample", "batch"] = "sample",
    max_steps: int = 10_000,
) -> Any:
    """Dormand-Prince 5(4) on the probability flow, in u = log s and on states of unit spread, in float64.

    Only the ends of the grid matter; a run that ends at 0 goes to the smallest trained level and takes the denoised
    prediction there. A step costs 6 evaluations (7 the first). Deterministic; its steps depend on what the network answers.
    Steps of their own are powers of two times the first, so that samples meet at common levels and share calls there.
    `solverkit.flow_map` has the same as a map from noise to data and back.
    Source: Dormand and Prince 1980, Table 2; Song et al. 2021, section 4.3 (scipy's RK45 at 1e-5 there).

    Args:
        rtol, atol: Tolerances of a step, on coordinates of order 1.
        norm: "sample": each has its own steps; "batch": the largest error decides for all, with one call a stage.
        max_steps: Give up beyond this many steps of one sample.

    Raises:
        BudgetError: more than max_steps, or a step that underflows.
        NonFiniteError: NaN or inf in an answer of the network.
    """
    schedule, frame, end = grid.schedule, grid.frame, grid[-1]
    top: Level = grid[0] if grid[0].alpha > 0 else schedule.at(from_ratio(LARGEST, frame), snap=False)
    lowest = from_ratio(min(schedule.ratio_min, top.ratio), frame)
    last: Level = end if end > 0 else schedule.at(lowest, snap=False)
    if last < top:
        flow, z = FlowField(_Asked(model, grid), x.dtype, x.device), precise(x) / spread(top)
        z = flow.solve(z, top, last, rtol, atol, norm == "batch", max_steps).y
        x = sent(z * spread(last), x.dtype, x.device)
    return model(x, last) if end == 0 else x
