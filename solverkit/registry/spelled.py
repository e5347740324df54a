"""Names with options behind them: "unipc:order=2", "flow:shift=3"."""

from __future__ import annotations

from typing import Any


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
