"""SEEDS: exponential Runge-Kutta stages of the reverse SDE, all noises of a step increments of one Brownian path.

With g = (1 + eta) h and r = e^-h, from s to m (c of the step in log-SNR) for a frozen D:

    x_m = (m / s) r_c^eta x + alpha_m (1 - r_c^(1 + eta)) D + m w_m,   w_m = sqrt(1 - r_c^(2 eta)) z

and on from m to t: w_t = r'^eta w_m + sqrt(1 - r'^(2 eta)) z', r' the contraction from m to t.
"""

from __future__ import annotations

import math
from typing import Any

import solverkit as sk
from solverkit import Grid, Level
from solverkit.errors import OptionError
from solverkit.steps import contraction, phi

GONZALEZ = "Gonzalez et al. 2023, arXiv 2305.14267"


def _frozen(x: Any, denoised: Any, s: Level, t: Level, eta: float) -> Any:
    r = contraction(s, t)
    return (t / s * r**eta) * x + (t.alpha * (1 - r ** (1 + eta))) * denoised


def _carried(w: Any, noise: Any, s: Level, t: Level, eta: float) -> Any:
    """w at t: what was drawn before s, and what is drawn between."""
    decay = contraction(s, t) ** eta
    new = math.sqrt(1 - decay * decay) * noise(s, t)
    return new if w is None else decay * w + new


def _check(eta: float) -> None:
    if eta < 0:
        raise OptionError(f"eta must be at least 0, got {eta}.")


@sk.sampler(
    "seeds-2",
    order=lambda options: 2 if options["eta"] == 0 else None,
    reference=f"{GONZALEZ}, Algorithm 2",
    cite="gonzalez2023",
    variants=({"eta": 0.0}, {"eta": 0.5, "s_noise": 1.003}),
)
def seeds_2(model: Any, x: Any, grid: Grid, noise: Any, eta: float = 1.0, s_noise: float = 1.0, r: float = 0.5) -> Any:
    """SEEDS-2: the stage at the share r of the step in log-SNR, D = (1 - 1/(2 r)) D_s + D_m / (2 r).

    eta = 0 is DPM-Solver++ (2S) without its packing, order 2. Two evaluations a step, one in a step that ends at 0 or
    starts at alpha = 0.
    Source: Gonzalez et al. 2023, Algorithm 2, in data prediction as `seeds_2` of ComfyUI.

    Args:
        eta: Strength of the noise; 1 is the reverse SDE.
        s_noise: Standard deviation of the noise.
        r: Where the stage lies, in (0, 1).
    """
    _check(eta)
    if not 0 < r < 1:
        raise OptionError(f"r must lie in (0, 1), got {r}.")
    for s, t in grid.steps():
        denoised, w = model(x, s), None
        if t > 0 and s.alpha > 0:
            m = grid.at_lam(s.lam + r * (t.lam - s.lam))
            share = (m.lam - s.lam) / (t.lam - s.lam)  # r, where the stage was not rounded
            y = _frozen(x, denoised, s, m, eta)
            if eta > 0:
                w = _carried(None, noise, s, m, eta)
                y = y + (s_noise * m) * w
            denoised = (1 - 0.5 / share) * denoised + (0.5 / share) * model(y, m)
            start = m
        else:
            start = s
        x = _frozen(x, denoised, s, t, eta)
        if eta > 0 and t > 0:
            x = x + (s_noise * t) * _carried(w, noise, start, t, eta)
    return x


@sk.sampler(
    "seeds-3",
    order=lambda options: 3 if options["eta"] == 0 else None,
    reference=f"{GONZALEZ}, Algorithm 3",
    cite="gonzalez2023",
    variants=({"eta": 0.0}, {"eta": 0.5, "s_noise": 1.003}),
)
def seeds_3(model: Any, x: Any, grid: Grid, noise: Any, eta: float = 1.0, s_noise: float = 1.0) -> Any:
    """SEEDS-3: stages at 1/3 and 2/3 of the step in log-SNR.

    With c_1, c_2 the shares and z = c_2 g, beside the noise:

        x_2 = frozen(D_s, s -> m_2) + alpha (c_2 / c_1) z phi_2(-z) (D_1 - D_s)
        x+  = frozen(D_s, s -> t) + alpha (1 / c_2) g phi_2(-g) (D_2 - D_s)

    eta = 0 is DPM-Solver++ (3S) without its packing, order 3. Three evaluations a step, one in a step that ends at 0 or
    starts at alpha = 0.
    Source: Gonzalez et al. 2023, Algorithm 3, in data prediction as `seeds_3` of ComfyUI.

    Args:
        eta: Strength of the noise; 1 is the reverse SDE.
        s_noise: Standard deviation of the noise.
    """
    _check(eta)
    for s, t in grid.steps():
        denoised, w, start, slope = model(x, s), None, s, None
        if t > 0 and s.alpha > 0:
            h = t.lam - s.lam
            m_1, m_2 = grid.at_lam(s.lam + h / 3), grid.at_lam(s.lam + 2 * h / 3)
            c_1, c_2 = (m_1.lam - s.lam) / h, (m_2.lam - s.lam) / h
            g = (1 + eta) * h
            y = _frozen(x, denoised, s, m_1, eta)
            if eta > 0:
                w = _carried(None, noise, s, m_1, eta)
                y = y + (s_noise * m_1) * w
            slope = model(y, m_1) - denoised
            z = c_2 * g
            y = _frozen(x, denoised, s, m_2, eta) + (m_2.alpha * (c_2 / c_1) * z * phi(2, -z)) * slope
            if eta > 0:
                w = _carried(w, noise, m_1, m_2, eta)
                y = y + (s_noise * m_2) * w
            slope, start = (t.alpha / c_2 * g * phi(2, -g)) * (model(y, m_2) - denoised), m_2
        x = _frozen(x, denoised, s, t, eta)
        if slope is not None:
            x = x + slope
        if eta > 0 and t > 0:
            x = x + (s_noise * t) * _carried(w, noise, start, t, eta)
    return x
