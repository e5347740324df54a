"""A multistep solver whose difference is scaled by how far each sample has moved: secants of the denoiser along the run."""

from __future__ import annotations

import math
from typing import Any

import torch

import solverkit as sk
from solverkit import Grid, Level
from solverkit.errors import OptionError
from solverkit.steps import contraction, exact_step, usable_orders


@sk.op
def secant_shift(move: torch.Tensor, moved: torch.Tensor, answered: torch.Tensor, most: float) -> torch.Tensor:
    """J move from the secant J moved = answered, per sample: answered <move, moved> / |moved|^2, at most `most` of it."""
    wide = torch.promote_types(move.dtype, torch.float32)  # no wider: a device may know no float64
    a, b = move.flatten(1).to(wide), moved.flatten(1).to(wide)
    share = ((a * b).sum(1) / (b * b).sum(1).clamp_min(torch.finfo(b.dtype).tiny)).clamp(-most, most)
    return answered * share.to(answered).reshape(-1, *[1] * (answered.ndim - 1))


@sk.sampler(
    "lml-secant",
    order=2,
    order_options={"lower_order_final": False, "most": math.inf},
    linear=False,
    reference="arXiv 2505.24222",
    cite="wang2025lml",
)
def lml_secant(
    model: Any, x: Any, grid: Grid, noise: Any, most: float = 1.0, lower_order_final: bool = True
) -> Any:
    """DPM-Solver++(2M) whose difference is J (x_t - x_s), J from the last secant, in the place of a ratio of step lengths.

    x+ = (t/s) x + alpha_t (1 - r) (D + d / 2), d = (D_0 - D_-1) <y, y'> / |y'|^2, at most `most` times the difference; y is
    what a first-order step would move x by, y' what the last step did. Order 2 where `most` does not bind; one
    evaluation a step, multistep.
    Not recommended: measured against its base in docs/lml.md.
    Source: secants of Levenberg-Marquardt type (Marquardt 1963; arXiv 2505.24222) along DPM-Solver++ (Lu et al. 2022b).

    Args:
        most: The largest share of the last difference of D.
        lower_order_final: The last step is of first order.
    """
    if not most > 0:
        raise OptionError(f"most must be above 0, got {most}.")
    before: tuple[Level, Any, Any] | None = None
    for order, (s, t) in zip(usable_orders(2, grid, lower_order_final), grid.steps()):
        denoised = model(x, s)
        after = exact_step(x, denoised, s, t)
        if before is not None and order == 2:
            shift = secant_shift(after - x, x - before[1], denoised - before[2], float(most))
            after = after + (t.alpha * (1 - contraction(s, t)) / 2) * shift
        before = (s, x, denoised)
        x = after
    return x
