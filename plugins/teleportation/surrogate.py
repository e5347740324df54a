"""A model of the network that costs nothing to ask: its Gaussian, and the residual that was recorded on its trajectories.

D(x, s) = D_G(x, s) + r_i(s) for trajectory i, in the coordinates of the basis. Its exact solution is known: in standard
deviations n = (x - alpha mu) / (alpha^2 l + s^2)^(1/2), which the Gaussian's flow keeps,

    dn/du = - r_i / (l + rho^2)^(1/2),   rho = s / alpha, u = log rho.

So any plan can be run on it and its error measured: what a jump costs (the integral above, left out) and what a solver
loses on the levels that it is given, in one number.

What is linear does not see that a jump may take a sample to another mode. `doubt` adds what that costs: how differently the
network answers, at a level where modes are decided, where the Gaussian's flow leads and where its own does. It is 0 for
Gaussian data, and largest where modes lie apart.

All in float32: what is weighed is far above its rounding.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Sequence

import torch

from solverkit import GaussianStats, Grid, Level, Plan
from solverkit.plan.plan import advance, begin

MOST = 2.0  # jumps' errors that the answer is followed to
FINE = 8  # sub-intervals of a recorded one, for the integral
TRUSTED = 1.25  # factor that variances are trusted to, beside those of the ends of trajectories
ENOUGH = 8  # trajectories, for such variances
DECIDED = 0.25  # standard deviations of the leading direction: there it is decided in which mode a sample ends
DOUBT = 0.2  # of the distance of what the network says there of a state and of the jumped one
SEARCHED = 32  # trajectories that choose, at most; any number may judge


class Surrogate:
    """Of statistics that hold a profile; `gaussian` is the same Gaussian in its coordinates.

    Args:
        stats: With a profile.
        rows: Which of its trajectories.
    """

    def __init__(self, stats: GaussianStats, rows: slice) -> None:
        assert stats.profile is not None
        p, r = stats.profile, stats.profile.start.shape[1]
        self.told = stats.values[:r].float()  # what the jump, and a solver that is given statistics, go by
        self.gaussian = GaussianStats(torch.zeros(r), torch.eye(r), self.told)
        self.u = p.ratios.log().flip(0).tolist()  # rising
        self.start = p.start[rows].float()
        self.decided = math.log(max(DECIDED * stats.spread, 1e-12))
        residual, jumped = (v[rows].float().flip(1).unbind(1) for v in (p.residual, p.jumped))  # L of (K, r)
        self.fine = [a + (b - a) * i / FINE for a, b in zip(self.u, self.u[1:]) for i in range(FINE)] + self.u[-1:]
        n = self._solved(residual)
        y = [n[FINE * i] * (self.told + math.exp(2 * u)).sqrt() for i, u in enumerate(self.u)]
        gain = [self.told / (self.told + math.exp(2 * u)) for u in self.u]
        self.values = self._seen(gain[0] * y[0] + residual[0])
        more = [g - self.values / (self.values + math.exp(2 * u)) for g, u in zip(gain, self.u)]
        off = [self.start * (self.told + math.exp(2 * u)).sqrt() - y[i] for i, u in enumerate(self.u)]
        self.residual = [r + m * y for r, m, y in zip(residual, more, y)]
        self.change = [j - r + m * d for j, r, m, d in zip(jumped, residual, more, off)]
        self.n = [
            n * ((self.told + math.exp(2 * u)) / (self.values + math.exp(2 * u))).sqrt() for n, u in zip(n, self.fine)
        ]

    def _solved(self, residual: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """n of the exact solution at the fine nodes, F of (K, r)."""
        rates = [_interpolated(self.u, residual, u) / (self.told + math.exp(2 * u)).sqrt() for u in self.fine]
        rate, steps = torch.stack(rates, 1), torch.tensor(self.fine).diff()[:, None]
        below = torch.cat([torch.zeros_like(rate[:, :1]), ((rate[:, 1:] + rate[:, :-1]) / 2 * steps).cumsum(1)], 1)
        return (self.start[:, None] + below[:, -1:] - below).unbind(1)

    def _seen(self, ends: torch.Tensor) -> torch.Tensor:
        """The variances, held within a factor of TRUSTED of those of the trajectories' ends (K, r).

        Statistics from a network at high noise know little of small variances, and those decide what an error at low noise
        becomes.
        """
        if len(ends) < ENOUGH:
            return self.told
        seen = ends.var(0)
        return torch.minimum(torch.maximum(self.told, seen / TRUSTED), seen * TRUSTED)

    @functools.cached_property
    def doubt(self) -> float:
        """RMS error of a coordinate that a jump is taken to cost besides what is linear."""
        u = min(max(self.decided, self.u[0]), self.u[-1])
        size = torch.linalg.vector_norm(_interpolated(self.u, self.change, u), dim=1).mean()
        return DOUBT * float(size) / math.sqrt(2 * max(len(self.values), 1))

    def at(self, u: float) -> torch.Tensor:
        """r (K, r) at u = log rho; towards pure noise as it is at the top (where a network's mean is its own), and
        vanishing quadratically towards clean data."""
        low, high = self.u[0], self.u[-1]
        if u >= high:
            return self.residual[-1]
        if u <= low:
            return self.residual[0] * math.exp(2 * (u - low))
        return _interpolated(self.u, self.residual, u)

    def deviations(self, u: float) -> torch.Tensor:
        """n (K, r) of the exact solution."""
        return _interpolated(self.fine, self.n, min(max(u, self.fine[0]), self.fine[-1]))

    def denoised(self, x: torch.Tensor, level: Level) -> torch.Tensor:
        """D of centred states (K, r). What the residual does about an error of x: along the error of a jump it goes over to
        the jumped one's."""
        u, std = -level.lam, self.std(level)
        y = x / std
        out = (level.alpha * self.values / std) * y + self.at(u)
        if u >= self.u[-1] or level.alpha == 0:
            return out
        true = self.deviations(u)
        jump = self.start * self.std(level, self.told) - true * std
        size = jump.square().sum(1, keepdim=True).clamp_min(1e-30)
        share = ((y - true) * std * jump).sum(1, keepdim=True) / size
        return out + share.clamp(-MOST, MOST) * _interpolated(self.u, self.change, max(u, self.u[0]))

    def error(self, plan: Plan, grid: Grid) -> float:
        """RMS error at the end of the grid of a plan whose first level is reached by a jump from the grid's first."""
        jump = self.std(plan.grid[0], self.told) / self.std(grid[0], self.told)
        x, state = begin(plan, self.deviations(-grid[0].lam) * self.std(grid[0]) * jump, _silent)
        for level in plan.levels:
            x, state = advance(plan, state, x, self.denoised(x, level), _silent)
        last = grid[-1]
        off = float((x - self.deviations(-last.lam) * self.std(last)).square().mean().sqrt())
        return off if math.isfinite(off) else math.inf

    def std(self, level: Level, values: torch.Tensor | None = None) -> torch.Tensor:
        """(alpha^2 l + s^2)^(1/2), (r,)."""
        return (level.alpha**2 * (self.values if values is None else values) + float(level) ** 2).sqrt()


def _silent(ordinal: int, s: float, t: float) -> torch.Tensor:
    return torch.zeros(())


def _interpolated(nodes: Sequence[float], values: Sequence[torch.Tensor], u: float) -> torch.Tensor:
    """Linear in u between nodes."""
    i = min(max(bisect.bisect_left(nodes, u), 1), len(nodes) - 1)
    return torch.lerp(values[i - 1], values[i], (u - nodes[i - 1]) / (nodes[i] - nodes[i - 1]))


@functools.lru_cache(maxsize=16)
def surrogate(stats: GaussianStats, half: int | None = None) -> Surrogate:
    """Of all trajectories of these statistics, or of one half: 0 to choose with, 1 to judge. Kept, for many grids."""
    assert stats.profile is not None
    if half is None or len(stats.profile.start) < 2:
        return Surrogate(stats, slice(None))
    return Surrogate(stats, slice(0, 2 * SEARCHED, 2) if half == 0 else slice(1, None, 2))
