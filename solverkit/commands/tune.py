"""`solverkit tune MODEL`: the best plan for a network and each budget, fitted and checked."""

from __future__ import annotations

from pathlib import Path

import typer

from ..errors import OptionError
from . import parameters
from .console import print_json, print_table, remark
from .destination import require_writable
from .network import open_network
from .waiting import use_threads

OUT = typer.Option(Path("plan.safetensors"), "--out", "-o", help="The file of the plans; written after each budget.")
NFE = typer.Option("5,6,8,10", "--nfe", "-n", help="Budgets, with commas.")


def tune(
    model: str = parameters.MODEL,
    nfe: str = NFE,
    out: Path = OUT,
    samples: int = typer.Option(64, "--samples", min=8, help="Noises to fit to."),
    validation: int = typer.Option(64, "--validation", min=8, help="Noises to judge on, of seeds of their own."),
    starts: int = typer.Option(2, "--starts", min=1, max=3, help="Starts of the search of levels."),
    fast: bool = typer.Option(False, "--fast", help="Search and least squares only."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the budgets that the file lacks."),
    label: int | None = parameters.LABEL,
    guidance: float | None = typer.Option(None, "--guidance", help="Weight of classifier-free guidance; needs --label."),
    device: str | None = parameters.DEVICE,
    dtype: str | None = parameters.DTYPE,
    threads: int | None = parameters.THREADS,
    as_json: bool = parameters.JSON,
) -> None:
    """Fit a plan for each budget, and keep it where it beats the best untuned solver on noises that it has not seen."""
    try:
        budgets = [int(n) for n in nfe.split(",")]
    except ValueError:
        raise OptionError(f"--nfe takes budgets with commas, such as 5,6,8,10; got {nfe!r}.") from None
    if guidance is not None and label is None:
        raise OptionError("--guidance needs --label: the class to guide towards.")
    if len(set(budgets)) != len(budgets) or min(budgets) < 2:
        raise OptionError(f"--nfe takes different budgets of at least 2 evaluations, got {nfe!r}.")
    require_writable(out, (".safetensors",))
    use_threads(threads)
    from ..tuning.calibrate import tune as run

    denoiser = open_network(model, label, device, dtype, guidance)
    plans = run(
        denoiser, budgets, samples=samples, validation=validation, starts=starts, fast=fast, out=out, resume=resume,
        progress=None if as_json else remark,
    )  # fmt: skip
    if as_json:
        return print_json({"file": str(out), "budgets": {n: dict(b.figures) for n, b in plans.budgets.items()}})
    lines = []
    for n, budget in sorted(plans.budgets.items()):
        f = budget.figures
        low, high = f["interval"]
        untuned = f"{f['untuned_rms']:.4f} ({f['untuned_median']:.4f}), {f['untuned']}"
        lines.append((
            str(n), untuned, f"{f['rms']:.4f} ({f['median']:.4f})", f"{f['rms_without_worst']:.4f}",
            f"{f['ratio_rms']:.2f} [{low:.2f}, {high:.2f}]", f"{f['ratio_median']:.2f}",
            "tuned" if budget.weights is not None else "untuned", str(f["rows"]), f"{f['seconds']:.0f}",
        ))  # fmt: skip
    head = ["NFE", "untuned: RMS (median)", "tuned: RMS (median)", "without worst 5 %", "ratio [95 %]", "median"]
    head += ["kept", "rows", "s"]
    noises = next(iter(plans.budgets.values())).figures["noises"] if plans.budgets else 0
    print_table(f"{out}: errors on {noises} noises that nothing was fitted to", head, lines)
