"""Samplers of k-diffusion, where it is installed, on our denoisers: same network, same noise, same budget, counted.

Levels are those of any grid of ours; the number of steps is the largest whose calls of the model fit, found by running the
function on nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from ..errors import BenchError, BudgetError
from ..foreign.k_diffusion import adapt_k_diffusion
from ..foreign.released import k_diffusion_function, takes
from ..grid.grid import Grid
from ..grid.named import make_grid
from ..process.level import FLOW_FRAME
from ..process.schedule import Schedule
from ..process.variance_preserving import DiscreteVP
from ..registry.registry import resolve
from ..run.result import Result
from ..run.sampling import sample
from .named import K_DIFFUSION


def k_function(name: str) -> Any:
    """The function behind "k-diffusion:sample_euler".

    Raises:
        UnknownNameError, OptionError: there is none, or the package is not installed.
        BenchError: it lays out its own levels.
    """
    function = k_diffusion_function(name.removeprefix(K_DIFFUSION))
    if not takes(function, "sigmas"):
        raise BenchError(f"{name} lays out its own levels; a bench compares samplers of k-diffusion that take sigmas.")
    return function


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raises UnknownNameError or OptionError where the sampler, or an option of it, does not exist."""
    resolve(adapt_k_diffusion(k_function(name), name)).check(options)


def default_grid(schedule: Schedule) -> str:
    """Trailing on trained timesteps, else Karras."""
    return "trailing" if isinstance(schedule, DiscreteVP) else "karras"


def run(
    denoiser: Any, name: str, nfe: int, seeds: list[int], grid: str, options: Mapping[str, Any]
) -> tuple[Result, float, bool]:
    """Sample; the result, seconds of planning, and whether the run is deterministic.

    Raises:
        BenchError: a flow model, which k-diffusion does not know.
        BudgetError: one step needs more evaluations than `nfe`.
    """
    began = time.perf_counter()
    function = k_function(name)
    card = resolve(adapt_k_diffusion(function, name))
    if denoiser.schedule.frame == FLOW_FRAME:
        raise BenchError(f"{name} knows no flow models.")
    levels = _fitted(function, name, denoiser.schedule, nfe, grid, options)
    planned = time.perf_counter() - began
    made = sample(denoiser, card, grid=levels, num_samples=len(seeds), seed=seeds, batch_size=len(seeds), **options)
    return made, planned, _draws_nothing(function, levels, options)


def _draws_nothing(function: Any, levels: Grid, options: Mapping[str, Any]) -> bool:
    """Whether two runs from one state agree under different seeds: some draw noise that they multiply by 0."""
    ends, sigmas = [], torch.tensor([float(level) for level in levels])
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            start = torch.ones(1, 1, 4, 4) * sigmas[0]
            ends.append(function(lambda x, sigma, **extra: 0.5 * x, start, sigmas, disable=True, **options))
    return bool(torch.equal(*ends))


def _fitted(function: Any, name: str, schedule: Schedule, nfe: int, grid: str, options: Mapping[str, Any]) -> Grid:
    """The levels of the largest number of steps whose calls of the model fit."""
    for n in range(nfe, 0, -1):
        levels = make_grid(grid, schedule, n)
        calls = [0]

        def model(x: torch.Tensor, sigma: torch.Tensor, calls: list[int] = calls, **extra: Any) -> torch.Tensor:
            calls[0] += 1
            return torch.zeros_like(x)

        with torch.random.fork_rng():
            function(model, torch.zeros(1, 1, 1, 1), torch.tensor([float(s) for s in levels]), disable=True, **options)
        if calls[0] <= nfe:
            return levels
    raise BudgetError(f"{name} needs more than nfe={nfe} evaluations for one step.")
