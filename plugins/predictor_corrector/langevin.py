"""Langevin steps at a fixed noise level: x+ = x + eps score + sqrt(2 eps) z, with eps from a signal-to-noise ratio."""

from __future__ import annotations

import math

import torch

import solverkit as sk


def _norm(x: torch.Tensor) -> torch.Tensor:
    """Euclidean norm of each sample, shaped to multiply it."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1).reshape(-1, *[1] * (x.ndim - 1))


@sk.op
def langevin_step(
    x: torch.Tensor,
    denoised: torch.Tensor,
    z: torch.Tensor,
    s: float,
    alpha: float,
    snr: float,
    factor: float = 1.0,
    batch_norms: bool = False,
    noisy: bool = True,
) -> torch.Tensor:
    """eps = 2 factor (snr |z| / |score|)^2, at most s^2 where norms are per sample; noisy=False is the mean of the step.

    The frame does not matter: with x = k y, score_y = k score_x, and eps scales with k^2. Beyond eps = 2 s^2 a Langevin
    step on N(0, s^2) diverges, and in few dimensions a score near 0 would ask for it.
    Source: Song et al. 2021, Algorithms 4 and 5 (norms are means over the batch there: batch_norms).
    """
    score = (alpha * denoised - x) / (s * s)
    if batch_norms:
        eps = 2 * factor * (snr * _norm(z).mean() / _norm(score).mean()) ** 2
    else:
        eps = (2 * factor * (snr * _norm(z) / _norm(score)) ** 2).clamp_max(s * s)
    return x + eps * score + (2 * eps).sqrt() * z if noisy else x + eps * score


def annealed_size(s: float, snr: float, factor: float = 1.0, std: float | None = None) -> float:
    """eps = 2 factor (snr sigma)^2 (Song and Ermon 2019, whose step_lr is 2 (snr sigma_min)^2)."""
    return 2 * factor * (snr * (s if std is None else std)) ** 2


def annealed_step(x: object, denoised: object, z: object, s: float, alpha: float, eps: float) -> object:
    """The step of a size that does not depend on the state: linear, so it needs no op."""
    return (1 - eps / (s * s)) * x + (eps * alpha / (s * s)) * denoised + math.sqrt(2 * eps) * z  # type: ignore[operator]
