"""DPM-2 of k-diffusion and its ancestral form: a stage at the geometric mean of two levels."""

from __future__ import annotations

import math
from typing import Any

import solverkit as sk
from solverkit import Grid
from solverkit.errors import OptionError
from solverkit.grid.grid import SAME
from solverkit.steps import from_ratio, posterior_std


@sk.sampler(
    "kdpm2", order=2,
    reference="k-diffusion, sample_dpm_2; Karras et al. 2022, Algorithm 2", cite="crowson2022 karras2022",
)
def kdpm2(model: Any, x: Any, grid: Grid, noise: Any) -> Any:
    """DPM-2: a stage at m = sqrt(s t), then x+ = x + (t - s) d_m with the slope d = (x - D) / s.

    Order 2 (m is the middle of the step to first order); two evaluations a step, one in a step that ends at 0 (2 N - 1 in
    all). In the flow frame the same rule on its s. Not `midpoint`, whose stage is at (s + t) / 2, nor `dpm-solver-2`, which
    takes the exact steps of the noise form.
    Source: k-diffusion, sample_dpm_2, without churn: Karras et al. 2022, Algorithm 2, with the stage of DPM-Solver-2 (Lu et
    al. 2022, Algorithm 1), halfway in log sigma.
    """
    for s, t in grid.steps():
        d = (x - model(x, s)) / s
        if t == 0:
            x = x + (t - s) * d
            continue
        m = grid.at(math.sqrt(s * t))
        y = x + (m - s) * d
        x = x + (t - s) * ((y - model(y, m)) / m)
    return x


@sk.sampler(
    "kdpm2-ancestral",
    reference="k-diffusion, sample_dpm_2_ancestral", cite="crowson2022",
    variants=({"eta": 0.5, "s_noise": 1.003},),
)
def kdpm2_ancestral(model: Any, x: Any, grid: Grid, noise: Any, eta: float = 1.0, s_noise: float = 1.0) -> Any:
    """DPM-2 to a lower level d, with its stage at sqrt(s d), then noise u up to t.

    u = min(t, eta t sqrt(1 - r^2)), and d is the level where sigma / alpha is sqrt(t^2 - u^2) / alpha_t; at eta = 1 it is
    t^2 / s in the sigma frame, and the stage is at t itself. eta = 0 is `kdpm2`. First order in law; two evaluations a
    step, one where d is 0 (a step to 0, and at eta = 1 the step from alpha = 0).
    Source: k-diffusion, sample_dpm_2_ancestral.

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
        down = from_ratio(math.sqrt(t * t - u * u) / t.alpha, grid.frame)
        if down == 0:
            y = denoised
        else:
            m = grid.at(math.sqrt(s * down))
            if abs(m - t) <= SAME * t:
                m = t  # as in the sigma frame at eta = 1; the pipelines then know it as a level of the grid
            y = x + (m - s) * ((x - denoised) / s)
            y = x + (down - s) * ((y - model(y, m)) / m)
        x = (t.alpha / (1 - grid.frame * down)) * y
        if u > 0:
            x = x + (s_noise * u) * noise(s, t)
    return x
