"""What a metric sees: a finished run, real samples, and the bundled classifier of digits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .features import DigitFeatures
    from .reference import Reference

DIGIT = (1, 28, 28)


@dataclass(frozen=True)
class Real:
    """Samples that are as they should be.

    Attributes:
        x: (n, ...), in the model's own coordinates.
        source: Where they are from, in words: the target, a file, converged solutions.
    """

    x: torch.Tensor
    source: str


@dataclass(frozen=True)
class Run:
    """What a metric sees of one finished cell.

    Attributes:
        model: Name of the model.
        denoiser: What was sampled.
        x: The samples (B, ...), in the model's own coordinates.
        deterministic: Whether the sampler drew no noise: only then does its output approximate the ODE's solution.
        reference: The converged solution from the same noise; computed (or read) at the first call.
        real: real(n, part) -> n real samples, or None where there are none or too few; parts 0 and 1 share none.
        passes: Calls of the network, whatever their batch.
    """

    model: str
    denoiser: Any
    x: torch.Tensor
    deterministic: bool
    reference: Callable[[], Reference]
    real: Callable[[int, int], Real | None] = lambda n, part: None
    passes: int = 0


@functools.lru_cache(maxsize=1)
def digits() -> tuple[DigitFeatures, tuple[torch.Tensor, torch.Tensor]]:
    """The bundled classifier of digits, and mean and covariance of its features on MNIST's test images."""
    from .features import load_features, load_statistics

    return load_features(), load_statistics()
