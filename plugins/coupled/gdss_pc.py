"""The predictor-corrector of GDSS: all components corrected at the old states, then all predicted (Jacobi order)."""

from __future__ import annotations

import math
from typing import Any, Literal

import solverkit as sk
from solverkit import Grid, Level

from .correct import require_sizes, tempered_langevin
from .split import drift, half


@sk.sampler(
    "gdss-pc",
    reference="Jo et al. 2022, arXiv 2202.02514, appendix A; harryjo97/GDSS, solver.py",
    cite="jo2022",
    linear=lambda options: options["n_steps"] == 0,
    variants=({"n_steps": 0}, {"n_steps": 0, "predictor": "reverse"}),
)
def gdss_pc(
    model: Any, x: Any, grid: Grid, noise: Any, predictor: Literal["euler", "reverse"] = "euler", snr: float = 0.05,
    scale_eps: float = 0.7, n_steps: int = 1, batch_norms: bool = False,
) -> Any:  # fmt: skip
    """Langevin corrections with a temperature, then one Euler-Maruyama or reverse-diffusion step, at each level.

    In a system the corrections of all components use the scores at the same old states, and so do the predictions: what
    lockstep does with any sampler. Differs from `pc` by scale_eps and by the clock of systems (time, log sigma on VE).
    First order in law without corrections, which have a bias that does not vanish; N (n_steps + 1) evaluations.
    Source: Jo et al. 2022, appendix A; defaults are the released recipe of community_small.

    Args:
        predictor: "euler" (Euler-Maruyama), or "reverse" (the discretised forward step turned round).
        snr: Signal-to-noise ratio of a correction.
        scale_eps: Of its noise: below 1 it is a lower temperature.
        n_steps: Corrections a level; 0 is the predictor alone.
        batch_norms: The released rule: norms are means over the batch, so a sample depends on its batch.
    """
    require_sizes("gdss-pc", snr, scale_eps, n_steps)
    for s, t in grid.steps():
        for _ in range(n_steps):
            denoised = model(x, s)
            x = tempered_langevin(x, denoised, noise(s, s), float(s), s.alpha, snr, scale_eps, 1.0, batch_norms)
        denoised = model(x, s)
        if t == 0:
            return denoised
        if s.alpha == 0:
            x = t.alpha * denoised + float(t) * noise(s, t)  # the posterior q(x_t | x_0 = D) from pure noise
            continue
        keep, power = _coefficients(predictor, grid, s, t)
        score = (s.alpha * denoised - x) / (s * s * s.scale)  # own
        x = (1 / t.scale) * ((keep * s.scale) * x + power * score + math.sqrt(power) * noise(s, t))
    return x


def _coefficients(predictor: str, grid: Grid, s: Level, t: Level) -> tuple[float, float]:
    """(c, p) of x_t = c x_s + p score + sqrt(p) z in own coordinates."""
    shrink, G = half(s, t, "forward")
    if predictor == "reverse":
        return 2 - 1 / shrink, G * G
    f, power = drift(grid.schedule, s, t)
    return 1 - f, power
