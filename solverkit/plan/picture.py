"""A plan as a picture: its levels as ticks on the axis of log-SNR, its weights as a heat map."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .plan import Plan, Terms

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Label = tuple[str, int]  # "x", "D", "z" (a draw) or "op", and its number
Weights = dict[Label, float]
WRITTEN = 16  # rows with their numbers in the cells
KINDS = ("x", "D", "z", "op")
CELL, ROW, LEFT = 0.62, 0.27, 0.85  # inches: a cell, and the margin of the levels


def rows_of(plan: Plan) -> list[Weights]:
    """What each update is made of, the start's first: {("D", 2): weight, ...}; values that were kept are written out."""
    rows: list[Weights] = []
    known: list[Weights] = [{("x", -1): 1.0}]
    count: Counter[str] = Counter()
    for j, segment in enumerate(plan.segments):
        if j > 0:
            known = [*known, {("x", j - 1): 1.0}, {("D", j - 1): 1.0}]
        for kind, payload in segment.instructions:
            if kind == "keep":
                known.append(_sum(payload[0], known))
                continue
            name = "z" if kind == "draw" else "op"
            known.append({(name, count[name]): 1.0})
            count[name] += 1
        rows.append(_sum(segment.x, known))
        known = [known[slot] for slot in segment.carry]
    return rows


def _sum(terms: Terms, known: Sequence[Weights]) -> Weights:
    total: Weights = {}
    for slot, weight in terms:
        for label, one in known[slot].items():
            total[label] = total.get(label, 0.0) + weight * one
    return {label: weight for label, weight in total.items() if weight}


def columns_of(rows: Sequence[Weights]) -> tuple[list[str], list[dict[str, float]]]:
    """Columns relative to the evaluation of a row (D-1 is the prediction before), and the weights in them."""
    newest: Counter[str] = Counter()
    relative: list[dict[str, float]] = []
    used: set[tuple[str, int]] = set()
    for j, row in enumerate(rows):
        for kind in ("z", "op"):
            newest[kind] = max([newest[kind], *(number for name, number in row if name == kind)])
        found = {}
        for (kind, number), weight in row.items():
            back = (j - 1 if kind in "xD" else newest[kind]) - number
            used.add((kind, back))
            found[f"{kind}{-back if back else ''}"] = weight
        relative.append(found)
    ordered = sorted(used, key=lambda one: (KINDS.index(one[0]), one[1]))
    return [f"{kind}{-back if back else ''}" for kind, back in ordered], relative


def plan_figure(plan: Plan) -> Figure:
    """Above, where the network is asked (a long tick starts a step, a short one is an inner stage); below, what follows."""
    from matplotlib.figure import Figure

    rows = rows_of(plan)
    if rows[0] == {("x", -1): 1.0}:
        rows, first = rows[1:], 1
    else:
        first = 0
    columns, weights = columns_of([{}] * first + rows)
    weights = weights[first:]
    tall, wide = max(1.6, ROW * len(rows)), max(3.2, CELL * len(columns))
    width, height = wide + LEFT + 0.15, tall + 1.3
    figure = Figure(figsize=(width, height))
    ticks = figure.add_axes((LEFT / width, 1 - 0.72 / height, wide / width, 0.42 / height))
    heat = figure.add_axes((LEFT / width, 0.1 / height, wide / width, tall / height))
    _draw_levels(ticks, plan)
    _draw_weights(heat, plan, columns, weights, first)
    return figure


def _draw_levels(axis: Any, plan: Plan) -> None:
    finite = [level.lam for level in plan.levels if math.isfinite(level.lam)]
    ends = [plan.grid[-1].lam] if math.isfinite(plan.grid[-1].lam) else []
    low, high = (min([*finite, *ends]), max([*finite, *ends])) if finite or ends else (-1.0, 1.0)
    margin = 0.12 * (high - low or 1.0)
    place = lambda lam: low - margin if lam == -math.inf else high + margin if lam == math.inf else lam  # noqa: E731
    axis.axhline(0, color="0.6", linewidth=0.8)
    for level, boundary in zip(plan.levels, plan.boundary):
        length = 0.8 if boundary else 0.4
        axis.plot([place(level.lam)] * 2, [-length, length], color="#0072B2" if boundary else "#E69F00", linewidth=1.4)
    axis.plot([place(plan.grid[-1].lam)], [0], "o", color="#D55E00", markersize=4)
    axis.set(ylim=(-1, 1), yticks=[])
    axis.set_xlim(low - 1.6 * margin, high + 1.6 * margin)
    axis.tick_params(labelsize=7)
    axis.set_title(f"{plan.nfe} evaluations over half log-SNR, to s = {plan.grid[-1]:g}", fontsize=8)
    for side in ("top", "left", "right"):
        axis.spines[side].set_visible(False)


def _draw_weights(axis: Any, plan: Plan, columns: list[str], weights: list[dict[str, float]], first: int) -> None:
    import numpy as np

    table = np.array([[row.get(column, math.nan) for column in columns] for row in weights]).reshape(len(weights), -1)
    shown = np.ma.masked_invalid(table)
    axis.pcolormesh(shown, cmap="RdBu", vmin=-1.5, vmax=1.5, edgecolors="0.85", linewidth=0.5)
    axis.invert_yaxis()
    axis.set_xticks([i + 0.5 for i in range(len(columns))], columns, fontsize=8)
    axis.xaxis.tick_top()
    step = max(1, math.ceil(len(weights) / 40))
    names = [f"{plan.levels[j + first - 1]:.4g}" if j + first else "start" for j in range(len(weights))]
    axis.set_yticks([i + 0.5 for i in range(0, len(weights), step)], names[::step], fontsize=7)
    axis.set_ylabel("after the evaluation at s", fontsize=8)
    if len(weights) <= WRITTEN:
        for i, j in zip(*np.nonzero(~np.ma.getmaskarray(shown))):
            dark = abs(table[i, j]) > 0.9
            words = {"ha": "center", "va": "center", "fontsize": 7, "color": "w" if dark else "k"}
            axis.text(j + 0.5, i + 0.5, f"{table[i, j]:.3g}", **words)
    axis.tick_params(length=0)
