"""Each sampler's plan as a picture: its levels as ticks, the weights of the network's answers as a heat map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ...errors import SolverKitError
from ...plan.plan import Plan, advance, begin
from ...plan.trace import trace
from ...registry.registry import resolve
from ...run.choose import choose_grid
from ..named import IN_FILE, is_peer
from ..panel import Panel
from ..store import Row
from .plots import log_axis

MOST = 16  # evaluations of a plan that is drawn


def plan_plots(panels: Iterable[Panel], denoisers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A picture of each sampler of each model that can be traced, at the largest budget that is drawn.

    Args:
        panels: What is shown.
        denoisers: Model -> denoiser; models that are not there have no pictures.
    """
    made = []
    for p, panel in enumerate(panels):
        for i, (name, line) in enumerate(panel.points.items()):
            budgets = [budget for budget in line if budget <= MOST] or list(line)[:1]
            if not budgets:
                continue
            row = line[max(budgets)].row
            plan = plan_of(row, denoisers.get(row["model"]))
            if plan is not None and (weights := weights_of(plan)) is not None:
                title = f"{panel.title.partition(' · ')[0]}: {name}, {row['grid']}"
                made.append(_plot(f"plan-{p}-{i}", title, plan, weights))
    return made


def plan_of(row: Row, denoiser: Any) -> Plan | None:
    """The plan of a row's sampler on its grid; None for another library's, or one that cannot be traced."""
    if denoiser is None or is_peer(row["sampler"]) or IN_FILE.fullmatch(row["sampler"]):
        return None
    try:
        card = resolve(row["sampler"])
        if not card.traceable:
            return None
        options = card.prepared(denoiser, row["options"], (row["num_samples"], *denoiser.shape))
        grid = choose_grid(card, denoiser.schedule, row["budget"], None, row["grid"], None, options)
        return trace(card, grid, **options)
    except SolverKitError:
        return None


def weights_of(plan: Plan) -> list[list[float]] | None:
    """weights[j][k]: how much of answer k is in the state after answer j; None where the plan does more than weigh.

    The plan is driven with unit vectors: the start is the first, answer k the one after it, and draws are nothing.
    """
    n = plan.nfe
    if any(i.kind == "op" for segment in plan.segments for i in segment.instructions):
        return None
    unit = torch.eye(n + 1, dtype=torch.float64)

    def draw(ordinal: int, s: float, t: float) -> torch.Tensor:
        return torch.zeros(1, n + 1, dtype=torch.float64)

    x, state = begin(plan, unit[:1], draw)
    weights = []
    for j in range(n):
        x, state = advance(plan, state, x, unit[j + 1 : j + 2], draw)
        weights.append([float(w) for w in x[0, 1:]])
    return weights


def _plot(name: str, title: str, plan: Plan, weights: list[list[float]]) -> dict[str, Any]:
    n = len(weights)
    largest = max(abs(w) for row in weights for w in row) or 1.0
    levels = [float(level) for level in plan.levels]
    return {
        "id": name, "title": title, "caption": "", "lines": 1,
        "traces": [
            {
                "type": "heatmap",
                "z": [[w if k <= j else None for k, w in enumerate(row)] for j, row in enumerate(weights)],
                "x": list(range(1, n + 1)), "y": list(range(1, n + 1)), "zmin": -largest, "zmax": largest,
                "colorscale": [[0, "#b2182b"], [0.5, "#f7f7f7"], [1, "#2166ac"]], "colorbar": {"thickness": 8},
                "hovertemplate": "after answer %{y}: weight of answer %{x} is %{z:.3f}<extra></extra>",
            },
            {
                "type": "scatter", "mode": "markers", "x": levels, "y": [1] * n, "xaxis": "x2", "yaxis": "y2",
                "name": "level",
                "marker": {"symbol": "line-ns-open", "size": 14, "color": "#0072B2"}, "showlegend": False,
                "hovertemplate": "level %{x:.4g}<extra></extra>",
            },
        ],
        "xaxis": {"title": {"text": "answer of the network"}, "dtick": 1 if n <= 8 else 5, "domain": [0, 1]},
        "yaxis": {"title": {"text": "state after"}, "dtick": 1 if n <= 8 else 5, "autorange": "reversed",
                  "domain": [0, 0.72]},
        "layout": {
            "xaxis2": {**(log_axis(levels) if min(levels) > 0 else {"type": "linear"}), "autorange": "reversed",
                       "anchor": "y2", "side": "top", "tickfont": {"size": 10}, "showgrid": False},
            "yaxis2": {"visible": False, "domain": [0.82, 0.94], "anchor": "x2"},
            "margin": {"l": 44, "r": 8, "t": 22, "b": 40},
        },
    }  # fmt: skip
