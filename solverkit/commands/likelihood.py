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
from .text import is_token_model, text_likelihood
from .waiting import use_threads

if TYPE_CHECKING:
    import torch

METHODS, DIVERGENCES = ("ode", "elbo", "vlb"), ("auto", "hutchinson", "exact", "finite-difference")
PREFERRED = ("x_test", "test_x", "test", "x")
DATA = typer.Option(None, "--data", help="A .npz, .npy or .safetensors file; not needed for targets with known samples.")


def likelihood(
    model: str = parameters.MODEL,
    data: Path | None = DATA,
    key: str | None = typer.Option(None, "--key", help="Which array; default: x_test, test, x, or the only one."),
    num: int = parameters.num_samples(64, "How many of them, from the first."),
    method: str = typer.Option("ode", "--method", help="ode, elbo or vlb."),
    draws: int | None = typer.Option(None, "--draws", min=1, help="Probes of the ODE, or noise levels of a bound."),
    divergence: str = typer.Option("auto", "--divergence", help=f"{', '.join(DIVERGENCES)}."),
    tolerance: float = typer.Option(1e-4, "--tolerance", help="Of the ODE, relative and absolute."),
    label: int | None = parameters.LABEL,
    device: str | None = parameters.DEVICE,
    dtype: str | None = parameters.DTYPE,
    batch: int | None = parameters.BATCH,
    threads: int | None = parameters.THREADS,
    seed: int = parameters.SEED,
    as_json: bool = parameters.JSON,
) -> None:
    """Evaluate log-likelihoods and print their mean with its standard error."""
    if data is not None:
        require_readable(data, folder=False)
    if is_token_model(model):
        if method == "vlb" or label is not None:
            raise OptionError(f"{model!r} is a token model: --method elbo alone, and no --label.")
        return text_likelihood(model, data, num, draws, seed, (device, dtype, batch, threads), as_json)
    _require_choice("--method", method, METHODS)
    _require_choice("--divergence", divergence, DIVERGENCES)
    if not 0 < tolerance < math.inf:
        raise OptionError(f"--tolerance must be a number above 0, got {tolerance!r}.")
    use_threads(threads)
    from ..flow.likelihood import log_likelihood

    array = None if data is None else _read(data, key)[:num]
    denoiser = open_network(model, label, device, dtype)
    x = _data(denoiser, array, num).to(device or getattr(denoiser, "device", "cpu"))
    eight_bit = not x.is_floating_point()
    found = log_likelihood(
        denoiser, x if eight_bit else x.to(state_dtype(dtype)), method, draws=draws, divergence=divergence,  # type: ignore[arg-type]
        rtol=tolerance, atol=tolerance, seed=seed, batch_size=batch,
    )  # fmt: skip
    nats, nfe = found.nats, found.nfe
    per_dim = found.bits_per_dim if eight_bit else None
    rows_out = [("nats", nats), ("nats/dim", nats / x[0].numel()) if per_dim is None else ("bits/dim", per_dim)]
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


def _data(denoiser: Any, array: torch.Tensor | None, num: int) -> torch.Tensor:
    """Data (B, ...) in the model's coordinates and of its shape, or 8-bit values as they are."""
    import torch

    target = getattr(denoiser, "target", None)
    if array is None:
        if target is None:
            raise OptionError("--data is missing: a file of samples to evaluate (.npz, .npy or .safetensors).")
        return target.sample(num, seed=1)  # type: ignore[no-any-return]
    x = array if array.dtype == torch.uint8 else array.float()
    shape = getattr(denoiser, "shape", None)
    if shape is not None and tuple(x.shape[1:]) != tuple(shape):
        if x[0].numel() != math.prod(shape):
            raise OptionError(f"--data holds samples of shape {tuple(x.shape[1:])}, and the model makes {tuple(shape)}.")
        x = x.reshape(len(x), *shape)
    return x


def _read(path: Path, key: str | None) -> torch.Tensor:
    """The samples (N, ...) of a file.

    Raises:
        OptionError: another kind of file, no such array in it, or no samples.
        LoadError: it is corrupt, or holds Python objects.
    """
    from ..files.arrays import KINDS, read_array

    if path.suffix.lower() not in KINDS:
        raise OptionError(f"--data reads {', '.join(KINDS)} files, got {path.name!r}.")
    try:
        array = read_array(path, key, PREFERRED)
    except LoadError as error:
        if key is None:
            raise
        raise OptionError(f"--key {key}: {error}") from None
    if array.ndim < 2 or array.numel() == 0:
        raise OptionError(f"{path} holds an array of shape {tuple(array.shape)}, expected samples (N, ...).")
    return array
