"""`solverkit compare A B`: what moved beyond its interval between two runs; exit code 1 on a regression."""

from __future__ import annotations

from pathlib import Path

import typer

from .console import print_json, print_table
from .destination import require_readable
from .report import METRIC, read_runs

BEFORE = typer.Argument(help="The run to compare with: a folder of bench, its run.sqlite or results.jsonl.")
AFTER = typer.Argument(help="The run that is judged.")
ALL = typer.Option(False, "--all", help="Show ties, too.")
JSON = typer.Option(False, "--json", help="Print JSON.")


def compare(
    before: Path = BEFORE,
    after: Path = AFTER,
    metric: str | None = METRIC,
    everything: bool = ALL,
    as_json: bool = JSON,
) -> None:
    """Say what moved beyond its interval between two runs; exit code 1 where something became worse."""
    for path in (before, after):
        require_readable(path)
    from ..bench.comparison import SAME, as_records
    from ..bench.comparison import compare as compared
    from ..bench.report import number

    found = compared(read_runs([before]), read_runs([after]), metric)
    if as_json:
        print_json(as_records(found))
    else:
        shown = [change for change in found.changes if everything or change.verdict != SAME]
        rows = [
            (
                change.cell, change.metric,
                "" if change.before is None else number(change.before),
                "" if change.after is None else number(change.after),
                "" if change.interval is None else f"{change.interval[0]:+.3g} to {change.interval[1]:+.3g}",
                f"{change.verdict} {change.reason}".strip(),
            )
            for change in shown
        ]  # fmt: skip
        if rows:
            columns = ("cell", "metric", "before", "after", "worse by (95 %)", "verdict")
            print_table(f"{before} -> {after}", columns, rows)
        ties = sum(change.verdict == SAME for change in found.changes)
        print(f"{len(found.changes)} figures: {ties} ties, {len(found.regressions)} worse or failed")
        for label, cells in ((f"only in {before}", found.only_before), (f"only in {after}", found.only_after)):
            if cells:
                print(f"{label}: {len(cells)} cells, such as {cells[0]}")
    if found.regressions:
        raise typer.Exit(1)
