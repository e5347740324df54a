"""Graphs of two communities: data that can be drawn anew at will (the small communities of GraphRNN, You et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

SMALLEST, LARGEST = 6, 10  # nodes of a community
INSIDE, BETWEEN = 0.7, 0.05
FEATURES = 10


def communities(
    n: int, device: str | torch.device = "cpu", generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """n graphs: features X (n, 20, 10), adjacency A (n, 20, 20), both of 0 and 1, and mask (n, 20).

    Two communities of 6 to 10 nodes, an edge with probability 0.7 inside and 0.05 between them, and one edge between them
    where there is none. A node's feature is its degree, one of 1 to 10 (more count as 10), as one of ten.
    """
    sizes = torch.randint(SMALLEST, LARGEST + 1, (n, 2), device=device, generator=generator)
    place = torch.arange(2 * LARGEST, device=device)
    second = (place >= sizes[:, :1]).long()
    mask = (place < sizes.sum(dim=1, keepdim=True)).float()
    same = second[:, :, None] == second[:, None]
    pair = (mask[:, :, None] * mask[:, None]).triu(1)
    chance = torch.where(same, INSIDE, BETWEEN)
    draws = torch.rand(n, 2 * LARGEST, 2 * LARGEST, device=device, generator=generator)
    A = (draws < chance).float() * pair
    bridges = (pair * ~same).flatten(1)
    alone = (A.flatten(1) * bridges).sum(dim=1, keepdim=True) == 0
    nearest = torch.where(bridges > 0, draws.flatten(1), 2.0).argmin(dim=1)  # uniform among the pairs between
    A = torch.where(alone, A.flatten(1) + one_hot(nearest, A[0].numel()), A.flatten(1)).view_as(A)
    A = A + A.transpose(1, 2)
    degree = A.sum(dim=2).long().clamp(1, FEATURES) - 1
    return one_hot(degree, FEATURES).float() * mask[..., None], A, mask
