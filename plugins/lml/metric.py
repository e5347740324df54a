"""Metrics P = (H + delta I)^-1 of a Langevin step, H an estimate of minus the Hessian of log p at a level; and the step.

With J = dD/dx the Hessian is exactly H = (I - alpha J) / s^2. Two estimates, both H = V^T diag(h) V + h_0 (I - V^T V) with
orthonormal rows V:

* Gaussian: V of the statistics, h = 1 / (alpha^2 l + s^2), h_0 = 1 / (alpha^2 floor + s^2);
* secant: pairs (dx, dD) of differences of states and of predictions say J dx = dD; symmetrised on their span and clipped to
  0 <= alpha J <= 1; off it J = 0, h_0 = 1 / s^2.

delta is `damping` times the largest curvature. One step with P frozen, g the score, per sample:

    eps = 2 (snr |z| / |P^(1/2) g|)^2, at most 1,   x+ = x + eps P g + (eps P (2 - eps P H))^(1/2) z.

The noise is sqrt(2 eps P) z with the term of second order that makes the Gaussian of the metric exactly stationary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

import solverkit as sk
from solverkit import GaussianStats, Level


class Metric(NamedTuple):
    """H of each sample: rows V (B or 1, r, D), curvatures h (B or 1, r), h_0 (B or 1, 1); delta (B, 1)."""

    vectors: torch.Tensor
    curvature: torch.Tensor
    off: torch.Tensor
    damping: torch.Tensor

    def along(self, y: torch.Tensor, gains: torch.Tensor, off: torch.Tensor) -> torch.Tensor:
        """V^T diag(gains) V y + off (I - V^T V) y of flat y (B, D)."""
        if self.vectors.shape[1] == 0:
            return off * y
        if len(self.vectors) == 1:  # shared by all samples
            return off * y + ((y @ self.vectors[0].T) * (gains - off)) @ self.vectors[0]
        c = torch.einsum("brd,bd->br", self.vectors, y)
        return off * y + torch.einsum("br,brd->bd", c * (gains - off), self.vectors)


class Secants(NamedTuple):
    """What is known of J: pairs dx, dD (B, *shape) each; pooled over the batch or not."""

    moved: list[torch.Tensor]
    answered: list[torch.Tensor]
    pooled: bool


def gaussian_metric(x: torch.Tensor, stats: GaussianStats, s: Level, damping: float | torch.Tensor) -> Metric:
    """From Gaussian statistics."""
    stats.fit_check(tuple(x.shape[1:]))
    flat = x.flatten(1)
    v, w = stats.gains(s)
    h, off = (1 / v).to(flat)[None], flat.new_tensor([[1 / w]])
    largest = max(float((1 / v).max()) if stats.rank else 0.0, 1 / w if stats.rank < stats.dim or not stats.dim else 0.0)
    return Metric(stats.vectors.to(flat)[None], h, off, _share(damping, flat) * largest)


def secant_metric(like: torch.Tensor, secants: Secants, s: Level, damping: float | torch.Tensor) -> Metric:
    """From pairs dx (B, *shape), dD (B, *shape); none of them gives H = I / s^2.

    pooled: one metric from the pairs of the whole batch, by least squares: the mean Jacobian.
    """
    flat, (moved, answered, pooled) = like.flatten(1), secants
    curvature = flat.new_tensor([[1 / float(s) ** 2]])
    delta = _share(damping, flat) * curvature
    if not moved:
        return Metric(flat.new_zeros(1, 0, flat.shape[1]), flat.new_zeros(1, 0), curvature, delta)
    wide = torch.promote_types(flat.dtype, torch.float32)  # no wider: a device may know no float64
    dx, dD = (torch.stack([v.flatten(1) for v in pairs], 2).to(wide) for pairs in (moved, answered))  # (B, D, m)
    size = torch.linalg.vector_norm(dx, dim=1, keepdim=True).clamp_min(1e-30)
    if pooled:  # the span of all pairs, J in it by least squares
        rows, images = ((v / size).transpose(1, 2).flatten(0, 1) for v in (dx, dD))
        _, values, basis = torch.linalg.svd(rows, full_matrices=False)
        basis = basis[values > 1e-3 * values[0]]
        small = torch.linalg.lstsq(rows @ basis.T, images @ basis.T).solution
        j, turn = torch.linalg.eigh((small + small.T) / 2)
        h = (1 - (s.alpha * j).clamp(0, 1)) / float(s) ** 2
        return Metric((turn.T @ basis)[None].to(flat), h[None].to(flat), curvature, delta)
    q, r = torch.linalg.qr(dx / size)
    r = r + 1e-6 * torch.eye(r.shape[-1], dtype=r.dtype, device=r.device)
    image = torch.linalg.solve_triangular(r, dD / size, upper=True, left=False)  # J q
    small = q.transpose(1, 2) @ image
    j, turn = torch.linalg.eigh((small + small.transpose(1, 2)) / 2)
    h = (1 - (s.alpha * j).clamp(0, 1)) / float(s) ** 2
    return Metric((q @ turn).transpose(1, 2).to(flat), h.to(flat), curvature, delta)


def _share(damping: float | torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
    if isinstance(damping, torch.Tensor):
        return damping.to(flat)
    return flat.new_full((len(flat), 1), float(damping))


def _metric(
    x: torch.Tensor, stats: GaussianStats | None, moved: list[torch.Tensor], answered: list[torch.Tensor], pooled: bool,
    s: Level, damping: float | torch.Tensor,
) -> Metric:  # fmt: skip
    """The Gaussian's where there are statistics, else the secants'."""
    if stats is not None:
        return gaussian_metric(x, stats, s, damping)
    return secant_metric(x, Secants(moved, answered, pooled), s, damping)


@sk.op
def metric_step(
    x: torch.Tensor, denoised: torch.Tensor, z: torch.Tensor, stats: GaussianStats | None, moved: list[torch.Tensor],
    answered: list[torch.Tensor], pooled: bool, s: Level, damping: float | torch.Tensor, snr: float,
) -> torch.Tensor:  # fmt: skip
    """x+ of the module's formula, (B, *shape)."""
    metric = _metric(x, stats, moved, answered, pooled, s, damping)
    g = ((s.alpha * denoised - x) / (float(s) ** 2)).flatten(1)
    p, p_off = 1 / (metric.curvature + metric.damping), 1 / (metric.off + metric.damping)
    white = metric.along(g, p.sqrt(), p_off.sqrt())
    ratio = _norm(z.flatten(1)) / _norm(white).clamp_min(torch.finfo(g.dtype).tiny)
    eps = (2 * (snr * ratio) ** 2).clamp_max(1.0)
    drift = metric.along(g, eps * p, eps * p_off)
    std, std_off = (eps * q * (2 - eps * q * h) for q, h in ((p, metric.curvature), (p_off, metric.off)))
    noise = metric.along(z.flatten(1), std.clamp_min(0).sqrt(), std_off.clamp_min(0).sqrt())
    return x + (drift + noise).reshape(x.shape)


