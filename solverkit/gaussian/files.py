"""Where Gaussian statistics are kept: bundled with a network, in a file, or on the hub."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import LoadError, OptionError, StatsError
from ..files import artefact
from ..registry.spelled import parse_options

FILE = "gaussian_stats.safetensors"


def located(source: str | os.PathLike[str]) -> Path:
    """The file that a bundled name, a file, a folder or a hub id means.

    Raises:
        LoadError: nothing there.
    """
    return artefact.located(
        source, FILE, "Gaussian statistics", "Or isotropic:variance=V. `solverkit stats MODEL --out FILE` makes them."
    )


def beside(source: str | None) -> Path | None:
    """The statistics bundled with a network, or saved in the folder that it was opened from; None where there are none."""
    return next(artefact.beside(source, FILE), None)


def read(
    path: str, names: Sequence[str] = ("floor", "mean", "values", "vectors"), noun: str = "Gaussian statistics"
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and provenance of a file.

    Args:
        path: Of the file.
        names: Tensors that it must have.
        noun: What it holds, for errors.

    Raises:
        LoadError: it cannot be read.
        StatsError: a tensor is missing.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise LoadError(f"cannot read {path}: {error}") from None
    missing = set(names) - tensors.keys()
    if missing:
        raise StatsError(f"{path} holds no {noun}: {', '.join(sorted(missing))} missing.")
    return tensors, json.loads(metadata.get("provenance", "{}"))


def write(
    path: str | os.PathLike[str], tensors: dict[str, torch.Tensor], provenance: dict[str, Any], file: str = FILE,
    form: str = "solverkit-gaussian-stats",
) -> Path:  # fmt: skip
    """One safetensors file (or `file` in a folder); the provenance is its metadata, beside the name of the format.

    Raises:
        LoadError: it cannot be written.
    """
    from safetensors.torch import save_file

    target = Path(path)
    target = target / file if target.is_dir() or not target.suffix else target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"format": form, "provenance": json.dumps(provenance)}
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, target, metadata)
    except OSError as error:
        raise LoadError(f"cannot write {target}: {error}") from error
    return target


def isotropic_options(text: str) -> dict[str, float]:
    """variance and mean of "isotropic:variance=V,mean=M".

    Raises:
        OptionError: another option, or one that is no number.
    """
    _, options = parse_options(text)
    for name, value in options.items():
        if name not in ("variance", "mean") or isinstance(value, (bool, str)):
            raise OptionError(f"isotropic statistics are written isotropic:variance=V,mean=M with numbers, got {text!r}.")
    return {name: float(value) for name, value in options.items()}


def push(save: Callable[[Path], Path], repo: str, token: str | None, private: bool) -> str:
    """Upload what `save` writes as FILE of a model repository; returns its address.

    Raises:
        LoadError: the hub refused, or cannot be reached.
    """
    return artefact.push(save, repo, token, private, FILE)
