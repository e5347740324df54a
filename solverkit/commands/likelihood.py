"""`solverkit likelihood MODEL`: log-likelihood of data under a network, in nats and bits per dimension."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import LoadError, OptionError, nearest
from . import parameters
from .console import print_json, print_table
from .destination import require_readable
from .network import open_network, state_dtype
from .waiting import use_threads

if TYPE_CHECKING:
    import torch

METHODS, DIVERGENCES = ("ode", "elbo", "vlb"), ("hutchinson", "exact", "finite-difference")
DATA = typer.Option(None, "--data", help="A .npz, .npy or .safetensors file; not needed for targets with known samples.")


def likelihood(
    model: str = parameters.MODEL,
    data: Path | None = DATA,
    key: str | None = typer.Option(None, "--key", help="Which array of the file; default: x_test, test, x, or the first."),
    num: int = parameters.num_samples(64, "How many of them, from the first."),
    method: str = typer.Option("ode", "--method", help="ode, elbo or vlb."),
    draws: int | None = typer.Option(None, "--draws", min=1, help="Probes of the ODE, or noise levels of a bound."),
    divergence: str = typer.Option("hutchinson", "--divergence", help="hutchinson, exact or finite-difference."),
    tolerance: float = typer.Option(1e-4, "--tolerance", help="Of the ODE, relative and absolute."),
    label: int | None = parameters.LABEL,
    device: str | None = parameters.DEVICE,
    dtype: str | None = parameters.DTYPE,
    batch: int = typer.Option(64, "--batch", min=1, help="Samples at a time."),
    threads: int | None = parameters.THREADS,
    seed: int = parameters.SEED,
    as_json: bool = parameters.JSON,
) -> None:
    """Evaluate log-likelihoods and print their mean with its standard error."""
    if data is not None:
        require_readable(data, folder=False)
    _require_choice("--method", method, METHODS)
    _require_choice("--divergence", divergence, DIVERGENCES)
    if not 0 < tolerance < math.inf:
        raise OptionError(f"--tolerance must be a number above 0, got {tolerance!r}.")
    use_threads(threads)
    import torch

    from ..flow.likelihood import dequantised, log_likelihood

    array = None if data is None else _read(data, key)[:num]
    denoiser = open_network(model, label, device, dtype)
    x, eight_bit = _data(denoiser, array, num)
    x = x.to(device or getattr(denoiser, "device", "cpu"), state_dtype(dtype))
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
    rows_out = [("nats", all_nats), *([("bits/dim", bits)] if eight_bit else [("nats/dim", all_nats / d)])]
    summary = {name: (float(v.mean()), _error_of_mean(v)) for name, v in rows_out}
    if as_json:
        head = {"model": model, "method": method, "samples": len(x), "nfe": nfe}
        return print_json({**head, **{name: list(values) for name, values in summary.items()}})
    title = f"{method} of {len(x)} samples under {model}, {nfe:.0f} evaluations each"
    print_table(title, ["", "mean", "standard error"], [(k, f"{m:.4f}", f"{e:.4f}") for k, (m, e) in summary.items()])


def _error_of_mean(values: torch.Tensor) -> float:
    """Over samples; NaN of a single one."""
    return math.nan if len(values) < 2 else float(values.std()) / math.sqrt(len(values))


def _require_choice(option: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise OptionError(f"{option} must be one of {', '.join(known)}, got {given!r}.{nearest(given, known)}")


def _data(denoiser: Any, array: torch.Tensor | None, num: int) -> tuple[torch.Tensor, bool]:
    """Data (B, ...) in the model's coordinates, and whether they are 8-bit images in [-1, 1]."""
    import torch

    target = getattr(denoiser, "target", None)
    if array is None:
        if target is None:
            raise OptionError("--data is missing: a file of samples to evaluate (.npz, .npy or .safetensors).")
        return target.sample(num, seed=1), False
    eight_bit = array.dtype == torch.uint8
    x = array.float() / 127.5 - 1 if eight_bit else array.float()
    shape = getattr(denoiser, "shape", None)
    if shape is not None and tuple(x.shape[1:]) != tuple(shape):
        if x[0].numel() != math.prod(shape):
            raise OptionError(f"--data holds samples of shape {tuple(x.shape[1:])}, and the model makes {tuple(shape)}.")
        x = x.reshape(len(x), *shape)
    return x, eight_bit


def _read(path: Path, key: str | None) -> torch.Tensor:
    """The samples (N, ...) of a file.

    Raises:
        OptionError: another kind of file, no such array in it, or no samples.
        LoadError: it is corrupt, or holds Python objects.
    """
    import numpy as np
    import torch
    from safetensors.torch import load_file

    if path.suffix not in (".npy", ".npz", ".safetensors"):
        raise OptionError(f"--data reads .npz, .npy and .safetensors files, got {path.name!r}.")
    try:
        if path.suffix == ".safetensors":
            arrays: Any = load_file(path)
        else:
            opened = np.load(path)
            found = {path.stem: opened} if isinstance(opened, np.ndarray) else dict(opened.items())
            arrays = {name: torch.from_numpy(a) for name, a in found.items() if a.dtype.kind in "fiub"}
    except Exception as error:  # numpy, zipfile and safetensors each have errors of their own for a broken file
        raise LoadError(f"cannot read {path}: {error or type(error).__name__}") from None
    wanted = [key] if key else [name for name in ("x_test", "test_x", "test", "x") if name in arrays] or list(arrays)
    if not wanted or wanted[0] not in arrays:
        asked = f"no array {key!r}" if key else "no array of numbers"
        raise OptionError(f"{path} has {asked}; it has {', '.join(arrays) or 'none'}. Choose one with --key.")
    array: torch.Tensor = arrays[wanted[0]]
    if array.ndim < 2 or array.numel() == 0:
        raise OptionError(f"{path} holds an array of shape {tuple(array.shape)}, expected samples (N, ...).")
    return array
