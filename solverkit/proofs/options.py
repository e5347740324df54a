"""Declared options really act."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from typing import Any, Literal

from ..errors import OptionError, SolverKitError, TraceError
from ..grid.grid import Grid
from ..grid.named import make_grid
from ..model.counting import counting
from ..process.schedule import EDM, Flow
from ..process.variance_preserving import VP
from ..registry.registry import GridCard, SamplerCard
from ..targets.exact import mixture
from .driving import framed, run, start, traced
from .finding import holds


def alternatives(card: SamplerCard | GridCard, name: str) -> list[Any]:
    """Other values of an option, by its type."""
    default, hint = card.defaults[name], card.hints.get(name)
    if typing.get_origin(hint) is Literal:
        return [v for v in typing.get_args(hint) if v != default]
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, int):
        return [v for v in (default - 1, default + 1, default + 2, 1) if v >= 1 and v != default]
    if isinstance(default, float):
        return [0.5, 2.0] if not math.isfinite(default) else [0.7 * default, 1.1 * default, default + 0.2, default + 1.0]
    told = [v for v in typing.get_args(hint) if v in (int, float)]
    if default is None and told:
        return [2, 3, 7] if told[0] is int else [0.5, 2.0, 10.0]
    sets = (*card.variants, *getattr(card, "option_examples", ()))
    return [options[name] for options in sets if options.get(name, default) != default]


def check_options(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """Every declared option really changes what the sampler does, alone or together with one of its variants."""
    with framed(EDM()):
        for name in card.defaults:
            _acts(card, options, name)


def _acts(card: SamplerCard, options: Mapping[str, Any], name: str) -> None:
    values = alternatives(card, name)
    holds(
        bool(values), f"the option {name!r} has no other value to try; annotate it, or name one in `variants`",
        "its default says too little of what else it may be",
    )  # fmt: skip
    acts = {
        repr(value): any(
            _behaves(card, {**context, name: value}) not in (None, _behaves(card, dict(context)))
            for context in ({}, options, *card.variants, *card.option_examples)
        )
        for value in values
    }
    literal = typing.get_origin(card.hints.get(name)) is Literal
    holds(
        all(acts.values()) if literal else any(acts.values()),
        f"the option {name!r} does not act (which values change anything: {acts})",
        "the option is declared and never read, one of its choices has no branch, or it acts only together with another "
        "option: name that pair in `variants` or `option_examples`",
    )


def _behaves(card: SamplerCard, options: dict[str, Any]) -> Any:
    """What an option set does: the plan's segments, or a run's output and cost; None if it refuses.

    A flow from alpha = 0 and a VP model are among the plans' grids: some options act there alone.
    """
    schedule = EDM()
    grids = [make_grid("karras", schedule, 8, last=last) for last in ("zero", "min")]
    grids.append(make_grid("time-uniform", schedule, 8))  # its last step is many times as long as the one before
    try:
        if card.traceable:
            elsewhere = make_grid("flow", Flow(), 8), make_grid("karras", VP(continuous=True), 8)
            return [*(_told(card, g, options) for g in grids), *(_there(card, g, options) for g in elsewhere)]
        x = start(grids[0], 2, 4)
        with counting() as count:
            out = run(card, mixture(dim=4, modes=3, schedule=schedule), x, grids[0], options)
        return out.numpy().tobytes(), count.rows
    except TraceError:  # it acts on nothing as long as it has no plan
        raise
    except SolverKitError as error:
        return str(error) if not isinstance(error, OptionError) else None


def _told(card: SamplerCard, grid: Grid, options: dict[str, Any]) -> Any:
    plan = traced(card, grid, options)
    return plan.segments, plan.to, plan.of


def _there(card: SamplerCard, grid: Grid, options: dict[str, Any]) -> Any:
    """The plan's segments on a grid of another process; what is said where there is none."""
    try:
        return _told(card, grid, options)
    except SolverKitError as error:
        return type(error)
