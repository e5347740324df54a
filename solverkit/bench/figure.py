"""The figure of a report, drawn by matplotlib without a display."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from .panel import PEER_MARK, Panel

# Okabe and Ito's colours, told apart by most kinds of colour blindness, and three more that stay apart from them.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#80BA5A", "#A05A2C", "#666666")
PEER_COLOURS = ("#000000", "#8C8C8C", "#B2182B", "#5AB4AC")
METRIC_LABELS = {"ode_error": "RMS error to the converged solution", "fd": "Fréchet distance"}
MARKERS = "osD^vP*Xh<"


def draw(panels: list[Panel], path: Path) -> None:
    """Panels side by side, at most three in a row, with one legend below; peers dashed, in greys."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(len(panels), 3) or 1
    lines = -(-len(panels) // columns) or 1
    names = list(dict.fromkeys(name for panel in panels for name in panel.rows))
    legend_lines = -(-len(names) // min(len(names), 5)) if names else 0
    legend = 0.3 * legend_lines + 0.2
    height = 4.4 * lines + legend
    figure = Figure(figsize=(max(5.2 * columns, 7.5), height), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    styles = _styles(names)
    handles: dict[str, Any] = {}
    for axis, panel in itertools.zip_longest(axes, panels):
        if panel is None:
            axis.set_visible(False)
        else:
            handles.update(_draw_panel(axis, panel, styles))
    figure.tight_layout(rect=(0, legend / height, 1, 1), w_pad=2.0)
    ordered = [name for name in names if name in handles]
    if ordered:
        figure.legend(
            [handles[name] for name in ordered], [name.replace(PEER_MARK, "") for name in ordered], loc="lower center",
            ncols=min(len(ordered), 5), fontsize=10, frameon=False, handlelength=2.6,
        )  # fmt: skip
    figure.savefig(path)


def _styles(names: list[str]) -> dict[str, dict[str, Any]]:
    ours, peers = itertools.cycle(zip(COLOURS, MARKERS)), itertools.cycle(zip(PEER_COLOURS, MARKERS))
    styles = {}
    for name in names:
        is_peer = name.endswith(PEER_MARK)
        colour, marker = next(peers if is_peer else ours)
        styles[name] = {
            "color": colour, "marker": marker, "linestyle": "--" if is_peer else "-", "markersize": 5, "linewidth": 1.6,
            "markerfacecolor": "white" if is_peer else colour, "zorder": 4 if is_peer else 3,
        }  # fmt: skip
    return styles


def _draw_panel(axis: Any, panel: Panel, styles: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Lines of one panel by name."""
    handles: dict[str, Any] = {}
    for name, line in panel.rows.items():
        points = sorted((row["nfe"], row[panel.metric]) for row in line.values())
        if points:
            (handles[name],) = axis.plot(*zip(*points), **styles[name])
    positive = all(row[panel.metric] > 0 for line in panel.rows.values() for row in line.values())
    if handles and positive:
        axis.set_yscale("log")
    axis.set_xscale("log")
    axis.set_xticks(panel.budgets, [str(budget) for budget in panel.budgets])
    axis.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axis.set_xlabel("network evaluations (NFE, counted)", fontsize=11)
    axis.set_ylabel(METRIC_LABELS.get(panel.metric, panel.metric), fontsize=11)
    axis.set_title(panel.title, fontsize=12)
    axis.tick_params(labelsize=10)
    axis.grid(True, which="major", color="#dddddd", linewidth=0.8)
    axis.grid(True, which="minor", axis="y", color="#f0f0f0", linewidth=0.6)
    axis.set_axisbelow(True)
    return handles
