"""`solverkit show SAMPLER --nfe N`: a plan, row by row."""

from __future__ import annotations

from typing import Any

import typer

from ..errors import OptionError, UnknownNameError
from .console import PAIRS, print_json, print_table, read_options, remark


def show(
    sampler: str = typer.Argument(help="A registered sampler."),
    nfe: int = typer.Option(10, "--nfe", "-n", help="Ceiling on network evaluations."),
    grid: str | None = typer.Option(None, "--grid", "-g", help="A registered grid; default: the sampler's own."),
    pairs: list[str] = PAIRS,
    model: str | None = typer.Option(None, "--model", "-m", help="Take the schedule of this model."),
    schedule: str | None = typer.Option(None, "--schedule", "-s", help="vp (default), subvp, ve, edm or flow."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Show what a sampler does: its evaluations, and the update that follows each of them."""
    from ..plan.trace import trace
    from ..registry.registry import resolve
    from ..run.choose import choose_grid

    card = resolve(sampler)
    options = read_options(card, pairs)
    where = _schedule(model, schedule)
    plan = trace(card, choose_grid(card, where, nfe, None, grid, None, options), **options)
    rows = plan.table()
    if as_json:
        keys = ("evaluation", "level", "time", "step", "carried", "update")
        values = [(r.evaluation, float(r.level), r.level.time, r.boundary, r.carried, r.update) for r in rows]
        return print_json([dict(zip(keys, value)) for value in values])
    print_table(
        f"{sampler} on {where}",
        ("#", "level", "told", "step", "carried", "update"),
        [
            (str(r.evaluation), f"{r.level:.5g}", f"{r.level.time:.5g}", "*" * r.boundary, str(r.carried), r.update)
            for r in rows
        ],
    )
    remark(f"{plan.nfe} evaluations, at most {plan.depth} tensors carried, {plan.draws} draws, ends at {plan.grid[-1]:g}")


def _schedule(model: str | None, name: str | None) -> Any:
    import solverkit as sk

    if model is not None:
        if name is not None:
            raise OptionError("--model already has a schedule; leave out --schedule.")
        from ..files.hub import load

        return load(model).schedule
    makers: dict[str, Any] = {
        "vp": sk.VP,
        "subvp": sk.SubVP,
        "ve": sk.VE,
        "edm": sk.EDM,
        "flow": sk.Flow,
    }
    if (name or "vp").lower() not in makers:
        raise UnknownNameError("schedule", name, makers)
    return makers[(name or "vp").lower()]()
