"""DDIM, DDPM and ancestral sampling: one first-order step with more or less noise.

With alpha and s of the frame, r = t alpha_s / (alpha_t s) = e^{-h} (finite at alpha_s = 0), eps = (x - alpha_s D) / s:

    x+ = alpha_t D + sqrt(t^2 - u^2) eps + u z
"""

from __future__ import annotations

import math
from typing import Any

import solverkit as sk
from solverkit import Grid
from solverkit.errors import OptionError


def _contraction(s: Any, t: Any) -> float:
    """r = e^{-h}, written so that neither alpha_s = 0 nor t = 0 divides by zero."""
    return t * s.alpha / (t.alpha * s)


def _ddim_order(options: dict[str, Any]) -> int | None:
    return 1 if options["eta"] == 0 else None


@sk.sampler(
    "ddim", order=_ddim_order, reference="Song, Meng, Ermon 2021, eq. 12", variants=({"eta": 0.5}, {"eta": 1.0})
)
def ddim(model: Any, x: Any, grid: Grid, noise: Any, eta: float = 0.0) -> Any:
    """DDIM: noise u = eta t sqrt(1 - r^2), at most t.

    Order 1 at eta = 0, where it is Euler's method; one evaluation a step. eta = 1 has the noise of `euler-ancestral`.
    Source: Song, Meng, Ermon 2021, eq. 12 and 16.

    Args:
        eta: 0 is deterministic.
    """
    return euler_ancestral(model, x, grid, noise, eta)


@sk.sampler(
    "euler-ancestral", reference="k-diffusion, sample_euler_ancestral", variants=({"eta": 0.5, "s_noise": 1.003},)
)
def euler_ancestral(model: Any, x: Any, grid: Grid, noise: Any, eta: float = 1.0, s_noise: float = 1.0) -> Any:
    """Euler to a lower level, then noise up to t: the ancestral step of k-diffusion in any frame.

    First order in law; one evaluation a step. With s_noise = 1 it is `ddim` with the same eta.
    Source: k-diffusion, sample_euler_ancestral; its u = min(t, eta t sqrt(1 - r^2)).

    Args:
        eta: Share of the posterior noise; 0 is Euler.
        s_noise: Standard deviation of the noise.
    """
    if eta < 0:
        raise OptionError(f"eta must be at least 0, got {eta}.")
    for s, t in grid.steps():
        denoised = model(x, s)
        u = min(t, eta * t * math.sqrt(1 - _contraction(s, t) ** 2))
        x = t.alpha * denoised + (math.sqrt(t * t - u * u) / s) * (x - s.alpha * denoised)
        if u > 0:
            x = x + (s_noise * u) * noise(s, t)
    return x


@sk.sampler("ddpm", reference="Ho et al. 2020, eq. 6-7")
def ddpm(model: Any, x: Any, grid: Grid, noise: Any) -> Any:
    """DDPM's ancestral step: the posterior q(x_t | x_s, x_0 = D), for any pair of levels.

    x+ = (t / s) r x + alpha_t (1 - r^2) D + t sqrt(1 - r^2) z: the reverse SDE solved exactly for a frozen D.
    First order in law; one evaluation a step; the variance is the posterior one (beta tilde).
    Source: Ho et al. 2020, eq. 6-7.
    """
    for s, t in grid.steps():
        denoised = model(x, s)
        r = _contraction(s, t)
        x = (t / s * r) * x + (t.alpha * (1 - r * r)) * denoised
        if t > 0:
            x = x + (t * math.sqrt(1 - r * r)) * noise(s, t)
    return x
