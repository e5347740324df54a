"""`solverkit show SAMPLER --nfe N`: a plan, row by row."""

from __future__ import annotations

from typing import Any

import typer

from ..errors import OptionError, UnknownNameError
from . import parameters
from .console import print_json, print_table, read_options, remark
from .network import open_network

LEGEND = """\
level    noise level that the network sees: sigma / alpha, or sigma where the schedule is flow's
told     the time that the network is told
step     *: a step of the grid starts here, else an inner stage
carried  tensors that are kept until the next evaluation, beside x
update   the state that follows; x0, x1, ... states and D0, D1, ... denoised predictions of evaluations 0, 1, ...
to, of   where they are said: the second level of a flow map, and which model is asked"""


def show(
    sampler: str = parameters.SAMPLER,
    nfe: int = parameters.nfe(10),
    grid: str | None = parameters.GRID,
    pairs: list[str] = parameters.PAIRS,
    model: str | None = typer.Option(None, "--model", "-m", help="Take the schedule of this model."),
    schedule: str | None = typer.Option(None, "--schedule", help="vp (default), subvp, ve, edm or flow."),
    as_json: bool = parameters.JSON,
) -> None:
    """Show what a sampler does: its evaluations, and the update that follows each of them."""
    from ..model.counting import reporting
    from ..plan.trace import trace
    from ..registry.registry import resolve
    from ..run.choose import choose_grid

    if nfe < 1:
        raise OptionError(f"--nfe must be a positive integer, got {nfe}.")
    card = resolve(sampler)
    options = read_options(card, pairs)
    if not card.takes_budget:
        raise OptionError(f"{card.name!r} chooses its steps while it runs, so there is no plan to show: sample with it.")
    if model is not None and schedule is not None:
        raise OptionError("--model already has a schedule; leave out --schedule.")
    denoiser = None if model is None else open_network(model)
    where = _schedule(schedule) if denoiser is None else denoiser.schedule
    with reporting() as said:
        card, options = card.pace(card.check(options) if denoiser is None else card.prepared(denoiser, options))
        plan = trace(card, choose_grid(card, where, nfe, None, grid, None, options), **options)
    rows = plan.table()
    if as_json:
        keys = ("evaluation", "level", "time", "step", "carried", "update")
        values = [(r.evaluation, float(r.level), r.level.time, r.boundary, r.carried, r.update) for r in rows]
        return print_json([dict(zip(keys, value)) for value in values])
    print_table(
        f"{sampler} on {where}",
        ("#", "level", "told", "step", "carried", "update", *(("to",) if plan.to else ()), *(("of",) if plan.of else ())),
        [
            (
                str(r.evaluation), f"{r.level:.5g}", f"{r.level.time:.5g}", "*" * r.boundary, str(r.carried), r.update,
                *((_shown(r.to),) if plan.to else ()), *((r.of or "model",) if plan.of else ()),
            )
            for r in rows
        ],
        LEGEND,
    )
    for name, reports in said.items():
        remark(f"{name}: {reports[-1]}")
    remark(f"{plan.nfe} evaluations, at most {plan.depth} tensors carried, {plan.draws} draws, ends at {plan.grid[-1]:g}")


def _shown(level: Any) -> str:
    return "" if level is None else f"{level:.5g}"


def _schedule(name: str | None) -> Any:
    import solverkit as sk

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
