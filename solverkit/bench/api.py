"""`sk.bench(models, samplers, nfe=...)`: a bench from Python, and what it gives back."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OptionError
from .named import split_sampler
from .panel import Panel, make_panels, shown_metrics
from .report import TIE, interval, make_table, number
from .runner import run_suite
from .store import DATABASE, Row, write_lines
from .suite import NO_CACHE, ModelEntry, Suite

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Named = str | Callable[..., Any]


class BenchResult:
    """The rows of a bench.

    Attributes:
        rows: One dict a cell; docs/benchmarks.md says what stands in it.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)

    def __repr__(self) -> str:
        failed = sum(row["status"] != "ok" for row in self.rows)
        return f"BenchResult({len(self.rows)} cells{f', {failed} failed' if failed else ''})"

    def __len__(self) -> int:
        return len(self.rows)

    def panels(self, metric: str | None = None) -> list[Panel]:
        """What tables and figures show: `make_panels` of the rows."""
        return make_panels(self.rows, metric)

    def table(self, metric: str | None = None) -> str:
        """The tables as text, those of all metrics or of one."""
        from rich.console import Console

        console = Console(width=200, highlight=False, record=True, file=io.StringIO())
        names: list[str | None] = [metric] if metric is not None else [*shown_metrics(self.rows)] or [None]
        for name in names:
            for panel in self.panels(name):
                console.print(make_table(panel))
        return console.export_text()

    def plot(self, metric: str | None = None) -> Figure:
        """A matplotlib figure: error against counted evaluations, a panel a model."""
        from .figure import drawn

        return drawn(self.panels(metric))

    def to_pandas(self) -> Any:
        """The rows as a pandas DataFrame.

        Raises:
            OptionError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise OptionError("to_pandas() needs pandas: pip install pandas. `.rows` has the same without it.") from None
        return pandas.DataFrame(self.rows)

    def write(self, path: str | Path) -> Path:
        """The rows as JSON lines; BenchError where they cannot be written."""
        write_lines(Path(path), self.rows)
        return Path(path)

    def best(self, nfe: int | None = None, metric: str | None = None) -> dict[str, list[str]]:
        """model -> the sampler with the best figure at a budget (default: the largest), and those that tie with it."""
        found = {}
        for panel in self.panels(metric):
            budget = max(panel.budgets) if nfe is None else nfe
            best, leading = panel.best(budget), panel.leading(budget)
            first = [name for name, line in panel.points.items() if line.get(budget) is best]
            found[panel.title.partition(" · ")[0]] = [*first, *sorted(leading - set(first))]
        return found

    def _repr_html_(self) -> str:
        names: list[str | None] = [*shown_metrics(self.rows)] or [None]
        return "".join(_html(panel) for name in names for panel in self.panels(name))


def _html(panel: Panel) -> str:
    head = "".join(f"<th>NFE {budget}</th>" for budget in panel.budgets)
    lines = []
    for name, line in panel.points.items():
        cells = []
        for budget in panel.budgets:
            point, leading = line.get(budget), panel.leading(budget)
            if point is None:
                cells.append("<td>-</td>")
                continue
            said = (TIE if name in leading and len(leading) > 1 else "") + number(point.value)
            said = f"<b>{said}</b>" if name in leading else said
            within = "" if point.interval is None else f"<br><small>{interval(point.interval)}</small>"
            cells.append(f"<td>{said}{within}</td>")
        lines.append(f"<tr><th>{html.escape(name)}</th>{''.join(cells)}</tr>")
    words = [*panel.warnings, *panel.failures, panel.grids()]
    notes = "".join(f"<p><small>{html.escape(text)}</small></p>" for text in words if text)
    title = html.escape(f"{panel.title} · {panel.metric}")
    return f"<table><caption>{title}</caption><tr><th>sampler</th>{head}</tr>{''.join(lines)}</table>{notes}"


def bench(
    models: Named | Iterable[Any] | Mapping[str, Any],
    samplers: Named | Iterable[Named] | Mapping[str, Named],
    nfe: int | Iterable[int] = (5, 10, 20),
    *,
    num_samples: int = 64,
    grid: str | Iterable[str] | None = None,
    seed: int | Iterable[int] = 0,
    metrics: Iterable[str] = (),
    caches: Iterable[str] = (NO_CACHE,),
    data: str | Path | None = None,
    batch_size: int | None = None,
    reference_steps: int = 64,
    timeout: float | None = None,
    out: str | Path | None = None,
) -> BenchResult:
    """Measure samplers on models.

        result = sk.bench(["mixture", my_denoiser], ["euler", "unipc:order=2", my_sampler], nfe=[5, 10])
        print(result.table())

    Args:
        models: Names, path.py:function, or denoisers; a mapping gives names to objects.
        samplers: Names with options behind them, peers ("diffusers:Class"), path.py:function, or functions
            (model, x, grid, noise, **options) -> x; a mapping gives names to objects.
        nfe: Ceilings on network evaluations.
        num_samples: Samples of each cell.
        grid: One for all; several: they are swept, and the best is reported for each sampler. Default: the sampler's own.
        seed: Of the starting noise that all cells share; several are pooled.
        metrics: Names; default what says something at no further cost.
        caches: Rules that answer some evaluations from earlier ones (`solverkit.bench.caching`).
        data: A file of real samples, for metrics that compare with some.
        batch_size: Samples at once.
        reference_steps: Of the converged solution.
        timeout: Seconds after which a cell has failed.
        out: A folder that keeps the run: the same call goes on where it was stopped.

    Raises:
        UnknownNameError, OptionError, LoadError, BenchError: as `run_suite`. A cell that fails is a row, no error.
    """
    model_names, model_objects = _named(models, "model")
    sampler_names, sampler_objects = _named(samplers, "sampler")
    grids = (grid,) if isinstance(grid, str) else tuple(grid or ())
    seeds = (seed,) if isinstance(seed, int) else tuple(seed)
    real = None if data is None else str(data)
    entries = tuple(
        ModelEntry(name, num_samples, batch_size=batch_size, reference_steps=reference_steps, data=real)
        for name in model_names
    )
    suite = Suite(
        name="sk.bench", models=entries, samplers=tuple(sampler_names), nfe=(nfe,) if isinstance(nfe, int) else tuple(nfe),
        seed=seeds[0] if seeds else 0, seeds=seeds, metrics=tuple(metrics), caches=tuple(caches),
        given={**model_objects, **sampler_objects},
    ).override(grids=grids)  # fmt: skip
    path = None if out is None else Path(out) / DATABASE
    return BenchResult(list(run_suite(suite, path, timeout=timeout)))


def _named(given: Any, kind: str) -> tuple[list[str], dict[str, Any]]:
    """Names in order, and the objects behind those that are not names themselves.

    Raises:
        OptionError: two objects of one name, or none at all.
    """
    if isinstance(given, Mapping):
        pairs = list(given.items())
    else:
        single = isinstance(given, str) or callable(given)
        pairs = [(_name(one, kind), one) for one in ([given] if single else given)]
    objects: dict[str, Any] = {}
    for name, value in pairs:
        if isinstance(value, str) and name == value:
            continue
        if objects.get(name, value) is not value:
            raise OptionError(f"two {kind}s are called {name!r}: pass a dict, name -> {kind}.")
        objects[name] = value
    if not pairs:
        raise OptionError(f"sk.bench needs at least one {kind}.")
    for name, value in objects.items():
        if isinstance(value, str):
            raise OptionError(f"a dict gives names to objects, and {name!r} is {value!r}: list registered names instead.")
        if kind == "sampler" and split_sampler(name)[1]:
            raise OptionError(f"a function cannot be called {name!r}: only registered names have options behind them.")
    return [name for name, _ in pairs], objects


def _name(value: Any, kind: str) -> str:
    if isinstance(value, str):
        return value
    name = getattr(value, "__name__", None) or getattr(value, "source", None) or getattr(value, "name", None)
    return str(name or f"{kind} {type(value).__name__}").replace(":", " ")
