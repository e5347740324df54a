"""`solverkit bench --suite graphs`: samplers on the system `communities`, nearness to real graphs against evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from ..errors import OptionError
from .console import print_json, print_table, remark, settings
from .destination import with_folder
from .waiting import use_threads

SAMPLES = 128


def bench_graphs(
    samplers: list[str], grids: list[str], budgets: list[int], num_samples: int | None, seed: int | None,
    machine: tuple[str | None, int | None, int | None], refused: dict[str, Any], file: Path, picture: Path, as_json: bool,
) -> None:  # fmt: skip
    """Run the cells, append their rows to `file` as they come, print a table and draw the front.

    Raises:
        OptionError: an option of other suites, or several grids.
        UnknownNameError: no such sampler.
    """
    for name, value in refused.items():
        if value:
            raise OptionError(f"{name} is for suites of one tensor; --suite graphs has its own cells.")
    if len(grids) > 1:
        raise OptionError(f"--suite graphs runs one grid for the samplers that are named, got {len(grids)}.")
    device, batch, threads = machine
    use_threads(threads)
    from ..bench.graph_front import BUDGETS, ENTRIES, Entry, run, write_front
    from ..registry.registry import resolve

    most = max(budgets or BUDGETS)
    entries = [Entry(name, grids[0] if grids else None, resolve(name).name, most) for name in samplers] or list(ENTRIES)
    if budgets:
        entries = [entry._replace(most=most) for entry in entries]
    rows: list[dict[str, Any]] = []
    interrupted = False
    try:
        with with_folder(file).open("a", encoding="utf-8") as out:
            for row in run(num_samples or SAMPLES, entries, budgets or BUDGETS, seed or 0, device, batch):
                rows.append(row)
                out.write(json.dumps(row) + "\n")
                out.flush()
                if not (settings.quiet or as_json):
                    remark(f"{row['label']} {row.get('budget', '')}")
    except KeyboardInterrupt:
        interrupted = True
    if as_json:
        print_json(rows)
    elif rows:
        _print(rows)
        write_front(rows, picture)
        print(f"results: {file}\nreport:  {picture}")
    if interrupted:
        raise typer.Exit(130)


def _print(rows: list[dict[str, Any]]) -> None:
    from ..bench.graph_metrics import STATISTICS

    table = []
    for row in rows:
        figures = [f"{1000 * row[name]:.1f}" if name in row else row.get("status", "") for name in STATISTICS]
        errors = [f" ± {1000 * row[f'{name}_error']:.1f}" if f"{name}_error" in row else "" for name in STATISTICS]
        label = "floor: 95 % of real graphs" if row["label"] == "real" else row["label"]
        table.append((label, f"{row.get('nfe', ''):g}" if "nfe" in row else "", *map("".join, zip(figures, errors))))
    title = f"communities, {rows[0]['num_samples']} graphs, MMD² x 1000"
    print_table(title, ("sampler", "evaluations", *STATISTICS), table)
