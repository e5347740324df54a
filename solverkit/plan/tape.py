"""The tape of one traced call of a sampler: its evaluations, and the instructions between them."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import TraceError
from ..grid.grid import Grid
from ..process.level import Level
from ..process.places import Places
from .instructions import Affine, Apply, DrawNoise, Keep, Ref, TracedSegment, format_ref
from .symbol import NEGLIGIBLE, Symbol, freeze, refuse


class Tape:
    """Records one call of a sampler: the evaluations, and the instructions between them."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.segments: list[TracedSegment] = []
        self.code: list[DrawNoise | Apply | Keep] = []
        self.count = 0
        self.places = Places()
        self.step_begins = True
        self.watched: tuple[weakref.ref[Symbol], int] | None = None
        self.lost: list[int] = []

    def begin_step(self) -> None:
        self.step_begins = True

    def touch(self) -> None:
        """See, at the first operation after a boundary evaluation, whether the state that was evaluated still exists."""
        if self.watched is not None:
            symbol, evaluation = self.watched
            if symbol() is None:
                self.lost.append(evaluation)
            self.watched = None

    def fresh(self, kind: str) -> Ref:
        self.count += 1
        return (kind, self.count)

    def apply(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Symbol:
        self.touch()
        out = self.fresh("op")
        frozen = {name: freeze(value) for name, value in kwargs.items()}
        self.code.append(Apply(out, fn, tuple(freeze(a) for a in args), frozen))
        return Symbol({out: 1.0}, self)

    def keep(self, x: Symbol) -> Symbol:
        self.touch()
        out = self.fresh("register")
        self.code.append(Keep(out, Affine(self.checked(x.terms))))
        return Symbol({out: 1.0}, self)

    def noise(self, s: float, t: float) -> Symbol:
        self.touch()
        out = self.fresh("draw")
        self.code.append(DrawNoise(out, self.places.next(s, t), s, t))
        return Symbol({out: 1.0}, self)

    def checked(self, terms: Mapping[Ref, float]) -> dict[Ref, float]:
        """The terms that matter; refuses NaN and inf."""
        for ref, weight in terms.items():
            if not math.isfinite(weight):
                raise TraceError(
                    f"evaluation {len(self.segments)}: the weight of {format_ref(ref)} is {weight}; "
                    "look for a division by a step of length zero or a log-SNR at an end of the grid."
                )
        small = NEGLIGIBLE * max((abs(w) for w in terms.values()), default=0.0)
        return {ref: w for ref, w in terms.items() if abs(w) > small}

    def close(self, x: Symbol, level: Level | None, to: Level | None = None, of: str | None = None) -> None:
        terms = self.checked(x.terms)
        self.segments.append(TracedSegment(tuple(self.code), terms, level, self.step_begins, to, of))
        self.code = []
        self.step_begins = False

    def model(self, x: object, s: float, to: float | None = None, of: str | None = None) -> Symbol:
        """Record an evaluation. From here on `x` means the state that the network really saw (re-rooting)."""
        if not isinstance(x, Symbol):
            refuse(f"model({type(x).__name__}, ...)", "pass a state that was made from x.")
        self.touch()
        j = len(self.segments)
        boundary = self.step_begins
        self.close(x, self.grid.at(s), None if to is None else self.grid.at(to), of)
        x.terms = {("x", j): 1.0}
        if boundary:
            self.watched = (weakref.ref(x), j)
        return Symbol({("D", j): 1.0}, self)


class TracedNoise:
    """The `noise` of a traced run: noise(s, t) records a draw; `draw` does so for an inner plan."""

    def __init__(self, tape: Any) -> None:
        self._tape = tape

    def __call__(self, s: float, t: float) -> Symbol:
        return self._tape.noise(s, t)

    def draw(self, ordinal: int, s: float, t: float) -> Symbol:
        """The same as calling it; an inner plan's own ordinal is replaced by the run's."""
        return self._tape.noise(s, t)
