"""`solverkit stats MODEL`: Gaussian statistics of a network's data with their profile, or DPM-Solver-v3's statistics."""

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
    ems: bool = typer.Option(False, "--ems", help="Instead: l, s and b of dpm-solver-v3, along its trajectories."),
    trajectories: int = typer.Option(256, "--trajectories", min=8, help="Of --ems."),
    nodes: int = typer.Option(120, "--nodes", min=8, help="Levels of --ems."),
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
    if ems and (data is not None or source != "network" or key is not None):
        raise OptionError("--ems measures the network along its own trajectories: leave out --data, --key and --source.")
    if data is not None:
        require_readable(data)
    if out.suffix and not out.is_dir():
        require_writable(out, (".safetensors",))
    else:
        require_folder(out)
    use_threads(threads)
    if ems:
        return _model_statistics(model, out, trajectories, nodes, (label, device, dtype), batch, seed, as_json)
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


def _model_statistics(
    model: str, out: Path, samples: int, nodes: int, loaded: tuple[Any, ...], batch: int | None, seed: int, as_json: bool
) -> None:
    """l, s and b, measured, saved, and shown at some levels."""
    from ..ems.stats import ModelStats

    denoiser = open_network(model, *loaded)
    made = ModelStats.measured(denoiser, samples=samples, nodes=nodes, seed=seed, batch_size=batch or 64)
    found = ModelStats(made.lams, made.l, made.s, made.b, {**made.provenance, "model": model})
    path = found.save(out)
    every = range(0, len(found.lams), max(len(found.lams) // 10, 1))
    levels = [
        {
            "ratio": math.exp(-float(found.lams[i])), "l": float(found.l[i].mean()), "s": float(found.s[i].mean()),
            "b": float(found.b[i].square().mean().sqrt()),
        }
        for i in reversed(every)
    ]  # fmt: skip
    if as_json:
        return print_json({"file": str(path), **found.provenance, "levels": levels})
    rows = [[f"{value:.4g}" for value in level.values()] for level in levels]
    told = f"{samples} trajectories, {found.provenance['evaluations']} evaluations"
    print_table(f"{path}: {told}", ["sigma/alpha", "mean l", "mean s", "RMS b"], rows)
