"""Distances between a set of samples and a set of real ones: kernel, sliced Wasserstein, energy, precision and recall.

Digits are compared in the features of the bundled classifier, everything else in its own coordinates. Real samples are
drawn from an exact target, read from --data, or are converged solutions from other noise (`Run.real`); as many as there are
samples. The floor is the same distance of one set of real samples to another.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .judged import DIGIT, Real, Run, digits
from .measured import Measured, of_set

ENOUGH = 100
ENOUGH_PAIRS = 16  # for a mean over pairs
PROJECTIONS = 256
NEIGHBOURS = 3
MOST = 5000  # samples that distances between all pairs are made of

Distance = Callable[[Tensor, Tensor], float]


def kid(x: Tensor, y: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x . y / F + 1)^3, of features (n, F) and (m, F)."""
    F, n, m = x.shape[1], len(x), len(y)
    kxx, kyy, kxy = ((a @ b.T / F + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within = (kxx.sum() - kxx.trace()) / (n * (n - 1)) + (kyy.sum() - kyy.trace()) / (m * (m - 1))
    return float(within - 2 * kxy.mean())


def sliced_wasserstein(x: Tensor, y: Tensor) -> float:
    """Sliced 2-Wasserstein distance over 256 fixed directions, of (n, F) and (m, F)."""
    directions = torch.randn(x.shape[1], PROJECTIONS, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    directions /= directions.norm(dim=0)
    n = min(len(x), len(y))
    at = (torch.arange(n, dtype=x.dtype) + 0.5) / n
    a, b = ((rows @ directions).sort(dim=0).values[(at * len(rows)).long()] for rows in (x, y))
    return float((a - b).square().mean().sqrt())


def energy(x: Tensor, y: Tensor) -> float:
    """Energy distance 2 E d(x, y) - E d(x, x') - E d(y, y') of Euclidean distances, unbiased, of (n, F) and (m, F)."""
    n, m = len(x), len(y)
    within = torch.cdist(x, x).sum() / (n * (n - 1)) + torch.cdist(y, y).sum() / (m * (m - 1))
    return float(2 * torch.cdist(x, y).mean() - within)


def precision(x: Tensor, y: Tensor) -> float:
    """Share of x (n, F) that lie within the third-neighbour balls of y (m, F)."""
    return _covered(x, y)


def recall(x: Tensor, y: Tensor) -> float:
    """Share of y (m, F) that lie within the third-neighbour balls of x (n, F)."""
    return _covered(y, x)


def _covered(points: Tensor, balls: Tensor) -> float:
    radius = torch.cdist(balls, balls).kthvalue(min(NEIGHBOURS + 1, len(balls)), dim=1).values  # the first is itself
    return float((torch.cdist(points, balls) <= radius).any(dim=1).double().mean())


def features(x: Tensor) -> Tensor:
    """(n, F) float64 on the CPU: of digits those of the bundled classifier, else the coordinates."""
    x = x.detach().cpu()
    return (digits()[0].features(x.float()) if tuple(x.shape[1:]) == DIGIT else x.flatten(1)).double()


def compared(distance: Distance) -> Callable[[Run], Measured | None]:
    """The metric that measures a distance between a run's samples and real ones; None where there are none."""

    def metric(run: Run) -> Measured | None:
        n = min(len(run.x), MOST)
        real, other = run.real(n, 0), run.real(n, 1)
        if real is None:
            return None
        x, y = features(run.x[:n]), features(real.x)
        made = of_set(lambda rows: distance(rows, y), x)
        return Measured(made.value, made.interval, floor=_floor(distance, other, y), against=real.source)

    metric.__doc__ = distance.__doc__
    return metric


def _floor(distance: Distance, other: Real | None, y: Tensor) -> float | None:
    return None if other is None else distance(features(other.x), y)


def register_metrics(register: Callable[..., None]) -> None:
    """Register them; called by the hook of `metrics`."""
    register("kid", compared(kid), min_samples=ENOUGH, unit="squared discrepancy", reference="Binkowski et al. 2018")
    register("sliced-wasserstein", compared(sliced_wasserstein), min_samples=ENOUGH, unit="distance of features",
             reference="Rabin et al. 2012; Bonneel et al. 2015")  # fmt: skip
    register("energy", compared(energy), min_samples=ENOUGH_PAIRS, unit="distance of features",
             reference="Székely and Rizzo 2013")  # fmt: skip
    register("precision", compared(precision), min_samples=ENOUGH, unit="share of samples", lower_is_better=False,
             reference="Kynkäänniemi et al. 2019")  # fmt: skip
    register("recall", compared(recall), min_samples=ENOUGH, unit="share of samples", lower_is_better=False,
             reference="Kynkäänniemi et al. 2019")  # fmt: skip
