"""Flow-SDE and CPS, in the coordinates of a flow: f = s / (alpha_s + s) in [0, 1] and x / (alpha_s + s)."""

from __future__ import annotations

import math
from typing import Any

import solverkit as sk
from solverkit import Grid, Level
from solverkit.errors import OptionError

PURE = 1 - 1e-4  # from here on f is 1: some layouts start at 1 - 1e-6, where g would be 700


def _flow(s: Level) -> float:
    return s / (s.alpha + s)


@sk.sampler(
    "flow-sde",
    reference="Liu et al. 2025, Flow-GRPO, arXiv 2505.05470, eq. 9",
    cite="liu2025grpo",
    variants=({"released": True, "a": 0.0}, {"a": 0.3}),
    option_examples=({"released": True},),
)
def flow_sde(model: Any, x: Any, grid: Grid, noise: Any, a: float = 0.7, released: bool = False) -> Any:
    """Euler-Maruyama of the reverse SDE of a flow with noise g = a sqrt(f / (1 - f)), h = f_s - f_t.

    x+ = x - h v - (g^2 h / (2 f)) eps + g sqrt(h) z,    v = eps - D.

    At f = 1 (to 1e-4) the denominator takes the level after it. Euler's step leaves more noise than the network is told,
    and in the last step what it leaves is in the sample. a = 0 is Euler.
    Source: Liu et al. 2025 (Flow-GRPO), eq. 9, and its code.

    Args:
        a: Amount of noise.
        released: The step to 0 draws too, as in the published code; else it is Euler's.
    """
    if a < 0:
        raise OptionError(f"a must be at least 0, got {a}.")
    for s, t in grid.steps():
        denoised = model(x, s)
        epsilon = (1 / s) * (x - s.alpha * denoised)
        f, h = _flow(s), _flow(s) - _flow(t)
        g = 0.0
        if t > 0 or released:
            g = a * math.sqrt(f / (1 - (f if f < PURE else _flow(t))))
        unit = t.alpha + t
        x = (unit / (s.alpha + s)) * x + (unit * h) * denoised - (unit * (h + g * g * h / (2 * f))) * epsilon
        if g > 0:
            x = x + (unit * g * math.sqrt(h)) * noise(s, t)
    return x


@sk.sampler(
    "cps", student=True,
    reference="arXiv 2509.05952, eq. 12", cite="wang2025cps",
    variants=({"eta": 0.0}, {"eta": 1.0}),
)
def cps(model: Any, x: Any, grid: Grid, noise: Any, eta: float = 0.7) -> Any:
    """Coefficients-preserving sampling: DDIM with new noise u = f_t sin(eta pi / 2); the noise level is exact.

    x+ = (1 - f_t) D + sqrt(f_t^2 - u^2) eps + u z, no noise in the step to 0. eta = 0 is Euler.
    Every step renews the same share of the noise, however short it is: with more steps at one eta the samples of an exact
    denoiser draw together, and the law of the data is not kept.
    Source: arXiv 2509.05952, eq. 12.

    Args:
        eta: 0 (deterministic) to 1 (all of the noise is new).
    """
    if not 0 <= eta <= 1:
        raise OptionError(f"eta must be 0 (deterministic) to 1, got {eta}.")
    for s, t in grid.steps():
        denoised = model(x, s)
        u = t * math.sin(eta * math.pi / 2)
        x = t.alpha * denoised + (math.sqrt(max(t * t - u * u, 0.0)) / s) * (x - s.alpha * denoised)
        if u > 0:
            x = x + u * noise(s, t)
    return x
