"""Where Gaussian statistics are kept: bundled with a network, in a file, or on the hub."""

from __future__ import annotations

import functools
import json
import os
import re
import tempfile
from pathlib import Path

import torch

from ..errors import LoadError, OptionError, StatsError
from ..grid.named import parse_options
from .stats import FILE, GaussianStats, Profile

NETWORKS = Path(__file__).parent.parent / "networks"


def open_stats(source: str | os.PathLike[str]) -> GaussianStats:
    """See `GaussianStats.load`."""
    if not isinstance(source, (str, os.PathLike)) or not os.fspath(source):
        raise LoadError(f"stats must be GaussianStats, or a name, file, folder or hub id; got {source!r}.")
    text = os.fspath(source)
    if text.partition(":")[0] == "isotropic":
        return _isotropic(text)
    path = Path(source)
    if path.is_file() or path.is_dir():
        found = path if path.is_file() else path / FILE
    elif (NETWORKS / text / FILE).is_file():
        found = NETWORKS / text / FILE
    elif re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text):
        found = _download(text)
    else:
        bundled = sorted(folder.parent.name for folder in NETWORKS.glob(f"*/{FILE}"))
        raise LoadError(
            f"no Gaussian statistics {text!r}: expected a bundled name ({', '.join(bundled)}), a file, a folder with "
            f"{FILE}, a hub id org/name, or isotropic:variance=V. `solverkit stats MODEL --out FILE` makes them."
        )
    if not found.is_file():
        raise LoadError(f"{path} has no {FILE}.")
    return _read(str(found), found.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _read(path: str, changed: int) -> GaussianStats:
    """Of one file as it is now; kept, so that a plan that is traced again shares its tensors."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise LoadError(f"cannot read {path}: {error}") from None
    missing = {"mean", "vectors", "values", "floor"} - tensors.keys()
    if missing:
        raise StatsError(f"{path} holds no Gaussian statistics: {', '.join(sorted(missing))} missing.")
    profile = None
    if {"ratios", "residual", "jumped", "start"} <= tensors.keys():
        nfe = int(tensors.get("profile_nfe", torch.tensor(0)))
        profile = Profile(tensors["ratios"], tensors["residual"].float(), tensors["jumped"].float(), tensors["start"], nfe)
    return GaussianStats(
        tensors["mean"], tensors["vectors"], tensors["values"], float(tensors["floor"]), profile,
        json.loads(metadata.get("provenance", "{}")),
    )  # fmt: skip


def _isotropic(text: str) -> GaussianStats:
    _, options = parse_options(text)
    for name, value in options.items():
        if name not in ("variance", "mean") or isinstance(value, (bool, str)):
            raise OptionError(f"isotropic statistics are written isotropic:variance=V,mean=M with numbers, got {text!r}.")
    return _unit(float(options.get("variance", 1.0)), float(options.get("mean", 0.0)))


@functools.lru_cache(maxsize=8)
def _unit(variance: float, mean: float) -> GaussianStats:
    return GaussianStats.isotropic(variance, mean)


def _download(repo: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, FILE))
    except Exception as error:  # offline, gated, misspelt: the hub's own words say which
        raise LoadError(f"cannot download {FILE} of {repo!r} from the hub: {type(error).__name__}: {error}") from error


def push(stats: GaussianStats, repo: str, token: str | None, private: bool) -> str:
    """See `GaussianStats.push_to_hub`."""
    from huggingface_hub import HfApi

    try:
        with tempfile.TemporaryDirectory() as folder:
            file, api = stats.save(Path(folder) / FILE), HfApi(token=token)
            api.create_repo(repo, exist_ok=True, private=private)
            return str(api.upload_file(path_or_fileobj=str(file), path_in_repo=FILE, repo_id=repo))
    except LoadError:
        raise
    except Exception as error:
        raise LoadError(f"cannot upload to {repo!r}: {type(error).__name__}: {error}") from error
