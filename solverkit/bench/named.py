"""Names of a suite that lead to code: samplers with options, peers, and functions of a file (path.py:function)."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import foreign
from ..errors import LoadError, OptionError, nearest
from ..registry.registry import DecoderCard, SamplerCard, resolve
from ..registry.spelled import FIRST, parse_options, with_names

PEER, K_DIFFUSION = foreign.DIFFUSERS, foreign.K_DIFFUSION
IN_FILE = re.compile(r"(?P<path>.+\.py):(?P<name>[A-Za-z_]\w*)(?::(?P<options>.*))?")


def split_sampler(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the options of "unipc:order=2", "diffusers:Class:key=value" or "path.py:function:option=value"."""
    if found := IN_FILE.fullmatch(text):
        return f"{found['path']}:{found['name']}", parse_options(f":{found['options'] or ''}")[1]
    for family in (PEER, K_DIFFUSION):
        if text.startswith(family):
            name, options = parse_options(text[len(family) :])
            return family + name, options
    return parse_options(text)


def with_own_options(text: str, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """As `split_sampler`; a value without a name has that of the sampler's first option.

    Raises:
        UnknownNameError, OptionError, LoadError: as `find_sampler`, where there is such a value.
    """
    name, options = split_sampler(text)
    if FIRST not in options or is_peer(name):
        return name, options
    return name, with_names(name, options, find_sampler(name, given).options)


def is_peer(sampler: str) -> bool:
    """Whether another library's sampler is named."""
    return foreign.is_foreign(sampler)


def find_sampler(name: str, given: Mapping[str, Any]) -> SamplerCard:
    """The card of a sampler that is registered, given as an object (a decoder too), or stands in a file.

    Raises:
        UnknownNameError: no such sampler.
        OptionError: no such function in the file, or none that can be a sampler.
        LoadError: the file cannot be read or run.
    """
    if name in given:
        card = given[name]
        return card if isinstance(card, DecoderCard) else resolve(card)  # type: ignore[return-value]
    return resolve(function_in_file(name) if IN_FILE.fullmatch(name) else name)


def function_in_file(name: str) -> Any:
    """The function behind path.py:function. The file is run, as an import would.

    Raises:
        OptionError: there is no such function in it.
        LoadError: it cannot be read, or fails.
    """
    found = IN_FILE.fullmatch(name)
    if found is None:
        raise OptionError(f"expected path.py:function, got {name!r}.")
    path = Path(found["path"])
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LoadError(f"cannot read {path}: {error.strerror or error}.") from None
    module = _module(path.resolve(), hashlib.sha256(content).hexdigest()[:16])
    function = getattr(module, found["name"], None)
    if not callable(function):
        own = module.__name__
        held = [n for n, value in vars(module).items() if callable(value) and getattr(value, "__module__", "") == own]
        raise OptionError(
            f"{path} has no function {found['name']!r}.{nearest(found['name'], held)} It has: {', '.join(held) or 'none'}."
        )
    return function


@functools.lru_cache(maxsize=64)
def _module(path: Path, digest: str) -> Any:
    """The module of a file, run once for each content."""
    spec = importlib.util.spec_from_file_location(f"{path.stem}_{digest}", path)
    if spec is None or spec.loader is None:
        raise LoadError(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses and pickling look there
    sys.path.insert(0, str(path.parent))  # it may import its neighbours
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module.__name__]
        raise LoadError(f"{path} fails when it is imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module
