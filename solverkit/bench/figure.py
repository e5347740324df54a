"""The figure of a report, drawn by matplotlib without a display."""

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path
from typing import Any

from .colours import Style, styles
from .panel import PEER_MARK, Panel
from .points import Point

METRIC_LABELS = {"ode_error": "RMS error to the converged solution", "fd": "Fréchet distance"}
LINES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
LABEL = 0.05  # of the axis that a number below it takes
SAME = 0.01  # lines that are nowhere further apart than that are one line to the eye


def draw(panels: list[Panel], path: Path) -> None:
    """`drawn`, written to a file."""
    drawn(panels).savefig(path)


def drawn(panels: list[Panel]) -> Any:
    """A matplotlib figure: panels side by side, at most three in a row, one legend and a caption below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(len(panels), 3) or 1
    lines = -(-len(panels) // columns) or 1
    names = list(dict.fromkeys(name for panel in panels for name in panel.points))
    width = max(5.2 * columns, 7.5)
    caption = textwrap.wrap(caption_of(panels), int(width * 14.5))
    longest = max(map(len, names), default=1)
    across = max(1, min(len(names), 5, int(width * 11 / (longest + 7))))  # characters of the legend's font in an inch
    legend_lines = -(-len(names) // across)
    legend, words = 0.24 * legend_lines + 0.3, 0.17 * len(caption) + 0.1
    height = 4.4 * lines + legend + words
    figure = Figure(figsize=(width, height), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    look = styles(names)
    handles: dict[str, Any] = {}
    for axis, panel in itertools.zip_longest(axes, panels):
        if panel is None:
            axis.set_visible(False)
        else:
            handles.update(_draw_panel(axis, panel, look))
    figure.tight_layout(rect=(0, (legend + words) / height, 1, 1), w_pad=2.0)
    ordered = [name for name in names if name in handles]
    if ordered:
        figure.legend(
            [handles[name] for name in ordered], [name.replace(PEER_MARK, "") for name in ordered], loc="lower center",
            ncols=across, fontsize=10, frameon=False, handlelength=2.6, bbox_to_anchor=(0.5, words / height),
        )  # fmt: skip
    figure.text(0.01, 0.05 / height, "\n".join(caption), fontsize=7.5, color="#555555", va="bottom")
    return figure


def caption_of(panels: list[Panel]) -> str:
    """What the figure does not say itself: intervals, grids, and which line lies under which."""
    parts = []
    if any(point.interval for panel in panels for line in panel.points.values() for point in line.values()):
        parts.append("Bars: 95 % intervals over samples.")
    for panel in panels:
        model = panel.title.partition(" · ")[0]
        said = [panel.grids(), *(f"{a} lies under {b}" for a, b in hidden(panel)), *_absent(panel)]
        if words := "; ".join(filter(None, said)).replace(PEER_MARK, ""):
            parts.append(f"{model}: {words}.")
    return " ".join(parts)


def hidden(panel: Panel) -> list[tuple[str, str]]:
    """(a, b) of the lines that cannot be told from another where both are: b is drawn after a, over it.

    Lines are compared where they were counted, not where they were asked: a cache evaluates less than its budget.
    """
    found, names = [], [name for name, line in panel.points.items() if line]
    counted = {name: {round(p.nfe, 2): p.value for p in panel.points[name].values()} for name in names}
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            mine, other = counted[a], counted[b]
            shared = mine.keys() & other.keys()
            whole = len(shared) == min(len(mine), len(other)) and (len(shared) > 1 or len(mine) == len(other))
            if whole and all(_near(mine[n], other[n]) for n in shared):
                found.append((a, b))
                break
    return found


def _near(a: float, b: float) -> bool:
    return abs(a - b) <= SAME * max(abs(a), abs(b))


def _absent(panel: Panel) -> list[str]:
    missing = [name for name, line in panel.points.items() if not line]
    return [f"not drawn, without a figure: {', '.join(missing)}"] if missing else []


def _draw_panel(axis: Any, panel: Panel, look: dict[str, Style]) -> dict[str, Any]:
    """Lines of one panel by name."""
    handles: dict[str, Any] = {}
    values = [point.value for line in panel.points.values() for point in line.values()]
    logarithmic = bool(values) and min(values) > 0
    for name, line in panel.points.items():
        points = sorted(line.values(), key=lambda point: point.nfe)
        if points:
            handles[name] = _draw_line(axis, points, look[name], logarithmic)
    if logarithmic:
        axis.set_yscale("log")
        label_values(axis, min(values), max(values))
    axis.set_xscale("log")
    ticks = ticks_of(panel)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    if len(panel.budgets) == 1:
        axis.set_xlim(panel.budgets[0] / 1.3, panel.budgets[0] * 1.3)
    axis.set_xlabel("network evaluations (NFE, counted)", fontsize=11)
    axis.set_ylabel(METRIC_LABELS.get(panel.metric, panel.metric), fontsize=11)
    axis.set_title(panel.title, fontsize=12)
    axis.tick_params(labelsize=10)
    axis.grid(True, which="major", color="#dddddd", linewidth=0.8)
    axis.set_axisbelow(True)
    return handles


def _draw_line(axis: Any, points: list[Point], style: Style, logarithmic: bool) -> Any:
    x, y = [point.nfe for point in points], [point.value for point in points]
    (handle,) = axis.plot(
        x, y, color=style.colour, marker=style.marker, linestyle=LINES[style.dash], markersize=5, linewidth=1.6,
        markerfacecolor="white" if style.peer else style.colour, zorder=4 if style.peer else 3,
    )  # fmt: skip
    for point in points:
        if point.interval is not None:
            low, high = point.interval
            low = max(low, 0.05 * point.value) if logarithmic else low
            axis.plot([point.nfe] * 2, [low, high], color=style.colour, linewidth=2.5, alpha=0.25, zorder=2)
    return handle


def ticks_of(panel: Panel) -> list[float]:
    """The budgets, and what was counted beyond them (a cache evaluates less than it is asked)."""
    counted = {round(point.nfe) for line in panel.points.values() for point in line.values()}
    low, high = min(panel.budgets, default=0), max(panel.budgets, default=0)
    beyond, ticks = sorted(nfe for nfe in counted if not low <= nfe <= high), [*panel.budgets]
    apart = (max([high, *beyond]) / max(min([low, *beyond]), 1)) ** LABEL
    for nfe in beyond:
        if all(max(nfe, tick) >= apart * min(nfe, tick) for tick in ticks):
            ticks.append(nfe)
    return sorted(ticks)


def label_values(axis: Any, low: float, high: float) -> None:
    """Labels at 1, 2 and 5 of each decade: an axis never has only one of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    parts = (1.0,) if high > 300 * low else (1.0, 2.0, 5.0) if high > 4 * low else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
    axis.yaxis.set_major_locator(LogLocator(base=10, subs=parts, numticks=40))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
