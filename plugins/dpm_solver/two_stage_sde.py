"""DPM-Solver++ SDE with a stage inside the step: both of its noises are increments of one Brownian path."""

from __future__ import annotations

import math
from typing import Any

import solverkit as sk
from solverkit import Grid, Level
from solverkit.errors import OptionError
from solverkit.grid.grid import SAME
from solverkit.steps import posterior_std


def increments(noise: Any, s: Level, m: Level, t: Level) -> tuple[Any, Any]:
    """(z_m, z_t): normalised increments, from s to m and from s to t, of one Brownian path in sigma / alpha.

    W(s) - W(t) = (W(s) - W(m)) + (W(m) - W(t)), two independent draws; so z_m and z_t have the correlation
    sqrt((s - m) / (s - t)), with the three levels as sigma / alpha.
    """
    share = (s.ratio - m.ratio) / (s.ratio - t.ratio)
    first, second = noise(s, m), noise(m, t)
    return first, math.sqrt(share) * first + math.sqrt(1 - share) * second


def _ancestral(x: Any, denoised: Any, s: Level, t: Level, eta: float) -> tuple[Any, float]:
    """The exact step for a frozen prediction to a lower level, and the noise u that leads from there up to t."""
    u = posterior_std(s, t, eta)
    return t.alpha * denoised + (math.sqrt(t * t - u * u) / s) * (x - s.alpha * denoised), u


@sk.sampler(
    "dpmpp-sde",
    order=lambda options: 2 if options["eta"] == 0 else None,
    reference="k-diffusion, sample_dpmpp_sde",
    cite="crowson2022",
    variants=({"eta": 0.0}, {"eta": 0.5, "s_noise": 1.003}),
)
def dpmpp_sde(model: Any, x: Any, grid: Grid, noise: Any, eta: float = 1.0, s_noise: float = 1.0) -> Any:
    """DPM-Solver++ SDE, two-stage: an ancestral step to m, halfway in log-SNR, and one to t with the prediction there.

        y  = anc(x, D_s, s -> m) + u_m z_m,   x+ = anc(x, D_m, s -> t) + u_t z_t
        anc(x, D, s -> t) = alpha_t D + sqrt(t^2 - u^2) (x - alpha_s D) / s,   u = min(t, eta t sqrt(1 - r^2))

    z_m and z_t are increments of one Brownian path. With independent ones, or with one draw for both, the stage does not
    see the noise that the step adds, and the method is of first order in law; so it is of second. eta = 0 is DPM-Solver++
    (2S) without its packing. Two evaluations a step, one in a step that ends at 0 or starts at alpha = 0 (2 N - 1 in all).
    Where the stage was rounded to the share c of the step in log-SNR, the prediction is (1 - 1/(2c)) D_s + D_m / (2c).
    Source: k-diffusion, sample_dpmpp_sde, r = 1/2; Lu et al. 2022b (DPM-Solver++), Algorithm 1 for the stage.

    Args:
        eta: Share of the posterior noise.
        s_noise: Standard deviation of the noise.

    Raises:
        OptionError: eta below 0.
    """
    if eta < 0:
        raise OptionError(f"eta must be at least 0, got {eta}.")
    for s, t in grid.steps():
        denoised = model(x, s)
        if t == 0 or s.alpha == 0:
            x, u = _ancestral(x, denoised, s, t, eta)
            if u > 0:
                x = x + (s_noise * u) * noise(s, t)
            continue
        m = grid.at_lam((s.lam + t.lam) / 2)
        weight = (t.lam - s.lam) / (2 * (m.lam - s.lam))
        y, u_m = _ancestral(x, denoised, s, m, eta)
        if eta > 0:
            z_m, z_t = increments(noise, s, m, t)
            y = y + (s_noise * u_m) * z_m
        denoised = (1 - weight) * denoised + weight * model(y, m)
        x, u_t = _ancestral(x, denoised, s, t, eta)
        if eta > 0:
            x = x + (s_noise * u_t) * z_t
    return x


@sk.sampler(
    "dpmpp-2s-ancestral",
    order=lambda options: 2 if options["eta"] == 0 else None,
    reference="k-diffusion, sample_dpmpp_2s_ancestral",
    cite="crowson2022",
    variants=({"eta": 0.0}, {"eta": 0.5, "s_noise": 1.003}),
)
def dpmpp_2s_ancestral(model: Any, x: Any, grid: Grid, noise: Any, eta: float = 1.0, s_noise: float = 1.0) -> Any:
    """DPM-Solver++(2S) to a lower level d, then noise up to t.

        y = alpha_m D_s + (m / s) (x - alpha_s D_s),   x+ = anc(x, D_m, s -> t) + u z,   m halfway from s to d in log-SNR

    with anc and u of `dpmpp-sde`, d / alpha = sqrt(t^2 - u^2) / alpha_t. The stage is on the way to d, and the noise comes
    after it. eta = 0 is DPM-Solver++(2S) without its packing. Two evaluations a step, one in a step that ends at 0 or
    starts at alpha = 0.
    Source: k-diffusion, sample_dpmpp_2s_ancestral.

    Args:
        eta: Share of the posterior noise.
        s_noise: Standard deviation of the noise.

    Raises:
        OptionError: eta below 0.
    """
    if eta < 0:
        raise OptionError(f"eta must be at least 0, got {eta}.")
    for s, t in grid.steps():
        denoised = model(x, s)
        u = posterior_std(s, t, eta)
        if s.alpha > 0 and t > u:
            lam = math.log(t.alpha) - 0.5 * math.log(t * t - u * u)  # of d
            m = grid.at_lam((s.lam + lam) / 2)
            if abs(m - t) <= SAME * t:
                m = t  # as at eta = 1; the pipelines then know it as a level of the grid
            weight = (lam - s.lam) / (2 * (m.lam - s.lam))
            y = m.alpha * denoised + (m / s) * (x - s.alpha * denoised)
            denoised = (1 - weight) * denoised + weight * model(y, m)
        x, u = _ancestral(x, denoised, s, t, eta)
        if u > 0:
            x = x + (s_noise * u) * noise(s, t)
    return x
