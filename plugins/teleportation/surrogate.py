"""A model of the network that costs nothing to ask: its Gaussian, and the residual that was recorded on its trajectories.

D(x, s) = D_G(x, s) + r_i(s) for trajectory i, in the coordinates of the basis. Its exact solution is known: in standard
deviations n = (x - alpha mu) / (alpha^2 l + s^2)^(1/2), which the Gaussian's flow keeps,

    dn/du = - r_i / (l + rho^2)^(1/2),   rho = s / alpha, u = log rho.

So any plan can be run on it and its error measured: what a jump costs (the integral above, left out) and what a solver
loses on the levels that it is given, in one number.
"""

from __future__ import annotations

import functools
import math

import torch

from solverkit import GaussianStats, Grid, Level, Plan
from solverkit.plan.plan import advance, begin

MOST = 2.0  # jumps' errors that the answer is followed to
FINE = 8  # sub-intervals of a recorded one, for the integral


class Surrogate:
    """Of statistics that hold a profile; `gaussian` is the same Gaussian in its coordinates."""

    def __init__(self, stats: GaussianStats) -> None:
        assert stats.profile is not None
        self.values = stats.values[: stats.profile.start.shape[1]]
        r = len(self.values)
        self.gaussian = GaussianStats(torch.zeros(r, dtype=torch.float64), torch.eye(r, dtype=torch.float64), self.values)
        self.u = stats.profile.ratios.log().flip(0)  # rising
        self.residual = stats.profile.residual.double().flip(1)  # (K, L, r)
        self.change = stats.profile.jumped.double().flip(1) - self.residual
        self.start = stats.profile.start.double()
        L = len(self.u)
        parts = torch.arange(FINE, dtype=torch.float64) / FINE
        self.fine = torch.cat([torch.lerp(self.u[i], self.u[i + 1], parts) for i in range(L - 1)])
        self.fine = torch.cat([self.fine, self.u[-1:]])
        rate = torch.stack([self.at(float(u)) / (self.values + math.exp(2 * u)).sqrt() for u in self.fine.tolist()], 1)
        pieces = (rate[:, 1:] + rate[:, :-1]) / 2 * self.fine.diff()[:, None]
        below = torch.cat([torch.zeros_like(rate[:, :1]), pieces.cumsum(1)], 1)
        self.n = self.start[:, None] + below[:, -1:] - below  # (K, F, r)

    def at(self, u: float) -> torch.Tensor:
        """r (K, r) at u = log rho; it vanishes towards pure noise, and quadratically towards clean data."""
        low, high = float(self.u[0]), float(self.u[-1])
        if u >= high:
            return self.residual[:, -1] * math.exp(high - u)
        if u <= low:
            return self.residual[:, 0] * math.exp(2 * (u - low))
        return _interpolated(self.u, self.residual, u)

    def deviations(self, level: Level) -> torch.Tensor:
        """n (K, r) of the exact solution."""
        u = -level.lam
        return _interpolated(self.fine, self.n, min(max(u, float(self.fine[0])), float(self.fine[-1])))

    def state(self, level: Level) -> torch.Tensor:
        """The exact solution (K, r) in the frame, centred."""
        return self.deviations(level) * self.std(level)

    def denoised(self, x: torch.Tensor, level: Level) -> torch.Tensor:
        """D of centred states (K, r)."""
        u = -level.lam
        return level.alpha * self.values / self.std(level) ** 2 * x + self.at(u) + self.answer(x, level, u)

    def answer(self, x: torch.Tensor, level: Level, u: float) -> torch.Tensor:
        """What the residual does about an error of x (K, r): along the error of a jump it goes over to the jumped one's."""
        if u >= float(self.u[-1]) or level.alpha == 0:
            return torch.zeros_like(x)
        n = self.deviations(level)
        jump = (self.start - n) * self.std(level)
        size = jump.square().sum(1, keepdim=True).clamp_min(1e-30)
        share = ((x - n * self.std(level)) * jump).sum(1, keepdim=True) / size
        return share.clamp(-MOST, MOST) * _interpolated(self.u, self.change, max(u, float(self.u[0])))

    def error(self, plan: Plan, grid: Grid) -> float:
        """RMS error at the end of the grid of a plan whose first level is reached by a jump from the grid's first."""
        x, state = begin(plan, self.deviations(grid[0]) * self.std(plan.grid[0]), _silent)
        for level in plan.levels:
            x, state = advance(plan, state, x, self.denoised(x, level), _silent)
        off = float((x - self.state(grid[-1])).square().mean().sqrt())
        return off if math.isfinite(off) else math.inf

    def std(self, level: Level) -> torch.Tensor:
        """(alpha^2 l + s^2)^(1/2), (r,)."""
        return (level.alpha**2 * self.values + float(level) ** 2).sqrt()


def _silent(ordinal: int, s: float, t: float) -> torch.Tensor:
    return torch.zeros((), dtype=torch.float64)


def _interpolated(nodes: torch.Tensor, values: torch.Tensor, u: float) -> torch.Tensor:
    """Linear in u between nodes of (K, L, r)."""
    i = int(torch.searchsorted(nodes, u).clamp(1, len(nodes) - 1))
    a, b = float(nodes[i - 1]), float(nodes[i])
    return torch.lerp(values[:, i - 1], values[:, i], (u - a) / (b - a))


@functools.lru_cache(maxsize=8)
def surrogate(stats: GaussianStats) -> Surrogate:
    """Of these statistics, kept: a budget is fitted by tracing many grids."""
    return Surrogate(stats)
