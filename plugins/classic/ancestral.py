"""DDIM, DDPM and ancestral sampling: one first-order step with more or less noise.

With alpha and s of the frame, r = t alpha_s / (alpha_t s) = e^{-h} (finite at alpha_s = 0), eps = (x - alpha_s D) / s:

    x+ = alpha_t D + sqrt(t^2 - u^2) eps + u z
"""

from __future__ import annotations

import math
from typing import Any, Literal

import solverkit as sk
from solverkit import Grid
from solverkit.errors import OptionError


def _contraction(s: Any, t: Any) -> float:
    """r = e^{-h}, written so that neither alpha_s = 0 nor t = 0 divides by zero."""
    return t * s.alpha / (t.alpha * s)


def _ddim_order(options: dict[str, Any]) -> int | None:
    return 1 if options["eta"] == 0 else None


@sk.sampler(
    "ddim", order=_ddim_order,
    reference="Song, Meng, Ermon 2021, eq. 12", cite="song2021ddim",
    variants=({"eta": 0.5}, {"eta": 1.0}),
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
    "euler-ancestral",
    reference="k-diffusion, sample_euler_ancestral", cite="crowson2022",
    variants=({"eta": 0.5, "s_noise": 1.003},),
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
        u = min(t, eta * t * math.sqrt(1 - _contraction(s, t) ** 2)) if eta else 0.0
        x = t.alpha * denoised + (math.sqrt(t * t - u * u) / s) * (x - s.alpha * denoised)
        if u > 0:
            x = x + (s_noise * u) * noise(s, t)
    return x


@sk.sampler(
    "ddpm",
    reference="Ho et al. 2020, eq. 6-7",
    cite="ho2020",
    variants=({"variance": "large"},),
    option_examples=({"variance": "large"},),
)
def ddpm(
    model: Any,
    x: Any,
    grid: Grid,
    noise: Any,
    variance: Literal["small", "large"] = "small",
    released: bool = False,
    last_noise: bool = True,
) -> Any:
    """DDPM's ancestral step: the posterior q(x_t | x_s, x_0 = D), for any pair of levels.

    x+ = (t / s) r x + alpha_t (1 - r^2) D + w z: the reverse SDE solved exactly for a frozen D. First order in law; one
    evaluation a step; no noise in a step to 0. With v = alpha^2 + s^2 of the frame,

        small   w^2 = t^2 (1 - r^2)                           the posterior one, beta tilde: right if x_0 is D
        large   w^2 = v_t - v_t^2 (alpha_s / alpha_t)^2 / v_s   Var(x_t | x_s) where x_0 has variance 1

    The large one is beta_t on VP, (s^2 - t^2) (1 + t^2) / (1 + s^2) in its sigma frame. It is defined by the data alone, so
    that VE and flow models have it too.
    Source: Ho et al. 2020, eq. 6-7 and section 3.2.

    Args:
        variance: "small" or "large" (fixed_small and fixed_large of diffusers).
        released: diffusers adds noise in the step to 0 as well, unless its timestep is 0; Ho et al. 2020, Algorithm 2, has
            none there. Only that of variance="large" is not negligible.
        last_noise: Noise in the last step of a run that ends above 0; False is the mean alone, as Wuerstchen has it.
    """
    for s, t in grid.steps():
        denoised = model(x, s)
        r = _contraction(s, t)
        x = (t / s * r) * x + (t.alpha * (1 - r * r)) * denoised
        if variance == "small":
            w = t * math.sqrt(1 - r * r)
        else:
            at_s, at_t = s.alpha**2 + s * s, t.alpha**2 + t * t
            w = math.sqrt(at_t - (at_t * s.alpha / t.alpha) ** 2 / at_s)
        if (t > 0 and (last_noise or t > grid[-1])) or (released and variance == "large" and s.time > 0):
            x = x + w * noise(s, t)
    return x
