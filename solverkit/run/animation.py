"""The states of a run as moving pictures (GIF), or as a strip of them (PNG)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import OptionError
from .picture import drawn

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..process.level import Level

SAMPLES, STILLS, MOST = 16, 6, 60  # of a frame, frames of a strip, and of moving pictures
FRAME, LAST = 180, 1500  # milliseconds
KINDS = (".gif", ".png")


def write_animation(trajectory: torch.Tensor, levels: Sequence[Level], path: Path) -> None:
    """Write the states of a run, each divided by the standard deviation that unit data would have there.

    Args:
        trajectory: (evaluations + 1, B, ...), as `Result.trajectory`.
        levels: Of the evaluations.
        path: .gif moves; .png is a strip of at most six states.

    Raises:
        OptionError: another suffix, or samples that no picture can be made of.
        OSError: it cannot be written.
    """
    if path.suffix.lower() not in KINDS:
        raise OptionError(f"an animation is a .gif, or a strip as .png; got {str(path)!r}.")
    every = max(1, math.ceil(len(levels) / MOST))
    way = [*list(zip(trajectory, levels))[::every], (trajectory[-1], None)]
    states = [(_scaled(x[:SAMPLES], level), level) for x, level in way]
    bound = 1.05 * max(float(torch.nan_to_num(x).abs().max()) for x, _ in states)
    frames = [_frame(x, level, bound) for x, level in states]
    if path.suffix.lower() == ".gif":
        durations = [FRAME] * (len(frames) - 1) + [LAST]
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0)
        return
    count = min(STILLS, len(frames))
    chosen = [frames[round(i * (len(frames) - 1) / max(count - 1, 1))] for i in range(count)]
    _strip(chosen).save(path)


def _scaled(x: torch.Tensor, level: Level | None) -> torch.Tensor:
    return x if level is None else x / (level.scale * math.hypot(level.alpha, float(level)))


def _frame(x: torch.Tensor, level: Level | None, bound: float) -> Image:
    """One state; its caption says the noise that is in it."""
    from PIL import Image

    caption = "the samples" if level is None else f"sigma / alpha = {level.ratio:.3g}"
    if (figure := drawn(x, caption, bound)) is None:
        raise OptionError(f"there is no picture of samples of shape {tuple(x.shape[1:])}, so nothing to animate.")
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])  # type: ignore[attr-defined]


def _strip(frames: Sequence[Any]) -> Image:
    from PIL import Image

    strip = Image.new("RGB", (sum(f.width for f in frames), max(f.height for f in frames)), "white")
    left = 0
    for frame in frames:
        strip.paste(frame, (left, 0))
        left += frame.width
    return strip
