"""Symbolic states: what a sampler computes with while it is traced.

A `Symbol` is an affine combination of things that a run will know: states that the network saw ("x", j), its answers
("D", j), draws, outputs of ops, and registers. Arithmetic with numbers folds into the weights, in float64. Everything
else is either an instruction (`op`, `keep`, a draw) or refused.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import torch

from ..errors import TraceError
from .instructions import Affine, Ref, format_terms

if TYPE_CHECKING:
    pass

P = ParamSpec("P")
R = TypeVar("R")

NEGLIGIBLE = 1e-15  # relative weight below which a term is the rounding of an exact cancellation


def refuse(what: str, instead: str) -> NoReturn:
    raise TraceError(f"{what} cannot be traced: {instead}")


NUMBERS = frozenset((
    "norm", "vector_norm", "max", "min", "amax", "amin", "sum", "mean", "std", "var", "any", "all", "item", "equal", "allclose",
    "isfinite", "isnan",
))  # fmt: skip
DECIDES = (
    "a number made of a state has no value yet. If the sampler decides by it (a condition, an adaptive step), register it "
    "with traceable=False; if it only weighs states with it, compute them in a function marked @sk.op."
)


class Symbol:
    """A state of a traced run. Supports + and - with symbols, * and / with numbers."""

    __slots__ = ("__weakref__", "tape", "terms")
    __array_ufunc__ = None  # numpy scalars then leave the arithmetic to us

    def __init__(self, terms: dict[Ref, float], tape: Any) -> None:
        self.terms, self.tape = terms, tape

    def _scaled(self, factor: object, what: str) -> Symbol:
        self.tape.touch()
        if isinstance(factor, numbers.Real):
            k = float(factor)
            return Symbol({ref: weight * k for ref, weight in self.terms.items()}, self.tape)
        if isinstance(factor, Symbol):
            refuse(f"a state {what} a state", "mark the function that does it with @sk.op.")
        refuse(
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
                refuse("a state of another trace", "a sampler must use only the states that it was given.")
            terms = dict(self.terms)
            for ref, weight in other.terms.items():
                terms[ref] = terms.get(ref, 0.0) + weight
            return Symbol(terms, self.tape)
        if isinstance(other, numbers.Real) and float(other) == 0:  # sum() starts with 0
            return self
        refuse(f"a state plus {type(other).__name__}", "only states add up; mark the function with @sk.op.")

    __radd__ = __add__

    def __sub__(self, other: object) -> Symbol:
        return self + (-1.0) * other if isinstance(other, (Symbol, numbers.Real)) else self + other

    def __rsub__(self, other: object) -> Symbol:
        return -self + other

    def _in_place(self, other: object) -> NoReturn:
        refuse("x += ... (an in-place change)", "write x = x + ...; in place it would change the caller's tensors.")

    __iadd__ = __isub__ = __imul__ = __itruediv__ = _in_place

    def _branch(self, *others: object) -> NoReturn:
        refuse("branching on the value of a state", "this solver is pull-only; register it with traceable=False.")

    __bool__ = __lt__ = __le__ = __gt__ = __ge__ = __float__ = __int__ = __len__ = __iter__ = _branch
    __eq__ = __ne__ = _branch  # type: ignore[assignment]
    __hash__ = object.__hash__

    def __pow__(self, power: object) -> NoReturn:
        refuse("a power of a state", "mark the function that does it with @sk.op.")

    __rpow__ = __matmul__ = __rmatmul__ = __rtruediv__ = __abs__ = __getitem__ = __pow__  # type: ignore[assignment]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        name = getattr(func, "__name__", str(func))
        name = name.removeprefix("linalg_")
        refuse(f"torch.{name} of a state", DECIDES if name in NUMBERS else "mark the function that calls it with @sk.op.")

    def __array__(self, *args: object, **kwargs: object) -> NoReturn:
        refuse("numpy on a state", "mark the function that does it with @sk.op.")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        advice = DECIDES if name in NUMBERS else "a state has no value yet; mark the function that needs it with @sk.op."
        refuse(f".{name} of a state", advice)

    def __repr__(self) -> str:
        return f"Symbol({format_terms(self.terms)})"


def freeze(value: Any) -> Any:
    """A copy of an op's argument in which symbols have become affine combinations."""
    if isinstance(value, Symbol):
        return Affine(value.tape.checked(value.terms))
    if type(value) in (list, tuple):
        return type(value)(freeze(v) for v in value)
    return value


def find_tape(value: Any) -> Any:
    """The tape of the first symbol in an argument, lists and tuples included."""
    if isinstance(value, Symbol):
        return value.tape
    if type(value) in (list, tuple):
        return next((tape for v in value if (tape := find_tape(v)) is not None), None)
    return None


def op(fn: Callable[P, R]) -> Callable[P, R]:
    """Mark a function of states (a norm, an inner product, a matrix product) as one instruction of a plan.

    The function must be per sample, deterministic, free of side effects, and importable by name (so that a plan can be
    pickled). Its arguments may be states, lists of states, and constants. Called with tensors it simply runs, in their own
    precision: autocast is for networks.
    """

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        tape = find_tape(args) or find_tape(list(kwargs.values()))
        if tape is None:
            with own_precision(args):
                return fn(*args, **kwargs)
        return tape.apply(call, args, kwargs)  # type: ignore[return-value]

    return call


def own_precision(args: Any) -> AbstractContextManager[Any]:
    """No autocast on the device of the first tensor among the arguments: states keep their precision."""
    tensor = find_tensor(args)
    if tensor is None:
        return nullcontext()
    kind = tensor.device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if on else nullcontext()


def find_tensor(value: Any) -> torch.Tensor | None:
    """The first tensor in an argument, lists and tuples included."""
    if isinstance(value, torch.Tensor):
        return value
    if type(value) in (list, tuple):
        return next((tensor for v in value if (tensor := find_tensor(v)) is not None), None)
    return None


def keep(x: R) -> R:
    """Make a register: the value of x is stored, so that what follows costs one term instead of all of x's."""
    return x.tape.keep(x) if isinstance(x, Symbol) else x  # type: ignore[return-value]


