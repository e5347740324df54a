"""Path planning: every token is drawn anew, the least certain are masked."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

import solverkit as sk
from solverkit import Grid
from solverkit.errors import OptionError
from solverkit.tokens import masked_in, numbered, top


@sk.sampler(
    "p2",
    biased=lambda options: options["score"] == "log-p",
    exact=lambda options: "one-token" if options["score"] == "random" and options["eta"] == 0 else "",
    reference="Peng et al. 2025, arXiv 2502.03540 (P2)",
    cite="peng2025",
    variants=({"score": "random", "eta": 0.0}, {"eta": 0.0}, {"released": True}),
)
def p2(
    model: Any,
    x: Tensor,
    grid: Grid,
    noise: Any,
    score: Literal["log-p", "random"] = "log-p",
    eta: float = 1.0,
    released: bool = False,
) -> Tensor:
    """x_0 drawn at all positions; then the floor(m_t F) of F free positions with the lowest score are masked.

    A position that was masked and is not any more takes its draw. eta = 0 never masks a revealed token again, eta > 1
    does so more often. `score="random", eta=0` reveals random positions. Scores of revealed tokens come from the planner
    where the model has one (`solverkit.tokens.planned`): one more evaluation a step.

    Args:
        score: log p of the drawn token (at revealed positions: of the token that is there), or random numbers in (-1, 0).
        eta: Factor of the scores (negative) of revealed tokens.
        released: At revealed positions, the score of the fresh draw, which is not what stays there.
    """
    if eta < 0:
        raise OptionError(f"p2 needs eta >= 0, got {eta}.")
    for k, s, t in numbered(grid):
        log_c = model(x, s, complete=True)
        masked = x == model.mask
        drawn = noise.token(log_c, k, model.free)
        rated = drawn if released else torch.where(masked, drawn, x)
        log_p = log_c if model.planner is None else torch.where(masked[..., None], log_c, model.planner(x, s))
        rank = noise.order(k) - 1 if score == "random" else log_p.double().gather(-1, rated[..., None])[..., 0]
        rank = torch.where(masked, rank, eta * rank.clamp(min=-1e300))
        hidden = top(-rank, model.free, masked_in(model.free, t))
        x = torch.where(hidden, model.mask, torch.where(masked & model.free, drawn, x))
    return x
