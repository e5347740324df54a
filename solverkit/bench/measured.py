"""A figure with its interval: what a metric may return instead of a bare number, and the bootstrap behind it.

Everything is drawn from a generator of its own, so that the same samples always give the same interval.

References:
    Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapters 8 and 13 (percentile intervals); McCarthy 1969
    (half-samples, for distances between sets, which repeated samples would move).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

DRAWS = 1000
HALVES = 24
KEPT = 4096  # values of single samples that a row keeps; larger cells keep their intervals alone
CHUNK = 2**22
Z95 = 1.959964


@dataclass(frozen=True)
class Measured:
    """What a metric found.

    Attributes:
        value: The figure.
        interval: 95 % interval, (low, high); None where the metric knows none.
        values: What each sample contributes: `statistic` of them is the value. They allow a paired comparison.
        floor: What real samples of the same number would get.
        against: What the samples were compared with, in a word, where that is not the same for every model.
    """

    value: float
    interval: tuple[float, float] | None = None
    values: Sequence[float] | None = None
    floor: float | None = None
    against: str = ""


def rms(values: np.ndarray) -> np.ndarray:
    """Root of the mean square over the last axis."""
    return np.sqrt(np.mean(np.square(values), axis=-1))


def mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis."""
    return np.mean(values, axis=-1)


def median(values: np.ndarray) -> np.ndarray:
    """Median over the last axis."""
    return np.median(values, axis=-1)


STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"rms": rms, "mean": mean, "median": median}


def of_samples(values: torch.Tensor, statistic: str) -> Measured:
    """A statistic of one number a sample, with its bootstrap interval.

    Args:
        values: (n,).
        statistic: A name in `STATISTICS`.
    """
    array = values.detach().double().cpu().numpy()
    value = float(STATISTICS[statistic](array))
    return Measured(value, bootstrap(array, statistic), tuple(map(short, array)))


def bootstrap(values: np.ndarray, statistic: str) -> tuple[float, float] | None:
    """The 95 % percentile interval of a statistic; None for a single sample, or values that are not finite."""
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    drawn = np.concatenate([STATISTICS[statistic](values[index]) for index in indices(len(values))])
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def ratio_interval(a: np.ndarray, b: np.ndarray, statistic: str) -> tuple[float, float]:
    """95 % interval of statistic(b) / statistic(a), of samples that share their noise: resampled together."""
    f = STATISTICS[statistic]
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = np.concatenate([_ratio(f(b[index]), f(a[index])) for index in indices(len(a))])
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.where((above == 0) & (below == 0), 1.0, above / np.where(below == 0, np.finfo(float).tiny, below))


def indices(n: int) -> list[np.ndarray]:
    """`DRAWS` resamples of n, in parts that fit into memory; each part (draws, n)."""
    generator, size = np.random.default_rng(0), max(1, min(DRAWS, CHUNK // n))
    return [generator.integers(0, n, (min(size, DRAWS - a), n)) for a in range(0, DRAWS, size)]


def of_set(distance: Callable[[torch.Tensor], float], x: torch.Tensor, value: float | None = None) -> Measured:
    """A distance of a set of samples, with the interval that half-samples give.

    The spread of the distance over random halves is that over samples of full size: the half that is left out makes up for
    the size of the other. Repeated samples, as a bootstrap draws them, would move most distances.

    Args:
        distance: Of some of the samples.
        x: (n, ...), n >= 4.
        value: The distance of all of them, where it is known already.
    """
    value = distance(x) if value is None else value
    generator = torch.Generator().manual_seed(0)
    n = len(x)
    if n < 4:
        return Measured(value)
    halves = [distance(x[torch.randperm(n, generator=generator)[: n // 2].to(x.device)]) for _ in range(HALVES)]
    spread = float(np.std(halves, ddof=1))
    return Measured(value, (value - Z95 * spread, value + Z95 * spread))


def short(value: float) -> float:
    """Four significant digits, for a row; whole numbers as such."""
    rounded = float(f"{value:.4g}") if math.isfinite(value) else value
    return int(rounded) if rounded in (0.0, 1.0) else rounded
