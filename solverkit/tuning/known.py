"""Plans that are known for a network: bundled with it, in the folder that it was opened from, or in the user's cache."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import FingerprintError, LoadError
from ..files import artefact
from ..files.cache import cache_folder
from ..model.fingerprint import try_fingerprint
from .plans import FILE, TunedPlans, load_plans


class Known(NamedTuple):
    """Plans of a file.

    Attributes:
        path: The file.
        plans: What it holds.
        own: They were fitted to this network with its inputs and guidance; else to another class, prompt or guidance of it.
    """

    path: Path
    plans: TunedPlans
    own: bool


def known_plan(denoiser: Any) -> Known | None:
    """The plans that were fitted to this very network, its inputs (class, prompt) and guidance; None where none are known.

    Looked for, in this order: in the user's cache ($SOLVERKIT_CACHE or ~/.cache/solverkit; `TunedPlans.remember` puts them
    there), in the folder that `sk.load` opened, among those that are bundled with a network.
    """
    return next((known for known in all_known(denoiser, try_fingerprint(denoiser)) if known.own), None)


def all_known(denoiser: Any, own: str | None) -> list[Known]:
    """As `known_plan`, and what lies beside the network but was fitted to another class, prompt or guidance.

    A file that cannot be read is left out with a warning; so are plans of another schedule, without.

    Args:
        denoiser: Of the run.
        own: Its fingerprint, where it has one.
    """
    found = []
    for path in _places(denoiser, own):
        try:
            plans = load_plans(path)
        except LoadError as error:
            warnings.warn(f"a plan that lies beside the network is left out: {error}", stacklevel=2)
            continue
        if plans.schedule == repr(denoiser.schedule):
            found.append(Known(path, plans, own is not None and plans.fingerprint == own))
    return found


def _places(denoiser: Any, own: str | None) -> Iterator[Path]:
    if own is not None and (cached := _cached(own)).is_file():
        yield cached
    yield from artefact.beside(getattr(denoiser, "source", None), FILE)


def _cached(key: str) -> Path:
    return cache_folder("plans") / f"{key}.safetensors"


def remember(plans: TunedPlans) -> Path:
    """Put plans into the user's cache, where `auto` finds them for the network that they were fitted to; returns the file.

    Budgets that were remembered before for the same network are kept; those of `plans` replace them.

    Raises:
        FingerprintError: the network has no fingerprint, so that nothing could find them.
        LoadError: the cache cannot be written.
    """
    if plans.fingerprint is None:
        raise FingerprintError(
            "these plans belong to a network without a fingerprint (it holds something that cannot be read), by which they "
            "could be found: save them to a file and name it, plan=FILE."
        )
    return keep(_cached(plans.fingerprint), plans)


def keep(path: Path, plans: TunedPlans) -> Path:
    """Write plans, with the other budgets of what is there; processes that do so at once wait for each other.

    Raises:
        LoadError: it cannot be written.
    """
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            _add(path, plans)
    except LoadError:
        raise
    except OSError as error:
        raise LoadError(f"the cache {path.parent} cannot be written: {error.strerror or error}.") from error
    return path


def _add(path: Path, plans: TunedPlans) -> None:
    try:
        old = load_plans(path) if path.is_file() else None
    except LoadError:  # torn, or of another version: it is replaced
        old = None
    if old is not None and (old.schedule, old.frame, old.start) == (plans.schedule, plans.frame, plans.start):
        plans = replace(plans, budgets={**old.budgets, **plans.budgets})
    plans.save(path)
