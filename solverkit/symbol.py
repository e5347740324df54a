"""Symbolic states: what a sampler computes with while it is traced.

A `Symbol` is an affine combination of things that a run will know: states that the network saw ("x", j), its answers
("D", j), draws, outputs of ops, and registers. Arithmetic with numbers folds into the weights, in float64. Everything
else is either an instruction (`op`, `keep`, a draw) or refused.
"""

from __future__ import annotations

import functools
import math
import numbers
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, ParamSpec, TypeVar

from .errors import TraceError
from .level import Level

if TYPE_CHECKING:
    from .grid import Grid

Ref = tuple[str, int]
P = ParamSpec("P")
R = TypeVar("R")

NEGLIGIBLE = 1e-15  # relative weight below which a term is the rounding of an exact cancellation


class Affine(NamedTuple):
    """An affine combination frozen into an instruction's arguments."""

    terms: dict[Ref, float]


class DrawNoise(NamedTuple):
    """out = draw(ordinal, s, t), standard normal."""

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
    """What happens before one evaluation: instructions, then the state to evaluate, and at which level."""

    code: tuple[DrawNoise | Apply | Keep, ...]
    x: dict[Ref, float]
    level: Level | None
    boundary: bool


def _refuse(what: str, instead: str) -> NoReturn:
    raise TraceError(f"{what} cannot be traced: {instead}")


class Symbol:
    """A state of a traced run. Supports + and - with symbols, * and / with numbers."""

    __slots__ = ("__weakref__", "tape", "terms")
    __array_ufunc__ = None  # numpy scalars then leave the arithmetic to us

    def __init__(self, terms: dict[Ref, float], tape: Tape) -> None:
        self.terms, self.tape = terms, tape

    def _scaled(self, factor: object, what: str) -> Symbol:
        self.tape.touch()
        if isinstance(factor, numbers.Real):
            k = float(factor)
            return Symbol({ref: weight * k for ref, weight in self.terms.items()}, self.tape)
        if isinstance(factor, Symbol):
            _refuse(f"a state {what} a state", "mark the function that does it with @sk.op.")
        _refuse(
            f"a state {what} {type(factor).__name__}",
            "coefficients must be Python floats; for anything else mark the function with @sk.op.",
        )

    def __mul__(self, factor: object) -> Symbol:
        return self._scaled(factor, "times")

    __rmul__ = __mul__

    def __truediv__(self, factor: object) -> Symbol:
        if isinstance(factor, numbers.Real):
            return self._scaled(1.0 / float(factor), "divided by")
        return self._scaled(factor, "divided by")

    def __neg__(self) -> Symbol:
        return self._scaled(-1.0, "times")

    def __pos__(self) -> Symbol:
        return self

    def __add__(self, other: object) -> Symbol:
        self.tape.touch()
        if isinstance(other, Symbol):
            if other.tape is not self.tape:
                _refuse("a state of another trace", "a sampler must use only the states that it was given.")
            terms = dict(self.terms)
            for ref, weight in other.terms.items():
                terms[ref] = terms.get(ref, 0.0) + weight
            return Symbol(terms, self.tape)
        if isinstance(other, numbers.Real) and float(other) == 0:  # sum() starts with 0
            return self
        _refuse(f"a state plus {type(other).__name__}", "only states add up; mark the function with @sk.op.")

    __radd__ = __add__

    def __sub__(self, other: object) -> Symbol:
        return self + (-1.0) * other if isinstance(other, (Symbol, numbers.Real)) else self + other

    def __rsub__(self, other: object) -> Symbol:
        return -self + other

    def _in_place(self, other: object) -> NoReturn:
        _refuse("x += ... (an in-place change)", "write x = x + ...; in place it would change the caller's tensors.")

    __iadd__ = __isub__ = __imul__ = __itruediv__ = _in_place

    def _branch(self, *others: object) -> NoReturn:
        _refuse("branching on the value of a state", "this solver is pull-only; register it with traceable=False.")

    __bool__ = __lt__ = __le__ = __gt__ = __ge__ = __float__ = __int__ = __len__ = __iter__ = _branch
    __eq__ = __ne__ = _branch  # type: ignore[assignment]
    __hash__ = object.__hash__

    def __pow__(self, power: object) -> NoReturn:
        _refuse("a power of a state", "mark the function that does it with @sk.op.")

    __rpow__ = __matmul__ = __rmatmul__ = __rtruediv__ = __abs__ = __getitem__ = __pow__  # type: ignore[assignment]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        _refuse(f"torch.{getattr(func, '__name__', func)} of a state", "mark the function that calls it with @sk.op.")

    def __array__(self, *args: object, **kwargs: object) -> NoReturn:
        _refuse("numpy on a state", "mark the function that does it with @sk.op.")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        _refuse(f".{name} of a state", "a state has no value yet; mark the function that needs it with @sk.op.")

    def __repr__(self) -> str:
        return f"Symbol({format_terms(self.terms)})"


