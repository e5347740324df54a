"""What a command asks of a run, as one digest of everything that the keys of its cells are made from.

It is read off files alone: the suite, every line of solverkit and its plugins, the files of the networks and of the data,
the versions and sources of other libraries. A run keeps the keys of each request, so that the same command on the same
files finds its rows without building a network or tracing a plan; where anything differs, it does both.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..files.network import NETWORKS
from ..registry.registry import Card, SamplerCard, registry
from ..registry.spelled import parse_options
from .metrics import DEFAULT
from .named import K_DIFFUSION, PEER, is_peer, split_sampler
from .suite import Cell, Suite

OWN = ("solverkit", "solverkit_plugins")
LIBRARIES = ("torch", "numpy", "diffusers", "transformers", "k-diffusion")
PEERS = {PEER: ("diffusers", "schedulers"), K_DIFFUSION: ("k_diffusion", "")}  # where their samplers are written


def request_digest(suite: Suite, cells: Sequence[Cell]) -> str | None:
    """64 hex digits; None where the cells depend on more than known files: objects, code of others, a hub, or what
    a sampler finds out of the network."""
    if suite.given:
        return None
    digest = hashlib.sha256(json.dumps(asdict(suite), sort_keys=True, default=str).encode())
    digest.update(f"{platform.python_version()} {[_version(name) for name in LIBRARIES]}".encode())
    cards = [*_samplers(cells), *_grids(cells), *(_card("metrics", name) for name in suite.metrics or DEFAULT)]
    folders = [_folder(name) for name in dict.fromkeys(cell.model.name for cell in cells)]
    data = [Path(entry.data) for entry in suite.models if entry.data is not None]
    if not all(map(_known, cards)) or None in folders or not all(path.is_file() for path in data):
        return None
    for package in OWN:
        _add(digest, _sources(package))
    for family, (package, room) in PEERS.items():
        if any(cell.sampler.startswith(family) for cell in cells):
            _add(digest, _sources(package, room))
    for folder in folders:
        _add(digest, sorted(p for p in Path(folder or "").rglob("*") if p.is_file()) if folder else ())
    _add(digest, data)
    return digest.hexdigest()


def _samplers(cells: Iterable[Cell]) -> Iterator[Card | None]:
    for name in dict.fromkeys(cell.sampler for cell in cells if not is_peer(cell.sampler)):
        card = _card("samplers", split_sampler(name)[0])
        yield card if isinstance(card, SamplerCard) and card.prepare is None else None


def _grids(cells: Iterable[Cell]) -> Iterator[Card | None]:
    for name in dict.fromkeys(cell.grid for cell in cells if cell.grid is not None):
        yield _card("grids", parse_options(name)[0])


def _card(kind: str, name: str) -> Card | None:
    return registry().cards[kind].get(name)


def _known(card: Card | None) -> bool:
    """Whether it is a part of solverkit, whose every line is read."""
    return card is not None and getattr(card.fn, "__module__", "").partition(".")[0] in OWN


def _folder(model: str) -> str | None:
    """Where the files of a model lie, "" for one that has none; None where nobody knows what it depends on."""
    card = _card("models", model)
    if card is not None:
        return None if not _known(card) else str(folder) if (folder := NETWORKS / model).is_dir() else ""
    return model if Path(model).is_dir() else None


def _sources(package: str, room: str = "") -> list[Path]:
    """Every file of Python of a package, which is not imported."""
    spec = find_spec(package)
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    return sorted(path for place in places for path in (Path(place) / room).rglob("*.py"))


def _add(digest: Any, files: Iterable[Path]) -> None:
    for path in files:
        digest.update(f"|{path.name} {path.stat().st_size}|".encode())
        digest.update(path.read_bytes())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
