"""A denoiser from a diffusers network and the config of its scheduler: from a folder, or from a pipeline in memory."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import LoadError, OptionError, ScheduleError
from ..model.denoiser import Denoiser, wrap
from ..process.schedule import Schedule
from ..process.variance_preserving import DiscreteVP
from .diffusers_config import from_config
from .diffusers_network import WRAP_IT, build, check_inputs, check_labels, load_weights, sample_shape
from .named_time import told_by_position
from .regular_file import read_json

NETWORKS = Path(__file__).parent.parent / "networks"
COMPONENTS = ("unet", "transformer")
OPTIONS = (
    "subfolder", "prediction", "schedule", "revision", "token", "device", "dtype", "integer_time", "labels", "shape",
)  # fmt: skip  # of `load`: what a misspelt input may have meant


def said_from(source: str, denoiser: Denoiser) -> Denoiser:
    """The denoiser, saying where its network is from: statistics that are kept beside it are found by that."""
    vars(denoiser)["source"] = source
    return denoiser


def open_folder(
    folder: Path, prediction: str | None, schedule: Schedule | None, device: torch.device | str | None,
    dtype: torch.dtype | None, integer_time: bool | None, labels: int | torch.Tensor | None, inputs: Mapping[str, Any],
) -> Denoiser:  # fmt: skip
    model, scheduler = _parts(folder)
    if (schedule is None or prediction is None) and scheduler is None:
        raise LoadError(
            f"{folder} has no scheduler/scheduler_config.json, so what the network was trained on is unknown: pass "
            "both schedule= and prediction=, e.g. schedule=sk.VP(), prediction='epsilon'."
        )
    read = (lambda: read_json(scheduler)) if scheduler is not None else dict
    schedule, prediction = _trained_on(read, schedule, prediction, integer_time)
    config = read_json(model / "config.json")
    is_ours = NETWORKS.resolve() in model.resolve().parents
    net = build(config, model)
    fixed = _inputs(net, config, labels, inputs, is_ours)  # refused before the weights are read
    net.load_state_dict(load_weights(model, net))
    try:
        if device is not None:
            net.to(device)
        if dtype is not None and not getattr(net, "_keep_in_fp32_modules", None):
            torch.nn.Module.to(net, dtype)  # diffusers' own warns of modules to keep in float32 even where there are none
        elif dtype is not None:
            net.to(dtype)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise LoadError(f"the network cannot be moved to device={device!r}, dtype={dtype!r}: {error}") from error
    asked = net if prediction == "autoencoder" else told_by_position(net)
    return said_from(os.fspath(folder), wrap(asked, prediction, schedule, **_on(net.device, fixed)))


def is_pipeline(source: object) -> bool:
    """Whether it looks like a pipeline of diffusers; by its parts, so that diffusers need not be imported to know."""
    return not isinstance(source, (str, os.PathLike, torch.nn.Module)) and hasattr(source, "scheduler")


def refuse_moves(source: object, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if value is not None:
            moved = name in ("device", "dtype")
            advice = f"move it yourself: pipe.to({value!r})" if moved else "it is for folders and hub ids"
            raise OptionError(f"{name}= cannot be given with a pipeline ({type(source).__name__}): {advice}.")


def open_pipeline(
    pipeline: Any, prediction: str | None, schedule: Schedule | None, integer_time: bool | None,
    labels: int | torch.Tensor | None, inputs: Mapping[str, Any],
) -> Denoiser:  # fmt: skip
    """The denoiser of a pipeline's network, which is shared with the pipeline and neither moved nor copied."""
    parts = (getattr(pipeline, name, None) for name in COMPONENTS)
    net: Any = next((part for part in parts if isinstance(part, torch.nn.Module) and hasattr(part, "config")), None)
    if net is None:
        raise LoadError(f"the {type(pipeline).__name__} has neither a unet nor a transformer. {WRAP_IT}")
    config = getattr(pipeline.scheduler, "config", {})
    schedule, prediction = _trained_on(lambda: dict(config), schedule, prediction, integer_time)
    described = {"_class_name": type(net).__name__, **net.config}  # only networks that were loaded have it in their config
    fixed = _inputs(net, described, labels, inputs, is_ours=False)
    return wrap(told_by_position(net), prediction, schedule, **_on(net.device, fixed))


def _trained_on(
    read: Callable[[], Mapping[str, Any]], schedule: Schedule | None, prediction: str | None, integer_time: bool | None
) -> tuple[Schedule, str]:
    """Schedule and prediction: what was given, else what the scheduler's config says (`read` only where it is needed)."""
    if schedule is None or prediction is None:
        found_schedule, found_prediction = from_config(read())
        schedule = found_schedule if schedule is None else schedule
        prediction = found_prediction if prediction is None else prediction
    if integer_time is not None:
        if not isinstance(schedule, DiscreteVP):
            raise ScheduleError(f"integer_time= is for discrete VP (sk.VP()), and this network is on {schedule}; omit it.")
        schedule = replace(schedule, integer_time=integer_time)
    return schedule, prediction


def _inputs(net: Any, config: Mapping[str, Any], labels: Any, inputs: Mapping[str, Any], is_ours: bool) -> dict[str, Any]:
    """What `wrap` is given beside the network: the shape of a sample, the labels, and inputs that the network takes."""
    fixed = {"shape": sample_shape(config), **inputs}
    checked = check_labels(config, labels, fixed.pop("class_labels", None), is_ours)
    of_wrap = inspect.signature(wrap).parameters  # shape=, sigma=
    check_inputs(net, {name: value for name, value in fixed.items() if name not in of_wrap}, OPTIONS)
    return fixed if checked is None else {**fixed, "class_labels": checked}


def _on(device: torch.device, fixed: Mapping[str, Any]) -> dict[str, Any]:
    labels = fixed.get("class_labels")
    return {**fixed, "class_labels": labels.to(device)} if isinstance(labels, torch.Tensor) else dict(fixed)


def _parts(folder: Path) -> tuple[Path, Path | None]:
    """The folder of the network and the config of its scheduler, where there is one."""
    if (folder / "model_index.json").is_file():
        index = read_json(folder / "model_index.json")
        names = [name for name in COMPONENTS if index.get(name) and (folder / name).is_dir()]
        if not names:
            others = [name for name in index if not name.startswith("_")]
            raise LoadError(f"the pipeline {folder} has neither a unet nor a transformer folder, only {others}. {WRAP_IT}")
        model, scheduler = folder / names[0], folder / "scheduler" / "scheduler_config.json"
    elif (folder / "config.json").is_file():
        model, scheduler = folder, folder.parent / "scheduler" / "scheduler_config.json"
    else:
        entries = sorted(entry.name for entry in folder.iterdir())[:8]
        raise LoadError(
            f"{folder} holds neither model_index.json (a diffusers pipeline) nor config.json (a diffusers network), but "
            f"{entries}. Give the right folder, or subfolder=."
        )
    return model, scheduler if scheduler.is_file() else None
