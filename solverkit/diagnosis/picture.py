"""A diagnosis as a picture: the figures against the noise level, a panel a question."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .diagnosis import Diagnosis

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"


def plot(diagnosis: Diagnosis, path: str | Path, name: str = "") -> None:
    """Six panels: losses, score matching, balance, asymmetry, Lipschitz constant, and what is off.

    Args:
        diagnosis: What was found.
        path: A picture to write (.png, .pdf, .svg).
        name: Of the network.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.4), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)
    rows = [row for row in diagnosis.levels if not row.nonfinite and math.isfinite(row.ratio)]
    x = [row.ratio for row in rows]

    def draw(axis: Any, field: str, colour: str, label: str, style: str = "o-") -> None:
        y = [getattr(row, field) for row in rows]
        if any(math.isfinite(v) for v in y):
            axis.plot(x, y, style, color=colour, label=label, markersize=4, linewidth=1.3)

    loss, score, balance, turned, steep, off = axes.flat
    draw(loss, "loss", BLUE, "denoising loss")
    draw(loss, "linear", GREY, "best linear, coordinate by coordinate", "--")
    draw(score, "ssm", BLUE, "sliced (autograd)")
    draw(score, "fd_ssm", ORANGE, "finite differences", "x--")
    draw(balance, "balance", BLUE, "E|score|² / -E tr ∂score")
    draw(turned, "asymmetry", BLUE, "asymmetry")
    draw(steep, "lipschitz", BLUE, "largest ‖∂D/∂y‖")
    for field, colour, text in (
        ("bias", BLUE, "bias of the mean"), ("bfloat16", ORANGE, "bfloat16"), ("float16", GREEN, "float16"),
        ("guided", GREY, "guidance"),
    ):  # fmt: skip
        draw(off, field, colour, text)
    titles = ("Denoising loss", "Score matching losses, in d / s²", "Balance: 1 for a score",
              "Asymmetry: 0 for a gradient", "Lipschitz constant of D(y)", "Over the data's spread (RMS)")  # fmt: skip
    for axis, title in zip(axes.flat, titles):
        axis.set_title(title, fontsize=9)
        axis.set_xscale("log")
        axis.set_xlabel("sigma / alpha", fontsize=8)
        axis.tick_params(which="both", labelsize=7)
        axis.grid(alpha=0.25)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=7)
    for axis in (loss, steep):
        axis.set_yscale("log")
    off.set_yscale("symlog", linthresh=1e-4)
    off.set_ylim(bottom=0)
    balance.axhline(1, color=GREY, linewidth=0.8)
    low, high = balance.get_ylim()
    balance.set_ylim(min(low, 0.9), max(high, 1.1))
    turned.set_ylim(0, max(0.3, *(1.1 * row.asymmetry for row in rows if math.isfinite(row.asymmetry)), 0.3))
    faults = "; ".join(fault.name for fault in diagnosis.faults) or "none found"
    text = f"{name or 'A network'} on {diagnosis.samples} {diagnosis.on} (spread {diagnosis.spread:.3g}). Faults: {faults}."
    figure.text(0.01, 0.985, "\n".join(textwrap.wrap(text, 140)), fontsize=9, va="top", parse_math=False)
    figure.tight_layout(rect=(0, 0, 1, 0.96))
    figure.savefig(path)
