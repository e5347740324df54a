"""`solverkit report`: show what was measured, on the screen, as a figure, and as files for other programs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

from ..errors import OptionError
from .console import console, print_json, remark
from .destination import require_readable, require_writable

DATABASE, LINES, FIGURE = "run.sqlite", "results.jsonl", "report.png"
FILES = typer.Argument(help="Folders of one or more runs (--out of bench), or their run.sqlite or results.jsonl.")
METRIC = typer.Option(None, "--metric", help="What to show; default: every metric that was measured.")
PICTURE = typer.Option(None, "--out", "-o", help="A page (.html), or the figure (.png, .pdf, .svg) [RUN/report.html].")
PAGE, HTML = "report.html", ".html"
FIGURES = (HTML, ".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")
JSON = typer.Option(False, "--json", help="Print the rows as JSON.")
CSV = typer.Option(None, "--csv", help="Write the rows here.")
PARQUET = typer.Option(None, "--parquet", help="Write the rows here (solverkit[parquet]).")
MERGE = typer.Option(None, "--merge", help="Put the rows of all runs into this folder's run; machines stay told apart.")


def report(
    files: list[Path] = FILES,
    metric: str | None = METRIC,
    out: Path | None = PICTURE,
    as_json: bool = JSON,
    csv: Path | None = CSV,
    parquet: Path | None = PARQUET,
    merge: Path | None = MERGE,
) -> None:
    """Show stored results: tables on screen, one HTML page with everything, rows for other programs."""
    for path in files:
        require_readable(path)
    if out is not None:
        require_writable(out, FIGURES)
    for target in (csv, parquet, merge and merge / DATABASE):
        if target is not None:
            require_writable(target)
    rows = read_runs(files)
    if merge is not None:
        _merge(files, merge)
        rows = read_runs([merge])
    if csv is not None or parquet is not None:
        from ..bench.store import write_csv, write_parquet

        for target, write in ((csv, write_csv), (parquet, write_parquet)):
            if target is not None:
                write(target, rows)
    if as_json:
        return print_json(rows)
    page = out if out is not None and out.suffix.lower() == HTML else None
    show_rows(rows, None if page is not None else out, metric)
    if out is None and len(files) == 1 and files[0].is_dir():
        if find_spec("plotly") is None:
            return remark("no page was written: pip install 'solverkit[report]'")
        try:
            require_writable(page := files[0] / PAGE)
        except OptionError as error:  # the tables are there; nobody asked for the page
            return remark(f"no page was written: {error}")
    if page is not None:
        _write_page(rows, files, page)
    if (shown := page or out) is not None:
        print(f"report:  {shown}")


def _write_page(rows: list[dict[str, Any]], files: list[Path], page: Path) -> None:
    from ..bench.page.page import write_page
    from ..bench.run_store import RunStore
    from ..files.hub import load
    from ..registry.registry import registry

    pictures: dict[str, bytes] = {}
    for path in files:
        database = path / DATABASE if path.is_dir() else path
        if database.suffix == Path(DATABASE).suffix and database.exists():
            with RunStore(database, readonly=True) as store:
                pictures.update(store.pictures())
    bundled = registry().cards["models"]
    denoisers = {name: load(name) for name in dict.fromkeys(row["model"] for row in rows) if name in bundled}
    write_page(rows, page, pictures, denoisers)


def read_runs(files: list[Path]) -> list[dict[str, Any]]:
    """The rows of all runs; of repeated cells the last counts."""
    from ..bench.store import latest, read

    return latest(row for path in files for row in read(path))


def _merge(files: list[Path], folder: Path) -> None:
    from ..bench.run_store import RunStore
    from ..bench.store import read, write_lines

    with RunStore(folder / DATABASE) as store:
        for path in files:
            store.merge(read(path))
        write_lines(folder / LINES, store.rows())


def show_rows(rows: list[dict[str, Any]], picture: Path | None, metric: str | None) -> None:
    """Tables on the screen, and the figure of the first metric where `picture` says."""
    from ..bench.report import make_panels, make_table, shown_metrics, write_figure

    screen = console()
    names: list[str | None] = [metric] if metric is not None else [*shown_metrics(rows)] or [None]
    for i, name in enumerate(names):
        panels = [panel for panel in make_panels(rows, name) if i == 0 or any(panel.points.values())]
        for panel in panels:
            screen.print(make_table(panel))
            for warning in panel.warnings:
                screen.print(f"Warning: {warning}", style="yellow")
            for failure in panel.failures if i == 0 else ():
                screen.print(failure, style="red", markup=False)
        if i == 0 and picture is not None:
            write_figure(panels, picture)