class Tape:
    """Records one call of a sampler: the evaluations, and the instructions between them."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.segments: list[TracedSegment] = []
        self.code: list[DrawNoise | Apply | Keep] = []
        self.count = 0
        self.draws = 0
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
        self.code.append(DrawNoise(out, self.draws, float(s), float(t)))
        self.draws += 1
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

    def close(self, x: Symbol, level: Level | None) -> None:
        terms = self.checked(x.terms)
        self.segments.append(TracedSegment(tuple(self.code), terms, level, self.step_begins))
        self.code = []
        self.step_begins = False

    def model(self, x: object, s: float) -> Symbol:
        """Record an evaluation. From here on `x` means the state that the network really saw (re-rooting)."""
        if not isinstance(x, Symbol):
            _refuse(f"model({type(x).__name__}, ...)", "pass a state that was made from x.")
        self.touch()
        j = len(self.segments)
        boundary = self.step_begins
        self.close(x, s if isinstance(s, Level) else self.grid.at(s))
        x.terms = {("x", j): 1.0}
        if boundary:
            self.watched = (weakref.ref(x), j)
        return Symbol({("D", j): 1.0}, self)


class TracedNoise:
    """The `noise` of a traced run: noise(s, t) records a draw; `draw` does so for an inner plan."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def __call__(self, s: float, t: float) -> Symbol:
        return self._tape.noise(s, t)

    def draw(self, ordinal: int, s: float, t: float) -> Symbol:
        """The same as calling it; an inner plan's own ordinal is replaced by the run's."""
        return self._tape.noise(s, t)


def freeze(value: Any) -> Any:
    """A copy of an op's argument in which symbols have become affine combinations."""
    if isinstance(value, Symbol):
        return Affine(value.tape.checked(value.terms))
    if type(value) in (list, tuple):
        return type(value)(freeze(v) for v in value)
    return value


def find_tape(value: Any) -> Tape | None:
    """The tape of the first symbol in an argument, lists and tuples included."""
    if isinstance(value, Symbol):
        return value.tape
    if type(value) in (list, tuple):
        return next((tape for v in value if (tape := find_tape(v)) is not None), None)
    return None


def op(fn: Callable[P, R]) -> Callable[P, R]:
    """Mark a function of states (a norm, an inner product, a matrix product) as one instruction of a plan.

    The function must be per sample, deterministic, free of side effects, and importable by name (so that a plan can be
    pickled). Its arguments may be states, lists of states, and constants. Called with tensors it simply runs.
    """

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        tape = find_tape(args) or find_tape(list(kwargs.values()))
        if tape is None:
            return fn(*args, **kwargs)
        return tape.apply(call, args, kwargs)  # type: ignore[return-value]

    return call


def keep(x: R) -> R:
    """Make a register: the value of x is stored, so that what follows costs one term instead of all of x's."""
    return x.tape.keep(x) if isinstance(x, Symbol) else x  # type: ignore[return-value]


def format_ref(ref: Ref) -> str:
    kind, number = ref
    if kind == "x":
        return "x" if number < 0 else f"x{number}"
    return f"{kind if kind != 'draw' else 'z'}{number}"


def format_terms(terms: Mapping[Ref, float]) -> str:
    """'+0.5165 x3 +0.748 D3 -0.2646 D2'."""
    return " ".join(f"{weight:+.6g} {format_ref(ref)}" for ref, weight in terms.items()) or "0"
