"""Whether a sampler decides by what it sees: a condition, a loop or a Python number made of the value of a state."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

CORE = str(Path(__file__).parents[1])
NUMBERS = ("__bool__", "__float__", "__int__", "__index__", "item", "tolist")  # what a branch asks a tensor for


class _Watch(TorchFunctionMode):
    """Notes the first line of the sampler that makes a Python number of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.asleep = False
        self.line: str | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if not self.asleep and self.line is None and (name in NUMBERS or func in (torch.equal, torch.allclose)):
            frame = sys._getframe(1)
            while frame.f_back is not None and (
                frame.f_code.co_filename.startswith(CORE) or "/torch/" in frame.f_code.co_filename
            ):
                frame = frame.f_back
            file, number = frame.f_code.co_filename, frame.f_lineno
            self.line = f"{Path(file).name}:{number}: {linecache.getline(file, number).strip()}"
        return func(*args, **(kwargs or {}))


def branch(
    run: Callable[[Any, torch.Tensor], Any], target: Callable[[torch.Tensor, Any], torch.Tensor], x: torch.Tensor
) -> str | None:
    """The line of a sampler that decides by a value, as "file:line: source"; None where no line does.

    Args:
        run: run(model, x) calls the sampler with tensors.
        target: The denoiser, which may decide as it likes.
        x: The starting state, (B, ...).
    """
    watch = _Watch()

    def model(y: torch.Tensor, s: float) -> torch.Tensor:
        watch.asleep = True
        try:
            return target(y, s)
        finally:
            watch.asleep = False

    try:
        with watch:
            run(model, x)
    except Exception:  # a sampler that fails with tensors too is reported for that
        pass
    return watch.line
