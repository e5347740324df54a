"""Load and save networks: registered models, diffusers folders, hub ids.

Nothing that is loaded is executed: a network is built by diffusers from its config, and weights are read as safetensors or
by torch's weights-only unpickler. Networks that need code of their own are built by the caller and go through `sk.wrap`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import LoadError, OptionError, ScheduleError, UnknownNameError
from ..model.denoiser import Denoiser, DenoiserLike, wrap
from ..model.guidance.classifier_free import classifier_free
from ..process.schedule import Schedule
from ..process.variance_preserving import DiscreteVP
from ..registry.registry import registry
from .diffusers_config import from_config
from .diffusers_export import to_config
from .diffusers_network import WEIGHTS, WRAP_IT, build, check_labels, classes, load_weights, read_json, sample_shape

NETWORKS = Path(__file__).parent.parent / "networks"
COMPONENTS = ("unet", "transformer")


def load(
    source: str | os.PathLike[str],
    *,
    subfolder: str | None = None,
    prediction: str | None = None,
    schedule: Schedule | None = None,
    revision: str | None = None,
    token: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    integer_time: bool | None = None,
    labels: int | torch.Tensor | None = None,
    **fixed_kwargs: Any,
) -> DenoiserLike:
    """A denoiser from a registered model, a diffusers folder or the hub.

    Args:
        source: A name of `sk.models()` ("mnist"); a folder with model_index.json (a pipeline: its unet or transformer and
            its scheduler) or with config.json (one network, whose scheduler may stand beside it in ../scheduler); or a hub
            id "org/name" of such a folder. Write "./name" for a folder that is called like a model.
        subfolder: Folder inside the source.
        prediction, schedule: As for `sk.wrap`; default: what the scheduler's config says. A registered model takes those of
            its own options, here and in the following, that it has.
        revision, token: Of a hub id.
        device, dtype: Where the network runs and in what precision; default: CPU and the class's float32.
        integer_time: The network knows only integer timesteps (discrete VP).
        labels: Of a class-conditional network: one int, or (B,) integers. Bundled networks default to the null class.
        fixed_kwargs: As in `sk.wrap`: shape=, and what is passed to every call of the network (embeddings, masks).

    Raises:
        UnknownNameError: neither a registered model nor a folder nor of the form org/name; names the nearest.
        LoadError: files that are missing, corrupt, unsafe, or of a class that diffusers does not have.
        ScheduleError: a scheduler config that cannot be honoured.
        DenoiserError: labels that the network does not have, or none where it needs them.
        OptionError: an option that the registered model does not have.
    """
    given = {
        "subfolder": subfolder, "prediction": prediction, "schedule": schedule, "revision": revision, "token": token,
        "device": device, "dtype": dtype, "integer_time": integer_time, "labels": labels,
    }  # fmt: skip
    models = registry().cards["models"]
    if isinstance(source, str) and source in models:
        card = models[source]
        options = {**{name: value for name, value in given.items() if value is not None}, **fixed_kwargs}
        return card.fn(**card.check(options))
    folder = _find(source, models, subfolder, revision, token)
    return _open_folder(folder, prediction, schedule, device, dtype, integer_time, labels, fixed_kwargs)


def bundled(
    name: str,
    labels: int | torch.Tensor | None = None,
    guidance: float = 1.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> DenoiserLike:
    """A network of `solverkit/networks`; with guidance != 1, classifier-free between `labels` and the null class.

    Raises:
        OptionError: guidance without labels.
        LoadError: the network is not part of this installation.
    """
    folder = NETWORKS / name
    if not folder.is_dir():
        raise LoadError(f"the bundled network {name!r} is not part of this installation ({folder}); reinstall solverkit.")
    conditional = _open_folder(folder, None, None, device, dtype, None, labels, {})
    if guidance == 1.0:
        return conditional
    if labels is None:
        raise OptionError(f"guidance={guidance!r} needs labels= to guide towards, e.g. labels=3.")
    net: Any = conditional.net
    return classifier_free(conditional, conditional.with_inputs(class_labels=classes(net.config) - 1), guidance)


def _find(
    source: str | os.PathLike[str],
    models: Mapping[str, Any],
    subfolder: str | None,
    revision: str | None,
    token: str | None,
) -> Path:
    if not isinstance(source, (str, os.PathLike)) or not os.fspath(source):
        raise LoadError(f"load needs the name of a model, a folder or a hub id, got {source!r}.")
    path = Path(source)
    if path.is_dir() and revision is not None:
        raise OptionError(f"revision={revision!r} is for hub ids, and {os.fspath(source)!r} is a local folder; omit it.")
    if not path.is_dir():
        text = os.fspath(source)
        if isinstance(source, str) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text) and not path.exists():
            path = _download(text, subfolder, revision, token)
        elif isinstance(source, str) and os.sep not in text and not path.exists():
            raise UnknownNameError("model, folder or hub id (org/name)", text, models)
        else:
            raise LoadError(f"no folder {text!r}: expected a diffusers folder (model_index.json or config.json).")
    if subfolder is not None:
        path = path / subfolder
        if not path.is_dir():
            raise LoadError(f"{os.fspath(source)!r} has no subfolder {subfolder!r}.")
    return path


def _download(repo: str, subfolder: str | None, revision: str | None, token: str | None) -> Path:
    """The configs and weights of a hub repository; .bin only where it has no safetensors."""
    from huggingface_hub import snapshot_download

    base = "" if subfolder is None else subfolder.strip("/") + "/"
    above = base[: base.rstrip("/").rfind("/") + 1]  # a network's scheduler stands beside its folder
    folders = [base, *(f"{base}{component}/" for component in COMPONENTS)]
    names = ["model_index.json", "config.json", *(name for name in WEIGHTS if name.endswith(".json"))]
    configs = [f"{folder}{name}" for folder in folders for name in names]
    configs += [f"{folder}scheduler/scheduler_config.json" for folder in (base, above)]
    try:
        for suffix in ("safetensors", "bin"):
            weights = [f"{folder}diffusion_pytorch_model{part}.{suffix}" for folder in folders for part in ("", "-*-of-*")]
            path = Path(snapshot_download(repo, revision=revision, token=token, allow_patterns=configs + weights))
            if any(list(path.glob(pattern)) for pattern in weights):
                break
    except Exception as error:  # offline, gated, misspelt: the hub's own words say which
        raise LoadError(
            f"cannot download {repo!r} from the hub: {type(error).__name__}: {error} Check the name, the connection and "
            "token=, or give the path of a local folder."
        ) from error
    return path


def _open_folder(
    folder: Path, prediction: str | None, schedule: Schedule | None, device: torch.device | str | None,
    dtype: torch.dtype | None, integer_time: bool | None, labels: int | torch.Tensor | None, inputs: Mapping[str, Any],
) -> Denoiser:  # fmt: skip
    model, scheduler = _parts(folder)
    if schedule is None or prediction is None:
        if scheduler is None:
            raise LoadError(
                f"{folder} has no scheduler/scheduler_config.json, so what the network was trained on is unknown: pass "
                "both schedule= and prediction=, e.g. schedule=sk.VP(), prediction='epsilon'."
            )
        found_schedule, found_prediction = from_config(read_json(scheduler))
        schedule = found_schedule if schedule is None else schedule
        prediction = found_prediction if prediction is None else prediction
    if integer_time is not None:
        if not isinstance(schedule, DiscreteVP):
            raise ScheduleError(f"integer_time= is for discrete VP (sk.VP()), and this network is on {schedule}; omit it.")
        schedule = replace(schedule, integer_time=integer_time)
    config = read_json(model / "config.json")
    is_ours = NETWORKS.resolve() in model.resolve().parents
    net = build(config, model)
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
    kwargs = {"shape": sample_shape(config), **inputs}
    checked = check_labels(config, labels, kwargs.pop("class_labels", None), is_ours)
    if checked is not None:
        kwargs["class_labels"] = checked.to(net.device) if isinstance(checked, torch.Tensor) else checked
    return wrap(net, prediction, schedule, **kwargs)


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


def save(denoiser: DenoiserLike, folder: str | os.PathLike[str]) -> Path:
    """Write a diffusers pipeline folder that `load` and diffusers open again: model_index.json, unet or transformer,
    scheduler.

    The scheduler is left out where diffusers has none that says the same (`load` then needs schedule= and prediction=).
    Fixed inputs (labels, embeddings) are not saved.

    Raises:
        LoadError: the denoiser does not wrap a diffusers network, or the folder cannot be written.
    """
    import diffusers

    net: Any = getattr(denoiser, "net", None)
    if not (isinstance(denoiser, Denoiser) and issubclass(type(net), diffusers.ModelMixin)):
        inside = type(denoiser).__name__ if net is None else f"a denoiser of {type(net).__name__}"
        raise LoadError(
            f"save writes diffusers networks (UNet2DModel and the like), got {inside}. Save a guided denoiser's own "
            "network; for other networks use safetensors.torch.save_file(net.state_dict(), path)."
        )
    path, name = Path(folder), type(net).__name__
    component = "unet" if "UNet" in name else "transformer"
    scheduler = to_config(denoiser.schedule, denoiser.prediction)
    index: dict[str, Any] = {"_class_name": "DDPMPipeline" if name == "UNet2DModel" and scheduler else "DiffusionPipeline"}
    index["_diffusers_version"] = diffusers.__version__
    index[component] = ["diffusers", name]
    try:
        path.mkdir(parents=True, exist_ok=True)
        net.save_pretrained(path / component, safe_serialization=True)
        if scheduler is not None:
            index["scheduler"] = ["diffusers", scheduler["_class_name"]]
            (path / "scheduler").mkdir(exist_ok=True)
            _write_json(path / "scheduler" / "scheduler_config.json", scheduler)
        _write_json(path / "model_index.json", index)
    except OSError as error:
        raise LoadError(f"cannot write {path}: {error}") from error
    return path


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
