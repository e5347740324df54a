"""The update of the released code (yang-song/score_sde_pytorch, sampling.py and sde_lib.py), quirks included.

* N times linspace(1, eps, N), so they are (1 - eps) / (N - 1) apart, and yet every update takes dt = 1 / N.
* Reverse diffusion and ancestral steps look their variance up in a table of N discrete levels at floor(t (N - 1)): the
  network is told t, the update belongs to a level slightly beside it.
* Langevin norms are means over the batch, and on VP the step is multiplied by alpha = 1 - beta_i (also a square root less
  than the marginal's coefficient).
* VP ancestral has the mean of the posterior but the noise of the forward step, sqrt(beta_i).
* The last update returns its mean.

Only processes of the paper have these tables: VE, and VP and sub-VP in continuous time. Run it on grid="score-sde".
"""

from __future__ import annotations

import math
from typing import Any

from solverkit import VE, Grid, Level
from solverkit.errors import OptionError
from solverkit.process.variance_preserving import ContinuousVP, SubVP

from .langevin import annealed_size, langevin_step
from .transition import Transition


class Released:
    """Coefficients of the released updates for N times of one schedule."""

    def __init__(self, grid: Grid) -> None:
        schedule = grid.schedule
        if not isinstance(schedule, (VE, ContinuousVP)):
            raise OptionError(
                f"released=True has tables for VE and for VP and sub-VP in continuous time, not for {schedule}; omit it."
            )
        self.schedule: Any = schedule
        self.n = grid.run_steps
        self.is_ve = isinstance(schedule, VE)

    def time(self, s: Level) -> float:
        """t in (0, 1]."""
        if self.is_ve:
            span = math.log(self.schedule.sigma_max / self.schedule.sigma_min)
            return math.log(s.ratio / self.schedule.sigma_min) / span
        return float(self.schedule.time(s.ratio)) / self.schedule.time_scale

    def index(self, s: Level) -> int:
        return min(max(int(self.time(s) * (self.n - 1) + 1e-9), 0), self.n - 1)

    def beta(self, i: int) -> float:
        """beta of the i-th of n steps.

        Raises:
            OptionError: so few steps that more than all of the signal would be lost in one.
        """
        low, high = self.schedule.beta_min / self.n, self.schedule.beta_max / self.n
        beta = float(low + (high - low) * i / max(self.n - 1, 1))
        if beta >= 1:
            raise OptionError(
                f"released=True cuts VP into {self.n} steps, and beta of step {i} is then {beta:.3g}, which must be below "
                f"1: take more than {self.schedule.beta_max:g} steps, or released=False."
            )
        return beta

    def sigma(self, i: int) -> float:
        low, high = self.schedule.sigma_min, self.schedule.sigma_max
        return float(low * (high / low) ** (i / max(self.n - 1, 1))) if i >= 0 else 0.0

    def step_factor(self, s: Level) -> float:
        """alpha of the Langevin step."""
        return 1.0 if self.is_ve else 1 - self.beta(self.index(s))

    def euler(self, s: Level, share: float = 1.0) -> Transition:
        """Euler-Maruyama of dx = f x dt + g dw; share 1/2 is its probability flow."""
        dt = 1 / self.n
        if self.is_ve:
            f, g2 = 0.0, 2 * s.ratio**2 * math.log(self.schedule.sigma_max / self.schedule.sigma_min)
        else:
            t = self.time(s)
            beta = self.schedule.beta_min + t * (self.schedule.beta_max - self.schedule.beta_min)
            f, g2 = -beta / 2, beta
            if isinstance(self.schedule, SubVP):
                g2 = beta * -math.expm1(-2 * self.schedule._integral(t))
        return Transition(1 - f * dt, share * g2 * dt, math.sqrt(g2 * dt) if share == 1 else 0.0)

    def reverse_diffusion(self, s: Level, share: float = 1.0) -> Transition:
        if isinstance(self.schedule, SubVP):  # its class has no discretisation of its own
            return self.euler(s, share)
        i = self.index(s)
        if self.is_ve:
            g2, f = self.sigma(i) ** 2 - self.sigma(i - 1) ** 2, 0.0
        else:
            g2 = self.beta(i)
            f = math.sqrt(1 - g2) - 1
        return Transition(1 - f, share * g2, math.sqrt(g2) if share == 1 else 0.0)

    def ancestral(self, s: Level) -> Transition:
        if isinstance(self.schedule, SubVP):
            raise OptionError("the released ancestral predictor is for VE and VP; on sub-VP use euler-maruyama.")
        i = self.index(s)
        if self.is_ve:
            high, low = self.sigma(i) ** 2, self.sigma(i - 1) ** 2
            return Transition(1.0, high - low, math.sqrt(low * (high - low) / high))
        beta = self.beta(i)
        return Transition(1 / math.sqrt(1 - beta), beta / math.sqrt(1 - beta), math.sqrt(beta))

    def transition(self, predictor: str, s: Level) -> Transition:
        known = {
            "euler-maruyama": self.euler,
            "reverse-diffusion": self.reverse_diffusion,
            "ancestral": self.ancestral,
            "probability-flow": lambda level: self.reverse_diffusion(level, 0.5),
            "none": lambda level: Transition(1.0, 0.0, 0.0),
        }
        if predictor not in known:
            raise OptionError(f"released=True knows the predictors {', '.join(known)}, got {predictor!r}.")
        return known[predictor](s)


def released_pc(
    model: Any, x: Any, grid: Grid, noise: Any, predictor: str, corrector: str, n_steps: int, snr: float, sequence: str,
    batch_norms: bool,
) -> Any:  # fmt: skip
    """The released sampling loop; see the module."""
    if sequence != "corrector-first":
        raise OptionError("the released loop corrects first; leave sequence out.")
    table = Released(grid)
    mean = x
    for s, t in grid.steps():
        std = float(s) * s.scale
        for _ in range(n_steps if corrector != "none" else 0):
            denoised, z = model(x, s), noise(s, s)
            if corrector == "langevin":
                size = (float(s), s.alpha, snr, table.step_factor(s))
                mean = langevin_step(x, denoised, z, *size, batch_norms=True, noisy=False)
                x = langevin_step(x, denoised, z, *size, batch_norms=True)
            else:
                eps = annealed_size(float(s), snr, table.step_factor(s), std) / s.scale**2
                mean = (1 - eps / (s * s)) * x + (eps * s.alpha / (s * s)) * denoised
                x = mean + math.sqrt(2 * eps) * z
        if predictor == "none":
            mean, x = (s.scale / t.scale) * mean, (s.scale / t.scale) * x
            continue
        c_x, c_score, spread = table.transition(predictor, s)
        denoised = model(x, s)
        weight = c_score / (s.scale * s * s)
        mean = ((c_x * s.scale - weight) / t.scale) * x + (weight * s.alpha / t.scale) * denoised
        x = mean + (spread / t.scale) * noise(s, t) if spread > 0 else mean
    return mean
