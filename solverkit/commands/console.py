"""What all commands share with the user: the settings of this call, printing, and reading option values.

A letter means one thing in every command; what has none is rare, or too easily mistaken:

    -g  --grid           -m  --model          -o  --out            -r  --rank
    -k  --num-samples    -n  --nfe            -q  --quiet          -s  --sampler

Where a network runs (sample, bench, likelihood, stats, diagnose) it takes --device, --dtype, --batch, --threads, --label.
Exit codes: 0; 1, it failed; 2, bad usage (a name, value, file or folder that cannot be used, said before the work);
130, interrupted.
"""

from __future__ import annotations

import json
import math
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console

@dataclass
class Settings:
    """Of one call of the script."""

    quiet: bool = False
    debug: bool = False


settings = Settings()


def console() -> Console:
    """Standard output. Where it is no terminal, lines are as long as they need to be: they are for grep, not for eyes."""
    from rich.console import Console

    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=200)


def remark(text: str) -> None:
    """Something that --quiet leaves out, on standard error."""
    if not settings.quiet:
        print(text, file=_stderr())


def _stderr() -> Any:
    import sys

    return sys.stderr


def print_json(value: Any) -> None:
    """For other programs. NaN and inf are null: JSON knows neither."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str | None = None
) -> None:
    """A plain table, with what its columns mean below it where they do not say it themselves."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for i, column in enumerate(columns):
        table.add_column(column, no_wrap=i == 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    out = console()
    out.print(Text(title, style="italic"), soft_wrap=True)  # as long as it is: a table's own title is broken at its width
    out.print(table)
    if caption is not None:
        out.print(Text(caption, style="dim"), soft_wrap=not out.is_terminal)


def split_settings(pairs: Iterable[str]) -> dict[str, str]:
    """name=value texts as a dict.

    Raises:
        OptionError: a text without "=".
    """
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise OptionError(f"--set takes name=value, got {pair!r}.")
        found[name.strip().replace("-", "_")] = value.strip()
    return found


def read_value(text: str, hint: Any, name: str) -> Any:
    """A command-line text as what an annotation asks for.

    Raises:
        OptionError: it cannot be read as that.
    """
    from ..registry.registry import describe, fits

    for candidate in _candidates(text):
        if hint is not Any and fits(candidate, hint) and (isinstance(candidate, str) or _plain(hint)):
            return candidate
    if hint is Any:
        return _candidates(text)[0]
    raise OptionError(f"{name}={text!r} must be {describe(hint)}.")


def _plain(hint: Any) -> bool:
    """Whether `fits` really checks this annotation."""
    if hint in (int, float, bool, str, type(None)) or typing.get_origin(hint) is typing.Literal:
        return True
    return any(map(_plain, typing.get_args(hint)))


def _candidates(text: str) -> list[Any]:
    """What a text may mean, the most special first."""
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False, "none": None, "null": None}
    found: list[Any] = [words[text.lower()]] if text.lower() in words else []
    for kind in (int, float, json.loads):
        try:
            found.append(kind(text))
        except ValueError:
            continue
    return [*found, text]


def read_options(card: Any, pairs: Iterable[str]) -> dict[str, Any]:
    """--set name=value for a card, typed through its annotations and checked.

    Raises:
        OptionError: an option that the card does not have, or a value of the wrong type.
    """
    texts = split_settings(pairs)
    unknown = {name: text for name, text in texts.items() if name not in card.options}
    if unknown:
        card.check(unknown)  # raises, and names the options that there are
    given = {name: read_value(text, card.hints.get(name, Any), name) for name, text in texts.items()}
    return card.check(given, partial=True)  # what is required may be found beside the model
