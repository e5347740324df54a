"""Grids as a picture: a row of ticks over half log-SNR for each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .grid import Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def grids_figure(grids: Mapping[str, Grid]) -> Figure:
    """The levels of grids, by name. Beyond the lines: no data (left), no noise (right).

    Args:
        grids: At least one.
    """
    from matplotlib.figure import Figure

    lams = [level.lam for grid in grids.values() for level in grid if math.isfinite(level.lam)]
    low, high = (min(lams), max(lams)) if lams else (-1.0, 1.0)
    margin = 0.06 * (high - low or 1.0)
    figure = Figure(figsize=(6.4, 0.9 + 0.24 * len(grids)), layout="constrained")
    axis = figure.subplots()
    for i, grid in enumerate(grids.values()):
        places = [min(max(level.lam, low - margin), high + margin) for level in grid]
        axis.plot([places[0], places[-1]], [i, i], color="0.8", linewidth=0.8, zorder=1)
        axis.plot(places, [i] * len(places), "|", color="#0072B2", markersize=9, markeredgewidth=1.4)
    for edge, beyond in ((low - margin / 2, -math.inf), (high + margin / 2, math.inf)):
        if any(level.lam == beyond for grid in grids.values() for level in grid):
            axis.axvline(edge, color="0.6", linewidth=0.8, linestyle=":")
    axis.set_yticks(range(len(grids)), list(grids), fontsize=8)
    axis.set_ylim(len(grids) - 0.5, -0.5)
    axis.set_xlim(low - 1.6 * margin, high + 1.6 * margin)
    axis.set_xlabel("half log-SNR, log(alpha / sigma)", fontsize=8)
    axis.tick_params(labelsize=8)
    for side in ("top", "left", "right"):
        axis.spines[side].set_visible(False)
    axis.tick_params(axis="y", length=0)
    return figure
