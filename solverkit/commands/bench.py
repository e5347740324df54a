"""`solverkit bench` and `solverkit report`: measure samplers, and show what was measured."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import BenchError, OptionError
from . import parameters
from .console import console, print_json, read_value, remark, settings, split_settings
from .destination import require_folder, require_readable, require_writable
from .waiting import use_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..bench.runner import Progress
    from ..bench.suite import Suite

OUT = Path("solverkit-bench")
SUITE = typer.Option("default", "--suite", help="A bundled suite, a plugin's, or a TOML file.")
MODELS = typer.Option([], "--model", "-m", help="Instead of the suite's; a,b or repeated.")
SAMPLERS = typer.Option([], "--sampler", "-s", help="Instead of the suite's; diffusers:Class for diffusers' own.")
GRIDS = typer.Option([], "--grid", "-g", help="One grid for all; several, or 'best': sweep them and report the best.")
BUDGETS = typer.Option([], "--nfe", "-n", help="Network evaluations: 10, or 5,10,20.")
SAMPLES = parameters.num_samples(None, "Samples of each cell.")
SEED = typer.Option(
    None, "--seed", min=0, max=parameters.LARGEST_SEED, help="Of the starting noise that all cells share."
)
PAIRS = typer.Option([], "--set", help="name=value for each sampler that has that option.")
FOLDER = typer.Option(OUT, "--out", "-o", help="Folder of results.jsonl and report.png.")
JSON = typer.Option(False, "--json", help="Print the rows as JSON.")
FILES = typer.Argument(help="Folders of one or more runs (--out of bench), or their results.jsonl.")
METRIC = typer.Option(None, "--metric", help="What to show; default: every metric that was measured.")
PICTURE = typer.Option(None, "--out", "-o", help="Write the figure here (.png, .jpg, .pdf, .svg).")
FIGURES = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")
ROWS, FIGURE = "results.jsonl", "report.png"


def bench(
    suite: str = SUITE,
    models: list[str] = MODELS,
    samplers: list[str] = SAMPLERS,
    grids: list[str] = GRIDS,
    budgets: list[str] = BUDGETS,
    num_samples: int | None = SAMPLES,
    seed: int | None = SEED,
    pairs: list[str] = PAIRS,
    label: int | None = parameters.LABEL,
    device: str | None = parameters.DEVICE,
    dtype: str | None = parameters.DTYPE,
    batch: int | None = parameters.BATCH,
    threads: int | None = parameters.THREADS,
    out: Path = FOLDER,
    as_json: bool = JSON,
) -> None:
    """Measure samplers on pretrained networks: error against network evaluations; without arguments, in 3 minutes."""
    require_folder(out)
    require_writable(file := out / ROWS)
    require_writable(out / FIGURE)
    if Path(suite).suffix == ".toml":
        require_readable(Path(suite), folder=False)
    with ExitStack() as stack:
        # the bar appears before torch is imported: nobody should wonder whether anything happens
        watch = None if settings.quiet or as_json else _progress_bar(stack)
        use_threads(threads)
        from ..bench.runner import run_suite
        from ..bench.suite_file import load_suite

        try:
            plan = load_suite(suite)
        except BenchError as error:  # the user named something that is no suite
            raise OptionError(f"--suite: {error}") from None
        plan = plan.override(_split(models), _split(samplers), _split(grids), _budgets(budgets), num_samples, seed)
        plan = _with_options(plan, pairs)
        plan = _on_machine(plan, label, device, dtype, batch)
        rows, interrupted = [], False
        try:
            for row in run_suite(plan, file, watch):
                rows.append(row)
        except KeyboardInterrupt:
            interrupted = True
    if as_json:
        print_json(rows)
    elif rows:
        _show(rows, out / FIGURE, None)
        print(f"results: {file}\nreport:  {out / FIGURE}")
    if interrupted:
        remark(f"interrupted after {len(rows)} cells" + (f"; their rows are in {file}." if rows else "."))
        raise typer.Exit(130)
    if any(row["status"] != "ok" for row in rows):
        raise typer.Exit(1)


def report(
    files: list[Path] = FILES, metric: str | None = METRIC, out: Path | None = PICTURE, as_json: bool = JSON
) -> None:
    """Show stored results again: tables on screen, and the figure where --out says."""
    paths = [path / ROWS if path.is_dir() else path for path in files]
    for path in paths:
        require_readable(path, folder=False)
    if out is not None:
        require_writable(out, FIGURES)
    from ..bench.store import latest, read

    rows = latest(row for path in paths for row in read(path))
    if as_json:
        return print_json(rows)
    _show(rows, out, metric)
    if out is not None:
        print(f"report:  {out}")


def _show(rows: list[dict[str, Any]], picture: Path | None, metric: str | None) -> None:
    from ..bench.report import make_panels, make_table, metric_names, write_figure

    screen = console()
    names: list[str | None] = [metric] if metric is not None else [*metric_names(rows)] or [None]
    for i, name in enumerate(names):
        panels = [panel for panel in make_panels(rows, name) if i == 0 or any(panel.rows.values())]
        for panel in panels:
            screen.print(make_table(panel))
            if panel.warning:
                screen.print(f"Warning: {panel.warning}", style="yellow")
            for failure in panel.failures if i == 0 else ():
                screen.print(failure, style="red", markup=False)
        if i == 0 and picture is not None:
            write_figure(panels, picture)


def _progress_bar(stack: ExitStack) -> Callable[[Progress], None]:
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.fields[cells]}"),
        bars.BarColumn(bar_width=14),
        bars.TimeRemainingColumn(),
        bars.TextColumn("left, now {task.description}"),
    )
    screen = Console(stderr=True)
    hidden = not screen.is_terminal
    bar = stack.enter_context(
        bars.Progress(*columns, console=screen, transient=True, speed_estimate_period=60, disable=hidden)
    )
    task = bar.add_task("starting", total=None, cells="")

    def watch(progress: Progress) -> None:
        bar.update(
            task, description=progress.label, completed=progress.done, total=progress.total,
            cells=f"{progress.cell}/{progress.cells}",
        )  # fmt: skip

    return watch


def _split(texts: list[str]) -> list[str]:
    """The names of a,b texts; in a:x=1,y=2,b the second comma belongs to the options of a."""
    names: list[str] = []
    for text in texts:
        for i, part in enumerate(part.strip() for part in text.split(",")):
            if i and "=" in part and ":" not in part and names and "=" in names[-1]:
                names[-1] += f",{part}"
            elif part:
                names.append(part)
    return names


def _budgets(texts: list[str]) -> list[int]:
    try:
        return [int(part) for part in _split(texts)]
    except ValueError:
        raise OptionError(f"--nfe takes integers such as 10 or 5,10,20, got {', '.join(texts)!r}.") from None


def _on_machine(suite: Suite, label: int | None, device: str | None, dtype: str | None, batch: int | None) -> Suite:
    """The suite with the class, device and precision of each model that has them, and the size of batches.

    Raises:
        UnknownNameError, OptionError: as `loader_options`; no model of the suite has classes.
    """
    from .network import has_option, loader_options

    models = []
    for entry in suite.models:
        own_label = label if has_option(entry.name, "labels") else None
        own_dtype = dtype if has_option(entry.name, "dtype") else None
        options = {**entry.options, **loader_options(entry.name, own_label, device, own_dtype)}
        models.append(replace(entry, options=options, batch_size=entry.batch_size if batch is None else batch))
    if label is not None and not any("labels" in entry.options for entry in models):
        raise OptionError(f"--label {label}: none of the models {', '.join(m.name for m in models)} has classes.")
    return replace(suite, models=tuple(models))


def _with_options(suite: Suite, pairs: list[str]) -> Suite:
    """--set for every sampler that has the option.

    Raises:
        OptionError: no sampler of the run has it.
    """
    from ..bench.peers import config_keys, peer_class
    from ..bench.suite import PEER
    from ..registry.registry import resolve

    texts = split_settings(pairs)
    samplers = list(dict.fromkeys([*suite.samplers, *(extra.sampler for extra in suite.extra)]))
    options = {sampler: dict(suite.options.get(sampler, {})) for sampler in {*samplers, *suite.options}}
    for name, text in texts.items():
        having = 0
        for sampler in samplers:
            if sampler.startswith(PEER):
                known = dict.fromkeys(config_keys(peer_class(sampler)), Any)
            else:
                card = resolve(sampler)
                known = {k: card.hints.get(k, Any) for k in card.options}
            if name in known:
                having += 1
                options[sampler][name] = read_value(text, known[name], name)
        if not having:
            raise OptionError(f"none of the samplers {', '.join(samplers)} has an option {name!r}.")
    return replace(suite, options=options)
