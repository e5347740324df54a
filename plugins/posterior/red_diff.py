"""RED-diff: one clean sample fitted to the values by Adam, with the network as regulariser."""

from __future__ import annotations

from typing import Any

import torch

import solverkit as sk
from solverkit import Grid
from solverkit.errors import OptionError
from solverkit.inverse import Measurement

from .of_run import ADVICE, from_denoiser, of_run

BETAS, EPSILON = (0.9, 0.99), 1e-8  # of Adam, as published


@sk.sampler(
    "red-diff", traceable=False, prepare=from_denoiser, advice=ADVICE,
    reference="Mardani et al. 2024, arXiv 2305.04391, Algorithm 1",
    cite="mardani2024",
)  # fmt: skip
def red_diff(
    model: Any, x: Any, grid: Grid, noise: Any, measurement: Measurement, lr: float = 0.1, obs_weight: float = 1.0,
    grad_weight: float = 0.25,
) -> Any:  # fmt: skip
    """RED-diff: Adam on mu, one step a level s, of |y - A mu|^2 / 2 and grad_weight s / alpha <eps - z, mu>.

    eps is the network's for mu noised by z to s; both are means over their elements, of each sample for itself. One
    evaluation a step, no gradient of the network. It starts at A^T y and returns mu: an optimiser, whose samples differ by
    their noises alone and have no posterior's width; the regulariser fades with s, so that it ends at the values where they
    determine mu. Pull-only. Source: Mardani et al. 2024, Algorithm 1.

    Args:
        measurement: What was measured; of the denoiser, sk.inverse.measured, where not given.
        lr: Of Adam.
        obs_weight, grad_weight: Of the two terms.
    """
    if not lr > 0 or not obs_weight >= 0 or not grad_weight >= 0:
        raise OptionError(f"red-diff needs lr > 0 and weights >= 0, got {lr}, {obs_weight}, {grad_weight}.")
    own = of_run(model, measurement)
    mu = own.operator.adjoint(own.missed(torch.zeros_like(x)))
    if len(mu) != len(x):
        mu = mu.expand_as(x)
    first, second = torch.zeros_like(mu), torch.zeros_like(mu)
    n = 0
    for s, t in grid.steps():
        if s.alpha == 0:  # the weight s / alpha is infinite, and the answer knows nothing of mu
            continue
        n, z = n + 1, noise(s, t)
        noised = s.alpha * mu + s * z
        off = (noised - s.alpha * model(noised, s)) / s - z
        missed = own.missed(mu)
        pulled = own.operator.adjoint(missed)
        gradient = grad_weight * s.ratio / mu[0].numel() * off - obs_weight / missed[0].numel() * pulled
        first = BETAS[0] * first + (1 - BETAS[0]) * gradient
        second = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
        mu = mu - lr * (first / (1 - BETAS[0] ** n)) / ((second / (1 - BETAS[1] ** n)).sqrt() + EPSILON)
    return mu
