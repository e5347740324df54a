"""`solverkit bench`: measure samplers."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import BenchError, OptionError, UnknownNameError
from . import parameters
from .console import print_json, read_value, remark, settings, split_settings
from .destination import require_folder, require_readable, require_writable
from .graph_bench import bench_graphs
from .inverse_bench import bench_inverse
from .report import DATABASE, FIGURE, LINES, show_rows
from .run_progress import progress_of_run
from .token_bench import show_front, token_plan
from .waiting import use_threads

if TYPE_CHECKING:
    from ..bench.suite import Suite

OUT = Path("solverkit-bench")
SUITE = typer.Option("quick", "--suite", help="quick, full, tokens, graphs, inverse, a plugin's, or a TOML file.")
MODELS = typer.Option([], "--model", "-m", help="Instead of the suite's; a,b or repeated; or path.py:function.")
SAMPLERS = typer.Option(
    [], "--sampler", "-s",
    help="Instead of the suite's: name, unipc:order=2, diffusers:Class, k-diffusion:sample_x, path.py:function.",
)  # fmt: skip
GRIDS = typer.Option([], "--grid", "-g", help="One grid for all; several, or 'best': sweep them and report the best.")
BUDGETS = typer.Option([], "--nfe", "-n", help="Network evaluations: 10, or 5,10,20.")
SAMPLES = parameters.num_samples(None, "Samples of each cell.")
SEED = typer.Option(
    None, "--seed", min=0, max=parameters.LARGEST_SEED, help="Of the starting noise that all cells share."
)
PAIRS = typer.Option([], "--set", help="name=value for each sampler that has that option.")
METRICS = typer.Option([], "--metric", help="Instead of the suite's; `solverkit metrics` lists them.")
DATA = typer.Option(None, "--data", help="Real samples (.npy, .npz, .safetensors), for metrics that compare with some.")
CACHES = typer.Option([], "--cache", help="Rules that skip evaluations: none, frozen:every=2, easycache, taylor.")
TIMEOUT = typer.Option(None, "--timeout", min=0.001, help="Seconds after which a cell has failed.")
RETRY = typer.Option(False, "--retry-failed", help="Run cells again that failed before.")
ENGINE = typer.Option("local", "--engine", help="local, or ray: cells and blocks of samples as tasks (solverkit[ray]).")
FOLDER = typer.Option(OUT, "--out", "-o", help="Folder of the run: run.sqlite, results.jsonl, report.png.")
JSON = typer.Option(False, "--json", help="Print the rows as JSON.")
CSV = typer.Option(None, "--csv", help="Write the rows here, too.")
PARQUET = typer.Option(None, "--parquet", help="Write the rows here, too (solverkit[parquet]).")
ENGINES = ("local", "ray")
TOKENS = "tokens"


def bench(
    suite: str = SUITE,
    models: list[str] = MODELS,
    samplers: list[str] = SAMPLERS,
    grids: list[str] = GRIDS,
    budgets: list[str] = BUDGETS,
    num_samples: int | None = SAMPLES,
    seed: int | None = SEED,
    pairs: list[str] = PAIRS,
    metrics: list[str] = METRICS,
    data: Path | None = DATA,
    caches: list[str] = CACHES,
    timeout: float | None = TIMEOUT,
    retry_failed: bool = RETRY,
    label: int | None = parameters.LABEL,
    device: str | None = parameters.DEVICE,
    dtype: str | None = parameters.DTYPE,
    batch: int | None = parameters.BATCH,
    threads: int | None = parameters.THREADS,
    engine: str = ENGINE,
    out: Path = FOLDER,
    as_json: bool = JSON,
    csv: Path | None = CSV,
    parquet: Path | None = PARQUET,
) -> None:
    """Measure samplers on pretrained networks: error against network evaluations; without arguments, in 3 minutes.

    The same command goes on where it was stopped.
    """
    require_folder(out)
    for path in (out / DATABASE, out / LINES, out / FIGURE, csv, parquet):
        if path is not None:
            require_writable(path)
    if suite == "graphs":
        return bench_graphs(
            _split(samplers), grids, _budgets(budgets), num_samples, seed, (device, batch, threads),
            {"--model": models, "--set": pairs, "--label": label is not None, "--dtype": dtype, "--csv": csv,
             "--parquet": parquet, "--engine": engine != "local"},
            out / LINES, out / FIGURE, as_json,
        )  # fmt: skip
    if suite == "inverse":
        return bench_inverse(
            _split(models), _split(samplers), num_samples, seed, (device, batch, threads),
            {"--grid": grids, "--nfe": budgets, "--set": pairs, "--label": label is not None, "--dtype": dtype,
             "--csv": csv, "--parquet": parquet, "--engine": engine != "local", "--metric": metrics, "--data": data,
             "--cache": caches},
            out / LINES, out / FIGURE, as_json,
        )  # fmt: skip
    if Path(suite).suffix == ".toml":
        require_readable(Path(suite), folder=False)
    if data is not None:
        require_readable(data, folder=False)
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    with ExitStack() as stack:
        # the bar appears before torch is imported: nobody should wonder whether anything happens
        watch = None if settings.quiet or as_json else progress_of_run(stack)
        use_threads(threads)
        from ..bench.engine import make_with, open_engine
        from ..bench.outcome import make_block
        from ..bench.runner import run_suite
        from ..bench.suite_file import load_suite
        from ..files.arrays import read_array

        if data is not None:
            read_array(data)  # a corrupt file is told before anything is computed
        if suite == TOKENS:
            plan = token_plan(
                {"--grid": grids, "--set": pairs, "--label": label is not None, "--dtype": dtype, "--data": data,
                 "--cache": caches},
                models=_split(models), decoders=_split(samplers), budgets=_budgets(budgets), num_samples=num_samples,
                seed=seed, batch_size=batch, device=device, metrics=_split(metrics),
            )  # fmt: skip
        else:
            try:
                plan = load_suite(suite)
            except BenchError as error:  # the user named something that is no suite
                raise OptionError(f"--suite: {error}") from None
            plan = plan.override(_split(models), _split(samplers), _split(grids), _budgets(budgets), num_samples, seed)
            plan = _with_options(plan, pairs)
            plan = _on_machine(plan, label, device, dtype, batch)
            plan = _judged(plan, _split(metrics), data, _split(caches))
        rows, interrupted = [], False
        where = open_engine(engine, plan.models)
        stack.callback(getattr(where, "close", lambda: None))
        try:
            make = make_with(where, timeout) or make_block
            for row in run_suite(plan, out / DATABASE, watch, timeout=timeout, retry_failed=retry_failed, make=make):
                rows.append(row)
        except KeyboardInterrupt:
            interrupted = True
    rows, news = _kept(rows, out, csv, parquet)
    if as_json:
        print_json(rows)
    elif rows:
        show = show_front if suite == TOKENS else partial(show_rows, metric=None)
        show(rows, picture=out / FIGURE if news else None)
        print(f"results: {out / LINES}\nreport:  {out / FIGURE}")
    if interrupted:
        kept = f"; their rows are in {out}, the same command goes on." if rows else "."
        remark(f"interrupted after {len(rows)} cells{kept}")
        raise typer.Exit(130)
    if any(row["status"] != "ok" for row in rows):
        raise typer.Exit(1)


def _kept(
    rows: list[dict[str, Any]], out: Path, csv: Path | None, parquet: Path | None
) -> tuple[list[dict[str, Any]], bool]:
    """The rows of this command in the order of the suite, after the run's exports were written; and whether its figure
    is to be drawn: not where it was drawn of the same rows."""
    if not rows:
        return rows, False
    from ..bench.store import as_lines, read, write_csv, write_lines, write_parquet

    stored = read(out)
    keys = {row["key"] for row in rows}
    ordered = [row for row in stored if row["key"] in keys and row["machine"] == rows[0]["machine"]]
    if others := len(stored) - len(ordered):
        remark(f"{out} has {others} rows of other commands or machines too; --out FOLDER keeps runs apart.")
    lines, figure = out / LINES, out / FIGURE
    same = len(ordered) == len(stored) and lines.exists() and lines.read_bytes() == as_lines(stored)
    if not same:
        write_lines(lines, stored)
    if csv is not None:
        write_csv(csv, ordered)
    if parquet is not None:
        write_parquet(parquet, ordered)
    return ordered, not (same and figure.exists() and figure.stat().st_size)


def _judged(suite: Suite, metrics: list[str], data: Path | None, caches: list[str]) -> Suite:
    """The suite with other metrics, data and caching rules.

    Raises:
        OptionError: a metric that was asked for needs more samples than any cell has.
    """
    if metrics:
        suite = replace(suite, metrics=tuple(metrics))
        _require_samples(suite)
    if caches:
        suite = replace(suite, caches=tuple(caches))
    if data is not None:
        suite = replace(suite, models=tuple(replace(entry, data=str(data)) for entry in suite.models))
    return suite


def _require_samples(suite: Suite) -> None:
    from ..registry.catalogue import metrics as cards

    most = max((entry.num_samples for entry in suite.models), default=0)
    for name in suite.metrics:
        if name in cards() and (least := cards()[name].min_samples) > most:
            raise OptionError(f"--metric {name} needs at least {least} samples, and cells have {most}: -k {least}.")


def _split(texts: list[str]) -> list[str]:
    """The names of a,b texts; in a:x=1,y=2,b the second comma belongs to the options of a."""
    names: list[str] = []
    for text in texts:
        for i, part in enumerate(part.strip() for part in text.split(",")):
            if i and "=" in part and ":" not in part and names and ({"=", ":"} & set(names[-1])):
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
    from ..bench.named import PEER, find_sampler, is_peer, split_sampler
    from ..bench.peers import config_keys, peer_class

    texts = split_settings(pairs)
    spelled = [*suite.samplers, *(extra.sampler for extra in suite.extra)]
    samplers = list(dict.fromkeys(split_sampler(name)[0] for name in spelled))
    options = {sampler: dict(suite.options.get(sampler, {})) for sampler in {*samplers, *suite.options}}
    for name, text in texts.items():
        having = 0
        for sampler in samplers:
            if sampler.startswith(PEER):
                known = dict.fromkeys(config_keys(peer_class(sampler)), Any)
            elif is_peer(sampler):
                known = {}
            else:
                card = find_sampler(sampler, suite.given)
                known = {k: card.hints.get(k, Any) for k in card.options}
            if name in known:
                having += 1
                options[sampler][name] = read_value(text, known[name], name)
        if not having:
            raise OptionError(f"none of the samplers {', '.join(samplers)} has an option {name!r}.")
    return replace(suite, options=options)
