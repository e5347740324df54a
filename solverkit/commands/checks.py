"""`solverkit check SAMPLER`: the conformance kit from the command line."""

from __future__ import annotations

import typer

from ..errors import PluginError
from . import parameters
from .console import console, print_json


def check(
    sampler: str = parameters.SAMPLER,
    as_json: bool = parameters.JSON,
) -> None:
    """Prove a decoder of tokens by checks of its own, or a sampler: order, spellings, nfe, options, edits, independence,
    finite, ends, law, parts, growth, device, input_untouched, system.
    """
    try:
        from ..testing import card_of, check_sampler
    except ImportError as error:
        raise PluginError(f"the conformance kit is not part of this installation: {error}") from None
    card = card_of(sampler)  # a name that does not exist is bad usage, whatever the kit says
    results = list(check_sampler(card))
    failed = [r for r in results if not r.passed]
    if as_json:
        print_json([{"name": r.name, "passed": bool(r.passed), "detail": str(r.detail)} for r in results])
    else:
        from rich.table import Table
        from rich.text import Text

        table = Table(title=f"checks of {sampler}", title_justify="left")
        for column in ("check", "result", "detail"):
            table.add_column(column, overflow="fold")
        for r in results:
            result = Text("passed", style="green") if r.passed else Text("failed", style="bold red")
            table.add_row(r.name, result, Text(str(r.detail)))
        out = console()
        out.print(table)
        out.print(f"{len(results) - len(failed)} of {len(results)} passed")
    if failed:
        raise typer.Exit(1)
