"""DAPS: at each level the clean sample is drawn anew, given a guess of it and the values, and noised to the next level."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import torch

import solverkit as sk
from solverkit import Grid, Level
from solverkit.errors import OptionError
from solverkit.inverse import Measurement

from .of_run import ADVICE, from_denoiser, of_run

RHO = 7.0  # of the levels of the inner ODE


def _guess(model: Any, x: Any, grid: Grid, s: Level, steps: int) -> Any:
    """x_0 by Euler steps of the probability flow from s, even in the 7th root of sigma / alpha; the last to 0."""
    if steps == 1 or s.alpha == 0:
        return model(x, s)
    low = min(0.01, 0.1 * s.ratio)
    top, end = s.ratio ** (1 / RHO), low ** (1 / RHO)
    levels = [s, *(grid.schedule.level((top + i / (steps - 1) * (end - top)) ** RHO, grid.frame) for i in range(1, steps))]
    for a, b in zip(levels, [*levels[1:], None]):
        denoised = model(x, a)
        x = denoised if b is None else x + (b - a) / a * (x - denoised)
    return x


def _drawn(noise: Any, s: Level, like: torch.Tensor) -> torch.Tensor:
    """Unit normal noise of a measurement's shape, cut from draws of the state's."""
    parts: list[torch.Tensor] = []
    while sum(part.shape[1] for part in parts) < like[0].numel():
        parts.append(noise(s, s).flatten(1))
    return torch.cat(parts, 1)[:, : like[0].numel()].reshape(like.shape).to(like)


@sk.sampler(
    "daps", traceable=False, prepare=from_denoiser, advice=ADVICE,
    reference="Zhang et al. 2024, arXiv 2407.01521", cite="zhang2025daps",
)
def daps(
    model: Any, x: Any, grid: Grid, noise: Any, measurement: Measurement, ode_steps: int = 5,
    inner: Literal["langevin", "exact"] = "langevin", langevin_steps: int = 100, step: float = 1e-4,
    step_ratio: float = 0.01, tau: float | None = None,
) -> Any:  # fmt: skip
    """Decoupled annealing: x_0 ~ N(guess, s^2 / alpha^2 I) times the likelihood at each level s, then x = alpha x_0 + t z.

    The guess is the end of `ode_steps` Euler steps of the probability flow: so many evaluations a level, no gradient of the
    network. N(guess, s^2 / alpha^2 I) is far wider than the law of x_0 given x where s is above the data's own width: a
    chain that has converged, inner="exact", is the wrong law there, and errors add up over the levels; the published short
    chain does not get so far (benchmarks/inverse_findings.py). Stochastic, pull-only.
    Source: Zhang et al. 2024, Algorithm 1.

    Args:
        measurement: What was measured; of the denoiser, sk.inverse.measured, where not given.
        ode_steps: Evaluations a level.
        inner: "langevin" steps from the guess, or the "exact" draw, where a linear operator has one.
        langevin_steps: Of unadjusted Langevin at each level.
        step, step_ratio: The step falls linearly with the level's number, from `step` towards step_ratio times that.
        tau: Standard deviation of the likelihood; the measurement's own if None (0.01 in the published settings).
    """
    if ode_steps < 1 or langevin_steps < 1 or not step > 0 or not 0 < step_ratio <= 1:
        raise OptionError(
            f"daps needs ode_steps, langevin_steps >= 1, step > 0 and 0 < step_ratio <= 1; got {ode_steps}, "
            f"{langevin_steps}, {step}, {step_ratio}."
        )
    own = of_run(model, measurement)
    tau = own.noise_std if tau is None else tau
    if not tau > 0:
        raise OptionError("daps needs a likelihood of some width: tau > 0, or a measurement with noise_std > 0.")
    levels, A = list(grid), own.operator
    for i, (s, t) in enumerate(pairwise(levels)):
        grid.begin_step()
        guess = _guess(model, x, replace(grid, on_step=None), s, ode_steps)
        width = s.ratio
        if math.isinf(width):  # pure noise: the guess is the mean of the data, and N(guess, s^2) has no end
            clean = guess
        elif inner == "exact":  # argmin of a perturbed problem is a draw
            u = guess + width * noise(s, s)
            missed = own.missed(u)
            clean = u + A.adjoint(A.solve(missed + tau * _drawn(noise, s, missed), 1.0, (tau / width) ** 2))
        else:
            eta, clean = step * (1 + i / (len(levels) - 1) * (step_ratio - 1)), guess
            for _ in range(langevin_steps):
                score = (guess - clean) / width**2 + A.adjoint(own.missed(clean)) / tau**2
                clean = clean + eta * score + math.sqrt(2 * eta) * noise(s, s)
        x = clean if t == 0 else t.alpha * clean + t * noise(s, t)
    return x
