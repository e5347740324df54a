"""What authors of decoders need twice: numbered steps, the most certain positions, scores of a distribution."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..grid.grid import Grid
from ..process.level import Level


def numbered(grid: Grid) -> Iterator[tuple[int, Level, Level]]:
    """(k, s, t): the step's number in the whole run, and its levels; draws belong to k."""
    for i, (s, t) in enumerate(grid.steps()):
        yield grid.before + i, s, t


def top(score: Tensor, where: Tensor, count: int | Tensor) -> Tensor:
    """(B, L) bool: the `count` (one a sample, or one for all) positions of highest score among `where`; the leftmost of
    equal ones.
    """
    ranked = torch.where(where, score.double(), -math.inf).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(score.shape[1], device=score.device).expand_as(ranked)
    rank = torch.empty_like(ranked).scatter_(1, ranked, places)
    count = count[:, None] if isinstance(count, Tensor) else count
    return (rank < count) & where


def masked_in(free: Tensor, m: float) -> Tensor:
    """(B,) how many of the free positions are masked at level m: floor(m F)."""
    return (free.sum(dim=1).double() * float(m) + 1e-9).floor().long()


def highest(log_p: Tensor) -> Tensor:
    """The largest log-probability of each position, (B, L)."""
    return log_p.amax(dim=-1).double()


def margin(log_p: Tensor) -> Tensor:
    """p of the likeliest token less that of the second, (B, L)."""
    first, second = log_p.double().exp().topk(2, dim=-1).values.unbind(-1)
    return first - second


def negative_entropy(log_p: Tensor) -> Tensor:
    """sum p log p, (B, L)."""
    p = log_p.double().exp()
    return -torch.special.entr(p).sum(dim=-1)
