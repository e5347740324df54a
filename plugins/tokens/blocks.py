"""Blocks from left to right, each decoded before the next is begun."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

import solverkit as sk
from solverkit import Grid
from solverkit.errors import BudgetError, OptionError
from solverkit.tokens import numbered

from .chosen import chosen_first, drawn_first


def block_of(model: Any, size: int) -> tuple[Tensor, int]:
    """(B, L) the number of each free position's block, counted from the first free one, and how many there are."""
    if size < 1:
        raise OptionError(f"a block needs at least one token, got block={size}.")
    place = model.free.long().cumsum(dim=1) - 1
    number = torch.where(model.free, place.clamp(min=0) // size, -1)
    return number, int(number.max()) + 1


def _looks(options: dict[str, Any]) -> bool:
    """Whether a token is drawn before it is kept, and kept by its own probability."""
    return bool(options["sequence"] == "sample-then-choose" and options["by"] == "max")


@sk.sampler(
    "blocks",
    exact=lambda options: "" if _looks(options) else "one-token",
    biased=lambda options: _looks(options),
    reference="Arriola et al. 2025 (block diffusion); Nie et al. 2025 (LLaDA, semi-autoregressive)",
    cite="arriola2025 nie2025",
    variants=({"block": 2}, {"block": 2, "sequence": "sample-then-choose"}),
)
def blocks(
    model: Any,
    x: Tensor,
    grid: Grid,
    noise: Any,
    block: int = 32,
    by: Literal["max", "margin", "entropy", "random"] = "max",
    sequence: Literal["choose-then-sample", "sample-then-choose"] = "choose-then-sample",
) -> Tensor:
    """Steps are shared out among the blocks by their tokens, and in a block each of its steps reveals the same number.

    Args:
        block: Free positions in a block.
        by: Which positions of the block come first, as of `choose-then-sample`; "max" is the drawn token's probability
            where tokens are drawn first.
        sequence: Whether positions are chosen before tokens are drawn; the other way round is LLaDA's.

    Raises:
        BudgetError: fewer steps than blocks.
    """
    number, count = block_of(model, block)
    n = grid.run_steps
    if n < count:
        raise BudgetError(
            f"{count} blocks of {block} tokens need at least {count} steps, got {n}: larger blocks, or more steps."
        )
    free = model.free.sum(dim=1).clamp(min=1)
    first = sequence == "choose-then-sample"
    for k, s, _ in numbered(grid):
        now = torch.full_like(free, count - 1) if k == n - 1 else k * free // n // block
        last = -(-torch.minimum((now + 1) * block, free) * n // free)  # one past the last step of the block
        masked = (x == model.mask) & (number <= now[:, None])
        due = -(-masked.sum(dim=1) // (last - k).clamp(min=1))
        reveal = chosen_first if first else drawn_first
        x = reveal(model, x, model(x, s), masked, due, by if first or by != "max" else "drawn", k, noise)
    return x
