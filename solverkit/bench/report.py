"""Panels as tables on the screen and as a figure: one of each a model, samplers against NFE."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BenchError
from .panel import PEER_MARK, Panel, best_grids, make_panels, metric_names, shown_metrics
from .points import Point, card_of, make_point

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

__all__ = ["best_grids", "make_panels", "make_table", "metric_names", "number", "shown_metrics", "write_figure"]

TIE = "≈"


def make_table(panel: Panel) -> Table:
    """A panel as a rich table: samplers by NFE, each figure above its interval, a column's best and its ties marked."""
    from rich.table import Table
    from rich.text import Text

    title = f"{panel.title} · {panel.metric}"
    table = Table(title=title, title_justify="left", caption=_caption(panel), caption_justify="left")
    table.add_column("sampler \\ NFE", overflow="fold", min_width=8)
    for budget in panel.budgets:
        table.add_column(str(budget), justify="right", no_wrap=True)
    table.add_column("s", justify="right", no_wrap=True)
    leading = {budget: panel.leading(budget) for budget in panel.budgets}
    for name, line in panel.points.items():
        cells = [Text(name, style="dim" if name.endswith(PEER_MARK) else "")]
        cells += [_cell(panel, name, budget, leading[budget]) for budget in panel.budgets]
        seconds = [point.seconds for point in line.values()]
        cells.append(Text(f"{max(seconds):.2g}" if seconds else "", style="dim"))
        table.add_row(*cells)
    return table


def _cell(panel: Panel, name: str, budget: int, leading: set[str]) -> Text:
    from rich.text import Text

    point = panel.points[name].get(budget)
    if point is None:
        failed = any(text.startswith(f"{name} at NFE {budget} ") for text in panel.failures)
        return Text("failed" if failed else "-", style="red" if failed else "dim")
    best, tie = name in leading, name in leading and len(leading) > 1
    text = Text((TIE if tie else "") + number(point.value), style="bold green" if best else "")
    if point.nfe != budget:
        text.append(f" at {point.nfe:.3g}", style="dim")
    if point.interval is not None:
        text.append(f"\n{interval(point.interval)}", style="dim")
    if beside := _beside(point, panel.metric):
        text.append(f"\n{beside}", style="dim")
    return text


def _beside(point: Point, metric: str) -> str:
    """Median, and the share of samples that ended elsewhere."""
    if metric != "ode_error":
        return ""
    median, flips = (make_point(point.rows, name) for name in ("ode_median", "ode_flips"))
    said = [] if median is None else [f"~{number(median.value)}"]
    if flips is not None and flips.value > 0:
        said.append(f"{100 * flips.value:.2g}%")
    return " ".join(said)


def interval(pair: tuple[float, float]) -> str:
    """low-high with two digits, without leading zeros: it stands in a narrow column."""
    return "-".join(number(value, 2).replace("0.", ".", 1) if 0 < abs(value) < 1 else number(value, 2) for value in pair)


def _caption(panel: Panel) -> str | None:
    card, points = card_of(panel.metric), [p for line in panel.points.values() for p in line.values()]
    parts = []
    if card is not None and card.unit:
        parts.append(card.unit + ("" if card.lower_is_better or card.to_floor else ", more is better"))
    if any(point.interval is not None for point in points):
        parts.append(f"below it its 95 % interval; {TIE} a tie with the best: the difference lies inside its interval")
    if panel.metric == "ode_error" and any(_beside(point, panel.metric) for point in points):
        parts.append("~ median over samples; % of samples that end in another mode than the converged solution")
    floors = sorted({point.floor for point in points if point.floor is not None})
    if floors:
        parts.append(f"real samples of that number get {number(floors[0])}")
    against = sorted({text for p in points for row in p.rows if (text := (row.get("against") or {}).get(panel.metric))})
    if against:
        parts.append(f"compared with: {', '.join(against)}")
    if any(name.endswith(PEER_MARK) for name in panel.points):
        parts.append(f"{PEER_MARK} another library's own")
    counted = [(point.nfe, budget) for line in panel.points.values() for budget, point in line.items()]
    if any(nfe != budget for nfe, budget in counted):
        fit = "" if any(nfe > budget for nfe, budget in counted) else ", the most that fit the budget"
        parts.append(f"'at n': n evaluations were counted{fit}")
    if points:
        parts.append("s: wall seconds of the slowest cell")
    return ". ".join(filter(None, [panel.grids(), *parts])) or None


def number(value: float, significant: int = 3) -> str:
    """Three significant digits without an exponent where that is readable."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = significant - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{min(max(digits, 0), 6)}f}" if 1e-4 <= abs(value) < 1e5 else f"{value:.{significant - 1}e}"


def write_figure(panels: list[Panel], path: Path) -> None:
    """report.png: a panel a model, error against NFE.

    Raises:
        BenchError: the file cannot be written.
    """
    from .figure import draw

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(panels, path)
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror or error}.") from None
