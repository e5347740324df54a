"""A fingerprint of a network: what tells it apart from any other, the same in every process.

Everything that its answer may depend on is read: parameters, buffers, attributes public and private, inputs, schedules,
closures, defaults, the code of functions and methods, and the globals that the code reads. Code of installed packages is
known by its name and the package's version. What cannot be read raises, so that a caller keeps nothing under a fingerprint
that two networks could share.

Each value has a digest made of the digests of its parts, so that a tensor is hashed once however often it is met. Counters
(`calls`, `nfe`, and integers that a network's own call writes) are left out, and so are the device and the training mode.
"""

from __future__ import annotations

import builtins
import enum
import functools
import logging
import re
import threading
import types
import weakref
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import Executor
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch

from ..errors import FingerprintError
from .code import names_of
from .counting import Count
from .denoiser import Denoiser
from .digest import hashed, plain, tensor_digest
from .installed import origin
from .placement import OwnDtype

COUNTERS = {"calls", "nfe"}
# What a module or a config keeps for itself: hooks of training, caches, and where its files lay.
KEPT = {
    "training", "_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook", "_non_persistent_buffers_set",
    "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
    "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs", "_compiled_call_impl",
    "_name_or_path", "name_or_path", "_diffusers_version", "transformers_version", "_commit_hash",
}  # fmt: skip
CLASS_KEPT = {
    "__module__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__annotate__", "__annotate_func__",
    "__annotations_cache__", "__qualname__", "__firstlineno__", "__static_attributes__", "_abc_impl", "__abstractmethods__",
    "__parameters__", "__orig_bases__", "__dataclass_fields__", "__dataclass_params__", "__match_args__", "__slots__",
    "__classcell__", "__protocol_attrs__", "_is_protocol", "__slotnames__",
}  # fmt: skip
# Of these the network's answer does not depend on the content.
INERT = (
    Count, OwnDtype, threading.Thread, threading.Event, threading.Condition, threading.Barrier, Executor, ContextVar,
    logging.Logger, weakref.ref, torch.device, torch.utils.hooks.RemovableHandle, type(threading.Lock()),
    type(threading.RLock()), types.GetSetDescriptorType, types.MemberDescriptorType, threading.local,
)  # fmt: skip

BUILTIN = (
    types.BuiltinFunctionType, types.MethodWrapperType, types.WrapperDescriptorType, types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
)  # fmt: skip


def fingerprint(denoiser: Any) -> str:
    """16 hex digits that change with anything that the network's answer may depend on.

    Args:
        denoiser: A denoiser, or a bare network.

    Raises:
        FingerprintError: it holds something whose content cannot be read.
    """
    return _short(_Digests(), denoiser)


def fingerprints(denoiser: Any) -> tuple[str, str]:
    """The fingerprint, and one that does not depend on the content of fixed inputs (a class, a prompt), but on their names.

    Raises:
        FingerprintError: it holds something whose content cannot be read.
    """
    whole = _Digests()
    first = _short(whole, denoiser)
    tensors = {key: known for key, known in whole.known.items() if isinstance(known[0], torch.Tensor)}
    return first, _short(_Digests(inputs=False, known=tensors), denoiser)


def _short(digests: _Digests, denoiser: Any) -> str:
    try:
        return digests.of(denoiser, "the network").hex()[:16]
    except RecursionError:
        raise FingerprintError("the network is nested too deeply to be read; it has no fingerprint.") from None


def try_fingerprint(denoiser: Any) -> str | None:
    """The fingerprint, or None for a network that cannot be told from others (a function that hides what it is made of)."""
    try:
        return fingerprint(denoiser)
    except FingerprintError:
        return None


def try_fingerprints(denoiser: Any) -> tuple[str | None, str | None]:
    """As `fingerprints`; (None, None) for a network that cannot be told from others."""
    try:
        return fingerprints(denoiser)
    except FingerprintError:
        return None, None


