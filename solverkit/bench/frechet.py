"""The Fréchet distance between two sets of features, in float64 and without scipy."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import BenchError


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Sample mean and unbiased covariance of features.

    Args:
        features: (N, F), N >= 2, any floating dtype; the sums are taken in float64.

    Returns:
        mean (F,) and covariance (F, F), float64, on the CPU.

    Raises:
        BenchError: features is not a matrix, or has fewer than two rows.
    """
    if features.ndim != 2 or len(features) < 2:
        raise BenchError(
            f"moments need features of shape (N, F) with N >= 2, got {tuple(features.shape)}: draw more "
            "samples, or flatten each of them to one row"
        )
    features = features.detach().to("cpu", torch.float64)
    mean = features.mean(dim=0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


def frechet_distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)): the squared 2-Wasserstein distance between two normals.

    C1 C2 is similar to the symmetric positive semi-definite A C2 A with A = C1^(1/2), so the trace of its
    square root is the sum of the singular values of A B with B = C2^(1/2). Those come with an error of eps
    |A| |B|; square roots of the eigenvalues of A C2 A would turn an error of eps into one of sqrt(eps)
    wherever a covariance is singular.

    Args:
        mean1, mean2: (F,).
        cov1, cov2: (F, F), symmetric, positive semi-definite; rank-deficient ones are fine.

    Returns:
        The distance (squared, as FID is), at least 0.

    Raises:
        BenchError: shapes that do not belong together, or values that are not finite.

    References:
        Dowson & Landau 1982, The Fréchet distance between multivariate normal distributions; Heusel et al.
        2017 (FID).
    """
    m1, C1, m2, C2 = (v.detach().to("cpu", torch.float64) for v in (mean1, cov1, mean2, cov2))
    _check(m1, C1, m2, C2)
    covariance_term = C1.trace() + C2.trace() - 2 * torch.linalg.svdvals(_sqrt(C1) @ _sqrt(C2)).sum()
    return max(float((m1 - m2).square().sum() + covariance_term), 0.0)


def _sqrt(C: Tensor) -> Tensor:
    """Symmetric square root; eigenvalues that are rounding errors count as 0, or 1e-16 would give 1e-8."""
    values, Q = torch.linalg.eigh((C + C.T) / 2)
    values = values.where(values > len(C) * torch.finfo(C.dtype).eps * values.abs().max(), 0.0)
    return (Q * values.sqrt()) @ Q.T


def _check(m1: Tensor, C1: Tensor, m2: Tensor, C2: Tensor) -> None:
    F = len(m1) if m1.ndim == 1 else -1
    if m2.shape != (F,) or C1.shape != (F, F) or C2.shape != (F, F):
        raise BenchError(
            "the Fréchet distance needs means (F,) and covariances (F, F) of one F, got "
            f"{tuple(m1.shape)}, {tuple(C1.shape)}, {tuple(m2.shape)}, {tuple(C2.shape)}: take both from "
            "moments(features)"
        )
    if not all(bool(v.isfinite().all()) for v in (m1, C1, m2, C2)):
        raise BenchError(
            "the Fréchet distance needs finite moments, got NaN or infinity: the samples have diverged, so "
            "look at them first"
        )
