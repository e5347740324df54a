"""PNDM: the constant Adams-Bashforth weights of iPNDM behind a start of second or fourth order."""

from __future__ import annotations

from typing import Any, Literal

import solverkit as sk
from solverkit import Grid, Level

from .multistep import IPNDM


def _slope(model: Any, x: Any, s: Level) -> Any:
    return (x - model(x, s)) / s


def _middle(grid: Grid, s: Level, t: Level) -> Level:
    """The level midway between s and t in the network's own time."""
    return grid.at(grid.schedule.level(grid.schedule.ratio((s.time + t.time) / 2), grid.frame))


@sk.sampler(
    "pndm",
    order=2,
    smooth_steps=True,
    reference="Liu et al. 2022, arXiv 2202.09778",
    cite="liu2022pndm",
    option_examples=({"start": "prk"},),
    multistep=True,
    lower=("euler", {}),
)
def pndm(model: Any, x: Any, grid: Grid, noise: Any, start: Literal["plms", "prk"] = "plms") -> Any:
    """PNDM: x+ = x + (t - s) (55 d_0 - 59 d_1 + 37 d_2 - 9 d_3) / 24 on the slopes d = (x - D) / s, after a start.

    "plms": the first step is Heun's, x+ = x + (t - s) (d_s + d_t) / 2; then two, three and four slopes (N + 1 evaluations
    for N steps). "prk": the first three steps are classical Runge-Kutta steps with the stages midway in the network's
    time, four evaluations each (N + 9); then four slopes. A step to 0 within the first three is Euler's.
    One evaluation a step after the start. Order 2 where the steps change smoothly, 3 where they are equal. The slope
    at the end of Heun's step is not kept: the step that follows asks again, at the corrected state.
    With velocities, diffusers combines the outputs of the network and turns the sum into a slope at the newest state; here
    each becomes a slope at its own, which is the method of the paper.
    Source: Liu et al. 2022 (PNDM), Algorithm 2 ("prk"); "plms" is the start of the released code of latent diffusion.

    Args:
        start: "plms" (skip_prk_steps of diffusers), or "prk".
    """
    history: list[Any] = []
    for i, (s, t) in enumerate(grid.steps()):
        d = sk.keep(_slope(model, x, s))
        history = [d, *history[:3]]
        if t == 0 and i < 3:
            x = x + (t - s) * d
        elif start == "prk" and i < 3:
            m = _middle(grid, s, t)
            y = x + (m - s) * d
            d2 = _slope(model, y, m)
            y = x + (m - s) * d2
            d3 = _slope(model, y, m)
            y = x + (t - s) * d3
            x = x + ((t - s) / 6) * (d + 2 * d2 + 2 * d3 + _slope(model, y, t))
        elif start == "plms" and i == 0:
            y = x + (t - s) * d
            x = x + ((t - s) / 2) * (d + _slope(model, y, t))
        else:
            x = x + sum(((t - s) * w) * d for w, d in zip(IPNDM[len(history) - 1], history))
    return x
