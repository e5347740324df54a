"""Names with options behind them: "unipc:order=2", "flow:shift=3", "tuned:plan.safetensors"."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import OptionError

FIRST = ""  # of a value without a name: it goes to the first option


def parse_options(text: str) -> tuple[str, dict[str, Any]]:
    """("unipc", {"order": 2}) from "unipc:order=2"; values are integers, numbers, true, false, or words.

    One value may stand without a name, as the first: {FIRST: value}. `Card.check` gives it to the first option.

    Raises:
        OptionError: a value without a name behind another.
    """
    name, _, rest = text.partition(":")
    options: dict[str, Any] = {}
    for i, pair in enumerate(filter(None, rest.split(","))):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals and i:
            raise OptionError(f"{text!r}: {key!r} has no name. Only the first value may; write {name}:...,NAME={key}.")
        if equals and not key:
            raise OptionError(f"{text!r}: an option is written NAME=VALUE, got {pair!r}.")
        options[key if equals else FIRST] = _value(value if equals else key)
    return name, options


def with_names(owner: str, options: dict[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """The options, the value without a name under the first of the known ones.

    Raises:
        OptionError: there is no option, the value is the name of one, or the first is given twice.
    """
    if FIRST not in options:
        return options
    names, value = list(known), options[FIRST]
    if not names:
        raise OptionError(f"{owner!r} takes no options, got {value!r}.")
    if value in names:
        raise OptionError(f"{value!r} is an option of {owner!r} and needs a value: {owner}:{value}=VALUE.")
    if names[0] in options:
        raise OptionError(f"{value!r} without a name is the first option of {owner!r}, {names[0]}, which is given too.")
    return {names[0]: value, **{name: v for name, v in options.items() if name != FIRST}}


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
