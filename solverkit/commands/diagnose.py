"""`solverkit diagnose MODEL`: what a network is like, level by level, and which solver and grid to run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import LoadError, OptionError
from . import parameters
from .console import print_json, print_table, remark
from .destination import require_readable, require_writable, with_folder
from .network import open_network
from .text import is_token_model
from .waiting import use_threads

if TYPE_CHECKING:
    from ..diagnosis.diagnosis import Diagnosis

DATA = typer.Option(None, "--data", help="Clean samples, .npy, .npz or .safetensors; names wrong wrapping and ranges.")
OUT = typer.Option(None, "--out", "-o", help="A picture to write, .png, .pdf or .svg.")
PREFERRED = ("x_test", "test_x", "test", "x")
COLUMNS = {
    "s/a": "ratio", "told": "time", "loss": "loss", "linear": "linear", "SSM": "ssm", "FD-SSM": "fd_ssm",
    "balance": "balance", "asym.": "asymmetry", "Lipschitz": "lipschitz", "bias": "bias", "max": "largest",
    "bf16": "bfloat16", "fp16": "float16", "guided": "guided",
}  # fmt: skip
LEGEND = """\
s/a: sigma / alpha; told: the network's time; loss: |D - x0|^2 a number, linear: of the best coordinate-wise linear denoiser
SSM, FD-SSM: sliced score matching loss by autograd and by finite differences, in d / s^2; balance: 1 for a score
asym.: 0 for a gradient, 1 for a rotation; bias of the mean, half precision and guidance over the data's spread"""


def diagnose(
    model: str = parameters.MODEL,
    data: Path | None = DATA,
    key: str | None = typer.Option(None, "--key", help="Which array; default: x_test, test, x, or the only one."),
    num: int = parameters.num_samples(64, "Clean samples at each level."),
    levels: int = typer.Option(12, "--levels", min=3, help="Noise levels, from the top of the schedule to its bottom."),
    nfe: str = typer.Option("10", "--nfe", "-n", help="Budgets to recommend a solver for, with commas; none: no trial."),
    out: Path | None = OUT,
    label: int | None = parameters.LABEL,
    guidance: float | None = typer.Option(None, "--guidance", help="Weight of classifier-free guidance; needs --label."),
    device: str | None = parameters.DEVICE,
    dtype: str | None = parameters.DTYPE,
    batch: int | None = parameters.BATCH,
    threads: int | None = parameters.THREADS,
    seed: int = parameters.SEED,
    as_json: bool = parameters.JSON,
) -> None:
    """Measure a network level by level, name what is wrong with it, and recommend a solver and a grid."""
    budgets = _budgets(nfe)
    if guidance is not None and label is None:
        raise OptionError("--guidance needs --label: the class to guide towards.")
    if num < 8:
        raise OptionError(f"--num-samples must be at least 8, got {num}.")
    if data is not None:
        require_readable(data, folder=False)
    elif key is not None:
        raise OptionError("--key says which array of --data; give --data FILE too.")
    if out is not None:
        require_writable(out, (".png", ".pdf", ".svg"))
    if is_token_model(model):
        raise OptionError(f"{model!r} is a token model, without noise levels to diagnose; solverkit likelihood judges it.")
    use_threads(threads)
    from ..diagnosis.diagnosis import diagnose as run

    clean = None if data is None else _read(data, key)
    denoiser = open_network(model, label, device, dtype, guidance)
    found = run(denoiser, clean, num_samples=num, levels=levels, nfe=budgets, batch_size=batch or 64, seed=seed)
    if as_json:
        print_json({"model": model, **found.report()})
    else:
        _print(model, found)
    if out is not None:
        found.plot(with_folder(out), model)
        remark(f"Picture: {out}")


def _budgets(text: str) -> list[int]:
    if text.strip().lower() == "none":
        return []
    try:
        budgets = [int(n) for n in text.split(",")]
    except ValueError:
        raise OptionError(f"--nfe takes budgets with commas, such as 5,10, or none; got {text!r}.") from None
    if min(budgets) < 2:
        raise OptionError(f"--nfe takes budgets of at least 2 evaluations, got {text!r}.")
    return budgets


def _read(path: Path, key: str | None) -> Any:
    from ..files.arrays import KINDS, read_array

    if path.suffix.lower() not in KINDS:
        raise OptionError(f"--data reads {', '.join(KINDS)} files, got {path.name!r}.")
    try:
        return read_array(path, key, PREFERRED)
    except LoadError as error:
        if key is None:
            raise
        raise OptionError(f"--key {key}: {error}") from None


def _print(model: str, found: Diagnosis) -> None:
    rows = [row.row() for row in found.levels]
    shown = {name: field for name, field in COLUMNS.items() if any(_known(row[field]) for row in rows)}
    lines = [[_cell(row, field) for field in shown.values()] for row in rows]
    title = f"{model} on {found.samples} {found.on}, spread {found.spread:.4g}; {found.evaluations} evaluations in all"
    print_table(title, list(shown), lines, LEGEND)
    times = [(str(n), f"{1000 * taken:.4g}", f"{1000 * taken / n:.4g}") for n, taken in found.seconds.items()]
    print_table("Milliseconds of an evaluation", ["rows", "all", "a row"], times)
    print("Faults:" if found.faults else "Faults: none found")
    for fault in found.faults:
        print(f"* {fault.name}: {fault.said}")
    print("Recommendation:")
    for line in found.advice:
        print(f"* {line}")


def _known(value: float) -> bool:
    return not math.isnan(value)


def _cell(row: dict[str, float], field: str) -> str:
    if row["nonfinite"] and field == "loss":
        return f"{row['nonfinite']} rows not finite"
    return f"{row[field]:.3g}" if _known(row[field]) else "-"
