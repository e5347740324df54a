"""`solverkit check NAME`: the conformance kit from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ..errors import LoadError, OptionError, PluginError
from ..foreign import is_foreign
from . import parameters
from .console import console, print_json, remark

if TYPE_CHECKING:
    from ..registry.registry import Card
    from ..testing import CheckResult

NAME = typer.Argument(
    help="A sampler, decoder, grid, model or metric (unipc:order=2, file.py:fn), or diffusers:CLASS, k-diffusion:NAME."
)
KIND = typer.Option(None, "--kind", help="sampler, decoder, grid, model or metric, where several have the name.")


def check(
    name: str = NAME,
    kind: str | None = KIND,
    as_json: bool = parameters.JSON,
) -> None:
    """Prove a decoder, grid, model or metric by checks of its own, or a sampler: order, spellings, nfe, options, edits,
    independence, finite, ends, law, parts, growth, device, input_untouched, system.
    """
    others = is_foreign(name)
    results = released(name, kind) if others else run(find(name, kind))
    if as_json:
        print_json([record(result) for result in results])
    else:
        show(f"checks of {name}", results, "because" if others else "usually")
    if not all(result.passed for result in results):
        raise typer.Exit(1)


def find(name: str, kind: str | None) -> Card:
    """What is checked. Every way to name something starts here.

    Raises:
        UnknownNameError, OptionError: nothing is called so.
    """
    from ..registry.find import find_card, kinds_of

    if ".py:" in name:
        return in_file(name, kind)
    card = find_card(name, kind)
    if kind is None and len(kinds := kinds_of(name)) > 1:
        others = " and ".join(f"a {other} (--kind {other})" for other in kinds[1:])
        remark(f"{name} is a {kinds[0]}; there is {others} of that name too")
    return card


def in_file(name: str, kind: str | None) -> Card:
    """The card of a function in a file, path.py:function with options behind it: an idea needs no package to be checked.

    Raises:
        OptionError: the file cannot be read or fails, there is no such function, or it takes no such options.
    """
    from dataclasses import replace

    from ..bench.named import function_in_file, split_sampler
    from ..testing import card_of

    where, options = split_sampler(name)
    try:
        function = function_in_file(where)
    except LoadError as error:
        raise OptionError(str(error)) from None
    card = card_of(function, kind)
    return replace(card, name=name, preset=card.check(options, partial=True))


def released(name: str, kind: str | None) -> list[CheckResult]:
    """All checks of a sampler as another library released it.

    Raises:
        UnknownNameError, OptionError: there is none, or nothing can be proven of it.
    """
    from ..testing import check_foreign

    if kind not in (None, "sampler"):
        raise OptionError(f"{name} is a sampler of another library, and no {kind}; leave out --kind.")
    return check_foreign(name)


def run(card: Card) -> list[CheckResult]:
    """All checks of what was found.

    Raises:
        PluginError: the kit is not there.
    """
    try:
        from ..testing import check_card
    except ImportError as error:
        raise PluginError(f"the conformance kit is not part of this installation: {error}") from None
    return check_card(card)


def record(result: CheckResult) -> dict[str, Any]:
    """One check, for other programs."""
    return {**result._asdict(), "passed": bool(result.passed), "detail": str(result.detail)}


def show(title: str, results: list[CheckResult], why: str = "usually") -> None:
    """A table of all checks, and below it what causes those that failed, usually or this time."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for column in ("check", "result", "figure", "limit", "detail"):
        table.add_column(column, overflow="fold")
    for r in results:
        result = Text("passed", style="green") if r.passed else Text("failed", style="bold red")
        table.add_row(r.name, result, _number(r.figure), f"{r.bound} {_number(r.limit)}", Text(str(r.detail)))
    out = console()
    out.print(table)
    for cause in dict.fromkeys(r.cause for r in results if r.cause):
        names = ", ".join(r.name for r in results if r.cause == cause)
        out.print(Text.assemble((f"{names}: ", "bold"), f"{why} ", cause), soft_wrap=not out.is_terminal)
    out.print(f"{sum(r.passed for r in results)} of {len(results)} passed")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
