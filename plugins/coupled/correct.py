"""GDSS's Langevin correction: the step from the signal-to-noise ratio, the noise of a lower temperature."""

from __future__ import annotations

import math

import torch

import solverkit as sk
from solverkit.errors import OptionError
from solverkit.steps import norm


@sk.op
def tempered_langevin(
    x: torch.Tensor, denoised: torch.Tensor, z: torch.Tensor, s: float, alpha: float, snr: float, scale_eps: float,
    factor: float, batch_norms: bool,
) -> torch.Tensor:  # fmt: skip
    """x + eps score + scale_eps sqrt(2 eps) z with eps = 2 factor (snr |z| / |score|)^2, at most s^2 with own norms.

    The frame does not matter: with x = k y, score_y = k score_x, and eps scales with k^2.
    Source: harryjo97/GDSS, LangevinCorrector (norms are means over the batch there: batch_norms).
    """
    score = (alpha * denoised - x) / (s * s)
    z_norm, score_norm = norm(z), norm(score)
    if batch_norms:
        eps = 2 * factor * (snr * z_norm.mean() / score_norm.mean()) ** 2
    else:
        eps = (2 * factor * (snr * z_norm / score_norm.clamp_min(torch.finfo(x.dtype).tiny)) ** 2).clamp_max(s * s)
    return x + eps * score + scale_eps * (2 * eps).sqrt() * z


def require_sizes(name: str, snr: float, scale_eps: float, n_steps: int = 1) -> None:
    """Raises OptionError for sizes that no correction has."""
    if not 0 < snr < math.inf or not 0 <= scale_eps < math.inf or n_steps < 0:
        raise OptionError(f"{name} needs snr > 0, scale_eps >= 0 and n_steps >= 0, got {snr}, {scale_eps} and {n_steps}.")
