"""Diffusion posterior sampling: DDPM steps, each followed by one down the gradient of what the values are missed by."""

from __future__ import annotations

import math
from typing import Any

import torch

import solverkit as sk
from solverkit import Grid, Level
from solverkit.errors import OptionError
from solverkit.inverse import Measurement

from .of_run import ADVICE, from_denoiser, of_run


def _spread(s: Level) -> float:
    return math.hypot(s.alpha, float(s))


@sk.sampler(
    "dps", traceable=False, prepare=from_denoiser, advice=ADVICE,
    reference="Chung et al. 2023, arXiv 2209.14687, Algorithm 1",
    cite="chung2023dps",
)  # fmt: skip
def dps(
    model: Any, x: Any, grid: Grid, noise: Any, measurement: Measurement, zeta: float = 1.0, released: bool = False
) -> Any:
    """DPS: the ancestral step, then x <- x - zeta grad_x |y - A D(x)|, in x / (alpha^2 + s^2)^(1/2) (the state of VP).

    One product with the Jacobian an evaluation. Tuned for 1000 steps: the step does not know the length of the grid's, nor
    the noise of the values, so no zeta makes it exact, for Gaussians either. Stochastic, pull-only.
    Source: Chung et al. 2023, Algorithm 1. A denoiser around a denoiser that follows the same gradient at the weight of a
    likelihood: `sk.inverse.pigdm`.

    Args:
        measurement: What was measured; of the denoiser, sk.inverse.measured, where not given.
        zeta: Length of the step, 0.3 to 1 in the paper.
        released: One norm over the whole batch, as in the published code: a sample then moves by what its batch mates miss.
    """
    if not 0 <= zeta < math.inf:
        raise OptionError(f"zeta must be at least 0, got {zeta}.")
    own = of_run(model, measurement)
    for s, t in grid.steps():
        denoised, pull = model.linearised(x, s)
        missed = own.missed(denoised)
        size = torch.linalg.vector_norm(missed.flatten(1), dim=1)
        if released:
            size = torch.linalg.vector_norm(size).expand_as(size)
        unit = missed / size.clamp_min(torch.finfo(missed.dtype).tiny).reshape(-1, *[1] * (missed.ndim - 1))
        gradient = -pull(own.operator.adjoint(unit))  # of |y - A D| by x
        r = 0.0 if s.alpha == 0 else t.ratio / s.ratio
        x = (t / s * r) * x + (t.alpha * (1 - r * r)) * denoised - (zeta * _spread(s) * _spread(t)) * gradient
        if t > 0:
            x = x + t * math.sqrt(1 - r * r) * noise(s, t)
    return x
