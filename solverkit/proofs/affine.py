"""The exact law of a run on a Gaussian target: everything is affine in the start and the draws, so one run tells all.

Row 0 of a batch is run without noise; every other row has a 1 in one place of one draw. The rows' differences to row 0 are
the columns of the affine map, and covariances follow to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from ..grid.grid import Grid
from ..plan.plan import advance, begin
from ..plan.trace import trace
from ..run.noise import CONSTRAINT, Noise


class _Units:
    """draw(ordinal, s, t): the next draw of the run has its own rows."""

    def __init__(self, rows: int, dim: int) -> None:
        self.rows, self.dim, self.places = rows, dim, {}  # type: ignore[var-annotated]

    def __call__(self, ordinal: int, s: float, t: float) -> torch.Tensor:
        first = 1 + self.dim * self.places.setdefault((ordinal, float(s), float(t)), len(self.places))
        out = torch.zeros(self.rows, self.dim, dtype=torch.float64)
        width = min(self.dim, self.rows - first)  # beyond the rows there is nothing yet to see
        if width > 0:
            out[first : first + width, :width] = torch.eye(width, dtype=torch.float64)
        return out


def affine_law(
    sampler: Any, denoiser: Any, grid: Grid, constrain: Callable[..., torch.Tensor] | None = None, **options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (D,) and covariance (D, D) of a traceable sampler's result, float64.

    The start is the schedule's prior, as in `sk.sample`.

    Args:
        sampler: A name, a card or a function.
        denoiser: Affine in x, for samples of one dimension (D,): of a Gaussian, guided by what is linear or not at all.
        grid: Of the run.
        constrain: As in `sk.sample`; affine in x.
        options: Of the sampler.
    """
    plan, dim = trace(sampler, grid, **options), denoiser.shape[0]
    rows = 1
    while True:
        draw = _Units(rows, dim)
        own = draw(-1, math.inf, math.inf)  # the start
        edits = Noise(lambda ordinal, s, t, draw=draw: draw(CONSTRAINT + ordinal, s, t))  # type: ignore[misc]
        x, state = begin(plan, (grid.schedule.prior_std(grid[0]) / grid[0].scale) * own, draw)
        for j, (level, boundary) in enumerate(zip(plan.levels, plan.boundary)):
            if boundary and constrain is not None:
                x = constrain(x, level, edits)
            x, state = advance(plan, state, x, plan.ask(j, denoiser, x), draw)
        if constrain is not None and grid[-1] == 0:
            x = getattr(constrain, "finish", lambda y: y)(x)
        needed = 1 + dim * len(draw.places)
        if needed == rows:
            columns = x[1:] - x[0]
            return x[0] * grid[-1].scale, columns.T @ columns * grid[-1].scale**2
        rows = needed
