"""Every masked token on its own: revealed with a probability that depends on the levels alone, drawn from c."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import solverkit as sk
from solverkit import Grid
from solverkit.tokens import numbered

RADD = "Ou et al. 2025, arXiv 2406.03736"


def reveal(model: Any, x: Tensor, log_c: Tensor, q: float | Tensor, k: int, noise: Any) -> Tensor:
    """Each masked position revealed with probability q, its token drawn from c."""
    revealed = noise.happens(q, k, x == model.mask)
    return torch.where(revealed, noise.token(log_c, k, revealed), x)


@sk.sampler("ancestral", order=1, exact="", reference=f"{RADD}, eq. 3.7; Sahoo et al. 2024 (MDLM)", cite="ou2025 sahoo2024")
def ancestral(model: Any, x: Tensor, grid: Grid, noise: Any) -> Tensor:
    """The reverse process with c frozen over a step: q = (m_s - m_t) / m_s.

    The same law under three names: Tweedie tau-leaping (RADD), the analytic sampler (SEDD), MDLM's ancestral sampler.
    One evaluation a step, none where nothing changed.
    """
    for k, s, t in numbered(grid):
        x = reveal(model, x, model(x, s), (s - t) / s, k, noise)
    return x


def rate(model: Any, s: float, t: float) -> float:
    """(time from s to t) m'(s) / m(s): what one step reveals of a masked token at the rate of its beginning."""
    process = model.process
    began, ends = process.time_of(s), process.time_of(t)
    return float((began - ends) * process.slope(began) / s)


@sk.sampler("euler", order=1, reference=f"{RADD}, eq. 3.5 (Euler tau-leaping)", cite="ou2025")
def euler(model: Any, x: Tensor, grid: Grid, noise: Any) -> Tensor:
    """Euler's step in the process's own time: q = dt m'(t) / m(t), at most 1; all that is left at level 0.

    On a log-linear process it is `ancestral` (but for the levels above its m(1)).
    """
    for k, s, t in numbered(grid):
        q = 1.0 if t == 0 else min(rate(model, s, t), 1.0)
        x = reveal(model, x, model(x, s), q, k, noise)
    return x


@sk.sampler(
    "tau", order=1,
    reference="Campbell et al. 2022, arXiv 2205.14987 (tau-leaping); Gat et al. 2024", cite="campbell2022 gat2024",
)
def tau(model: Any, x: Tensor, grid: Grid, noise: Any) -> Tensor:
    """The rate of the step's beginning kept for the whole step: q = 1 - exp(-dt m'(t) / m(t)); all that is left at level 0.

    The same order as `ancestral`, with a larger error: it reveals too little in a step and the rest in the last one.
    """
    for k, s, t in numbered(grid):
        q = 1.0 if t == 0 else -math.expm1(-rate(model, s, t))
        x = reveal(model, x, model(x, s), q, k, noise)
    return x
