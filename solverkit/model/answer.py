"""What a network answers: a tensor of x's shape, an object with `.sample`, or a tuple that begins with it."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import DenoiserError


def answered(out: Any, x: torch.Tensor, name: str) -> torch.Tensor:
    """The prediction in a network's output, in x's shape.

    Raises:
        DenoiserError: no tensor, a shape that is neither x's nor twice its channels, or several tensors of x's shape.
    """
    out = getattr(out, "sample", out)
    if isinstance(out, (tuple, list)):
        shapes = [tuple(part.shape) if isinstance(part, torch.Tensor) else () for part in out]
        first = shapes[0] if shapes and _doubled(shapes[0], x) is not None else tuple(x.shape)
        states = [i for i, shape in enumerate(shapes) if shape == first]
        if len(states) > 1:
            raise DenoiserError(
                f"{name} answered {len(states)} tensors of shape {first} to x of shape {tuple(x.shape)}, which one is "
                "the prediction is not said. Wrap the one that is meant: sk.wrap(lambda x, t, **k: net(x, t, **k)[0], ...)."
            )
        out = out[0] if len(out) else None
    if not isinstance(out, torch.Tensor):
        raise DenoiserError(f"{name} returned {type(out).__name__}, expected a tensor (or .sample).")
    return fit_channels(out, x, name)


def fit_channels(out: torch.Tensor, x: torch.Tensor, name: str) -> torch.Tensor:
    """Drop a learned variance: the second half of the channels, which stand second, or last for (B, N, C).

    Raises:
        DenoiserError: a shape that is neither x's nor twice its channels.
    """
    if out.shape == x.shape:
        return out
    axis = _doubled(tuple(out.shape), x)
    if axis is not None:
        return out.narrow(axis, 0, x.shape[axis])
    raise DenoiserError(
        f"{name} answered in shape {tuple(out.shape)} to x of shape {tuple(x.shape)}; expected the same shape, "
        "or twice the channels (a learned variance, which is dropped)."
    )


def learned_half(out: torch.Tensor, x: torch.Tensor) -> torch.Tensor | None:
    """What a network says of the variance: the second half of the channels, or None where there is none."""
    axis = None if out.shape == x.shape else _doubled(tuple(out.shape), x)
    return None if axis is None else out.narrow(axis, x.shape[axis], x.shape[axis])


def _doubled(shape: tuple[int, ...], x: torch.Tensor) -> int | None:
    """The axis along which a shape is twice x's; None if it is another shape."""
    for axis in (1, -1) if x.ndim > 1 else ():
        wanted = list(x.shape)
        wanted[axis] *= 2
        if list(shape) == wanted:
            return axis
    return None
