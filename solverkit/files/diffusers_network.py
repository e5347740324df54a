"""One diffusers network from its folder: built from config.json, its weights read without executing anything.

Weights come from safetensors or torch's weights-only unpickler (of a torch whose unpickler can be trusted) and must fit the
network that the config describes.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.torch_version import TorchVersion

from ..errors import DenoiserError, LoadError, OptionError, nearest
from .regular_file import read_json, require_file

STEM = "diffusion_pytorch_model"
WEIGHTS = (f"{STEM}.safetensors", f"{STEM}.safetensors.index.json", f"{STEM}.bin", f"{STEM}.bin.index.json")
AGAIN = "Download or save the network again."
WRAP_IT = "Build the network yourself and pass it to sk.wrap(net, prediction, schedule)."
SAFE_UNPICKLER = "2.6"  # before it, torch.load(weights_only=True) can be made to run code: CVE-2025-32434


def build(config: Mapping[str, Any], folder: Path) -> Any:
    """The network that a config describes, with random weights."""
    import diffusers

    name = config.get("_class_name")
    kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(kind, type) and issubclass(kind, diffusers.ModelMixin)):
        raise LoadError(f"{folder / 'config.json'} names the class {name!r}, which is no network of diffusers. {WRAP_IT}")
    try:
        return kind.from_config(dict(config))  # type: ignore[attr-defined]
    except Exception as error:
        raise LoadError(f"{name} cannot be built from {folder / 'config.json'}: {error}") from error


def load_weights(folder: Path, net: Any) -> dict[str, torch.Tensor]:
    """The state dict of `net` from a folder; safetensors are preferred to .bin.

    Raises:
        LoadError: no weights file, a corrupt one, one that holds more than tensors, or one that does not fit the network.
    """
    path = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if path is None:
        raise LoadError(f"{folder} has no weights: expected one of {', '.join(WEIGHTS)}. {AGAIN}")
    state: dict[str, torch.Tensor] = {}
    for file in _shards(path):
        state.update(read_weights(file))
    convert = getattr(net, "_fix_state_dict_keys_on_load", None)
    if convert is not None:  # attention blocks of old checkpoints had other names
        convert(state)
    _require_fit(path, state, net)
    return {name: state[name] for name in net.state_dict()}


def _shards(path: Path) -> list[Path]:
    if path.suffix != ".json":
        return [path]
    try:
        names = sorted(set(read_json(path)["weight_map"].values()))
    except (KeyError, TypeError, AttributeError) as error:
        raise LoadError(f"{path} is no index of weights files: {error!r}. {AGAIN}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or Path(name).suffix not in (".safetensors", ".bin"):
            raise LoadError(f"{path} names the weights file {name!r}; expected a .safetensors or .bin file beside it.")
        if not (path.parent / name).exists():
            raise LoadError(f"{path.parent} lacks {name}, one of {len(names)} weights files. {AGAIN}")
    return [path.parent / name for name in names]


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of one weights file.

    Raises:
        LoadError: a file that is no regular one, corrupt, or holds more than tensors.
    """
    require_file(path)
    if path.suffix != ".safetensors" and TorchVersion(torch.__version__) < SAFE_UNPICKLER:
        raise LoadError(
            f"{path} is a pickle, and torch {torch.__version__} can be made to run code by one (CVE-2025-32434). Upgrade "
            f"to torch {SAFE_UNPICKLER} or later, or have the weights as safetensors."
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors and pickle raise a dozen types for files that are not theirs
        reason = str(error).strip().split("\n")[0]
        raise LoadError(
            f"{path} cannot be read: it is corrupt, or holds something other than tensors, which is never unpickled "
            f"({type(error).__name__}: {reason[:200]}). {AGAIN} Prefer safetensors."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise LoadError(f"{path} holds no state dict (names to tensors). {AGAIN}")
    return state


def _require_fit(path: Path, state: dict[str, torch.Tensor], net: Any) -> None:
    wanted = net.state_dict()
    missing = [name for name in wanted if name not in state]
    if missing:
        raise LoadError(
            f"{path} lacks {len(missing)} of {len(wanted)} tensors of {type(net).__name__} (first: {missing[0]}); the file "
            f"and config.json belong to different networks, or it was cut short. {AGAIN}"
        )
    for name, value in wanted.items():
        if state[name].shape != value.shape:
            raise LoadError(
                f"{path} has {name} of shape {tuple(state[name].shape)}, and config.json asks for {tuple(value.shape)}: "
                f"they belong to different networks. {AGAIN}"
            )
    extra = [name for name in state if name not in wanted]
    if extra:
        warnings.warn(f"{path} has {len(extra)} tensors that the network does not use (first: {extra[0]}).", stacklevel=2)


def sample_shape(config: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Shape of one sample, where the config of an image or 1D network says it."""
    channels, size, out = config.get("in_channels"), config.get("sample_size"), config.get("out_channels")
    if not isinstance(channels, int) or size is None or out not in (None, channels, 2 * channels):
        return None  # more channels in than out: part of the input is a condition
    name = str(config.get("_class_name"))
    axes = 1 if "1D" in name else 2 if "2D" in name else 0
    sizes = tuple(size) if isinstance(size, (list, tuple)) else (size,) * axes
    if not axes or len(sizes) != axes or not all(isinstance(n, int) and n > 0 for n in sizes):
        return None
    return (channels, *sizes)


def check_inputs(net: Any, inputs: Mapping[str, Any], options: Iterable[str]) -> None:
    """Fixed inputs must be arguments of the network's forward; `options` are names that could have been meant beside them.

    Raises:
        DenoiserError: an input that the network does not take; names the nearest.
    """
    parameters = list(inspect.signature(net.forward).parameters.values())
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters[1:] if p.name not in ("timestep", "return_dict")]
    for name in inputs:
        if name not in known:
            raise DenoiserError(
                f"{type(net).__name__} takes no input {name!r}.{nearest(name, [*options, *known])} Its inputs: "
                f"{', '.join(known) or 'none'}."
            )


def classes(config: Mapping[str, Any]) -> int:
    """Number of class labels that a network embeds, the null class included; 0 for an unconditional one."""
    if config.get("num_class_embeds") and config.get("class_embed_type") is None:
        return int(config["num_class_embeds"])
    if config.get("_class_name") == "DiTTransformer2DModel":
        return int(config.get("num_embeds_ada_norm") or 0) + 1
    return 0


def check_labels(config: Mapping[str, Any], labels: Any, class_labels: Any, is_ours: bool) -> int | torch.Tensor | None:
    """The labels to pass to a network, None for an unconditional one.

    Raises:
        DenoiserError: labels for a network without classes, of the wrong type, out of range, or missing.
        OptionError: labels under two names.
    """
    if labels is not None and class_labels is not None:
        raise OptionError("labels= and class_labels= are the same thing; give one.")
    labels, n = class_labels if labels is None else labels, classes(config)
    if n == 0:
        if labels is not None and class_labels is None:
            raise DenoiserError(f"this {config.get('_class_name')} has no classes (num_class_embeds); leave out labels=.")
        return labels
    if labels is None:
        if is_ours:
            return n - 1  # the null class
        raise DenoiserError(f"this {config.get('_class_name')} is class-conditional: pass labels=, integers in 0..{n - 1}.")
    if isinstance(labels, int) and not isinstance(labels, bool):
        low = high = labels
    elif (
        isinstance(labels, torch.Tensor) and labels.ndim <= 1 and labels.numel()
        and labels.dtype in (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)
    ):  # fmt: skip
        labels = labels.long()
        low, high = int(labels.min()), int(labels.max())
    else:
        given = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, torch.Tensor) else repr(labels)
        raise DenoiserError(f"labels must be an int or a (B,) tensor of integers in 0..{n - 1}, got {given}.")
    if low < 0 or high >= n:
        raise DenoiserError(f"labels must be in 0..{n - 1}, got {low if low < 0 else high}.")
    return labels
