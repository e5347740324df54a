"""A network as the command line names it: its class, its device and its precision, checked before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import DenoiserError, OptionError, UnknownNameError

DTYPES = ("float32", "float64", "bfloat16", "float16")
LOADED = ("labels", "device", "dtype")
DESCRIBING = ("model_index.json", "config.json")
WIDE = ("float32", "float64")  # of states, and of targets in closed form


def loader_options(
    model: str, label: int | None, device: str | None, dtype: str | None, guidance: float | None = None
) -> dict[str, Any]:
    """What `load` is told of a model.

    A target in closed form computes where its state is, so it takes no device or dtype of its own.

    Raises:
        UnknownNameError: no such dtype.
        OptionError: no such device here, no such folder, or something that the model does not have.
    """
    import torch

    if dtype is not None and dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, DTYPES)
    if device is not None:
        from ..model.placement import usable_device

        usable_device(device, "--device ")
    if label is not None and not has_option(model, "labels"):
        raise OptionError(f"--label {label}: {model!r} has no classes; leave it out.")
    if guidance is not None and not has_option(model, "guidance"):
        raise OptionError(f"--guidance {guidance:g}: {model!r} has no null class to guide away from; leave it out.")
    if dtype is not None and not has_option(model, "dtype") and dtype not in WIDE:
        raise OptionError(f"--dtype {dtype}: {model!r} is computed in closed form, in {' or '.join(WIDE)}.")
    _require_source(model)
    given: dict[str, Any] = {"labels": label, "device": device, "dtype": None if dtype is None else getattr(torch, dtype)}
    given["guidance"] = guidance
    return {name: value for name, value in given.items() if value is not None and has_option(model, name)}


def has_option(model: str, name: str) -> bool:
    """Whether a registered model has an option of its loader; folders and hub ids have all but guidance."""
    from ..registry.registry import registry

    card = registry().cards["models"].get(model)
    return name in (LOADED if card is None else card.options)


def open_network(
    model: str,
    label: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    guidance: float | None = None,
) -> Any:
    """The denoiser of a model.

    Args:
        model: A registered name, a folder or a hub id.
        label: Class of a conditional network.
        device, dtype: Of the network.
        guidance: Weight of classifier-free guidance.

    Raises:
        LoadError: it cannot be loaded.
        UnknownNameError, OptionError: bad usage, as of `loader_options`; a label that the network does not have.
    """
    options = loader_options(model, label, device, dtype, guidance)
    from ..files.hub import load

    try:
        return load(model, **options)
    except DenoiserError as error:
        if label is None:
            raise
        raise OptionError(f"--label {label}: {error}") from None


def state_dtype(dtype: str | None) -> Any:
    """The precision of states and data: float32, or float64 where the network has it."""
    import torch

    return torch.float64 if dtype == "float64" else torch.float32


def _require_source(model: str) -> None:
    """Raises OptionError for a path that is no folder; names and hub ids are looked up by `load`."""
    from ..registry.registry import registry

    path = Path(model)
    if model in registry().cards["models"]:
        return
    if path.is_dir():
        if not any((path / name).exists() for name in DESCRIBING):
            raise OptionError(f"the folder {model!r} holds no model: expected {' or '.join(DESCRIBING)} in it.")
        return
    if path.exists():
        raise OptionError(f"{model!r} is a file; expected the name of a model, a diffusers folder or a hub id.")
    if model[:1] in "./~" or model.count("/") > 1:
        raise OptionError(f"no folder {model!r}: expected the name of a model, a diffusers folder or a hub id (org/name).")
