"""`solverkit tune MODEL`: the best plan for a network and each budget, fitted and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import OptionError
from . import parameters
from .console import print_json, print_table, remark, settings
from .destination import require_writable, with_folder
from .network import open_network
from .waiting import use_threads

if TYPE_CHECKING:
    from ..tuning.plans import TunedPlans
    from ..tuning.progress import Progress

OUT = typer.Option(Path("plan.safetensors"), "--out", "-o", help="The file of the plans; written after each budget.")
NFE = typer.Option("5,6,8,10", "--nfe", "-n", help="Budgets, with commas.")


def tune(
    model: str = parameters.MODEL,
    nfe: str = NFE,
    out: Path = OUT,
    samples: int = typer.Option(96, "--samples", min=8, help="Noises to fit to."),
    validation: int = typer.Option(96, "--validation", min=8, help="Noises to judge on, of seeds of their own."),
    starts: int = typer.Option(2, "--starts", min=1, max=6, help="Starts of the search of levels."),
    passes: int = typer.Option(1, "--passes", min=1, help="How often each noise is fitted to."),
    fast: bool = typer.Option(False, "--fast", help="Search and least squares only, from one start."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the budgets that the file lacks."),
    remember: bool = typer.Option(False, "--remember", help="Put the plans into the cache too, where auto finds them."),
    pictures: bool = typer.Option(True, "--pictures/--no-pictures", help="A plot and a strip of samples beside the file."),
    seed: int = typer.Option(1000, "--seed", min=0, help="Of the noises."),
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
    beside = {name: out.with_name(f"{out.stem}{name}.png") for name in ("", "-samples")} if pictures else {}
    for path in beside.values():
        require_writable(path)
    with_folder(out)
    use_threads(threads)
    from ..tuning.calibrate import tune as run

    denoiser = open_network(model, label, device, dtype, guidance)
    given = {"labels": label, "guidance": guidance}
    options = {name: value for name, value in given.items() if value is not None}
    with ExitStack() as stack:
        plans = run(
            denoiser, budgets, samples=samples, validation=validation, starts=starts, passes=passes, fast=fast, seed=seed,
            out=out, resume=resume, model=model, options=options,
            progress=None if settings.quiet or as_json else _watch(stack),
        )  # fmt: skip
    if not as_json:  # first of all: the figures took long, and neither the cache nor a full disk is to hide them
        _print(out, plans)
    if remember:
        remark(f"kept in {plans.remember()}")
    written = _draw(denoiser, plans, model, beside)
    if as_json:
        told = {n: dict(b.figures) for n, b in plans.budgets.items()}
        return print_json({"file": str(out), "pictures": [str(path) for path in written], "budgets": told})
    if written:
        remark(f"Pictures: {', '.join(str(path) for path in written)}")


def _print(out: Path, plans: TunedPlans) -> None:
    """The table of figures."""
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


def _draw(denoiser: Any, plans: TunedPlans, model: str, paths: Mapping[str, Path]) -> list[Path]:
    """The plot and, where samples are pictures, the strip; those that were written."""
    from ..tuning.pictures import plot, strip

    written = []
    if "" in paths:
        plot(plans, paths[""], model)
        written.append(paths[""])
    if "-samples" in paths and strip(denoiser, plans, paths["-samples"]):
        written.append(paths["-samples"])
    return written


def _watch(stack: ExitStack) -> Callable[[Progress], None]:
    """A bar where somebody sees it, else a line for each thing that begins and each budget that is done."""
    import sys

    if sys.stderr.isatty():
        return _bar(stack)
    said = [""]

    def lines(progress: Progress) -> None:
        about = progress.text.partition(",")[0]
        if progress.finished is not None:
            f = progress.finished
            remark(
                f"NFE {f['nfe']}: RMS {f['rms']:.4f}, best untuned {f['untuned_rms']:.4f} ({f['untuned']}), ratio "
                f"{f['ratio_rms']:.2f}; {progress.done} of about {progress.total} rows"
            )
        elif about != said[0] and "batch" not in about:
            remark(progress.text)
        said[0] = about

    return lines


def _bar(stack: ExitStack) -> Callable[[Progress], None]:
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description}"), bars.BarColumn(), bars.TaskProgressColumn(), bars.TimeRemainingColumn(),
        bars.TextColumn("{task.fields[ratio]}"),
    )  # fmt: skip
    bar = stack.enter_context(bars.Progress(*columns, console=Console(stderr=True)))
    task = bar.add_task("", total=1, ratio="")

    def watch(progress: Progress) -> None:
        best = "" if progress.ratio is None else f"best ratio {progress.ratio:.2f}"
        bar.update(task, description=progress.text, completed=progress.done, total=progress.total, ratio=best)

    return watch
