"""Renoise and denoise: what consistency models and distilled students are run with."""

from __future__ import annotations

import math
from typing import Any

import solverkit as sk
from solverkit import Grid
from solverkit.errors import OptionError


@sk.sampler(
    "renoise",
    order=lambda options: 1 if options["fresh"] == 0 else None,
    student=True,
    reference="Song et al. 2023, arXiv 2303.01469, Algorithm 1",
    cite="song2023consistency",
    variants=({"fresh": 0.0}, {"fresh": 0.5, "pure": True}),
)
def renoise(model: Any, x: Any, grid: Grid, noise: Any, fresh: float = 1.0, pure: bool = False) -> Any:
    """Answer D at each level and noise it to the next; the last answer is the sample.

    x+ = alpha_t D + t (sqrt(1 - fresh^2) eps + fresh z),    eps = (x - alpha_s D) / s.

    The runner of consistency models, LCM, DMD2 and SiD (fresh = 1), and of students that are run as DDIM (fresh = 0 is
    `ddim`). With the exact denoiser of data it is no sampler of them: one answer at much noise is their mean.
    Source: Song et al. 2023, Algorithm 1.

    Args:
        fresh: Share of new noise, 0 to 1.
        pure: The run starts from noise without signal, of standard deviation sigma (SiD-LSG), not from the unit noise that
            a VP model is usually given.
    """
    if not 0 <= fresh <= 1:
        raise OptionError(f"fresh must be 0 (the noise that x has) to 1 (new noise), got {fresh}.")
    if pure and grid.before == 0:
        first = grid[0]
        x = (float(first) * first.scale / grid.schedule.prior_std(first)) * x
    for s, t in grid.steps():
        denoised = model(x, s)
        kept = t * math.sqrt(1 - fresh * fresh) / s
        x = kept * x + (t.alpha - kept * s.alpha) * denoised
        if t > 0 and fresh > 0:
            x = x + (t * fresh) * noise(s, t)
    return x
