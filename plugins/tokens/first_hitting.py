"""First hitting: simulate when each token is revealed, one at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import solverkit as sk
from solverkit import Grid
from solverkit.tokens import top


@sk.sampler(
    "first-hitting", exact="always", evaluations=lambda n, options: n, own_pace=True,
    reference="Zheng et al. 2024, arXiv 2409.02908",
    cite="zheng2025masked",
)  # fmt: skip
def first_hitting(model: Any, x: Tensor, grid: Grid, noise: Any) -> Tensor:
    """With l tokens masked at level m the next one is revealed at m u^(1/l), at a uniformly random position, from c.

    Exact at every budget: one evaluation for each masked token, whatever the grid. A network that is told no time never
    sees the level: the order is uniformly random, and this is any-order autoregression.
    """
    level = torch.full((len(x),), float(grid[0]), dtype=torch.float64, device=x.device)
    for k in range(x.shape[1]):
        masked = x == model.mask
        left = masked.sum(dim=1)
        if not bool(left.any()):
            break
        level = level * noise.one(k) ** (1 / left.clamp(min=1))
        log_c = model(x, level)
        revealed = top(noise.order(k), masked, 1)
        x = torch.where(revealed, noise.token(log_c, k, revealed), x)
    return x
