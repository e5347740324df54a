"""A calibration as two pictures: error against the budget, and samples of equal noise."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..run.sampling import sample
from .plans import TunedPlans
from .trajectories import converge, usual_evaluations

COLOURS = {"untuned": "#666666", "tuned": "#0072B2"}
SHOWN, SEED = 10, 900_000  # samples of a strip, and noises that nothing was fitted to or judged on


def plot(plans: TunedPlans, path: str | Path, name: str = "") -> None:
    """Error against the budget: the best untuned solver and the fitted plan, RMS with its interval and median.

    Args:
        plans: With figures, as `sk.tune` makes them.
        path: A picture to write.
        name: Of the network.
    """
    budgets = sorted(plans.budgets)
    figures = [plans.budgets[n].figures for n in budgets]
    figure = _figure(6.4, 5.2)
    axis = figure.add_axes((0.13, 0.25, 0.84, 0.67))
    low = [f["rms"] - f["untuned_rms"] * f["interval"][0] for f in figures]
    high = [f["untuned_rms"] * f["interval"][1] - f["rms"] for f in figures]
    spread = np.maximum([low, high], 0)
    untuned, tuned = COLOURS["untuned"], COLOURS["tuned"]
    dotted: dict[str, Any] = {"linestyle": ":", "markerfacecolor": "white"}
    axis.plot(budgets, [f["untuned_rms"] for f in figures], "s-", color=untuned, label="best untuned, RMS")
    axis.plot(budgets, [f["untuned_median"] for f in figures], "s", color=untuned, label="best untuned, median", **dotted)
    axis.errorbar(budgets, [f["rms"] for f in figures], spread, fmt="o-", color=tuned, capsize=3, label="fitted, RMS")
    axis.plot(budgets, [f["median"] for f in figures], "o", color=tuned, label="fitted, median", **dotted)
    axis.set_yscale("log")
    axis.set_xticks(budgets)
    axis.minorticks_off()
    values = [f[key] for f in figures for key in ("rms", "median", "untuned_rms", "untuned_median") if f[key] > 0]
    ticks = [m * 10.0**e for e in range(-9, 3) for m in (1, 2, 5) if min(values) / 1.6 <= m * 10.0**e <= 1.6 * max(values)]
    axis.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axis.set_xlabel("network evaluations (NFE)")
    axis.set_ylabel("distance to the converged solution")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    noises = figures[0]["noises"] if figures else 0
    kept = [n for n in budgets if plans.budgets[n].weights is None]
    lines = [
        f"{name or plans.schedule[:60]}: {noises} noises that nothing was fitted to.",
        "Bars: 95 % of the ratio of RMS to the untuned solver's, over resampled noises.",
        "Untuned: " + "; ".join(f"NFE {n} {f['untuned']}" for n, f in zip(budgets, figures)) + ".",
    ]
    if kept:
        lines.append(f"At NFE {', '.join(map(str, kept))} the fit did not win, and the untuned solver is kept.")
    figure.text(0.02, 0.01, "\n".join(_wrapped(lines)), fontsize=7.5, va="bottom", parse_math=False)
    figure.savefig(path)


def strip(denoiser: Any, plans: TunedPlans, path: str | Path) -> bool:
    """Samples of equal noise: converged, and for each budget those of the best untuned solver and of the fitted plan.

    Args:
        denoiser: That the plans were fitted to.
        plans: With figures.
        path: A picture to write.

    Returns:
        False, and no file, where the samples are no images and no square tiles.
    """
    with torch.no_grad():
        ends = converge(denoiser, SHOWN, SEED, usual_evaluations(denoiser), keep=1)
        if _tiles(ends.own_end) is None:
            return False
        lines = [("converged", ends.own_end)]
        for n, budget in sorted(plans.budgets.items()):
            solver, _, grid = budget.figures["untuned"].partition(" on ")
            options: dict[str, Any] = {"nfe": n, "x": ends.own_start, "dtype": ends.start.dtype}
            lines.append((f"{n}: {solver}", sample(denoiser, solver, grid=grid, **options).x))
            if budget.weights is not None:
                lines.append((f"{n}: fitted", sample(denoiser, plans.sampler, **options).x))
    values = [_tiles(x) for _, x in lines]
    low, high = _range(values[0])
    figure = _figure(1.5 + 0.62 * SHOWN, 0.64 * len(lines) + 0.3)
    for i, ((text, x), tiles) in enumerate(zip(lines, values)):
        top = 1 - (i + 1) * (1 - 0.3 / figure.get_size_inches()[1]) / len(lines)
        axis = figure.add_axes((1.5 / (1.5 + 0.62 * SHOWN), top, 1 - 1.55 / (1.5 + 0.62 * SHOWN), 0.94 / len(lines)))
        assert tiles is not None
        row = np.concatenate([np.pad(t, ((1, 1), (1, 1), (0, 0)), constant_values=high) for t in tiles], 1)
        axis.imshow(((row - low) / (high - low)).clip(0, 1), cmap="gray", interpolation="nearest", aspect="equal")
        axis.axis("off")
        off = float((x - ends.own_end).flatten(1).square().mean(1).sqrt().median())
        label = text if i == 0 else f"{text}\nmedian {off:.4f}"
        figure.text(0.01, top + 0.47 / len(lines), label, fontsize=8, va="center", parse_math=False)
    figure.text(0.01, 0.01, "A column is one noise, which nothing was fitted to.", fontsize=8, va="bottom")
    figure.savefig(path)
    return True


def _tiles(x: torch.Tensor) -> np.ndarray | None:
    """(B, H, W, 1 or 3), or None for samples that are no images."""
    values = x.detach().cpu().double()
    if values.ndim == 4 and values.shape[1] in (1, 3):
        return values.permute(0, 2, 3, 1).numpy()
    if values.ndim == 3 and min(values.shape[1:]) > 8:
        return values[..., None].numpy()
    side = math.isqrt(values.shape[1]) if values.ndim == 2 else 0
    return values.reshape(-1, side, side, 1).numpy() if side >= 4 and side * side == values.shape[1] else None


def _range(values: np.ndarray | None) -> tuple[float, float]:
    """Black and white: -1 and 1 for images in that range, else the smallest and the largest number."""
    assert values is not None
    low, high = float(values.min()), float(values.max())
    return (-1.0, 1.0) if -1.5 < low < -0.5 and 0.5 < high < 1.5 else (low, high + (high == low))


def _wrapped(lines: list[str]) -> list[str]:
    import textwrap

    return [part for line in lines for part in textwrap.wrap(line, 110)]


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150)
    FigureCanvasAgg(figure)
    return figure
