"""What a plugin may register. Each hook receives `register` and calls it once for each thing that it offers."""

from __future__ import annotations

from collections.abc import Callable

import pluggy

PROJECT = "solverkit"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_samplers(register: Callable[..., None]) -> None:
    """register(name, fn, order=, reference=, ...) for each sampler, or register(fn) where `@sk.sampler` declared it.

    See `SamplerCard` for the fields.
    """


@hookspec
def register_decoders(register: Callable[..., None]) -> None:
    """The same for samplers of token models; see `DecoderCard` for the fields."""


@hookspec
def register_grids(register: Callable[..., None]) -> None:
    """register(name, fn) with fn(schedule, n, **options) -> n + 1 falling ratios sigma / alpha."""


@hookspec
def register_models(register: Callable[..., None]) -> None:
    """register(name, fn) with fn(**options) -> denoiser."""


@hookspec
def register_metrics(register: Callable[..., None]) -> None:
    """register(name, fn, lower_is_better=True, ...) with fn(run: solverkit.bench.metrics.Run) -> float, Measured or None.

    See `MetricCard` for the fields. A metric of a plugin is measured where it is asked for by name.
    """


@hookspec
def register_tasks(register: Callable[..., None]) -> None:
    """register(name, fn) with fn() -> path of a bench suite in TOML."""
