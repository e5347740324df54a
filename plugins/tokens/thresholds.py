"""Decoders that set their own pace: as many tokens at once as are certain enough."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import solverkit as sk
from solverkit import Grid
from solverkit.errors import OptionError
from solverkit.tokens import masked_in, negative_entropy, numbered, top
from solverkit.tokens.steps import highest

from .blocks import block_of


def open_block(model: Any, x: Tensor, number: Tensor) -> Tensor:
    """(B, L) bool: the masked positions of each sample's first block that has any."""
    masked = x == model.mask
    first = torch.where(masked, number, number.max() + 1).amin(dim=1, keepdim=True)
    return masked & (number == first)


@sk.sampler(
    "threshold",
    own_pace=True,
    exact=lambda options: "one-token" if options["confidence"] >= 1 else "",
    reference="Wu et al. 2025, arXiv 2505.22618 (Fast-dLLM)",
    cite="wu2025",
    variants=({"confidence": 1.0}, {"block": 2}),
)
def threshold(model: Any, x: Tensor, grid: Grid, noise: Any, confidence: float = 0.9, block: int = 0) -> Tensor:
    """Every position of the block where max c > confidence is drawn, and the most certain one in any case.

    Ends when nothing is masked; the grid's last step reveals what a budget left. Positions are chosen before tokens are
    drawn: the published decoder takes the probability of the drawn token, and draws at temperature 0.

    Args:
        confidence: 1 reveals one token an evaluation.
        block: Positions in a block, decoded from left to right; 0: all are one.
    """
    number = block_of(model, block or x.shape[1])[0]
    for k, s, t in numbered(grid):
        if not bool((x == model.mask).any()):
            break
        log_c, masked = model(x, s), open_block(model, x, number)
        certain = highest(log_c)
        revealed = masked & (certain.exp() > confidence) | top(certain, masked, 1)
        if t == 0:
            revealed = x == model.mask
        x = torch.where(revealed, noise.token(log_c, k, revealed), x)
    return x


@sk.sampler(
    "entropy-bounded",
    own_pace=True,
    exact=lambda options: "one-token" if options["gamma"] == 0 else "",
    reference="Ben-Hamu et al. 2025, arXiv 2505.24857",
    cite="benhamu2025",
    variants=({"gamma": 0.0}, {"gamma": 1.0}),
)
def entropy_bounded(model: Any, x: Tensor, grid: Grid, noise: Any, gamma: float = 0.1) -> Tensor:
    """The k positions of lowest entropy, as many as sum_(j <= k) H_j - H_k <= gamma allows, and one in any case.

    That sum bounds how much the joint law of the k tokens differs from independent draws. Ends when nothing is masked; the
    grid's last step reveals what a budget left.

    Args:
        gamma: In nats; 0 reveals one token an evaluation.
    """
    if gamma < 0:
        raise OptionError(f"entropy-bounded needs gamma >= 0, got {gamma}.")
    for k, s, t in numbered(grid):
        if not bool((x == model.mask).any()):
            break
        log_c, masked = model(x, s), x == model.mask
        entropy = torch.where(masked, -negative_entropy(log_c), torch.inf)
        ranked = entropy.sort(dim=1).values
        before = torch.where(ranked < torch.inf, ranked, 0.0).cumsum(dim=1) - ranked
        count = ((before <= gamma) & (ranked < torch.inf)).long().cumprod(dim=1).sum(dim=1) if gamma > 0 else 1
        revealed = masked if t == 0 else top(-entropy, masked, count)
        x = torch.where(revealed, noise.token(log_c, k, revealed), x)
    return x


@sk.sampler(
    "block-refinement",
    own_pace=True,
    biased=True,
    reference="Bie et al. 2025 (LLaDA 2.0); diffusers' BlockRefinementScheduler",
    cite="bie2025",
    variants=({"block": 2}, {"edit": 0.9}),
)
def block_refinement(
    model: Any, x: Tensor, grid: Grid, noise: Any, confidence: float = 0.95, block: int = 32, edit: float = 1.0
) -> Tensor:
    """A token is drawn at every masked position of the block; those above the confidence are kept if they are at least the
    scheduled number floor(m_s F) - floor(m_t F), else so many of the most probable ones. Level 0 reveals the rest.
    Biased by the drawn token's probability, as released.

    Args:
        confidence: Of the drawn token.
        block: Free positions in a block, from left to right.
        edit: A revealed token of the block is replaced by a draw of higher probability than this; 1: never.
    """
    number = block_of(model, block)[0]
    for k, s, t in numbered(grid):
        if not bool((x == model.mask).any()):
            break
        log_c, masked = model(x, s, complete=edit < 1), open_block(model, x, number)
        place = torch.where(masked, number, -1).amax(dim=1, keepdim=True)
        block_now = model.free & (number == place) if edit < 1 else masked
        drawn = noise.token(log_c, k, block_now if t > 0 else block_now | (x == model.mask))
        p = log_c.double().gather(-1, drawn[..., None])[..., 0].exp()
        sure = masked & (p > confidence)
        scheduled = (masked_in(model.free, s) - masked_in(model.free, t)).clamp(min=1)
        revealed = torch.where((sure.sum(dim=1) >= scheduled)[:, None], sure, top(p, masked, scheduled))
        revealed = revealed | (block_now & (x != model.mask) & (p > edit))
        x = torch.where(revealed if t > 0 else revealed | (x == model.mask), drawn, x)
    return x
