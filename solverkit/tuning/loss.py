"""The loss of a fit: the mean of the samples' errors. With squares, a few samples that went to another mode would steer."""

from __future__ import annotations

import torch

HEAVIEST = 20.0  # of the weights, whose median is 1
TINY = 1e-30  # in the place of an error of 0 that is divided by


def per_sample(residual: torch.Tensor) -> torch.Tensor:
    """RMS of each sample's residual, (B,)."""
    return residual.flatten(1).square().mean(1).sqrt()


def rms(errors: torch.Tensor) -> float:
    """Over the samples' errors (B,)."""
    return float(errors.square().mean().sqrt())


def mean_error(errors: torch.Tensor) -> float:
    """Over the samples' errors (B,)."""
    return float(errors.mean())


def ratio(a: float, b: float) -> float:
    """a / b of two errors; 1 where both are 0, and large but finite where b alone is (JSON has no infinity)."""
    return a / b if b else (a + TINY) / TINY


def interval(a: torch.Tensor, b: torch.Tensor) -> tuple[float, float]:
    """95 % of the ratio of the RMS of errors a and b (B,) of the same noises, over resampled noises."""
    a, b = a.cpu(), b.cpu()
    draws = torch.randint(0, len(a), (1000, len(a)), generator=torch.Generator().manual_seed(0))
    above, below = a[draws].square().mean(1), b[draws].square().mean(1)
    ratios = torch.where(below > 0, above / below, (above + TINY) / TINY).sqrt().sort().values
    return float(ratios[25]), float(ratios[974])


def weights(errors: torch.Tensor) -> torch.Tensor:
    """The weight of each sample's squares in a step that lowers the mean of errors, (B,): 1 / e, scaled.

    Iteratively reweighted least squares (Holland and Welsch 1977): d(sum of e^2 / e_0) = 2 d(sum of e) at e = e_0.
    """
    return (errors.median() / errors.clamp(min=1e-12)).clamp(max=HEAVIEST)
