"""The loss of a fit: Huber on each sample's error, so that one sample that went to another mode does not steer the plan."""

from __future__ import annotations

import torch

TAIL = 3.0  # medians
TINY = 1e-30  # in the place of an error of 0 that is divided by


def per_sample(residual: torch.Tensor) -> torch.Tensor:
    """RMS of each sample's residual, (B,)."""
    return residual.flatten(1).square().mean(1).sqrt()


def rms(errors: torch.Tensor) -> float:
    """Over the samples' errors (B,)."""
    return float(errors.square().mean().sqrt())


def huber(errors: torch.Tensor, robust: bool = True) -> float:
    """sqrt of the mean of e^2 below kappa = 3 medians and of 2 kappa e - kappa^2 above; plain RMS where not robust."""
    kappa = float(TAIL * errors.median()) if robust else float("inf")
    tail = errors > kappa
    squares = torch.where(tail, 2 * kappa * errors - kappa**2, errors.square()) if bool(tail.any()) else errors.square()
    return float(squares.mean().sqrt())


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


def weights(errors: torch.Tensor, robust: bool = True) -> torch.Tensor:
    """The weight of each sample's squares in a step that lowers `huber`, (B,): min(1, kappa / e)."""
    if not robust:
        return torch.ones_like(errors)
    return (TAIL * errors.median() / errors.clamp(min=1e-12)).clamp(max=1.0)
