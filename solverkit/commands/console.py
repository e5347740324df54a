"""What all commands share with the user: the settings of this call, printing, and reading option values."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console

PAIRS = typer.Option([], "--set", "-o", help="Option of the sampler, name=value; may be repeated.")


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
    """For other programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A plain table."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, no_wrap=i == 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)


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
    return card.check({name: read_value(text, card.hints.get(name, Any), name) for name, text in texts.items()})


def new_path(path: Path) -> Path:
    """A path whose folder exists.

    Raises:
        OptionError: the folder cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"cannot write to {path}: {error.strerror or error}.") from None
    return path
