"""Fréchet distances of samples to the test images by the bundled classifier, with a jackknife error over 20 parts."""

from __future__ import annotations

import torch

from solverkit.bench.features import load_statistics
from solverkit.bench.frechet import frechet_distance, moments

PARTS = 20


def distances(features: torch.Tensor) -> torch.Tensor:
    """Of all, and of all but each of PARTS parts, (1 + PARTS,).

    A part is made of whole tens: where labels run through the ten digits, a part of every 20th sample would be one digit,
    and leaving it out would change the shares of the digits.
    """
    against, part = load_statistics(), torch.arange(len(features)) // 10 % PARTS
    left = [frechet_distance(*moments(features[part != k]), *against) for k in range(PARTS)]
    return torch.tensor([frechet_distance(*moments(features), *against), *left], dtype=torch.float64)


def jackknife(values: torch.Tensor) -> float:
    """Standard error of `distances`, or of a difference of two."""
    left = values[1:]
    return float(((PARTS - 1) / PARTS * (left - left.mean()).square().sum()).sqrt())
