"""`solverkit likelihood MODEL`: log-likelihood of data under a network, in nats and bits per dimension."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import LoadError, OptionError
from .console import print_json, print_table

if TYPE_CHECKING:
    import torch

DATA = typer.Option(None, "--data", help="A .npz, .npy or .safetensors file; not needed for targets with known samples.")


def likelihood(
    model: str = typer.Argument(help="A registered model, a diffusers folder or a hub id."),
    data: Path | None = DATA,
    key: str | None = typer.Option(None, "--key", help="Which array of the file; default: x_test, test, x, or the first."),
    num: int = typer.Option(64, "--num-samples", "--samples", "-k", help="How many of them, from the first."),
    method: str = typer.Option("ode", "--method", "-m", help="ode, elbo or vlb."),
    draws: int | None = typer.Option(None, "--draws", help="Probes of the ODE (1), or noise levels of a bound (64)."),
    divergence: str = typer.Option("hutchinson", "--divergence", help="hutchinson, exact or finite-difference."),
    tolerance: float = typer.Option(1e-4, "--tolerance", help="Of the ODE, relative and absolute."),
    batch: int = typer.Option(64, "--batch", help="Samples at a time."),
    seed: int = typer.Option(0, "--seed", help="Of probes, noise and dequantisation."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Evaluate log-likelihoods and print their mean with its standard error."""
    import torch

    from ..files.hub import load
    from ..flow.likelihood import dequantised, log_likelihood

    if num < 1 or batch < 1:
        raise OptionError(f"--num-samples and --batch must be at least 1, got {num} and {batch}.")
    denoiser = load(model)
    x, eight_bit = _data(denoiser, data, key, num)
    values = dequantised(x, seed=seed) if eight_bit and method != "vlb" else x
    nats, nfe = [], 0.0
    for i, rows in enumerate(values.split(batch)):
        found = log_likelihood(
            denoiser, rows, method, draws=draws, divergence=divergence, rtol=tolerance, atol=tolerance,  # type: ignore[arg-type]
            seed=seed + 1_000_003 * i,
        )  # fmt: skip
        nats.append(found.nats)
        nfe += found.nfe * len(rows) / len(values)
    all_nats, d = torch.cat(nats), x[0].numel()
    bits = -all_nats / (d * math.log(2)) + (7.0 if eight_bit and method != "vlb" else 0.0)
    error = math.nan if len(bits) < 2 else 1 / math.sqrt(len(bits))
    rows_out = [("nats", all_nats), *([("bits/dim", bits)] if eight_bit else [("nats/dim", all_nats / d)])]
    summary = {name: (float(v.mean()), float(v.std()) * error) for name, v in rows_out}
    if as_json:
        head = {"model": model, "method": method, "samples": len(x), "nfe": nfe}
        return print_json({**head, **{name: list(values) for name, values in summary.items()}})
    title = f"{method} of {len(x)} samples under {model}, {nfe:.0f} evaluations each"
    print_table(title, ["", "mean", "standard error"], [(k, f"{m:.4f}", f"{e:.4f}") for k, (m, e) in summary.items()])


def _data(denoiser: Any, path: Path | None, key: str | None, num: int) -> tuple[torch.Tensor, bool]:
    """Data (B, ...) in the model's coordinates, and whether they are 8-bit images in [-1, 1]."""
    import torch

    target = getattr(denoiser, "target", None)
    if path is None:
        if target is None:
            raise OptionError("--data is missing: a file of samples to evaluate (.npz, .npy or .safetensors).")
        return target.sample(num, seed=1), False
    array = _read(path, key)[:num]
    eight_bit = array.dtype == torch.uint8
    x = array.float() / 127.5 - 1 if eight_bit else array.float()
    shape = getattr(denoiser, "shape", None)
    if shape is not None and tuple(x.shape[1:]) != tuple(shape):
        if x[0].numel() != math.prod(shape):
            raise OptionError(f"{path} holds samples of shape {tuple(x.shape[1:])}, and the model makes {tuple(shape)}.")
        x = x.reshape(len(x), *shape)
    return x, eight_bit


def _read(path: Path, key: str | None) -> torch.Tensor:
    import numpy as np
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".npy":
            return torch.from_numpy(np.load(path))
        if path.suffix == ".npz":
            arrays: Any = {name: torch.from_numpy(a) for name, a in np.load(path).items() if a.dtype.kind in "fiub"}
        elif path.suffix == ".safetensors":
            arrays = load_file(path)
        else:
            raise OptionError(f"--data reads .npz, .npy and .safetensors files, got {path.name!r}.")
    except (OSError, ValueError) as error:
        raise LoadError(f"cannot read {path}: {error}") from None
    wanted = [key] if key else [name for name in ("x_test", "test_x", "test", "x") if name in arrays] or list(arrays)
    if wanted[0] not in arrays:
        raise OptionError(f"{path} has no array {wanted[0]!r}; it has {', '.join(arrays)}. Choose one with --key.")
    return arrays[wanted[0]]  # type: ignore[no-any-return]
