"""What an annotation says of a value: whether it fits, and in words."""

from __future__ import annotations

import collections.abc
import math
import numbers
import types
import typing
from collections.abc import Mapping
from typing import Any


def fits(value: Any, hint: Any) -> bool:
    """Whether a value can be what an annotation says; annotations that are no plain type always fit."""
    if hint is Any:
        return True
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, h) for h in typing.get_args(hint))
    if origin is typing.Literal:
        return isinstance(value, (str, int)) and value in typing.get_args(hint)
    if hint is float:
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and not math.isnan(value)
    if hint is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if hint is type(None):
        return value is None
    if origin is collections.abc.Callable:
        return callable(value)
    if origin is collections.abc.Mapping:
        return isinstance(value, Mapping)
    return isinstance(value, hint) if hint in (bool, str) else True


def describe(hint: Any) -> str:
    """'int', 'one of bh1, bh2', 'float or None'."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(v) for v in typing.get_args(hint))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(h) for h in typing.get_args(hint))
    if origin is collections.abc.Callable:
        return "a function"
    return "None" if hint is type(None) else getattr(hint, "__name__", str(hint))
