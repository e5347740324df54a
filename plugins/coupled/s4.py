"""S4, the Symmetric Splitting for System of SDEs of GDSS: a correction and a split prediction for one evaluation.

From s to t in own coordinates, with the middle m of the step in time, rho = alpha_s / alpha_m and
G^2 = sigma_s^2 - rho^2 sigma_m^2 of the forward process over a half step:

    linear part, half a step     x <- x / rho + std z
    score part, a whole step     x <- x + g^2 dt score(the state before the correction)
    linear part, half a step     x <- x / rho + std z

The released code has std = G, the noise of the forward half step; backwards the linear part has G / rho (the same on VE).
"""

from __future__ import annotations

import math
from typing import Any

import solverkit as sk
from solverkit import VE, Grid, Level
from solverkit.errors import OptionError
from solverkit.joint.clock import clock, ratio_at
from solverkit.process.variance_preserving import ContinuousVP, SubVP

from .correct import require_sizes, tempered_langevin
from .split import NoiseOf, drift, half, middle


@sk.sampler(
    "s4",
    reference="Jo et al. 2022, arXiv 2202.02514, appendix B; harryjo97/GDSS, solver.py",
    cite="jo2022",
    linear=lambda options: not options["correct"],
    variants=({"correct": False}, {"correct": False, "noise_of": "forward"}),
)
def s4(
    model: Any, x: Any, grid: Grid, noise: Any, snr: float = 0.16, scale_eps: float = 1.0, correct: bool = True,
    noise_of: NoiseOf = "exact", batch_norms: bool = False, released: bool = False,
) -> Any:  # fmt: skip
    """GDSS's solver: one evaluation a step pays for a Langevin correction and a Strang-split prediction.

    Weak order 1, not 2: the score of the step is the one from before the correction and the first half step, and its own
    part is an Euler step. (A fresh score in the middle would be order 1 as well.) It errs little where data are sharp and
    much where they are not (docs/systems.md). Stochastic; one evaluation a step. Made for systems,
    runs on one tensor too. Langevin steps of a fixed SNR have a bias that does not vanish.
    Source: Jo et al. 2022, appendix B; the released code's coefficients and quirks with noise_of and released.

    Args:
        snr: Signal-to-noise ratio of the correction; released recipes .05 to .2.
        scale_eps: Of its noise: below 1 it is a lower temperature; released recipes .7 to .9.
        correct: Whether there is a correction.
        noise_of: "exact", the linear part backwards; or "forward", the released half step.
        batch_norms: The released rule: norms are means over the batch, so a sample depends on its batch.
        released: The released run: noise_of="forward", batch_norms, N times 1 .. eps, each followed by a step of 1 / N,
            the last one to its mean, beyond 0. For grid="score-sde" on VE and VP in continuous time.
    """
    require_sizes("s4", snr, scale_eps)
    if released:
        return _released(model, x, grid, noise, snr, scale_eps, correct)
    for s, t in grid.steps():
        denoised = model(x, s)
        if t == 0:
            return denoised
        if s.alpha == 0:
            x = t.alpha * denoised + float(t) * noise(s, t)  # the posterior q(x_t | x_0 = D) from pure noise
            continue
        saved = (s.alpha * denoised - x) / (s * s * s.scale)  # own score
        if correct:
            x = tempered_langevin(x, denoised, noise(s, s), float(s), s.alpha, snr, scale_eps, 1.0, batch_norms)
        m, power = middle(grid, s, t), drift(grid.schedule, s, t)[1]
        shrink, std = half(s, m, noise_of)
        x = (shrink * s.scale) * x + std * noise(s, m) + power * saved
        shrink, std = half(m, t, noise_of)
        x = (1 / t.scale) * (shrink * x + std * noise(m, t))
    return x


def _released(model: Any, x: Any, grid: Grid, noise: Any, snr: float, scale_eps: float, correct: bool) -> Any:
    """The released loop: dt = 1 / N whatever the times, VP's step times 1 - beta_i, the mean of the last half step."""
    process, n = Released(grid.schedule), grid.run_steps
    mean = x
    for s, t in grid.steps():
        u, denoised = process.time(s), model(x, s)
        saved = (s.alpha * denoised - x) / (s * s * s.scale)
        if correct:
            factor = process.langevin(u, n)
            x = tempered_langevin(x, denoised, noise(s, s), float(s), s.alpha, snr, scale_eps, factor, True)
        x = s.scale * x
        shrink, std = process.half(u, 0.5 / n)
        x = shrink * x + std * noise(s, s) + (process.power(u) / n) * saved
        shrink, std = process.half(u - 0.5 / n, 0.5 / n)
        mean = (shrink / t.scale) * x
        x = mean + (std / t.scale) * noise(s, t)
    return mean


class Released:
    """The processes of the released code in t, which runs below 0 at the end."""

    def __init__(self, schedule: Any) -> None:
        if not isinstance(schedule, (VE, ContinuousVP)) or isinstance(schedule, SubVP):
            raise OptionError(f"s4:released=True is for VE and for VP in continuous time, not for {schedule}; omit it.")
        self.schedule: Any = schedule
        self.ve = isinstance(schedule, VE)

    def time(self, s: Level) -> float:
        return clock(self.schedule, s.ratio)

    def half(self, u: float, step: float) -> tuple[float, float]:
        """(1 / rho, std) from u to u - step: of VP e^(B/2) and sqrt(1 - e^-B), of VE 1 and the difference of variances."""
        if self.ve:
            return 1.0, math.sqrt(ratio_at(self.schedule, u) ** 2 - ratio_at(self.schedule, u - step) ** 2)
        B = self.schedule.beta_min * step + 0.5 * self._slope() * (u**2 - (u - step) ** 2)
        return math.exp(B / 2), math.sqrt(max(-math.expm1(-B), 0.0))

    def power(self, u: float) -> float:
        """g(u)^2."""
        if self.ve:
            span = math.log(self.schedule.sigma_max / self.schedule.sigma_min)
            return float(2 * ratio_at(self.schedule, u) ** 2 * span)
        return float(self.schedule.beta_min + u * self._slope())

    def langevin(self, u: float, n: int) -> float:
        """alpha of the Langevin step: 1 - beta_i of N discrete levels on VP."""
        if self.ve:
            return 1.0
        if n < self.schedule.beta_max:
            raise OptionError(
                f"the released correction on VP has the size 1 - beta / N, negative for N = {n} steps: take at least "
                f"{math.ceil(self.schedule.beta_max)}, or omit released=True."
            )
        i = int(u * (n - 1) + 1e-9)
        return float(1 - (self.schedule.beta_min + self._slope() * i / max(n - 1, 1)) / n)

    def _slope(self) -> float:
        return float(self.schedule.beta_max - self.schedule.beta_min)
