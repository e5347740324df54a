"""`report.html`: one page with everything in it, by plotly's own bundle."""

from __future__ import annotations

import html
import json
import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from ...errors import OptionError
from ..colours import styles
from ..named import IN_FILE
from ..panel import PEER_MARK, Panel, make_panels, shown_metrics
from ..report import number
from ..store import Row, latest, written
from ..suite import NO_CACHE, short_name
from ..suite_file import bundled_suites
from .plans import plan_plots
from .plots import error_plot, time_plot
from .sheets import sheets

WORDS = ("model", "sampler", "options", "cache", "grid", "status")
COLUMNS = ("model", "sampler", "options", "cache", "grid", "budget", "nfe", "seed", "num_samples")
COSTS = ("seconds_total", "seconds_model", "images_per_second", "status")
PROVENANCE = (
    "machine", "torch_version", "diffusers_version", "solverkit_version", "python_version", "git_commit", "threads",
)  # fmt: skip


def write_page(
    rows: Sequence[Row], path: Path, pictures: Mapping[str, bytes] | None = None, denoisers: Mapping[str, Any] | None = None
) -> None:
    """Write the page.

    Args:
        rows: Of the run.
        path: Of the .html file.
        pictures: Samples of the cells (`RunStore.pictures`).
        denoisers: Model -> denoiser, for the pictures of plans.

    Raises:
        OptionError: plotly is not installed.
        BenchError: the file cannot be written, or no row has a metric.
    """
    bundle = plotly_bundle()
    kept = latest(rows)
    names = shown_metrics(kept)
    panels = [(name, panel) for name in names for panel in make_panels(kept, name) if any(panel.points.values())]
    plots = [error_plot(panel, f"error-{i}") for i, (_, panel) in enumerate(panels)]
    times = [time_plot(panel, f"time-{i}") for i, (_, panel) in enumerate(panels)]
    first = [panel for name, panel in panels if name == names[0]] if names else []
    plans = plan_plots(first, denoisers or {})
    shown = sheets(first, pictures or {})
    samplers = list(dict.fromkeys(name for _, panel in panels for name, line in panel.points.items() if line))
    legend = [
        {"name": name.rstrip(PEER_MARK), "colour": style.colour, "dash": style.dash, "peer": style.peer}
        for name, style in styles(samplers).items()
    ]
    data = {
        "legend": legend, "plots": [*plots, *times, *plans],
        "rows": [_record(row, names) for row in kept],
        "columns": [{"name": name, "word": name in WORDS} for name in _columns(kept, names)],
    }  # fmt: skip
    body = _body(kept, panels, plots, times, plans, shown, data["columns"])
    text = json.dumps(data).replace("</", "<\\/")
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>solverkit bench</title><style>{_part('page.css')}</style></head><body>{body}"
        f'<script type="application/json" id="data">{text}</script><script>{bundle}</script>'
        f"<script>{_part('page.js')}</script></body></html>\n"
    )
    written(path, page.encode)


