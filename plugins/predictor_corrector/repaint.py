"""RePaint: repeat parts of a run, noising back up in between, so that a constraint and what is drawn agree."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import solverkit as sk
from solverkit import Grid
from solverkit.errors import OptionError
from solverkit.plan.plan import follow
from solverkit.plan.trace import trace
from solverkit.steps import parse_options


@sk.sampler(
    "repaint",
    restarts=False,
    reference="Lugmayr et al. 2022, arXiv 2201.09865",
    cite="lugmayr2022",
    variants=({"inner": "dpmpp-2m", "jump_length": 3, "jumps": 2}, {"inner": "ddim", "jumps": 1, "jump_length": 4}),
)
def repaint(
    model: Any, x: Any, grid: Grid, noise: Any, inner: str = "ddpm", jump_length: int = 10, jumps: int = 10
) -> Any:
    """Resampling for constrained runs: blocks of jump_length steps, each but the first run `jumps` times.

    Between two runs of a block the state is noised back from its end t to its start s by the forward process,
    x_s = k x_t + sqrt(s^2 - (k t)^2) z, k = alpha_s / alpha_t. Meant for `constrain=`: the known part is replaced at each
    step, and the repetitions let the unknown part adapt to it. N grid steps cost jump_length + jumps (N - jump_length)
    evaluations of a one-evaluation sampler (N = 250, 10, 10: 2410, as published). Stochastic.
    Source: Lugmayr et al. 2022, Algorithm 1 and appendix B.

    Args:
        inner: Any traceable sampler, its options behind its name ("dpmpp-2m", "ddim:eta=0.5"); its history starts anew in
            each block.
        jump_length: Steps of a block.
        jumps: How often a block is run; 1 is the sampler itself in blocks.
    """
    if jump_length < 1 or jumps < 1:
        raise OptionError(f"repaint needs jump_length >= 1 and jumps >= 1, got {jump_length} and {jumps}.")
    name, options = parse_options(inner)
    for first in range(0, len(grid) - 1, jump_length):
        block = replace(grid, levels=grid.levels[first : first + jump_length + 1], on_step=None)
        plan, s, t = trace(name, block, **options), block[0], block[-1]
        for repeat in range(jumps if first > 0 else 1):
            if repeat > 0:
                kept = s.alpha / t.alpha
                x = kept * x + math.sqrt(s * s - (kept * t) ** 2) * noise(t, s)
            x = follow(plan, model, x, grid, noise)
    return x
