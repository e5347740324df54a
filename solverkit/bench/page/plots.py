"""The figures of the page as data for plotly: traces and axes, no drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..colours import Style, styles
from ..figure import METRIC_LABELS, caption_of, ticks_of
from ..panel import PEER_MARK, Panel
from ..points import Point, loss

Plot = dict[str, Any]
SYMBOLS = {
    "o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down", "P": "cross", "*": "star",
    "X": "x", "h": "hexagon", "<": "triangle-left", ">": "triangle-right", "p": "pentagon", "H": "hexagon2",
    "d": "diamond-tall",
}  # fmt: skip


def error_plot(panel: Panel, name: str) -> Plot:
    """The metric against counted evaluations, with intervals, and the best that each number of evaluations reaches."""
    look, plot = styles(list(panel.points)), _plot(panel, name)
    for sampler, line in panel.points.items():
        points = sorted(line.values(), key=lambda point: point.nfe)
        if points:
            plot["traces"].append(_trace(sampler, points, [point.nfe for point in points], look[sampler]))
    plot["traces"].append(_front(panel))
    plot["xaxis"] = {
        "type": "log", "title": {"text": "network evaluations (counted)"}, "tickvals": ticks_of(panel),
        "ticktext": [f"{tick:g}" for tick in ticks_of(panel)],
    }  # fmt: skip
    return plot


def time_plot(panel: Panel, name: str) -> Plot:
    """The metric against wall seconds a sample."""
    look, plot = styles(list(panel.points)), _plot(panel, name)
    for sampler, line in panel.points.items():
        points = sorted(line.values(), key=lambda point: point.nfe)
        if points:
            x = [point.seconds / point.row["num_samples"] for point in points]
            plot["traces"].append(_trace(sampler, points, x, look[sampler]))
    seconds = [x for trace in plot["traces"] for x in trace["x"]]
    plot["xaxis"], plot["caption"] = {**log_axis(seconds), "title": {"text": "seconds a sample"}}, ""
    return plot


def log_axis(values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis that labels 1, 2 and 5 of each decade around the values, or 1 where there are many decades."""
    low, high = min(values, default=1.0), max(values, default=1.0)
    parts = (1.0,) if high > 3000 * low else (1.0, 2.0, 5.0) if high > 4 * low else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
    decades = range(math.floor(math.log10(low)) - 1, math.floor(math.log10(high)) + 2)
    ticks = [float(f"{part}e{k}") for k in decades for part in parts]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _plot(panel: Panel, name: str) -> Plot:
    values = [point.value for line in panel.points.values() for point in line.values()]
    axis = log_axis(values) if values and min(values) > 0 else {}
    label = METRIC_LABELS.get(panel.metric, panel.metric)
    caption = caption_of([panel]).partition(": ")[2]
    return {
        "id": name, "title": panel.title, "caption": caption, "traces": [], "lines": sum(map(bool, panel.points.values())),
        "yaxis": {**axis, "title": {"text": label}},
    }  # fmt: skip


def _trace(name: str, points: list[Point], x: list[float], style: Style) -> dict[str, Any]:
    known = [point.interval or (point.value, point.value) for point in points]
    texts = [f"{name.replace(PEER_MARK, '')}<br>{point.row['grid']}, NFE {point.nfe:g}" for point in points]
    return {
        "type": "scatter", "mode": "lines+markers", "name": name.replace(PEER_MARK, ""), "x": x,
        "y": [point.value for point in points], "text": texts, "hovertemplate": "%{text}<br>%{y:.4g}<extra></extra>",
        "line": {"color": style.colour, "dash": style.dash, "width": 2},
        "marker": {"color": style.colour, "symbol": SYMBOLS[style.marker] + ("-open" if style.peer else ""), "size": 8},
        "error_y": {
            "type": "data", "symmetric": False, "thickness": 1, "width": 3, "color": style.colour,
            "array": [high - point.value for point, (_, high) in zip(points, known)],
            "arrayminus": [point.value - low for point, (low, _) in zip(points, known)],
        },
    }  # fmt: skip


def _front(panel: Panel) -> dict[str, Any]:
    """The best figure of any sampler at so many evaluations or fewer, as steps."""
    points = sorted((point for line in panel.points.values() for point in line.values()), key=lambda point: point.nfe)
    x, y, best = [], [], None
    for point in points:
        if best is None or loss(panel.metric, point) < loss(panel.metric, best):
            best = point
        x.append(point.nfe)
        y.append(best.value)
    return {
        "type": "scatter", "mode": "lines", "name": "front", "x": x, "y": y, "hoverinfo": "skip",
        "line": {"color": "#888888", "width": 8, "shape": "hv"}, "opacity": 0.25,
    }  # fmt: skip
