"""Grids by name: "karras", "flow:shift=3"."""

from __future__ import annotations

import numbers
import sys
import warnings
from typing import Any

from ..errors import GridError, SolverKitError
from ..process.schedule import Schedule
from ..registry.registry import Card, known_here, registry
from ..registry.spelled import parse_options
from .grid import Grid


def is_count(value: Any) -> bool:
    """Whether a value is a whole number of at least 1 (and no bool)."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 1


def parse_grid(text: str) -> tuple[Card, dict[str, Any]]:
    """A grid's card and options from "name" or "name:option=number,...", such as "flow:shift=3".

    Raises:
        UnknownNameError, OptionError: no such grid or option, or an option that is no number.
    """
    name, options = parse_options(known_here("grids", text))
    card = registry().get("grids", name)
    return card, card.check(options)


def make_grid(name: str, schedule: Schedule, n: int, **options: Any) -> Grid:
    """A registered grid of n steps.

    Args:
        name: Its name; numeric options may be written behind it, as in "flow:shift=3" or "karras:rho=5".
        schedule: What the network was trained on.
        n: Number of steps.
        options: Options of the grid.

    Raises:
        UnknownNameError, OptionError: no such grid or option.
        GridError: n < 1, or levels that cannot be run.
    """
    grid = lay(name, schedule, n, **options)
    say_capped(schedule, n)
    return grid


def lay(name: str, schedule: Schedule, n: int, **options: Any) -> Grid:
    """`make_grid` without a word about more steps than trained timesteps."""
    card, written = parse_grid(name)
    if not is_count(n):
        raise GridError(f"a grid needs a whole number of steps, at least one, got {n!r}.")
    return Grid.from_ratios(schedule, card.fn(schedule, min(n, most_steps(schedule)), **card.check({**written, **options})))


def lay_all(schedule: Schedule, n: int) -> dict[str, Grid]:
    """Every registered grid of n steps that this schedule allows without options that have no default."""
    made = {}
    for name in registry().cards["grids"]:
        try:
            made[name] = lay(name, schedule, n)
        except SolverKitError:  # made for another network, another number of steps, or from a file
            continue
    return made


def most_steps(schedule: Schedule) -> int:
    """How many steps to 0 a schedule has levels for: its trained timesteps, where the network knows no others."""
    return int(getattr(schedule, "num_train_timesteps", sys.maxsize)) if schedule.integer_time else sys.maxsize


def say_capped(schedule: Schedule, n: int) -> None:
    """Warn where more steps were asked for than the network has levels."""
    if n > (most := most_steps(schedule)):
        warnings.warn(
            f"{n} steps were asked for, and this network knows only {most} timesteps: each of them is used once "
            f"({most} steps). A network that takes times in between is wrapped with integer_time=False.",
            stacklevel=3,
        )
