"""`solverkit stats MODEL`: Gaussian statistics of a network's data, with the profile that "auto" decisions need."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import typer

from ..errors import OptionError
from . import parameters
from .console import print_json, print_table
from .destination import require_folder, require_readable, require_writable
from .network import open_network
from .waiting import use_threads

OUT = typer.Option(..., "--out", "-o", help="Where to write them, FILE.safetensors or a folder.")
DATA = typer.Option(None, "--data", help="A .npy, .npz or .safetensors file, or a folder of pictures.")


def stats(
    model: str = parameters.MODEL,
    out: Path = OUT,
    data: Path | None = DATA,
    key: str | None = typer.Option(None, "--key", help="Which array of the file."),
    source: str | None = typer.Option(None, "--source", help="network (no data, no sampling), samples, or data."),
    rank: int = typer.Option(64, "--rank", "-r", min=1, help="Directions to keep."),
    samples: int = typer.Option(128, "--profile-samples", min=0, help="Trajectories of the profile; 0 leaves it out."),
    label: int | None = parameters.LABEL,
    device: str | None = parameters.DEVICE,
    dtype: str | None = parameters.DTYPE,
    batch: int | None = parameters.BATCH,
    threads: int | None = parameters.THREADS,
    seed: int = parameters.SEED,
    as_json: bool = parameters.JSON,
) -> None:
    """Make Gaussian statistics, measure how the network leaves them, and save both."""
    source = source or ("data" if data is not None else "network")
    if source not in ("network", "samples", "data") or (source == "data") != (data is not None):
        raise OptionError(f"--source must be network, samples, or data with --data FILE; got {source!r} and {data}.")
    if data is not None:
        require_readable(data)
    if out.suffix and not out.is_dir():
        require_writable(out, (".safetensors",))
    else:
        require_folder(out)
    use_threads(threads)
    from ..gaussian.stats import GaussianStats

    denoiser = open_network(model, label, device, dtype)
    calls: dict[str, Any] = {"seed": seed, **({} if batch is None else {"batch_size": batch})}
    rank = min(rank, math.prod(getattr(denoiser, "shape", None) or (rank,)))
    if source == "data":
        shape = getattr(denoiser, "shape", None)
        found = GaussianStats.from_data(str(data), rank, key=key, shape=shape, seed=seed)
    elif source == "samples":
        found = GaussianStats.from_samples(denoiser, rank, **calls)
    else:
        found = GaussianStats.from_network(denoiser, rank, **calls)
    found = found.with_provenance(model=model)
    if samples:
        found = found.measured(denoiser, samples=samples)
    path = found.save(out)
    row = {
        "file": str(path), **found.provenance, "floor": found.floor,
        "leading_variances": [round(v, 6) for v in found.values[:8].tolist()],
        "profile_evaluations": 0 if found.profile is None else found.profile.nfe,
    }  # fmt: skip
    if as_json:
        return print_json(row)
    print_table(f"Gaussian statistics of {model}", ["", ""], [(name, f"{value}") for name, value in row.items()])
