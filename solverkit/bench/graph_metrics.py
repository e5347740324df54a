"""How near generated graphs are to real ones: maximum mean discrepancies of degrees, clustering and orbits.

The kernels are GraphRNN's (You et al. 2018) as GDSS uses them: exp(-d^2 / (2 w^2)) with d the earth mover's distance of the
degree histograms (w = 1, degrees) and of the clustering histograms (w = 0.1), and the Euclidean distance of the mean orbit
counts (w = 30). The estimate of MMD^2 is unbiased, so real graphs score 0 on average, and may be negative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

BINS = 100
# orbits 4 .. 14 of connected graphlets of four nodes, by its sorted degrees and the node's own (Przulj 2007)
ORBITS: Mapping[tuple[int, ...], Mapping[int, int]] = {
    (1, 1, 2, 2): {1: 4, 2: 5}, (1, 1, 1, 3): {1: 6, 3: 7}, (2, 2, 2, 2): {2: 8}, (1, 2, 2, 3): {1: 9, 2: 10, 3: 11},
    (2, 2, 3, 3): {2: 12, 3: 13}, (3, 3, 3, 3): {3: 14},
}  # fmt: skip


class Discrepancy(NamedTuple):
    """MMD^2, and the standard error of it over the generated graphs (jackknife)."""

    value: float
    error: float


def degrees(A: Tensor, mask: Tensor) -> Tensor:
    """Histograms (B, N) of the degrees of graphs A (B, N, N) of 0 and 1, mask (B, N); rows add up to 1."""
    own = A.sum(dim=2).round().long()
    counts = torch.zeros(len(A), A.shape[1], dtype=torch.float64).scatter_add_(1, own, mask.double())
    return counts / mask.sum(dim=1, keepdim=True)


def local_clustering(A: Tensor) -> Tensor:
    """Local clustering coefficients (B, N): triangles over pairs of neighbours, 0 with fewer than two."""
    A = A.double()
    degree = A.sum(dim=2)
    triangles = (A @ A @ A).diagonal(dim1=1, dim2=2) / 2
    return triangles / (degree * (degree - 1) / 2).clamp_min(1)


def clustering(A: Tensor, mask: Tensor) -> Tensor:
    """Histograms (B, 100) of the local clustering coefficients."""
    place = (local_clustering(A) * BINS).long().clamp(0, BINS - 1)
    counts = torch.zeros(len(A), BINS, dtype=torch.float64).scatter_add_(1, place, mask.double())
    return counts / mask.sum(dim=1, keepdim=True)


def orbit_counts(A: Tensor) -> Tensor:
    """(B, N, 15): how often each node is in each orbit of connected graphlets of 2 to 4 nodes, by enumeration."""
    A = A.double()
    B, N, _ = A.shape
    counts = torch.zeros(B, N, 15, dtype=torch.float64)
    degree, triangles = A.sum(dim=2), (A @ A @ A).diagonal(dim1=1, dim2=2) / 2
    counts[..., 0] = degree
    counts[..., 1] = (A @ (degree - 1)[..., None])[..., 0] - 2 * triangles  # ends of paths of three
    counts[..., 2] = degree * (degree - 1) / 2 - triangles
    counts[..., 3] = triangles
    fours = torch.tensor(list(combinations(range(N), 4)))
    table, place = _table(), torch.tensor([8 ** k for k in range(4)])
    for b in range(B):
        inner = A[b][fours[:, :, None], fours[:, None]].sum(dim=2).long()  # degrees inside each set of four
        orbit = table[(inner * place).sum(dim=1)]
        for k in range(4):
            counts[b].index_put_((fours[:, k], orbit[:, k].clamp_min(0)), (orbit[:, k] >= 0).double(), accumulate=True)
    return counts


def _table() -> Tensor:
    """(4096, 4): the orbit of each of four nodes by their inner degrees, -1 where the four are not connected."""
    table = torch.full((4096, 4), -1)
    for code in range(4096):
        own = [code // 8**k % 8 for k in range(4)]
        orbits = ORBITS.get(tuple(sorted(own)))
        if orbits is not None:
            table[code] = torch.tensor([orbits[d] for d in own])
    return table


def orbits(A: Tensor, mask: Tensor) -> Tensor:
    """(B, 15): orbit counts, the mean over a graph's nodes."""
    return orbit_counts(A).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def movers(width: float, bin_size: float = 1.0) -> Callable[[Tensor, Tensor], Tensor]:
    """exp(-d^2 / (2 width^2)), d the earth mover's distance of histograms (B, K) and (C, K)."""
    def kernel(p: Tensor, q: Tensor) -> Tensor:
        d = torch.cdist(p.cumsum(dim=1), q.cumsum(dim=1), p=1) * bin_size
        return torch.exp(-d.square() / (2 * width**2))

    return kernel


def euclidean(width: float) -> Callable[[Tensor, Tensor], Tensor]:
    """exp(-d^2 / (2 width^2)), d the Euclidean distance."""
    return lambda p, q: torch.exp(-torch.cdist(p, q).square() / (2 * width**2))


STATISTICS: Mapping[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "degree": (degrees, movers(1.0)),
    "clustering": (clustering, movers(0.1, 1 / BINS)),
    "orbit": (orbits, euclidean(30.0)),
}


def statistics(A: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """What each discrepancy compares, of graphs A (B, N, N) with mask (B, N): A is 1 above a half."""
    pair = mask[:, :, None] * mask[:, None]
    graph = (A > 0.5).to(mask.dtype) * pair
    return {name: of(graph.cpu(), mask.cpu()) for name, (of, _) in STATISTICS.items()}


def discrepancies(ours: Mapping[str, Tensor], real: Mapping[str, Tensor]) -> dict[str, Discrepancy]:
    """MMD^2 of `statistics` of generated and of real graphs."""
    return {name: mmd(ours[name], real[name], kernel) for name, (_, kernel) in STATISTICS.items()}


def mmd(x: Tensor, y: Tensor, kernel: Callable[[Tensor, Tensor], Tensor]) -> Discrepancy:
    """The unbiased MMD^2 of x (n, K) and y (m, K) (Gretton et al. 2012, eq. 3), and its jackknife error over x."""
    n, m = len(x), len(y)
    k_xx, k_yy, k_xy = kernel(x, x), kernel(y, y), kernel(x, y).mean(dim=1)
    within_y = (k_yy.sum() - k_yy.diagonal().sum()) / (m * (m - 1))
    rows = k_xx.sum(dim=1) - k_xx.diagonal()
    value = rows.sum() / (n * (n - 1)) + within_y - 2 * k_xy.mean()
    left_out = (rows.sum() - 2 * rows) / ((n - 1) * (n - 2)) + within_y - 2 * (k_xy.sum() - k_xy) / (n - 1)
    error = ((n - 1) / n * (left_out - left_out.mean()).square().sum()).sqrt()
    return Discrepancy(float(value), float(error))
