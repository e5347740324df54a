"""Anyone's sampler that cannot be traced: how many steps fit a budget, and whether it draws, are found by running it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ..errors import BudgetError
from ..grid.named import make_grid
from ..plan.trace import trace
from ..registry.registry import SamplerCard
from ..run.noise import Noise
from ..run.sampling import sample
from .suite import Cell


class Drawn:
    """A card whose function is watched.

    Attributes:
        card: To be run in the place of the card that was given, pull-only.
        any: Whether it drew noise: the run's own, or torch's.
    """

    def __init__(self, card: SamplerCard) -> None:
        self.any, fn = False, card.fn

        def watched(model: Any, x: Any, grid: Any, noise: Noise, **options: Any) -> Any:
            def draw(ordinal: int, s: float, t: float) -> torch.Tensor:
                self.any = True
                return noise._draw(ordinal, s, t)

            before = torch.random.get_rng_state()
            made = fn(model, x, grid, Noise(draw), **options)
            self.any = self.any or bool((torch.random.get_rng_state() != before).any())
            return made

        watched.__signature__ = _signature(fn)  # type: ignore[attr-defined]
        self.card = replace(card, fn=watched, traceable=False)


def _signature(fn: Any) -> Any:
    import inspect

    return inspect.signature(fn)


def can_be_traced(card: SamplerCard, denoiser: Any, cell: Cell, grid: str) -> bool:
    """Whether a sampler's function takes symbols."""
    if not card.traceable:
        return False
    try:
        trace(card, make_grid(grid, denoiser.schedule, 1), **cell.options)
    except Exception:  # a function for tensors alone may fail in any way
        return False
    return True


def fitted_steps(card: SamplerCard, denoiser: Any, cell: Cell, grid: str) -> int:
    """The largest number of steps, up to the budget, whose evaluations of one sample fit into it.

    Raises:
        BudgetError: one step needs more.
    """
    pull = replace(card, traceable=False)
    for steps in range(cell.nfe, 0, -1):
        made = sample(denoiser, pull, steps=steps, num_samples=1, seed=cell.seed, grid=grid, **cell.options)
        if made.asked <= cell.nfe:
            return steps
    raise BudgetError(f"{card.name!r} needs more than nfe={cell.nfe} evaluations for one step.")
