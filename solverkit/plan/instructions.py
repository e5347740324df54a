"""What a tape records: instructions between evaluations, over references to things that a run will know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..process.level import Level

Ref = tuple[str, int]


class Affine(NamedTuple):
    """An affine combination frozen into an instruction's arguments."""

    terms: dict[Ref, float]


class DrawNoise(NamedTuple):
    """out = draw(ordinal, s, t), standard normal: number `ordinal` of the draws from s to t."""

    out: Ref
    ordinal: int
    s: float
    t: float


class Apply(NamedTuple):
    """out = fn(*args, **kwargs), where args may hold affine combinations."""

    out: Ref
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Keep(NamedTuple):
    """out = the value of an affine combination, stored."""

    out: Ref
    value: Affine


class TracedSegment(NamedTuple):
    """What happens before one evaluation: instructions, then the state to evaluate, and what is asked of which model."""

    code: tuple[DrawNoise | Apply | Keep, ...]
    x: dict[Ref, float]
    level: Level | None
    boundary: bool
    to: Level | None = None
    of: str | None = None


def format_ref(ref: Ref) -> str:
    kind, number = ref
    if kind == "x":
        return "x" if number < 0 else f"x{number}"
    return f"{kind if kind != 'draw' else 'z'}{number}"


def format_terms(terms: Mapping[Ref, float]) -> str:
    """'+0.5165 x3 +0.748 D3 -0.2646 D2'."""
    return " ".join(f"{weight:+.6g} {format_ref(ref)}" for ref, weight in terms.items()) or "0"