@sk.op
def adapted(
    dx: torch.Tensor, dD: torch.Tensor, stats: GaussianStats | None, moved: list[torch.Tensor],
    answered: list[torch.Tensor], pooled: bool, s: Level, damping: float | torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """The damping's share for the next step, (B, 1): the change of D that H predicted against the one that came.

    Where alpha dD came within a quarter of (I - s^2 H) dx the share halves, where it missed by more than three quarters it
    doubles (Marquardt 1963).
    """
    metric = _metric(dx, stats, moved, answered, pooled, s, damping)
    y, came = dx.flatten(1), s.alpha * dD.flatten(1)
    s2 = float(s) ** 2
    predicted = metric.along(y, 1 - s2 * metric.curvature, 1 - s2 * metric.off)
    missed = _norm(came - predicted) / _norm(came).clamp_min(torch.finfo(y.dtype).tiny)
    factor = torch.where(missed < 0.25, 0.5, torch.where(missed > 0.75, 2.0, 1.0))
    return (_share(damping, y) * factor).clamp(1e-3, 1e3)


@sk.op
def probe(v: torch.Tensor, s: Level, size: float) -> torch.Tensor:
    """A displacement (B, *shape) along v, `size` noise levels long.

    v is noise at first, then J's last answer: a Krylov space of J, whose leading eigenvectors come first. A space that
    began at the score would make P depend on the state, and a frozen P leaves out the term div P that such a metric
    needs: measured, it makes things worse (docs/lml.md).
    """
    flat = v.flatten(1)
    return (size * float(s) * flat / _norm(flat).clamp_min(torch.finfo(flat.dtype).tiny)).reshape(v.shape)


def _norm(y: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(y, dim=1, keepdim=True)
