"""The corrected direction of Levenberg-Marquardt-Langevin, in closed form and as it was published.

Published, per sample, for a vector v and the previous one p, with momentum kappa and damping lambda:

    m = kappa p + (1 - kappa) v,   d = v - m <v, m> / (lambda + |m|^2),   out = d |v| / |d|.

With p = a v + w, w orthogonal to v, and beta = 1 + kappa (a - 1) this is exactly

    out = (v - c w) / (1 + c^2 |w|^2 / |v|^2)^(1/2),   c = kappa beta |v|^2 / (lambda + kappa^2 |w|^2),

in which nothing cancels: for kappa = 0 (the published default) it is v itself, and for small kappa only kappa / lambda
matters. What the published form does in float32 at kappa = 0 is rounding: lambda / |v|^2 is near 1e-7.
Source: the released code of arXiv 2505.24222 (zituitui/LML-diffusion-sampler), `lm` update.
"""

from __future__ import annotations

import math

import torch

import solverkit as sk


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Inner product of each sample, at least float32, shaped to multiply it."""
    wide = torch.promote_types(a.dtype, torch.float32)
    return (a.flatten(1).to(wide) * b.flatten(1).to(wide)).sum(1).reshape(-1, *[1] * (a.ndim - 1))


@sk.op
def correction(v: torch.Tensor, previous: torch.Tensor, damping: float, momentum: float) -> torch.Tensor:
    """out - v of the closed form, (B, *shape) of v's dtype: exactly 0 at momentum = 0.

    With q = (1 + c^2 |w|^2 / |v|^2)^(1/2) it is -(c w + v (q - 1)) / q, and q - 1 = (q^2 - 1) / (q + 1).
    """
    wide = torch.promote_types(v.dtype, torch.float32)
    x, p = v.to(wide), previous.to(wide)
    n = _dot(x, x).clamp_min(torch.finfo(wide).tiny)
    a = _dot(x, p) / n
    w = p - a * x
    m = _dot(w, w)
    c = momentum * (1 + momentum * (a - 1)) * n / (damping + momentum**2 * m)
    excess = c * c * (m / n)
    q = (1 + excess).sqrt()
    return (-(c * w + (excess / (q + 1)) * x) / q).to(v.dtype)


@sk.op
def published_correction(v: torch.Tensor, previous: torch.Tensor, damping: float, momentum: float) -> torch.Tensor:
    """out - v of the released arithmetic in float32, cancellation and all, (B, *shape)."""
    x, p = v.float(), previous.float()
    m = momentum * p + (1 - momentum) * x
    d = x - m * (_dot(x, m) / (damping + _dot(m, m)))
    return (d * (_dot(x, x).sqrt() / _dot(d, d).sqrt()) - x).to(v.dtype)


@sk.op
def random_turn(v: torch.Tensor, z: torch.Tensor, angle: float) -> torch.Tensor:
    """What v changes by when it is turned by an angle (radians) towards noise orthogonal to it: a control."""
    wide = torch.promote_types(v.dtype, torch.float32)
    x, w = v.to(wide), z.to(wide)
    n = _dot(x, x)
    w = w - (_dot(x, w) / n.clamp_min(torch.finfo(wide).tiny)) * x
    w = w * (n / _dot(w, w).clamp_min(torch.finfo(wide).tiny)).sqrt()
    return ((math.cos(angle) - 1) * x + math.sin(angle) * w).to(v.dtype)