def plotly_bundle() -> str:
    """plotly.js as it comes with plotly; OptionError where that is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise OptionError("the page is drawn by plotly: pip install 'solverkit[report]'.") from None
    return str(get_plotlyjs())


def command_of(row: Row) -> str:
    """The command that measures a row again."""
    sampler = row["sampler"]
    if row["options"]:
        sampler += ":" + ",".join(f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in row["options"].items())
    words = ["solverkit", "bench"]
    suite = str(row.get("suite") or "").rpartition("-")[0]
    if suite in bundled_suites():
        words += ["--suite", suite]
    words += ["-m", row["model"], "-s", sampler, "-n", str(row["budget"]), "-g", str(row["grid"])]
    words += ["-k", str(row["num_samples"]), "--seed", str(row["seed"])]
    if row.get("cache", NO_CACHE) != NO_CACHE:
        words += ["--cache", row["cache"]]
    return shlex.join(words)


def _part(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _columns(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    several = {"options", "cache"} & {name for name in COLUMNS if len({str(row.get(name)) for row in rows}) == 1}
    return [*(name for name in COLUMNS if name not in several), *names, *COSTS]


def _record(row: Row, names: Sequence[str]) -> dict[str, Any]:
    options = ", ".join(f"{k}={v}" for k, v in row["options"].items())
    plain = {
        **{name: row.get(name) for name in (*COLUMNS, *names, *COSTS)}, "model": short_name(row["model"]),
        "sampler": short_name(row["sampler"]), "options": options,
    }  # fmt: skip
    intervals = row.get("intervals") or {}
    shown = dict(plain)
    for name in (*names, "seconds_total", "seconds_model", "images_per_second"):
        if isinstance(row.get(name), (int, float)):
            pair = intervals.get(name)
            shown[name] = number(row[name]) + (f" ({number(pair[0], 2)} to {number(pair[1], 2)})" if pair else "")
    where = {name: row.get(name) for name in PROVENANCE}
    costs = ("asked", "nfe", "passes", "products", "blocks", "seconds_plan", "seconds_solver", "seconds_metric",
             "peak_memory_bytes", "device", "dtype", "time", "remarks", "reports", "floors", "against")  # fmt: skip
    more = [
        command_of(row),
        ", ".join(f"{name} {value}" for name, value in where.items() if value is not None),
        ", ".join(f"{name} {row[name]}" for name in costs if row.get(name) not in (None, [], {})),
        f"model {row['model_fingerprint']}, key {row.get('key')}",
    ]
    if IN_FILE.fullmatch(row["model"]) or IN_FILE.fullmatch(row["sampler"]):
        more.append("the file must be there as it was")
    text = " ".join(str(value) for value in plain.values() if value is not None).lower()
    return {"shown": shown, "values": plain, "text": text, "failed": row["status"] != "ok", "more": "\n".join(more)}


def _body(
    rows: Sequence[Row], panels: Sequence[tuple[str, Panel]], plots: Sequence[Any], times: Sequence[Any],
    plans: Sequence[Any], shown: Sequence[Any], columns: Sequence[Any],
) -> str:  # fmt: skip
    machines = sorted({str(row.get("machine")) for row in rows})
    failed = sum(row["status"] != "ok" for row in rows)
    stamp = max((str(row.get("time") or "") for row in rows), default="")
    broken = f", {failed} failed" if failed else ""
    head = f"{len(rows)} cells{broken}, measured on {'; '.join(machines)}, {stamp[:10]}"
    links = [("error", "error"), ("time", "time"), ("table", "table")]
    links += [("samples", "samples")] if shown else []
    links += [("plans", "plans")] if plans else []
    heads = "".join(
        f'<th data-column="{html.escape(c["name"])}"{" class=word" if c["word"] else ""}>{html.escape(c["name"])}</th>'
        for c in columns
    )
    models = "".join(f"<option>{html.escape(name)}</option>" for name in sorted({short_name(row["model"]) for row in rows}))
    warnings = dict.fromkeys(text for _, panel in panels for text in (*panel.warnings, *panel.failures))
    parts = [
        f"<h1>solverkit bench</h1><p class=dim>{html.escape(head)}</p>",
        "<nav>" + "".join(f'<a href="#{target}">{text}</a>' for target, text in links) + "</nav>",
        "".join(f"<p class=dim>{html.escape(text)}</p>" for text in warnings),
        "<h2 id=error>Error against evaluations</h2><p class=dim>Bars are 95 % intervals; the broad grey line is the "
        "front: the best that any sampler reaches with so many counted evaluations.</p>",
        "<div id=legend></div>",
        _grid(plots, "plot"),
        "<h2 id=time>Time against error</h2>",
        _grid(times, "plot"),
        "<h2 id=table>Table</h2><p class=dim>A click on a column sorts; a click on a row tells how it was measured and how "
        "to repeat it.</p>",
        '<input id=words placeholder="filter: unipc mnist 10" aria-label="filter">'
        f'<select id=model aria-label="model"><option value="">all models</option>{models}</select>'
        "<small id=count></small>",
        f"<div class=scroll><table id=rows><thead><tr>{heads}</tr></thead><tbody></tbody></table></div>",
    ]
    if shown:
        parts.append(
            "<h2 id=samples>Samples from the same noise</h2><p class=dim>Each column starts from one noise; above, what "
            f"the ODE's converged solution makes of it.</p><div class='grid sheets'>{''.join(map(_sheet, shown))}</div>"
        )
    if plans:
        parts.append(
            "<h2 id=plans>Plans</h2><p class=dim>What is in the state after each answer of the network, in weights; above, "
            f"the levels at which it is asked.</p>{_grid(plans, 'plan')}"
        )
    return "".join(parts)


def _grid(plots: Sequence[Any], kind: str) -> str:
    cards = (
        f'<div class=card><h3>{html.escape(plot["title"])}</h3>'
        f'<div class={kind} id="{plot["id"]}" data-lines="{plot["lines"]}"></div>'
        f"<small>{html.escape(plot['caption'])}</small></div>"
        for plot in plots
    )
    return f"<div class=grid>{''.join(cards)}</div>"


def _sheet(sheet: Mapping[str, Any]) -> str:
    lines = "".join(f'<span>{html.escape(label)}</span><img alt="" src="{image}">' for label, image in sheet["lines"])
    return f"<div class=card><h3>{html.escape(sheet['title'])}</h3><div class=sheet>{lines}</div></div>"
