"""A system whose joint denoiser is known exactly: nodes x and adjacency adj of one Gaussian with a coupled covariance.

Every node has a factor of its own, and there is one of the whole graph:

    x_i = m_x + a g 1 + b u_i c + d v_i,        adj_ij = m_a + e g + f (u_i + u_j) + h w_ij,     all factors N(0, 1),

so nodes are exchangeable, x and adj are coupled through g and u, and the law of some of the nodes is the same formula with
fewer of them: what a permutation or padding does to a sampler can be told to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import ProblemError
from ..joint.clock import ratio_at
from ..joint.model import JointDenoiser, wrap_joint
from ..joint.spaces import nodes, symmetric_hollow
from ..process.schedule import VE, Schedule
from ..process.variance_preserving import ContinuousVP

MEAN_X, MEAN_A = 0.5, 0.3
SHARED_X, OWN_X, REST_X = 0.4, 0.8, 0.3  # a, b, d
SHARED_A, OWN_A, REST_A = 0.3, 0.4, 0.2  # e, f, h


class CoupledGaussian:
    """The law of (x, adj) for graphs of up to `size` nodes; vectors (B, D) hold x by rows, then adj by pairs.

    Args:
        size: N.
        features: F, of a node.
    """

    def __init__(self, size: int, features: int) -> None:
        if size < 2 or features < 1:
            raise ProblemError(f"a coupled Gaussian has at least 2 nodes and 1 feature, got {size} and {features}.")
        self.size, self.features = size, features
        self.low, self.high = torch.tril_indices(size, size, -1).flip(0)  # pairs in the order of `symmetric_hollow`
        pairs, F = len(self.low), features
        self.dim = size * F + pairs
        load = torch.zeros(self.dim, 1 + size + size * F + pairs, dtype=torch.float64)
        weight = torch.cos(torch.arange(F, dtype=torch.float64))  # c: features load differently on their node's factor
        for i in range(size):
            rows = slice(i * F, (i + 1) * F)
            load[rows, 0] = SHARED_X
            load[rows, 1 + i] = OWN_X * weight
        load[: size * F, 1 + size : 1 + size + size * F] = REST_X * torch.eye(size * F, dtype=torch.float64)
        edge = size * F + torch.arange(pairs)
        load[edge, 0] = SHARED_A
        load[edge, 1 + self.low] = OWN_A
        load[edge, 1 + self.high] = OWN_A
        load[edge, 1 + size + size * F + torch.arange(pairs)] = REST_A
        self.covariance = load @ load.T
        self.mean = self.each(MEAN_X, MEAN_A)

    def flat(self, xs: Mapping[str, Tensor]) -> Tensor:
        """(B, D) of x (B, N, F) and adj (B, N, N)."""
        return torch.cat([xs["x"].flatten(1), xs["adj"][:, self.low, self.high]], dim=1)

    def states(self, v: Tensor) -> dict[str, Tensor]:
        """x and adj of (B, D): the inverse of `flat`."""
        cut = self.size * self.features
        adj = v.new_zeros(len(v), self.size, self.size)
        adj[:, self.low, self.high] = v[:, cut:]
        return {"x": v[:, :cut].reshape(len(v), self.size, self.features), "adj": adj + adj.transpose(1, 2)}

    def each(self, x: float, adj: float) -> Tensor:
        """(D,): one number for x's coordinates, another for adj's."""
        counts = torch.tensor([self.size * self.features, len(self.low)])
        return torch.tensor([x, adj], dtype=torch.float64).repeat_interleave(counts)

    def present(self, mask: Tensor) -> Tensor:
        """(D,) bool: coordinates of nodes and pairs that a mask (N,) has."""
        there = mask.bool().cpu()
        return torch.cat([there.repeat_interleave(self.features), there[self.low] & there[self.high]])

    def gain(self, alpha: Tensor, s: Tensor, there: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(K, b) with E[x_0 | y] = K y + b for y = alpha x_0 + s eps, alpha and s (D,); zero where nothing is there."""
        K, b = torch.zeros(self.dim, self.dim, dtype=torch.float64), torch.zeros(self.dim, dtype=torch.float64)
        on = torch.arange(self.dim) if there is None else there.nonzero().flatten()
        C, a = self.covariance[on][:, on], alpha[on]
        inner = torch.linalg.solve(a[:, None] * C * a + torch.diag(s[on] ** 2), a[:, None] * C).T  # C A (A C A + S^2)^-1
        K[on[:, None], on] = inner
        b[on] = self.mean[on] - inner @ (a * self.mean[on])
        return K, b

    def moments(self, alpha: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (D,) and covariance (D, D) of y = alpha x_0 + s eps."""
        return alpha * self.mean, alpha[:, None] * self.covariance * alpha + torch.diag(s**2)

    def sample(self, n: int, seed: int = 0) -> dict[str, Tensor]:
        """n draws of x and adj, float64."""
        z = torch.randn(n, self.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        return self.states(self.mean + z @ torch.linalg.cholesky(self.covariance).T)

    def transport(
        self, v: Tensor, schedules: Mapping[str, Schedule], start: float, stop: float, substeps: int = 1024
    ) -> Tensor:
        """Where the probability flow of the system takes (B, D) from clock time `start` to `stop`, in the sigma frame.

        dx_c/du = (ds_c/du) (x_c - D_c) / s_c for each component; RK4 in u, so exact to about (1/substeps)^4.
        """
        def field(u: float, y: Tensor) -> Tensor:
            ratios = [ratio_at(schedules[name], u) for name in ("x", "adj")]
            step = 1e-6
            rates = [
                (ratio_at(schedules[n], u + step) - ratio_at(schedules[n], u - step)) / (2 * step) for n in ("x", "adj")
            ]
            s, rate = self.each(*ratios), self.each(*rates)
            K, b = self.gain(torch.ones_like(s), s)
            return rate / s * (y - y @ K.T - b)

        h = (stop - start) / substeps
        for i in range(substeps):
            u = start + i * h
            k1 = field(u, v)
            k2 = field(u + h / 2, v + h / 2 * k1)
            k3 = field(u + h / 2, v + h / 2 * k2)
            k4 = field(u + h, v + h * k3)
            v = v + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return v


class ExactJoint:
    """net(xs, times, mask=None) of the exact system: its answers are E[x_0 | xs], in float64."""

    def __init__(self, target: CoupledGaussian, schedules: Mapping[str, Schedule]) -> None:
        self.target, self.schedules = target, dict(schedules)
        self.name = "coupled-gaussian"

    def __call__(
        self, xs: Mapping[str, Tensor], times: Mapping[str, Tensor], mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        coefficients = {}
        for name, schedule in self.schedules.items():
            told = float(times[name][0])
            coefficients[name] = schedule.alpha_sigma(schedule.ratio(told) if told > 0 else 0.0)
        alpha, s = (self.target.each(coefficients["x"][k], coefficients["adj"][k]) for k in (0, 1))
        v = self.target.flat(xs)
        out = torch.empty(v.shape, dtype=torch.float64)
        masks = None if mask is None else mask.cpu().unique(dim=0)
        for one in [None] if masks is None else masks:
            there = None if one is None else self.target.present(one)
            rows = slice(None) if mask is None or one is None else torch.eq(mask.cpu(), one).all(dim=1)
            K, b = self.target.gain(alpha, s, there)
            out[rows] = v[rows].cpu().double() @ K.T + b
        return {name: x.to(xs[name]) for name, x in self.target.states(out).items()}


def coupled_gaussian(
    size: int = 4, features: int = 2, schedule_x: Schedule | None = None, schedule_adj: Schedule | None = None,
    mask: Any = None,
) -> JointDenoiser:  # fmt: skip
    """The exact system: x (N, F) on VP, adj (N, N) on VE, coupled; `joint.net.target` is its law.

    Args:
        size, features: N and F.
        schedule_x, schedule_adj: Default beta 0.1 to 20 and sigma 0.02 to 20, both told t.
        mask: As of `sk.wrap_joint`.
    """
    target = CoupledGaussian(size, features)
    schedules: dict[str, Schedule] = {
        "x": schedule_x or ContinuousVP(time_scale=1.0), "adj": schedule_adj or VE(0.02, 20.0, told="unit")
    }  # fmt: skip
    shapes = {"x": (size, features), "adj": (size, size)}
    return wrap_joint(
        ExactJoint(target, schedules), {n: ("denoised", schedules[n], shapes[n]) for n in shapes},
        project={"x": nodes, "adj": symmetric_hollow}, mask=mask,
    )  # fmt: skip
