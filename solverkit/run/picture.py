"""Samples as one picture with a caption: a sheet of images or of tiles, a scatter of points, series as lines."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST, PANELS, SHOWN = 100, 25, 16  # samples of a sheet, of axes with lines, and of a notebook
SMALLEST_TILE = 4  # a vector of 4 or 9 numbers is no picture
GAP, WIDTH, DPI, LINE = 2, 640, 100, 17  # pixels, but for dots per inch


def write_picture(x: Any, caption: str, path: Path) -> bool:
    """Write samples x (B, ...) as a picture of the path's kind; False if there is no picture of that shape (`drawn`).

    Raises:
        OSError: it cannot be written.
    """
    if (figure := drawn(x, caption)) is None:
        return False
    figure.savefig(path, dpi=DPI, format=path.suffix[1:].lower())
    return True


def drawn(x: Any, caption: str, bound: float | None = None) -> Figure | None:
    """Samples x (B, ...) as a matplotlib figure, None if there is no picture of that shape.

    Images (B, C, H, W), C 1 or 3, and (B, H, W) are shown from -1 (black) to 1; other tensors of that rank as one grey tile
    a channel, and vectors of 16, 25, 36, ... numbers as one tile, both from the smallest to the largest value. Points
    (B, 2) are a scatter, numbers (B, 1) a histogram, other vectors (B, D) and series (B, C, L) lines, a panel each.

    Args:
        x: The samples.
        caption: Below them.
        bound: Axes of points and lines reach from -bound to bound, so that several pictures can be compared.
    """
    values = np.asarray(x.detach().cpu().double().numpy())
    draw = _kind(values.shape[1:])
    if draw is None:
        return None
    most = len(values) if draw in (_scatter, _histogram) else PANELS if draw is _lines else MOST
    if most < len(values):
        caption = f"{caption}, the first {most} of {len(values)}"
    figure = draw(values[:most], caption)
    if bound is not None and draw in (_scatter, _lines):
        for axis in figure.axes:
            axis.set(ylim=(-bound, bound), **({"xlim": (-bound, bound)} if draw is _scatter else {}))
    return figure


def images_png(x: Any) -> bytes | None:
    """The first samples of x (B, C, H, W) or (B, H, W) as a small sheet, PNG; None where they are no images."""
    shape = tuple(getattr(x, "shape", ()))
    if len(shape) < 3 or shape[0] == 0 or _kind(shape[1:]) not in (_images, _channels):
        return None
    if (figure := drawn(x[:SHOWN], f"{min(SHOWN, len(x))} of {len(x)} samples")) is None:
        return None
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI // 2, format="png")
    return buffer.getvalue()


def _kind(shape: tuple[int, ...]) -> Callable[[np.ndarray, str], Any] | None:
    if len(shape) == 3:
        return _images if shape[0] in (1, 3) else _channels
    if len(shape) == 2:
        return _images if min(shape) > 8 else _lines  # more than eight series in one panel cannot be told apart
    if len(shape) == 1:
        side = math.isqrt(shape[0])
        if shape[0] in (1, 2):
            return _histogram if shape[0] == 1 else _scatter
        return _channels if side >= SMALLEST_TILE and side * side == shape[0] else _lines
    return None


def _images(values: np.ndarray, caption: str) -> Any:
    images = values if values.ndim == 4 else values[:, None]
    return _sheet((np.nan_to_num(images).clip(-1, 1) + 1) / 2, caption)


def _channels(values: np.ndarray, caption: str) -> Any:
    """Grey tiles: of a vector one square, of an image with other channels than colours one beside the other."""
    if values.ndim == 2:
        side = math.isqrt(values.shape[1])
        tiles = values.reshape(-1, 1, side, side)
    else:
        n, c, h, w = values.shape
        tiles = values.transpose(0, 2, 1, 3).reshape(n, 1, h, c * w)
    finite = tiles[np.isfinite(tiles)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    grey = np.nan_to_num((tiles - low) / (high - low or 1.0), nan=0.5).clip(0, 1)
    return _sheet(grey, f"{caption}; black {low:.3g}, white {high:.3g}")


def _sheet(images: np.ndarray, caption: str) -> Any:
    """Images (B, C, H, W) in [0, 1] in rows, pixel by pixel; small ones are enlarged so that eyes can see them."""
    n, _, h, w = images.shape
    columns = min(n, max(1, round(math.sqrt(n * h / w)))) if w > 2 * h else math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (h + GAP) + GAP, columns * (w + GAP) + GAP, 3), 0.5)
    for i in range(n):
        top, left = GAP + (i // columns) * (h + GAP), GAP + (i % columns) * (w + GAP)
        sheet[top : top + h, left : left + w] = images[i].transpose(1, 2, 0)
    enlarge = max(1, WIDTH // max(sheet.shape[:2]))
    pixels = np.kron(sheet, np.ones((enlarge, enlarge, 1)))
    height, width = pixels.shape[:2]
    lines = _wrapped(caption, max(width, WIDTH))
    strip = LINE * len(lines) + 8
    figure = _figure(max(width, WIDTH), height + strip)
    figure.figimage(pixels, xo=(max(width, WIDTH) - width) // 2, yo=strip, origin="upper")
    _write_caption(figure, lines)
    return figure


def _scatter(values: np.ndarray, caption: str) -> Any:
    figure, axis = _axis(caption)
    axis.scatter(values[:, 0], values[:, 1], s=max(2.0, min(16.0, 8000 / len(values))), alpha=0.6, linewidths=0)
    axis.set_aspect("equal", adjustable="datalim")
    axis.set_xlabel("x[0]")
    axis.set_ylabel("x[1]")
    return figure


def _histogram(values: np.ndarray, caption: str) -> Any:
    figure, axis = _axis(caption)
    axis.hist(values[:, 0], bins=max(8, min(80, round(2 * math.sqrt(len(values))))))
    axis.set_xlabel("x[0]")
    axis.set_ylabel("samples")
    return figure


def _lines(values: np.ndarray, caption: str) -> Any:
    """A panel a sample, a line a channel, all on the same axes."""
    series = values if values.ndim == 3 else values[:, None]
    columns = math.ceil(math.sqrt(len(series)))
    rows = math.ceil(len(series) / columns)
    lines = _wrapped(caption, max(WIDTH, columns * 130))
    width, height = max(WIDTH, columns * 130), max(rows * 100, 240) + LINE * len(lines) + 40
    figure = _figure(width, height)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axis, sample in zip(axes, series):
        axis.plot(sample.T, linewidth=1.0, marker="." if series.shape[2] <= 16 else "", markersize=4)
        axis.tick_params(labelsize=7)
    for axis in axes[len(series) :]:
        axis.set_visible(False)
    figure.subplots_adjust(0.09, (LINE * len(lines) + 34) / height, 0.98, 0.97, wspace=0.08, hspace=0.12)
    _write_caption(figure, lines)
    return figure


def _axis(caption: str) -> tuple[Any, Any]:
    lines = _wrapped(caption, WIDTH)
    height = WIDTH + LINE * len(lines)
    figure = _figure(WIDTH, height)
    axis = figure.add_axes((0.11, (LINE * len(lines) + 54) / height, 0.86, 1 - (LINE * len(lines) + 70) / height))
    _write_caption(figure, lines)
    return figure, axis


def _figure(width: int, height: int) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def _wrapped(caption: str, width: int) -> list[str]:
    return textwrap.wrap(caption, (width - 16) // 7)  # 7 pixels a letter of 9 points


def _write_caption(figure: Any, lines: list[str]) -> None:
    width, height = figure.get_size_inches() * DPI
    figure.text(8 / width, 4 / height, "\n".join(lines), fontsize=9, va="bottom", linespacing=1.25, parse_math=False)
