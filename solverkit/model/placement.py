"""The dtype and the device of a network: its own word where it has one, else its parameters, wherever they are kept.

A network is often wrapped: in a lambda, a closure, a partial, a bound method, an object with __call__. The modules behind
it are found through what its code reads. Weights may be stored in fewer bits than the network computes in (float8 storage):
no dtype below 16 bits is one to compute in.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Mapping
from typing import Any

import torch

from ..errors import OptionError
from .code import names_of


def computes_in(dtype: Any) -> bool:
    """Whether a dtype is one that a network computes in: floating, of 16 bits or more."""
    return isinstance(dtype, torch.dtype) and dtype.is_floating_point and dtype.itemsize >= 2


def own_dtype(net: Any) -> torch.dtype | None:
    """What the network computes in; None where nothing says it, or where modules behind a function disagree."""
    return _common_dtype(parts(net))


def own_device(net: Any) -> torch.device | None:
    """Where the network's parameters are; None where it has none, or where modules behind a function disagree."""
    places = {tensor.device for part in parts(net) if (tensor := _first(part)) is not None}
    return places.pop() if len(places) == 1 else None


class OwnDtype:
    """`own_dtype`, looked up again where the network was replaced, cast or moved: a module moves all of its parameters."""

    def __init__(self) -> None:
        self.read: tuple[Any, ...] | None = None
        self.parts: list[torch.nn.Module | torch.nn.Parameter] = []
        self.place: tuple[Any, ...] = ()
        self.dtype: torch.dtype | None = None

    def of(self, net: Any) -> torch.dtype | None:
        read = _read(net)
        known = read is not None and self.read is not None and len(read) == len(self.read)
        if not known or any(a is not b for a, b in zip(read or (), self.read or ())):
            self.parts, self.place = parts(net), ()
            held = {id(value) for value in read or ()}  # a part that something else holds may be replaced unseen
            self.read = read if all(id(part) in held for part in self.parts) else None
        if not self.parts:
            return None
        place = tuple((first.dtype, first.device) for part in self.parts if (first := _first(part)) is not None)
        if not place or place != self.place:
            self.place, self.dtype = place, _common_dtype(self.parts)
        return self.dtype


def _read(net: Any) -> tuple[Any, ...] | None:
    """What tells whether a network is made of the same parts as before; None where they have to be looked up."""
    if isinstance(net, torch.nn.Module):
        return (net,)
    if not isinstance(net, types.FunctionType):
        return None
    try:
        cells = [cell.cell_contents for cell in net.__closure__ or ()]
    except ValueError:
        return None
    return (*cells, *(net.__globals__.get(name) for name in names_of(net.__code__).globals))


def parts(net: Any) -> list[torch.nn.Module | torch.nn.Parameter]:
    """The modules and parameters that a network is made of: itself, or what its code reads."""
    found: list[torch.nn.Module | torch.nn.Parameter] = []
    _walk(net, frozenset(), found, set())
    return found


def _first(part: torch.nn.Module | torch.nn.Parameter) -> torch.Tensor | None:
    if isinstance(part, torch.Tensor):
        return part
    return next((t for tensors in (part.parameters(), part.buffers()) for t in tensors if t.is_floating_point()), None)


def _common_dtype(found: list[torch.nn.Module | torch.nn.Parameter]) -> torch.dtype | None:
    kinds = {kind for part in found if (kind := _dtype(part)) is not None}
    return kinds.pop() if len(kinds) == 1 else None


def _dtype(part: torch.nn.Module | torch.nn.Parameter) -> torch.dtype | None:
    if isinstance(part, torch.Tensor):
        return part.dtype if computes_in(part.dtype) else torch.float32
    own = getattr(part, "dtype", None)
    if computes_in(own):
        return own  # type: ignore[no-any-return]
    kinds = list(dict.fromkeys(p.dtype for p in part.parameters() if p.is_floating_point()))
    if all(computes_in(kind) for kind in kinds):
        return kinds[0] if kinds else None
    inside = [getattr(module, "dtype", None) for module in part.modules()]  # narrow storage: a module inside may know
    return next((kind for kind in (*inside, *kinds) if computes_in(kind)), torch.float32)


def _walk(value: Any, names: frozenset[str], found: list[Any], seen: set[int]) -> None:
    """Collect the modules behind a value; `names` are the attributes that the code that reads it names."""
    if id(value) in seen or value is None or isinstance(value, (bool, int, float, str, type)):
        return
    seen.add(id(value))
    if isinstance(value, (torch.nn.Module, torch.nn.Parameter)):
        found.append(value)
    elif isinstance(value, functools.partial):
        for part in (value.func, *value.args, *value.keywords.values()):
            _walk(part, names, found, seen)
    elif isinstance(value, types.MethodType):
        _walk(value.__self__, _named(value.__func__), found, seen)
        _walk(value.__func__, names, found, seen)
    elif isinstance(value, types.FunctionType):
        _walk_function(value, found, seen)
    elif isinstance(value, types.ModuleType):
        for name in names:
            part = vars(value).get(name)
            if isinstance(part, (torch.nn.Module, torch.nn.Parameter)):
                _walk(part, names, found, seen)
    elif isinstance(value, Mapping):
        for part in list(value.values()):
            _walk(part, names, found, seen)
    elif isinstance(value, (list, tuple)):
        for part in value:
            _walk(part, names, found, seen)
    elif hasattr(value, "__wrapped__"):
        _walk(value.__wrapped__, names, found, seen)
    elif hasattr(value, "__dict__") and not isinstance(value, torch.Tensor):
        _walk_object(value, names, found, seen)


def _walk_function(function: types.FunctionType, found: list[Any], seen: set[int]) -> None:
    names = names_of(function.__code__)
    for cell in function.__closure__ or ():
        try:
            _walk(cell.cell_contents, names.attributes, found, seen)
        except ValueError:  # a variable that is not assigned yet
            continue
    for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        _walk(default, names.attributes, found, seen)
    for name in names.globals:
        _walk(function.__globals__.get(name), names.attributes, found, seen)
    _walk(getattr(function, "__wrapped__", None), names.attributes, found, seen)


def _walk_object(value: Any, names: frozenset[str], found: list[Any], seen: set[int]) -> None:
    """An object's attributes, as far as code that has it names them: its own methods, or who reads it."""
    known = set(names) | _named(inspect.getattr_static(type(value), "__call__", None))
    todo = list(known)
    while todo:  # methods that are named name attributes in their turn
        more = _named(getattr(type(value), todo.pop(), None)) - known
        known |= more
        todo.extend(more)
    for name, part in list(vars(value).items()):
        if name in known:
            _walk(part, frozenset(known), found, seen)


def _named(function: Any) -> frozenset[str]:
    function = getattr(function, "fget", function)
    return names_of(function.__code__).attributes if isinstance(function, types.FunctionType) else frozenset()


def usable_device(device: Any, written: str = "device=") -> torch.device:
    """A device that this machine has; `written` is how the user gave it, for the message.

    Raises:
        OptionError: no such device, or not on this machine or in this torch.
    """
    try:
        wanted = torch.device(device)
        if wanted.type == "meta":
            raise RuntimeError("a device without numbers.")
        torch.empty(0, device=wanted)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        cards = f"{torch.cuda.device_count()} CUDA devices" if torch.cuda.is_available() else "no CUDA"
        raise OptionError(f"{written}{str(device)!r} cannot be used: {reason}. This machine has cpu and {cards}.") from None
    return wanted
