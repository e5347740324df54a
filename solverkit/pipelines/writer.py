"""Which class of diffusers wrote a config that does not say so."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from ..errors import ScheduleError
from ..files.diffusers_config import class_defaults
from .convention import Convention
from .peers import of_student, peer_named


def native_class(config: Mapping[str, Any], keys: Mapping[str, Any], sampler: str) -> str:
    """The class that a config came from: what it says, or the class whose keys it has.

    A scheduler that was never saved has no `_class_name` in its config, but all keys of its class. A part of a config is
    read as the sampler's own class would read it, which is what `UniPCMultistepScheduler.from_config(part)` does.

    Args:
        config: As it was given.
        keys: The same without own keys, and with what the user overrides.
        sampler: The sampler that will run.

    Raises:
        ScheduleError: no class of diffusers has these keys, or the one that has them cannot be run.
    """
    if (name := config.get("_class_name")) and name != "SolverKitScheduler":
        return str(name)
    whole = "_use_default_values" in config  # a class noted what nobody chose
    found, reason = _all_keys({key for key in keys if not key.startswith("_")}, 1 if whole else 4), ""
    if found[:2] == ["LCMScheduler", "TCDScheduler"]:
        raise ScheduleError(
            "this config has the keys of LCMScheduler and of TCDScheduler, and they do different things: say which one "
            "wrote it, native_class='LCMScheduler' or native_class='TCDScheduler'."
        )
    for name in found:
        try:
            Convention.read(keys, name)
        except ScheduleError as error:
            reason = reason or str(error)
            continue
        return name
    if reason:
        raise ScheduleError(f"this config has the keys of {found[0]}, and it cannot be run: {reason}")
    own = peer_named(sampler)
    classes = {"vp": "DDIMScheduler", "flow": "FlowMatchEulerDiscreteScheduler", "edm": "EDMEulerScheduler"}
    kind = _kind(keys)
    name = (own.classes.get(kind) if own is not None else None) or classes[kind]
    known = {key for c in _classes() for key in class_defaults(c) or ()}
    strange = sorted(key for key in keys if key in config and key not in known and not key.startswith("_"))
    if strange:
        raise ScheduleError(
            f"cannot tell which scheduler wrote a config with the key {strange[0]!r} (its keys: {sorted(keys)[:8]}): it "
            "has no '_class_name', and no class of diffusers has that key. Pass scheduler.config, or name the class: "
            "native_class='DDIMScheduler' or so."
        )
    return name


def _kind(keys: Mapping[str, Any]) -> str:
    """The family of process that the keys of a part of a config belong to."""
    betas = any(keys.get(key) is not None for key in ("beta_schedule", "trained_betas", "beta_start", "beta_end"))
    flow = keys.get("use_flow_sigmas") or keys.get("prediction_type") == "flow_prediction"
    if flow or (not betas and any(keys.get(key) is not None for key in ("shift", "base_shift", "use_dynamic_shifting"))):
        return "flow"
    return "edm" if not betas and keys.get("sigma_data") is not None else "vp"


def _classes() -> list[str]:
    import diffusers

    return [
        name for name in dir(diffusers)
        if name.endswith("Scheduler") and "Flax" not in name and inspect.isclass(getattr(diffusers, name, None))
    ]  # fmt: skip


def _all_keys(keys: set[str], fewest: int) -> list[str]:
    """The classes that have the most of their keys among these, all of which are there.

    Of a part of a config a class with less than `fewest` keys says nothing: "shift" is all that some have.
    """
    sizes: dict[str, int] = {}
    for name in _classes():
        known = set(class_defaults(name) or ())
        if len(known) >= fewest and known <= keys:
            sizes[name] = len(known)
    best = [name for name, size in sizes.items() if size == max(sizes.values())]
    return sorted(
        best, key=lambda n: ("Inverse" in n, of_student(n) is not None, "Parallel" in n, "Ancestral" in n, "DPMS" in n, n)
    )
