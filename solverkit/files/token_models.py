"""The token models that the core registers, through the same hook as everyone else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from ..registry.hookspecs import hookimpl


@hookimpl
def register_models(register: Callable[..., None]) -> None:
    register("markov", markov, reference="solverkit/tokens/targets.py")
    register("markov-uniform", markov_uniform, reference="solverkit/tokens/targets.py")
    register("independent", independent, reference="solverkit/tokens/targets.py")
    register("shakespeare", shakespeare, reference="benchmarks/train/shakespeare.py")


# Models import what they need when they are built: listing them must not import torch.


def markov(length: int = 64, symbols: int = 5, noise: Literal["absorbing", "uniform"] = "absorbing", seed: int = 0) -> Any:
    """A Markov chain of tokens with exact conditionals: any length, by forward-backward."""
    from ..tokens import targets

    return targets.markov(length, symbols, noise, seed)


def markov_uniform(length: int = 64, symbols: int = 5, seed: int = 0) -> Any:
    """The same chain under uniform noise."""
    return markov(length, symbols, "uniform", seed)


def independent(
    length: int = 16, symbols: int = 4, noise: Literal["absorbing", "uniform"] = "absorbing", seed: int = 0
) -> Any:
    """Independent tokens with exact conditionals: every decoder that does not look at its draws is exact on them."""
    from ..tokens import targets

    return targets.independent(length, symbols, noise, seed)


def shakespeare(length: int | None = None, device: Any = None, dtype: Any = None) -> Any:
    """Bundled masked character model of Shakespeare's plays: 65 characters and a mask, told no time."""
    from .token_folder import bundled_tokens

    return bundled_tokens("shakespeare", length, device, dtype)
