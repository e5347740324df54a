"""`solverkit stats MODEL`: Gaussian statistics of a network's data, with the profile that "auto" decisions need."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import typer

from ..errors import OptionError
from .console import print_json, print_table

OUT = typer.Option(..., "--out", "-o", help="Where to write them, FILE.safetensors.")
DATA = typer.Option(None, "--data", help="A .npy, .npz or .safetensors file, or a folder of pictures.")


def stats(
    model: str = typer.Argument(help="A registered model, a diffusers folder or a hub id."),
    out: Path = OUT,
    data: Path | None = DATA,
    key: str | None = typer.Option(None, "--key", help="Which array of the file."),
    source: str | None = typer.Option(None, "--source", help="network (no data, no sampling), samples, or data."),
    rank: int = typer.Option(64, "--rank", "-r", help="Directions to keep."),
    samples: int = typer.Option(64, "--profile-samples", help="Trajectories of the profile; 0 leaves it out."),
    label: int | None = typer.Option(None, "--label", help="Class of a conditional network."),
    device: str | None = typer.Option(None, "--device", help="Where the network runs."),
    seed: int = typer.Option(0, "--seed", help="Of noise and probes."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Make Gaussian statistics, measure how the network leaves them, and save both."""
    from ..files.hub import load
    from ..gaussian.stats import GaussianStats

    source = source or ("data" if data is not None else "network")
    if source not in ("network", "samples", "data") or (source == "data") != (data is not None):
        raise OptionError(f"--source must be network, samples, or data with --data FILE; got {source!r} and {data}.")
    options: dict[str, Any] = {name: value for name, value in (("labels", label), ("device", device)) if value is not None}
    denoiser = load(model, **options)
    rank = min(rank, math.prod(getattr(denoiser, "shape", None) or (rank,)))
    if source == "data":
        shape = getattr(denoiser, "shape", None)
        found = GaussianStats.from_data(str(data), rank, key=key, shape=shape, seed=seed)
    elif source == "samples":
        found = GaussianStats.from_samples(denoiser, rank, seed=seed)
    else:
        found = GaussianStats.from_network(denoiser, rank, seed=seed)
    found.provenance["model"] = model
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
