"""tr dD/dx of a denoiser: exact, by probes (Hutchinson), or by finite differences for networks that have no gradient."""

from __future__ import annotations

from typing import Literal

import torch

from ..errors import DenoiserError, OptionError
from ..model.denoiser import DenoiserLike
from ..process.level import Level

Method = Literal["hutchinson", "exact", "finite-difference"]
Probe = Literal["rademacher", "gaussian"]
MOST_EXACT = 1024


def probes(shape: tuple[int, ...], kind: Probe, seed: int, like: torch.Tensor) -> torch.Tensor:
    """Vectors with E[v v^T] = I: signs (Rademacher, the smaller variance) or normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "gaussian":
        v = torch.randn(shape, generator=generator, dtype=torch.float64)
    elif kind == "rademacher":
        v = torch.randint(0, 2, shape, generator=generator).double() * 2 - 1
    else:
        raise OptionError(f"probe must be 'rademacher' or 'gaussian', got {kind!r}.")
    return v.to(like)


def denoised_and_trace(
    denoiser: DenoiserLike, x: torch.Tensor, level: Level, method: Method, v: torch.Tensor, difference: float = 0.02
) -> tuple[torch.Tensor, torch.Tensor]:
    """(D, tr dD/dx) of frame states x (B, ...): D like x, the trace (B,).

    "hutchinson": v . (J^T v) by one backward pass (Hutchinson 1990). "exact": one backward pass a dimension.
    "finite-difference": v . (D(x + c v) - D(x - c v)) / 2c, two more evaluations (Pang et al. 2020, eq. 9).

    Args:
        denoiser: Of the network.
        x: Frame states.
        level: Their level.
        method: See above.
        v: Probes, (B, ...); not used by "exact".
        difference: c is this share of sqrt(alpha^2 + s^2) for the finite difference, the scale of x.

    Raises:
        DenoiserError: the network has no gradient.
        OptionError: no such method, or an exact trace in more than 1024 dimensions.
    """
    if method == "finite-difference":
        c = difference * (level.alpha**2 + float(level) ** 2) ** 0.5
        forward, backward = denoiser(x + c * v, level), denoiser(x - c * v, level)
        return denoiser(x, level), ((forward - backward) * v).flatten(1).double().sum(1) / (2 * c)
    if method not in ("hutchinson", "exact"):
        raise OptionError(f"divergence must be 'hutchinson', 'exact' or 'finite-difference', got {method!r}.")
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        denoised = denoiser(x, level)
        if not denoised.requires_grad:
            raise DenoiserError(
                "the network's answer has no gradient with respect to its input, so its divergence cannot be taken by "
                "autograd; use divergence='finite-difference'."
            )
        if method == "hutchinson":
            (pulled,) = torch.autograd.grad((denoised * v).sum(), x)
            return denoised.detach(), (pulled * v).flatten(1).double().sum(1)
        flat, dim = denoised.flatten(1), x[0].numel()
        if dim > MOST_EXACT:
            raise OptionError(f"an exact divergence takes one backward pass a dimension; {dim} are more than {MOST_EXACT}.")
        trace = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for i in range(dim):
            (row,) = torch.autograd.grad(flat[:, i].sum(), x, retain_graph=i + 1 < dim)
            trace += row.flatten(1)[:, i].double()
        return denoised.detach(), trace
