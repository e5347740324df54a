"""Samplers of k-diffusion, where it is installed, on our denoisers: same network, same noise, same budget, counted.

Its functions take (model, x, sigmas) with x = x_0 + sigma eps: our state in the sigma frame. Levels are those of any grid
of ours; the number of steps is the largest whose calls of the model fit, found by running the function on nothing.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch

from ..errors import BenchError, BudgetError, OptionError, UnknownNameError, nearest
from ..grid.named import make_grid
from ..model.counting import counting, record
from ..model.denoiser import require_finite
from ..process.level import FLOW_FRAME
from ..process.schedule import Schedule
from ..process.variance_preserving import DiscreteVP
from ..run.noise import PRIOR, SampleNoise
from .named import K_DIFFUSION

OURS = ("model", "x", "sigmas", "extra_args", "callback", "disable", "noise_sampler")


def functions() -> tuple[ModuleType, dict[str, Any]]:
    """k_diffusion.sampling, and its samplers that take sigmas.

    Raises:
        OptionError: it is not installed, or cannot be imported.
    """
    try:
        import k_diffusion.sampling as sampling
    except ImportError as error:
        raise OptionError(f"samplers of k-diffusion need it to be installed: pip install k-diffusion ({error}).") from None
    found = {name: fn for name, fn in vars(sampling).items() if name.startswith("sample_") and callable(fn)}
    return sampling, {name: fn for name, fn in found.items() if "sigmas" in inspect.signature(fn).parameters}


def k_function(name: str) -> Any:
    """The function behind "k-diffusion:sample_euler"; UnknownNameError where there is none."""
    known = functions()[1]
    wanted = name.removeprefix(K_DIFFUSION)
    if wanted not in known:
        raise UnknownNameError("sampler of k-diffusion that takes sigmas", wanted, known)
    return known[wanted]


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raises UnknownNameError or OptionError where the sampler, or an option of it, does not exist."""
    known = [p for p in inspect.signature(k_function(name)).parameters if p not in OURS]
    for key in options:
        if key not in known:
            there = ", ".join(known) or "none"
            raise OptionError(f"{name} has no option {key!r}.{nearest(key, known)} Its options: {there}.")


def default_grid(schedule: Schedule) -> str:
    """Trailing on trained timesteps, else Karras."""
    return "trailing" if isinstance(schedule, DiscreteVP) else "karras"


def run(
    denoiser: Any, name: str, nfe: int, seeds: list[int], grid: str, options: Mapping[str, Any]
) -> tuple[torch.Tensor, float, float, float, float, int, int, bool]:
    """Sample; (x, rows, seconds, seconds in the model, seconds of planning, passes, rows asked, deterministic).

    Raises:
        BenchError: a flow model, which k-diffusion does not know.
        BudgetError: one step needs more evaluations than `nfe`.
    """
    began = time.perf_counter()
    function, schedule = k_function(name), denoiser.schedule
    check_options(name, options)
    if schedule.frame == FLOW_FRAME:
        raise BenchError(f"{name} knows no flow models.")
    levels = _fitted(function, name, schedule, nfe, grid, options)
    sigmas = torch.tensor([float(level) for level in levels])
    planned = time.perf_counter() - began
    by_sigma = {float(sigma): level for sigma, level in zip(sigmas, levels)}
    noise = SampleNoise(seeds, denoiser.shape, torch.float32, getattr(denoiser, "device", "cpu"))
    spent, asked = [0.0], [0]

    with torch.no_grad(), counting() as count, torch.random.fork_rng():
        torch.manual_seed(seeds[0] % 2**63)

        def model(x: torch.Tensor, sigma: torch.Tensor, **extra: Any) -> torch.Tensor:
            at, rows = float(sigma.flatten()[0]), count.rows
            level = by_sigma.get(at) or schedule.at(at, snap=False)
            start = time.perf_counter()
            denoised = denoiser(x, level)
            spent[0] += time.perf_counter() - start
            asked[0] += len(x)
            if count.rows == rows and not getattr(denoiser, "may_skip", False):
                record(len(x))
            require_finite(denoised, asked[0] // len(x) - 1, level)
            return denoised

        x = noise(PRIOR) * (schedule.prior_std(levels[0]) / levels[0].scale)
        x = function(model, x, sigmas.to(x), disable=True, **options) * levels[-1].scale
    deterministic = _draws_nothing(function, sigmas, options)
    return x, count.rows, time.perf_counter() - began, spent[0], planned, count.passes, asked[0], deterministic


def _draws_nothing(function: Any, sigmas: torch.Tensor, options: Mapping[str, Any]) -> bool:
    """Whether two runs from one state agree under different seeds: some draw noise that they multiply by 0."""
    ends = []
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            start = torch.ones(1, 1, 4, 4) * sigmas[0]
            ends.append(function(lambda x, sigma, **extra: 0.5 * x, start, sigmas, disable=True, **options))
    return bool(torch.equal(*ends))


def _fitted(function: Any, name: str, schedule: Schedule, nfe: int, grid: str, options: Mapping[str, Any]) -> Any:
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
