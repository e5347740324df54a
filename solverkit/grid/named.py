"""Grids by name: "karras", "flow:shift=3"."""

from __future__ import annotations

import numbers
from typing import Any

from ..errors import GridError
from ..process.schedule import Schedule
from ..registry.registry import Card, registry
from .grid import Grid


def is_count(value: Any) -> bool:
    """Whether a value is a whole number of at least 1 (and no bool)."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 1



def parse_grid(text: str) -> tuple[Card, dict[str, Any]]:
    """A grid's card and options from "name" or "name:option=number,...", such as "flow:shift=3".

    Raises:
        UnknownNameError, OptionError: no such grid or option, or an option that is no number.
    """
    name, options = parse_options(text)
    card = registry().get("grids", name)
    return card, card.check({key: float(v) if isinstance(v, int) else v for key, v in options.items()})



def parse_options(text: str) -> tuple[str, dict[str, Any]]:
    """("unipc", {"order": 2}) from "unipc:order=2"; values are integers, numbers, true, false, or words."""
    name, _, rest = text.partition(":")
    options: dict[str, Any] = {}
    for pair in filter(None, rest.split(",")):
        key, _, value = pair.partition("=")
        options[key.strip()] = _value(value.strip())
    return name, options



def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text



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
    card, written = parse_grid(name)
    if not is_count(n):
        raise GridError(f"a grid needs a whole number of steps, at least one, got {n!r}.")
    return Grid.from_ratios(schedule, card.fn(schedule, n, **card.check({**written, **options})))