class _Digests:
    """Digests of values, each made once. `path` says where a value was found, for the error."""

    def __init__(self, inputs: bool = True, known: dict[int, tuple[Any, bytes]] | None = None) -> None:
        self.inputs = inputs  # whether the content of fixed inputs is read
        self.known = known or {}  # the value beside its digest: a freed id would be used again
        self.open: list[int] = []

    def of(self, value: Any, path: str) -> bytes:
        content = plain(value)
        if content is not None:
            return hashed("plain", content)
        key = id(value)
        if key in self.known:
            return self.known[key][1]
        if key in self.open:  # a cycle: how far up it closes
            return hashed("cycle", str(len(self.open) - self.open.index(key)).encode())
        self.open.append(key)
        try:
            digest = self._made(value, path)
        finally:
            self.open.pop()
        self.known[key] = value, digest
        return digest

    def _made(self, value: Any, path: str) -> bytes:
        if isinstance(value, torch.Tensor):
            return tensor_digest(value, path)
        if isinstance(value, (np.ndarray, np.generic)):
            return self._array(np.asarray(value), path)
        if isinstance(value, INERT):
            return hashed("inert", str(type(value)).encode())
        if isinstance(value, types.ModuleType):
            return hashed("module", value.__name__.encode())
        if isinstance(value, type):
            return self._class(value, path)
        if isinstance(value, functools.partial):
            return self._all("partial", [value.func, value.args, dict(sorted(value.keywords.items()))], path)
        if isinstance(value, types.MethodType):
            return self._all("method", [value.__self__, value.__func__], path)
        if isinstance(value, types.FunctionType):
            return self._function(value, path)
        if isinstance(value, types.CodeType):
            return self._code(value, path)
        if isinstance(value, types.CellType):
            return self.of(_content(value), path)
        if isinstance(value, (staticmethod, classmethod)):
            return self._all(type(value).__name__, [value.__func__], path)
        if isinstance(value, property):
            return self._all("property", [value.fget], path)
        if isinstance(value, functools.cached_property):
            return self._all("property", [value.func], path)
        if isinstance(value, torch.jit.ScriptModule):
            return self._scripted(value, path)
        if isinstance(value, torch.nn.Module):
            return self._module(value, path)
        if hasattr(value, "__wrapped__") and callable(value):  # functools.lru_cache and the like
            return self._all("wrapped", [value.__wrapped__], path)
        if isinstance(value, BUILTIN):
            return self._builtin(value, path)
        return self._container(value, path)

    def _container(self, value: Any, path: str) -> bytes:
        kind = self._kind(type(value), path)
        where = {"source"} if isinstance(value, Denoiser) else set()  # where it was opened from is not what it is
        more = self._state(value, path, where) if hasattr(value, "__dict__") and not isinstance(value, enum.Enum) else b""
        if isinstance(value, enum.Enum):
            return hashed("enum", kind, value.name.encode())
        if isinstance(value, Mapping):
            items = [(k, v) for k, v in value.items() if not (isinstance(k, str) and k in KEPT)]
            parts = [part for k, v in items for part in (self.of(k, path), self.of(v, f"{path}[{k!r:.40}]"))]
            return hashed("mapping", kind, more, *parts)
        if isinstance(value, Set):
            return hashed("set", kind, more, *sorted(self.of(part, path) for part in value))
        if isinstance(value, Sequence) or type(value).__name__ == "deque":
            return hashed("sequence", kind, more, *(self.of(part, f"{path}[{i}]") for i, part in enumerate(value)))
        if type(value).__module__ in ("typing", "types", "_operator", "operator", "torch._ops", "numpy"):
            return hashed("named", kind, _without_addresses(repr(value), path))
        if _in_python(type(value)) and (hasattr(value, "__dict__") or _slots(type(value))):
            return hashed("object", kind, more or self._state(value, path))
        return self._reduced(value, path)

    def _reduced(self, value: Any, path: str) -> bytes:
        """An object that keeps its content out of sight, by what pickle would store of it."""
        try:
            stored = value.__reduce_ex__(2)
        except Exception:  # whatever its own __reduce__ raises
            raise _unreadable(value, path) from None
        if isinstance(stored, str):
            return hashed("global", stored.encode())
        parts = [list(part) if i in (3, 4) and part is not None else part for i, part in enumerate(stored)]
        return self._all("reduced", parts, path)

    def _all(self, kind: str, parts: list[Any], path: str) -> bytes:
        return hashed(kind, *(self.of(part, path) for part in parts))

    def _state(self, value: Any, path: str, skip: Set[str] = frozenset()) -> bytes:
        """Attributes by name, counters, cached properties and what modules keep for themselves left out."""
        kind: Any = type(value)
        written = _written(kind)
        names = dict(vars(value)) if hasattr(value, "__dict__") else {}
        names |= {name: getattr(value, name) for name in _slots(kind) if hasattr(value, name)}
        parts = []
        for name in sorted(names):
            cached = isinstance(getattr(kind, name, None), functools.cached_property)
            counter = name in COUNTERS or (name in written and type(names[name]) is int)
            if not (name in skip or name in KEPT or cached or counter):
                parts += [name.encode(), self._attribute(value, name, names[name], f"{path}.{name}")]
        return hashed("state", *parts)

    def _attribute(self, owner: Any, name: str, value: Any, path: str) -> bytes:
        if name == "inputs" and isinstance(value, dict):  # keyword arguments have no order
            if not self.inputs:
                return hashed("names of inputs", *(k.encode() for k in sorted(value)))
            value = dict(sorted(value.items()))
            return hashed(
                "inputs", *(part for k, v in value.items() for part in (k.encode(), self.of(v, f"{path}[{k!r}]")))
            )
        return self.of(value, path)

    def _module(self, module: torch.nn.Module, path: str) -> bytes:
        inner = getattr(module, "_orig_mod", None)  # torch.compile: the same function
        if isinstance(inner, torch.nn.Module):
            return self.of(inner, path)
        if isinstance(module, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
            return self.of(module.module, path)
        own = {"_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks"}
        parts = [self._kind(type(module), path), self._state(module, path, own)]
        for group in (module._parameters, module._buffers, module._modules):
            parts += [part for name, v in group.items() for part in (name.encode(), self.of(v, f"{path}.{name}"))]
        for hooks in (module._forward_pre_hooks, module._forward_hooks):  # they change answers; their keys only count
            parts += [self.of(hook, f"{path} (a hook)") for hook in hooks.values()]
        return hashed("nn", *parts)

    def _scripted(self, module: torch.jit.ScriptModule, path: str) -> bytes:
        parts = [f"{name}:{getattr(part, 'code', '')}".encode() for name, part in module.named_modules()]
        tensors = [*module.named_parameters(), *module.named_buffers()]
        parts += [part for name, v in tensors for part in (name.encode(), self.of(v, f"{path}.{name}"))]
        return hashed("script", *parts)

    def _kind(self, kind: type, path: str) -> bytes:
        return self.of(kind, f"the class of {path}")

    def _class(self, kind: type, path: str) -> bytes:
        name = f"{kind.__module__}.{kind.__qualname__}".encode()
        where = origin(kind.__module__)
        if where is not None and "<locals>" not in kind.__qualname__:
            return hashed("class", name, where.encode())
        parts = [self.of(base, path) for base in kind.__bases__]
        for key, value in kind.__dict__.items():
            if key not in CLASS_KEPT and key not in COUNTERS:
                parts += [key.encode(), self.of(value, f"{path}.{key}")]
        return hashed("class", kind.__qualname__.encode(), *parts)

    def _function(self, function: types.FunctionType, path: str) -> bytes:
        compiled = getattr(function, "_torchdynamo_orig_callable", None)
        if compiled is not None:
            return self.of(compiled, path)
        code = function.__code__
        cells = zip(code.co_freevars, function.__closure__ or ())
        closure = [
            part
            for name, cell in cells
            if not self._is_counter(name, content := _content(cell), code)
            for part in (name.encode(), self.of(content, f"{name} of {path}"))
        ]
        state = [
            part for k, v in sorted(vars(function).items()) if k not in COUNTERS for part in (k.encode(), self.of(v, path))
        ]
        where = origin(function.__module__)
        if where is not None:
            name = f"{function.__module__}.{function.__qualname__}:{where}"
            return hashed("function", name.encode(), *closure, *state)
        defaults = [self.of(function.__defaults__, f"a default of {path}"), self.of(function.__kwdefaults__, path)]
        return hashed("function", self.of(code, path), *defaults, *closure, *state, *self._globals(function, path))

    def _globals(self, function: types.FunctionType, path: str) -> list[bytes]:
        names, found = names_of(function.__code__), []
        for name in names.globals:
            value = function.__globals__.get(name, getattr(builtins, name, _Missing))
            if self._is_counter(name, value, function.__code__):
                continue
            found += [name.encode(), self.of(value, f"{name} of {path}")]
            if isinstance(value, types.ModuleType) and origin(value.__name__) is None:
                for attribute in sorted(names.attributes & vars(value).keys()):
                    found += [attribute.encode(), self.of(vars(value)[attribute], f"{name}.{attribute} of {path}")]
        return found

    def _is_counter(self, name: str, value: Any, code: types.CodeType) -> bool:
        return name in COUNTERS or (type(value) is int and name in names_of(code).stored)

    def _code(self, code: types.CodeType, path: str) -> bytes:
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        table = getattr(code, "co_exceptiontable", b"")
        return hashed("code", code.co_code, table, repr((counts, names)).encode(), self.of(code.co_consts, path))

    def _builtin(self, function: Any, path: str) -> bytes:
        name = f"{getattr(function, '__module__', None)}.{function.__qualname__}".encode()
        owner = getattr(function, "__self__", None)
        if owner is None or isinstance(owner, types.ModuleType):
            return hashed("builtin", name)
        return hashed("builtin", name, self.of(owner, path))

    def _array(self, array: np.ndarray, path: str) -> bytes:
        if array.dtype.hasobject:
            return hashed("array", str(array.shape).encode(), *(self.of(v, path) for v in array.ravel().tolist()))
        return hashed("array", f"{array.dtype.str}{array.shape}".encode(), np.ascontiguousarray(array).tobytes())


class _Missing:
    """A name that has no value (yet)."""


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _Missing


def _slots(kind: type) -> list[str]:
    named = [getattr(base, "__slots__", ()) for base in kind.__mro__ if "__slots__" in vars(base)]
    return [name for slots in named for name in ([slots] if isinstance(slots, str) else slots) if not name.startswith("__")]


def _in_python(kind: type) -> bool:
    """Whether a class and its bases are written in Python, so that their content is in attributes."""
    return not any(isinstance(vars(base).get("__new__"), types.BuiltinFunctionType) for base in kind.__mro__[:-1])


@functools.lru_cache(maxsize=256)
def _written(kind: type) -> frozenset[str]:
    """Names of attributes that a class's own call writes: integers among them count something."""
    calls: list[Callable[..., Any] | None] = [getattr(kind, name, None) for name in ("forward", "__call__")]
    codes = [call.__code__ for call in calls if isinstance(call, types.FunctionType)]
    return frozenset().union(*(names_of(code).stored for code in codes))


def _without_addresses(text: str, path: str) -> bytes:
    if re.search(r"0x[0-9a-f]{6,}", text):
        raise FingerprintError(f"{path} is {text:.80}, whose content cannot be read; the network has no fingerprint.")
    return text.encode()


def _unreadable(value: Any, path: str) -> FingerprintError:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return FingerprintError(
        f"{path} is a {kind}, whose content cannot be read: two networks that differ in it would look the same, so this "
        "one has no fingerprint. Keep such things out of the network: tensors, numbers, text, lists and mappings are read."
    )
