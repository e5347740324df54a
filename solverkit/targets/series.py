"""A Gaussian process over several time series: what imputes and forecasts best is known in closed form."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ..errors import ProblemError
from .exact import ExactDenoiser, _or_edm
from .gaussian_mixture import GaussianMixture

if TYPE_CHECKING:
    from ..process.schedule import Schedule

ALIKE = 0.6  # correlation of two series at one time
LENGTH, PERIOD, NUGGET = 6.0, 12.0, 0.05


def series(channels: int = 4, length: int = 24, schedule: Schedule | None = None) -> ExactDenoiser:
    """Samples (channels, length) of a stationary Gaussian process with mean 0 and variance 1.

    Cov(x_ki, x_lj) = (0.6 + 0.4 [k = l]) k(i - j), k(h) = 0.95 exp(-|h| / 6) (2 + cos(2 pi h / 12)) / 3 + 0.05 [h = 0]: it
    forgets, and repeats itself with period 12.

    Args:
        channels: Number of series, K.
        length: Times, L.
        schedule: `EDM()` if not given.

    Raises:
        ProblemError: channels or length below 1.
    """
    if channels < 1 or length < 1:
        raise ProblemError(f"series needs channels >= 1 and length >= 1, got {channels} and {length}.")
    lag = (torch.arange(length)[:, None] - torch.arange(length)).double()
    period = (2 + torch.cos(2 * math.pi * lag / PERIOD)) / 3
    time = (1 - NUGGET) * torch.exp(-lag.abs() / LENGTH) * period + NUGGET * torch.eye(length)
    across = ALIKE * torch.ones(channels, channels, dtype=torch.float64) + (1 - ALIKE) * torch.eye(channels)
    values, basis = torch.linalg.eigh(torch.kron(across, time))
    means, ones = torch.zeros(1, channels * length), torch.ones(1)
    target = GaussianMixture(ones, means, basis[None], values[None], shape=(channels, length))
    return ExactDenoiser(target, _or_edm(schedule))
