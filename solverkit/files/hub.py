"""Load and save networks: registered models, diffusers folders, hub ids; and pipelines that are in memory already.

Nothing that is loaded is executed: a network is built by diffusers from its config, and weights are read as safetensors or
by torch's weights-only unpickler. Networks that need code of their own are built by the caller and go through `sk.wrap`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import LoadError, OptionError, UnknownNameError
from ..model.denoiser import Denoiser, DenoiserLike
from ..model.guidance.classifier_free import classifier_free
from ..model.placement import usable_device
from ..process.schedule import Schedule
from ..registry.registry import registry
from .diffusers_export import to_config
from .diffusers_network import WEIGHTS, classes
from .joint_folder import is_joint_folder, open_joint
from .named_time import NamedTime
from .network import COMPONENTS, NETWORKS, is_pipeline, open_folder, open_pipeline, refuse_moves, said_from
from .token_folder import is_token_folder, open_tokens

# of other parts, which they look for beside a network: fitted plans, and the mean and covariance of the data
BESIDE = ("plan.safetensors", "gaussian_stats.safetensors")

# what people of other libraries say to a loader, and where it is said here
ELSEWHERE = {
    "generator": "draws are keyed by a seed, which is the run's: sk.sample(denoiser, ..., seed=0)",
    "seed": "the seed is the run's: sk.sample(denoiser, ..., seed=0)",
    "num_inference_steps": "the budget is the run's: sk.sample(denoiser, ..., nfe=20), or steps=20",
    **dict.fromkeys(("nfe", "steps"), "the budget is the run's: sk.sample(denoiser, ..., nfe=20), or steps=20"),
    **dict.fromkeys(("num_samples", "batch_size", "x"), "samples are the run's: sk.sample(denoiser, ..., num_samples=16)"),
    **dict.fromkeys(("sampler", "grid", "levels"), "it is the run's: sk.sample(denoiser, 'unipc', nfe=20, grid='karras')"),
    "guidance_scale": "guidance is a denoiser around denoisers: solverkit.guidance.classifier_free(conditional, "
    "unconditional, scale); bundled networks take guidance= together with labels=",
    "torch_dtype": "the precision is called dtype=",
    "device_map": "the device is called device=",
}  # fmt: skip


def load(
    source: str | os.PathLike[str] | object,
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
    """A denoiser from a registered model, a diffusers folder, the hub, or a pipeline that is in memory.

    Args:
        source: A name of `sk.models()` ("mnist"); a folder with model_index.json (a pipeline: its unet or transformer and
            its scheduler) or with config.json (one network, whose scheduler may stand beside it in ../scheduler); a hub
            id "org/name" of such a folder; or a diffusers pipeline, whose unet or transformer is used where it is and as
            its scheduler's config says. Write "./name" for a folder that is called like a model.
        subfolder: Folder inside the source.
        prediction, schedule: As for `sk.wrap`; default: what the scheduler's config says. A registered model takes those of
            its own options, here and in the following, that it has.
        revision, token: Of a hub id.
        device, dtype: Where the network runs and in what precision; default: CPU and the class's float32.
        integer_time: The network knows only integer timesteps (discrete VP).
        labels: Of a class-conditional network: one int, or (B,) integers. Bundled networks default to the null class.
        fixed_kwargs: As in `sk.wrap`: shape=, and what is passed to every call of the network (embeddings, masks).

    Returns:
        A denoiser. One of a registered network or a folder says in `source` which (the name, or the folder's path).

    Raises:
        UnknownNameError: neither a registered model nor a folder nor of the form org/name; names the nearest.
        LoadError: files that are missing, corrupt, unsafe (a pickle before torch 2.6 among them), no regular files, or of a
            class that diffusers does not have.
        ScheduleError: a scheduler config that cannot be honoured.
        DenoiserError: labels or inputs that the network does not have, or no labels where it needs them.
        OptionError: an option that the registered model does not have or that belongs to the run, or a device that is not
            there. Nothing was loaded then.
    """
    for name in fixed_kwargs:
        if name in ELSEWHERE:
            raise OptionError(f"sk.load takes no {name}=: {ELSEWHERE[name]}.")
    if device is not None:
        usable_device(device)
    given = {
        "subfolder": subfolder, "prediction": prediction, "schedule": schedule, "revision": revision, "token": token,
        "device": device, "dtype": dtype, "integer_time": integer_time, "labels": labels,
    }  # fmt: skip
    models = registry().cards["models"]
    if isinstance(source, str) and source in models:
        card = models[source]
        options = {**{name: value for name, value in given.items() if value is not None}, **fixed_kwargs}
        denoiser: DenoiserLike = card.fn(**card.check(options))
        as_bundled = getattr(denoiser, "source", None) is None and not set(options) - {"schedule"}
        return said_from(source, denoiser) if as_bundled else denoiser  # type: ignore[arg-type]
    if is_pipeline(source):
        refuse_moves(source, {name: given[name] for name in ("subfolder", "revision", "token", "device", "dtype")})
        return open_pipeline(source, prediction, schedule, integer_time, labels, fixed_kwargs)
    folder = _find(source, models, subfolder, revision, token)
    if is_token_folder(folder):
        return said_from(os.fspath(folder), open_tokens(folder, device, dtype, **fixed_kwargs))  # type: ignore[arg-type,return-value]
    if is_joint_folder(folder):
        return said_from(os.fspath(folder), open_joint(folder, device=device, dtype=dtype, **fixed_kwargs))  # type: ignore[arg-type,return-value]
    return open_folder(folder, prediction, schedule, device, dtype, integer_time, labels, fixed_kwargs)


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
    if guidance != 1.0 and labels is None:
        raise OptionError(f"guidance={guidance!r} needs labels= to guide towards, e.g. labels=3.")
    conditional = said_from(name, open_folder(folder, None, None, device, dtype, None, labels, {}))
    if guidance == 1.0:
        return conditional
    net: Any = conditional.net
    unconditional = said_from(name, conditional.with_inputs(class_labels=classes(net.config) - 1))
    return classifier_free(conditional, unconditional, guidance)


def _find(
    source: str | os.PathLike[str] | object,
    models: Mapping[str, Any],
    subfolder: str | None,
    revision: str | None,
    token: str | None,
) -> Path:
    if not isinstance(source, (str, os.PathLike)) or not os.fspath(source):
        wrap = ""
        if isinstance(source, torch.nn.Module) or callable(source):
            wrap = " A network goes through sk.wrap(net, prediction, schedule)."
        raise LoadError(
            f"load needs the name of a model, a folder, a hub id or a diffusers pipeline, got {_described(source)}.{wrap}"
        )
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
    configs += [f"{base}{name}" for name in BESIDE]
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


def _described(source: object) -> str:
    return repr(source) if isinstance(source, (str, bytes, int, float, type(None))) else f"a {type(source).__name__}"


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
    net = net.net if isinstance(net, NamedTime) else net
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
