"""ResShift's ancestral step."""

from __future__ import annotations

import math
from typing import Any

import solverkit as sk
from solverkit import Grid


@sk.sampler("resshift", reference="Yue et al. 2023, arXiv 2307.12348, eq. 6 and 7", cite="yue2023")
def resshift(model: Any, x: Any, grid: Grid, noise: Any) -> Any:
    """The posterior of ResShift's forward process, whose steps add y as they add noise; on any schedule.

    x+ = q x + (alpha_t - q alpha_s) D + sqrt(t^2 - q^2 s^2) z,    q = sigma_t^2 / sigma_s^2 in the network's coordinates.

    On `sk.Residual` q = eta_t / eta_s, the variance kappa^2 eta_t (eta_s - eta_t) / eta_s. Where alpha is 1 it is `ddpm`.
    No noise in a step to 0. First order in law; one evaluation a step.
    Source: Yue et al. 2023, eq. 6 and 7.
    """
    for s, t in grid.steps():
        denoised = model(x, s)
        q = (t / s) ** 2 * t.scale / s.scale  # of states of the frame
        x = q * x + (t.alpha - q * s.alpha) * denoised
        if t > 0:
            x = x + math.sqrt(t * t - q * q * s * s) * noise(s, t)
    return x
