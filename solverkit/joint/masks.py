"""Which nodes a sample has: masks of 0 and 1, given or drawn with the samples."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor

from ..errors import OptionError
from .spaces import Space

Mask: TypeAlias = "Tensor | Callable[[Sequence[int]], Tensor]"


def checked_mask(mask: Any, spaces: Mapping[str, tuple[Space, tuple[int, ...]]]) -> Mask:
    """A mask (1, N) or (B, N), or the function that makes one.

    Args:
        mask: As given.
        spaces: (space, shape) of each component, which it must fit.

    Raises:
        OptionError: another shape, other values than 0 and 1, or a sample without nodes.
    """
    if callable(mask) and not isinstance(mask, Tensor):
        if len(inspect.signature(mask).parameters) != 1:
            raise OptionError("a mask's function takes one argument, the list of the samples' keys.")
        return mask  # type: ignore[no-any-return]
    mask = mask[None] if isinstance(mask, Tensor) and mask.ndim == 1 else mask
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        raise OptionError(f"mask must be a tensor (N,), (1, N) or (B, N), got {tuple(getattr(mask, 'shape', ()))}.")
    if not bool(((mask == 0) | (mask == 1)).all()) or not bool((mask != 0).any(dim=1).all()):
        raise OptionError("a mask holds 1 where there is a node and 0 elsewhere, and every sample has a node.")
    for name, (space, shape) in spaces.items():
        space.check(name, shape, mask)
    return mask
