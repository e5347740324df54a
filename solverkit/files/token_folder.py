"""Token models from folders: the bundled network's own, and masked language models of transformers.

Nothing that is loaded is executed. Of transformers only classes of the library itself are built; a checkpoint that brings
code of its own (LLaDA, Dream: `auto_map`) is built by the caller, with trust_remote_code, and given to `masked_lm`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import LoadError, OptionError
from ..tokens.model import TokenModel, wrap_tokens
from .network import NETWORKS, said_from
from .regular_file import read_json, require_file

OURS = "CharacterTransformer"
HEADS = ("ForMaskedLM", "ForMaskedDiffusionLM", "LLaDAModelLM", "DreamModel")
# What is known of masked diffusion language models by their model_type: id of the mask, and whether logits are shifted
KNOWN: Mapping[str, tuple[int, bool]] = {"llada": (126336, False), "Dream": (151666, True)}


def is_token_folder(folder: Path) -> bool:
    """Whether a folder's config is of a token model."""
    if not (folder / "config.json").is_file() or (folder / "model_index.json").exists():
        return False
    config = read_json(folder / "config.json")
    return config.get("_class_name") == OURS or bool(_architecture(config))


def _architecture(config: Mapping[str, Any]) -> str:
    names = [name for name in config.get("architectures") or () if isinstance(name, str)]
    return next((name for name in names if name.endswith(HEADS)), "")


def open_tokens(folder: Path, device: Any = None, dtype: torch.dtype | None = None, **fields: Any) -> TokenModel:
    """The token model of a folder: config.json and model.safetensors.

    Args:
        folder: Of the bundled kind (`_class_name`), or of a masked language model of transformers (`architectures`).
        device, dtype: Where the network runs, and in what precision.
        fields: Of `wrap_tokens`, in the place of what the config says.

    Raises:
        LoadError: files that are missing or do not fit, or a class that is not transformers' own.
        OptionError: an unknown field, or one that does not fit the network.
    """
    config = read_json(folder / "config.json")
    known = inspect.signature(wrap_tokens).parameters
    if unknown := [name for name in fields if name not in known]:
        raise OptionError(
            f"a token model takes no {unknown[0]}=; it takes {', '.join(n for n in known if n not in ('net', 'fixed'))}."
        )
    if config.get("_class_name") != OURS:
        return masked_lm(_from_transformers(folder, config, dtype), device=device, **fields)
    from ..tokens.transformer import CharacterTransformer

    try:
        net = CharacterTransformer(*(config[name] for name in ("vocabulary", "width", "depth", "heads")))
        said = {
            "mask": config["mask"],
            "vocabulary": config["vocabulary"],
            "length": config["length"],
            "alphabet": config["alphabet"],
        }
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise LoadError(f"{folder / 'config.json'} describes no {OURS}: {error!r}.") from error
    net.load_state_dict(_weights(folder / "model.safetensors", net))
    net.eval().requires_grad_(False)
    torch.nn.Module.to(net, device=device, dtype=dtype)
    return wrap_tokens(net, **{**said, **fields})  # type: ignore[arg-type]


def _weights(path: Path, net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state dict of `net` in float32.

    Raises:
        LoadError: no such file, a corrupt one, or one that does not fit the network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(require_file(path))
    except (OSError, SafetensorError) as error:
        raise LoadError(f"{path} cannot be read as safetensors: {error}") from error
    wanted = net.state_dict()
    wrong = [n for n in {*wanted, *state} if n not in wanted or n not in state or wanted[n].shape != state[n].shape]
    if wrong:
        raise LoadError(
            f"{path} does not fit its config.json: {sorted(wrong)[0]!r} is missing, too much or of another shape."
        )
    return {name: value.float() for name, value in state.items()}


def _from_transformers(folder: Path, config: Mapping[str, Any], dtype: torch.dtype | None) -> Any:
    import transformers

    name = _architecture(config)
    if not hasattr(transformers, name):
        raise LoadError(
            f"{folder} is a {name}, which transformers {transformers.__version__} does not have: its code comes with the "
            f"checkpoint, and nothing that is loaded is executed here. Build it yourself, "
            f"net = transformers.AutoModel.from_pretrained({str(folder)!r}, trust_remote_code=True), and then "
            "solverkit.hub.masked_lm(net)."
        )
    try:
        return getattr(transformers, name).from_pretrained(folder, dtype=dtype, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise LoadError(f"transformers cannot open {folder}: {error}") from error


def masked_lm(
    net: Any, *, mask: int | None = None, shifted: bool | None = None, device: Any = None, **fields: Any
) -> TokenModel:
    """A token model from a masked language model of transformers (or one that behaves so) in memory.

    Args:
        net: net(input_ids) -> an object with `logits` (B, L, V), and a `config` with `vocab_size`.
        mask: Id of the mask; default: the config's `mask_token_id`, or what is known of its `model_type` (llada, Dream).
        shifted: Whether logits of position i come from i - 1; default: what is known of the `model_type`, else False.
        device: Where it runs.
        fields: Further ones of `wrap_tokens` (length, never, process, ...).

    Raises:
        OptionError: a mask that nobody knows.
    """
    config = getattr(net, "config", None)
    kind = str(getattr(config, "model_type", ""))
    known = KNOWN.get(kind)
    if mask is None:
        mask = getattr(config, "mask_token_id", None)
    if mask is None and known is not None:
        mask = known[0]
    if mask is None:
        raise OptionError(
            f"the config of this {type(net).__name__} does not say which id is the mask: pass mask=, "
            "the tokenizer's mask_token_id."
        )
    vocabulary = int(fields.pop("vocabulary", None) or getattr(config, "vocab_size", 0))
    never = tuple(fields.pop("never", ()))
    if mask < vocabulary:
        never = tuple(sorted({*never, mask}))
    net.eval().requires_grad_(False)
    if device is not None:
        net.to(device)
    shift = (known[1] if known is not None else False) if shifted is None else shifted
    return wrap_tokens(net, mask=mask, vocabulary=vocabulary, never=never, shifted=shift, **fields)


def bundled_tokens(
    name: str, length: int | None = None, device: Any = None, dtype: torch.dtype | None = None
) -> TokenModel:
    """A token network of `solverkit/networks`.

    Raises:
        LoadError: it is not part of this installation.
    """
    folder = NETWORKS / name
    if not (folder / "model.safetensors").is_file():
        raise LoadError(f"the bundled network {name!r} is not part of this installation ({folder}); reinstall solverkit.")
    fields = {} if length is None else {"length": length}
    return said_from(name, open_tokens(folder, device, dtype, **fields))  # type: ignore[return-value,arg-type]
