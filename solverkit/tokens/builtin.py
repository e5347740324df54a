"""The token models and grids that the core registers, through the same hook as everyone else."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from ..process.schedule import Schedule
from ..registry.hookspecs import hookimpl


@hookimpl
def register_models(register: Callable[..., None]) -> None:
    register("markov", markov, reference="solverkit/tokens/targets.py")
    register("independent", independent, reference="solverkit/tokens/targets.py")
    register("shakespeare", shakespeare, reference="benchmarks/train/shakespeare.py")


@hookimpl
def register_grids(register: Callable[..., None]) -> None:
    register("uniform", uniform, reference="Ou et al. 2025, arXiv 2406.03736")
    register("cosine", cosine, reference="Chang et al. 2022, arXiv 2202.04200")


def uniform(schedule: Schedule, n: int) -> list[float]:
    """Even steps in the model's own time, from its noisiest level to 0."""
    top = schedule.time(schedule.ratio_max)
    return [schedule.ratio_max, *(schedule.ratio(top * (1 - i / n)) for i in range(1, n)), 0.0]


def cosine(schedule: Schedule, n: int) -> list[float]:
    """Noise share cos(pi i / 2n): few tokens in the first steps, many in the last (made for masked models: MaskGIT)."""
    shares = [math.cos(math.pi / 2 * i / n) for i in range(1, n)]
    ratios = [min(m / (1 - m), schedule.ratio_max) for m in shares]
    return [schedule.ratio_max, *(r for r in ratios if r < schedule.ratio_max), 0.0]


# Models import what they need when they are built: listing them must not import torch.


def markov(length: int = 64, symbols: int = 5, noise: Literal["absorbing", "uniform"] = "absorbing", seed: int = 0) -> Any:
    """A Markov chain of tokens with exact conditionals: any length, by forward-backward."""
    from .targets import markov

    return markov(length, symbols, noise, seed)


def independent(length: int = 16, symbols: int = 4, noise: Literal["absorbing", "uniform"] = "absorbing", seed: int = 0) -> Any:
    """Independent tokens with exact conditionals: every decoder is exact on them."""
    from .targets import independent

    return independent(length, symbols, noise, seed)


def shakespeare(length: int | None = None, device: Any = None, dtype: Any = None) -> Any:
    """Bundled masked character model of Shakespeare's plays, 65 characters, 256 at a time; told no time."""
    from .folder import bundled_tokens

    return bundled_tokens("shakespeare", length, device, dtype)
