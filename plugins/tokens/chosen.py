"""Confidence decoders, the two orders told apart: positions are chosen before their tokens are drawn, or after.

At temperature 1 the second is biased even with exact conditionals and one token a step (`benchmarks/tokens_findings.py
confidence`): a token that was drawn is kept because it is likely, so likely tokens are drawn too often.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

import solverkit as sk
from solverkit import Grid
from solverkit.tokens import margin, masked_in, negative_entropy, numbered, top
from solverkit.tokens.steps import highest

By = Literal["max", "margin", "entropy", "random"]
Kept = Literal["drawn", "margin", "entropy", "random"]
SCORES = {"max": highest, "margin": margin, "entropy": negative_entropy}


def certainty(log_c: Tensor, by: str, k: int, noise: Any, drawn: Tensor | None = None) -> Tensor:
    """(B, L): how certain a position is; "drawn" is the probability of the token that was drawn there."""
    if by == "random":
        return noise.order(k)  # type: ignore[no-any-return]
    if by == "drawn":
        assert drawn is not None
        return log_c.double().gather(-1, drawn[..., None])[..., 0]
    return SCORES[by](log_c)


def chosen_first(model: Any, x: Tensor, log_c: Tensor, where: Tensor, count: Any, by: str, k: int, noise: Any) -> Tensor:
    """The `count` most certain of `where`, then a draw at each."""
    revealed = top(certainty(log_c, by, k, noise), where, count)
    return torch.where(revealed, noise.token(log_c, k, revealed), x)


def drawn_first(model: Any, x: Tensor, log_c: Tensor, where: Tensor, count: Any, by: str, k: int, noise: Any) -> Tensor:
    """A draw at each of `where`, then the `count` most certain are kept."""
    drawn = noise.token(log_c, k, where)
    revealed = top(certainty(log_c, by, k, noise, drawn), where, count)
    return torch.where(revealed, drawn, x)


def due(model: Any, x: Tensor, t: float) -> Tensor:
    """(B,) how many masked tokens must be revealed for floor(m_t F) to be left."""
    return ((x == model.mask).sum(dim=1) - masked_in(model.free, t)).clamp(min=0)


@sk.sampler(
    "choose-then-sample",
    exact="one-token",
    reference="Chang et al. 2022 (MaskGIT); Ye et al. 2025 (Dream), orders",
    cite="chang2022 ye2025",
    variants=({"by": "margin"}, {"by": "entropy"}, {"by": "random"}),
)
def choose_then_sample(model: Any, x: Tensor, grid: Grid, noise: Any, by: By = "max") -> Tensor:
    """The positions where c is most certain are chosen, then their tokens are drawn from c; floor(m_t F) stay masked.

    Exact with one token a step (any-order autoregression in an order that depends on what is known). With several it
    prefers neighbours of known tokens, which are the dependent ones.

    Args:
        by: max c, its margin to the second, minus its entropy, or a random order.
    """
    for k, s, t in numbered(grid):
        x = chosen_first(model, x, model(x, s), x == model.mask, due(model, x, t), by, k, noise)
    return x


@sk.sampler(
    "sample-then-choose",
    biased=lambda options: options["by"] == "drawn",
    exact=lambda options: "" if options["by"] == "drawn" else "one-token",
    reference="Nie et al. 2025 (LLaDA), low-confidence remasking; Ye et al. 2025 (Dream)",
    cite="nie2025 ye2025",
    variants=({"by": "random"}, {"by": "margin"}, {"by": "entropy"}, {"released": True}),
)
def sample_then_choose(model: Any, x: Tensor, grid: Grid, noise: Any, by: Kept = "drawn", released: bool = False) -> Tensor:
    """A token is drawn at every masked position, and the most certain ones are kept (the released order).

    Args:
        by: The probability of the drawn token (LLaDA, Dream's maskgit_plus), or a score that does not see it: margin,
            entropy (Dream), random.
        released: Dream's counts, floor(masked (1 - t / s)) with the mean of the batch: from m = 0.999 on the first step
            may reveal nothing, and the last one two or more (`benchmarks/tokens_findings.py dream`).
    """
    for k, s, t in numbered(grid):
        masked = x == model.mask
        count: Any = due(model, x, t)
        if released and t > 0:
            count = int(float(masked.sum(dim=1).double().mean()) * (1 - t / s))
        x = drawn_first(model, x, model(x, s), masked, count, by, k, noise)
    return x
