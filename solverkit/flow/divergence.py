"""tr dD/dx of a denoiser: exact, by probes (Hutchinson), or by finite differences for networks that have no gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch

from ..errors import DenoiserError, OptionError
from ..model.counting import record_product
from ..model.finite import require_finite_rows
from ..process.level import Level
from ..run.noise import PROBE, SampleNoise
from .precision import column, precise
from .rows import Ask, ask

Method = Literal["auto", "hutchinson", "exact", "finite-difference"]
Probe = Literal["rademacher", "gaussian"]
MOST_EXACT = 1024
EXACT_BY_DEFAULT = 256


def probe_vectors(noise: SampleNoise, kind: Probe, number: int) -> torch.Tensor:
    """Vectors (B, ...) with E[v v^T] = I: signs (Rademacher, the smaller variance) or normal numbers.

    Args:
        noise: Of the samples; probe `number` of a sample is its own, whatever the batch.
        kind: See above.
        number: Which of them, from 0.
    """
    if kind == "gaussian":
        return noise(PROBE + number)
    return torch.where(noise.uniform(PROBE + number) < 0.5, -1.0, 1.0).to(noise.dtype)


def method_for(method: Method, dim: int) -> Method:
    """The method itself; for "auto" the exact trace up to 256 dimensions, else probes.

    Raises:
        OptionError: no such method, or an exact trace in more than 1024 dimensions.
    """
    if method == "auto":
        return "exact" if dim <= EXACT_BY_DEFAULT else "hutchinson"
    if method not in ("hutchinson", "exact", "finite-difference"):
        raise OptionError(f"divergence must be 'auto', 'hutchinson', 'exact' or 'finite-difference', got {method!r}.")
    if method == "exact" and dim > MOST_EXACT:
        raise OptionError(f"an exact divergence takes one backward pass a dimension; {dim} are more than {MOST_EXACT}.")
    return method


def denoised_and_traces(
    denoiser: Ask,
    x: torch.Tensor,
    levels: Sequence[Level],
    method: Method,
    probes: Sequence[torch.Tensor] = (),
    rows: torch.Tensor | None = None,
    difference: float = 0.02,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(D, tr dD/dx) of frame states x (B, ...): D like x; the traces (P, B) float64, one row a probe, or one if exact.

    "hutchinson": v . (J^T v) by one backward pass a probe (Hutchinson 1990). "exact": one backward pass a dimension.
    "finite-difference": v . (D(x + c v) - D(x - c v)) / 2c, two more evaluations a probe (Pang et al. 2020, eq. 9).

    Args:
        denoiser: Of the network.
        x: Frame states.
        levels: One a row.
        method: See above (`method_for`).
        probes: Vectors v, each (B, ...); not used by "exact".
        rows: The samples that the rows belong to, for messages.
        difference: c is this share of sqrt(alpha^2 + s^2) for the finite difference, the scale of x.

    Raises:
        DenoiserError: the network has no gradient.
        NonFiniteError: NaN or inf in the answer or its derivative.
    """
    denoised, traces = _measured(lambda state: ask(denoiser, state, levels, rows), x, levels, method, probes, difference)
    require_finite_rows(traces.T, levels, rows, "the divergence of the network is NaN or inf")
    return denoised, traces


def _measured(
    asked: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, levels: Sequence[Level], method: Method,
    probes: Sequence[torch.Tensor], difference: float,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    if method == "finite-difference":
        lengths = [difference * math.hypot(level.alpha, level) for level in levels]
        c, own, traces = column(lengths, x), torch.tensor(lengths, dtype=torch.float64), []
        for v in probes:
            along = precise(((asked(x + c * v) - asked(x - c * v)) * v).flatten(1)).sum(1)
            traces.append(along / (2 * own.to(along)))
        return asked(x), torch.stack(traces)
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        denoised = asked(x)
        if not denoised.requires_grad:
            raise DenoiserError(
                "the network's answer has no gradient with respect to its input, so its divergence cannot be taken by "
                "autograd; use divergence='finite-difference'."
            )
        traces = []
        if method == "exact":
            flat, diagonal = denoised.flatten(1), []
            for i in range(flat.shape[1]):
                (row,) = torch.autograd.grad(flat[:, i].sum(), x, retain_graph=i + 1 < flat.shape[1])
                record_product()
                diagonal.append(row.flatten(1)[:, i])
            traces.append(precise(torch.stack(diagonal, 1)).sum(1))
        else:
            for k, v in enumerate(probes):
                (pulled,) = torch.autograd.grad((denoised * v).sum(), x, retain_graph=k + 1 < len(probes))
                record_product()
                traces.append(precise((pulled * v).flatten(1)).sum(1))
    return denoised.detach(), torch.stack(traces)
