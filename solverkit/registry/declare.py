"""What a sampler says of itself, beside its formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
DECLARED = "__solverkit__"


def sampler(name: str, **fields: Any) -> Callable[[F], F]:
    """Declare a sampler's name and the fields of its card where it is written; `register(fn)` then needs nothing else.

        @sk.sampler("heun", order=2, reference="Karras et al. 2022, Algorithms 1 and 2")
        def heun(model, x, grid, noise): ...

    The function itself is returned unchanged.

    Args:
        name: What users type.
        fields: Of `SamplerCard`: order, reference, variants, ...
    """

    def declare(fn: F) -> F:
        setattr(fn, DECLARED, {"name": name, **fields})
        return fn

    return declare
