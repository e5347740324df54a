"""Every cell of benchmarks/suites/tune.toml on noises that nothing was chosen on: peers of a fitted plan, in one table.

    python benchmarks/tune_peers.py                                       # all models; an hour and more on one core
    python benchmarks/tune_peers.py mixture --nfe 5 6 8 10 15 20          # minutes
    python benchmarks/tune_peers.py mnist-flow --plan plan.safetensors    # with a plan that is not the suite's
    python benchmarks/tune_peers.py --draw                                # docs/tune.png from the rows
    python benchmarks/tables.py                                           # the table from the rows, into docs/tune.md

Errors of each sample are kept in --cache under all that they depend on (network, noises, solver, grid, budget, what a file
of levels or a plan holds, version of solverkit), so a run that was stopped goes on, and a new plan costs only itself. Code
that changed under the same version is not noticed: remove the folder then. Figures replace those of the same models and
budgets in benchmarks/results/tune-peers.jsonl.

The untuned pair and that of diffusers' classes are the best *on these very noises*, in hindsight, of all that the suite
lists. On networks all pairs run on the first 16 noises, and the 12 of least RMS of each group on all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import solverkit as sk
from solverkit.bench.colours import KNOWN
from solverkit.bench.peers import run_peer
from solverkit.bench.suite import PEER, Cell, short_name
from solverkit.bench.suite_file import load_suite
from solverkit.grid.named import parse_grid
from solverkit.model.fingerprint import fingerprint
from solverkit.run.noise import sample_seeds
from solverkit.tuning.calibrate import judged
from solverkit.tuning.loss import per_sample
from solverkit.tuning.trajectories import converge
from solverkit.tuning.untuned import Untuned

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "tune-peers.jsonl"
HINDSIGHT = ("untuned", "diffusers")  # groups of which the best is taken
FEW, KEPT = 16, 12
FIGURES = ("noises", "rms", "median", "rms_without_worst", "ratio_rms", "interval", "ratio_median")
DIGITS = 6


def group(cell: Cell) -> str:
    """What a cell stands for: untuned, diffusers, gits, oss, teleport, gaussian-exponential or tuned."""
    if cell.sampler.startswith(PEER):
        return "diffusers"
    if is_file(cell.grid):
        return sk.load_levels(parse_grid(str(cell.grid))[1]["file"]).method
    return cell.sampler if cell.sampler in ("teleport", "gaussian-exponential", "tuned") else "untuned"


class Noises:
    """The unseen noises of a model, their converged samples, and the errors of cells on them, kept on disk."""

    def __init__(self, model: str, count: int, seed: int, folder: Path, device: str | None = None) -> None:
        placed = {} if device is None else {"device": device}
        self.denoiser, self.count, self.seed = sk.load(model, **placed), count, seed
        self.exact = hasattr(self.denoiser, "target")
        evaluations = 1024 if self.exact else 128
        self.facts = [sk.__version__, fingerprint(self.denoiser), seed, evaluations]
        folder.mkdir(parents=True, exist_ok=True)
        ends = folder / f"{model}-{_digest([*self.facts, count])}.pt"
        if not ends.exists():
            with torch.no_grad():
                made = converge(self.denoiser, count, seed, evaluations)
            torch.save((made.own_start, made.own_end), ends)
        self.start, self.end = torch.load(ends, map_location=device or "cpu")
        self.path = folder / f"{model}.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.known: dict[str, list[float] | None] = {row["key"]: row["errors"] for row in map(json.loads, lines)}

    def errors(self, cell: Cell, count: int) -> torch.Tensor | None:
        """Error of each of the first `count` samples, (count,); None where the pair cannot run in the budget."""
        key = _digest([*self.facts, count, cell.sampler, cell.nfe, *_content(cell)])
        if key not in self.known:
            row = {"key": key, "cell": cell.label, "options": cell.options, "errors": None}
            try:
                errors = per_sample(self.end[:count] - self._run(cell, count).to(self.end))
                if bool(errors.isfinite().all()):
                    row["errors"] = [float(f"{e:.{DIGITS}g}") for e in errors.tolist()]
            except Exception as error:  # a class of diffusers fails in any way; one pair must not cost the others
                row["failed"] = f"{type(error).__name__}: {error}"
            self.known[key] = row["errors"]
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        found = self.known[key]
        return None if found is None else torch.tensor(found, dtype=torch.float64)

    def _run(self, cell: Cell, count: int) -> torch.Tensor:
        if cell.sampler.startswith(PEER):
            seeds = sample_seeds(self.seed, self.count)[:count]
            return run_peer(self.denoiser, cell.sampler, cell.nfe, seed=seeds, grid=cell.grid, options=cell.options).x
        start = self.start[:count]
        return sk.sample(
            self.denoiser, cell.sampler, nfe=cell.nfe, x=start, grid=cell.grid, dtype=start.dtype, **cell.options
        ).x


def _digest(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _content(cell: Cell) -> list[Any]:
    """Options and grid, with what a file says in the place of its path."""
    options, grid = dict(cell.options), cell.grid
    if cell.sampler == "tuned":
        options["plan"] = hashlib.sha256(Path(options["plan"]).read_bytes()).hexdigest()
    if is_file(cell.grid):
        return [options, sk.load_levels(parse_grid(str(grid))[1]["file"]).levels.get(cell.nfe)]
    return [options, grid]


def is_file(grid: str | None) -> bool:
    """Whether a grid is a file of levels."""
    return grid is not None and grid.startswith("levels:")


def measure(noises: Noises, cells: Iterable[Cell], model: str, nfe: int) -> list[dict[str, Any]]:
    """The rows of one model and budget: the best untuned pair first, then all others beside it."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(group(cell), []).append(cell)
    tried = {name: len(found) for name, found in groups.items()}
    if not noises.exact:
        for name in HINDSIGHT:
            few = _ranked(noises, groups[name], FEW)
            tried[name] = len(few)
            groups[name] = [cell for cell, _ in few[:KEPT]]
    lines: list[tuple[str, Cell, torch.Tensor]] = []
    for name, found in groups.items():
        ranked = _ranked(noises, found, noises.count)
        if noises.exact:
            tried[name] = len(ranked)
        lines += [(name, cell, e) for cell, e in (ranked[:1] if name in HINDSIGHT else ranked)]
    _, cell, errors = next(line for line in lines if line[0] == "untuned")
    best = Untuned(cell.sampler, str(cell.grid), errors)
    rows = []
    for name, cell, errors in lines:
        f = judged(errors, best, 0, 0.0)
        sampler = cell.options.get("solver", short_name(cell.sampler))
        order = f" order {cell.options['solver_order']}" if "solver_order" in cell.options else ""
        rows.append({
            "model": model, "nfe": nfe, "method": name, "sampler": sampler + order,
            "grid": "chosen" if is_file(cell.grid) else cell.grid, "tried": tried[name], **{key: f[key] for key in FIGURES},
        })  # fmt: skip
        print(model, "NFE", nfe, name, rows[-1]["sampler"], rows[-1]["grid"], end="  ")
        print(f"{f['rms']:.4f} ({f['median']:.4f})  {f['ratio_rms']:.2f} {f['interval']}", flush=True)
    return rows


def _ranked(noises: Noises, cells: Iterable[Cell], count: int) -> list[tuple[Cell, torch.Tensor]]:
    """Cells that can run and their errors, least RMS first."""
    found = [(cell, e) for cell in cells if (e := noises.errors(cell, count)) is not None]
    return sorted(found, key=lambda pair: float(pair[1].square().mean()))


def read_rows(path: Path = ROWS) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write_rows(rows: list[dict[str, Any]], path: Path = ROWS) -> None:
    """In the place of those of the same models and budgets."""
    new = {(row["model"], row["nfe"]) for row in rows}
    kept = [row for row in read_rows(path) if (row["model"], row["nfe"]) not in new]
    ordered = sorted([*kept, *rows], key=lambda row: (row["model"], row["nfe"]))
    path.write_text("".join(json.dumps(row) + "\n" for row in ordered))


LINES = (  # words, method, colour, marker
    ("best untuned solver and grid", "untuned", "#000000", "s"),
    ("best of diffusers' classes", "diffusers", "#8C8C8C", "o"),
    ("GITS levels, best solver", "gits", "#0072B2", "D"),
    ("OSS levels, best solver", "oss", "#E69F00", "^"),
    ("teleport, best solver", "teleport", *KNOWN["teleport"]),
    ("gaussian-exponential", "gaussian-exponential", *KNOWN["gaussian-exponential"]),
    ("fitted plan", "tuned", *KNOWN["tuned"]),
)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """RMS error over evaluations, a panel a model, a colour a method."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(row["model"] for row in rows))
    figure = Figure(figsize=(5.0 * len(models), 5.2), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(models), squeeze=False)[0]
    for axis, model in zip(axes, models):
        budgets = sorted({row["nfe"] for row in rows if row["model"] == model})
        for name, method, colour, marker in LINES:
            least: dict[int, float] = {}
            for row in rows:
                if (row["model"], row["method"]) == (model, method):
                    least[row["nfe"]] = min(row["rms"], least.get(row["nfe"], float("inf")))
            if least:
                style = "--" if method == "diffusers" else "-"
                axis.plot(*zip(*sorted(least.items())), style, color=colour, marker=marker, label=name, markersize=5)
        noises = next(row["noises"] for row in rows if row["model"] == model)
        axis.set(xscale="log", yscale="log", title=f"{model}, {noises} noises", xlabel="network evaluations (NFE)")
        axis.set_xticks(budgets, [str(n) for n in budgets])
        axis.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        axis.grid(True, which="both", color="#e5e5e5", linewidth=0.6)
    axes[0].set_ylabel("RMS error to the converged solution")
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels())}
    names, columns = [name for name, *_ in LINES if name in handles], min(2 * len(models), 4)
    figure.legend([handles[name] for name in names], names, loc="lower center", ncols=columns, frameon=False)
    figure.tight_layout(rect=(0, 0.12 if len(models) > 1 else 0.2, 1, 1))
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="default: those of the suite")
    parser.add_argument("--nfe", type=int, nargs="+", default=(), help="default: the suite's")
    parser.add_argument("--noises", type=int, help="default: the suite's")
    parser.add_argument("--plan", type=Path, help="of a single model, in the place of the suite's")
    parser.add_argument("--device", help="of the networks")
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "tune-peers")
    parser.add_argument("--draw", action="store_true", help="the plot only")
    arguments = parser.parse_args()
    if arguments.plan and len(arguments.models) != 1:
        parser.error("--plan belongs to a single model")
    if not arguments.draw:
        suite = load_suite(ROOT / "benchmarks" / "suites" / "tune.toml")
        suite = suite.override(nfe=arguments.nfe, num_samples=arguments.noises)
        for entry in suite.models:
            if arguments.models and entry.name not in arguments.models:
                continue
            noises = Noises(entry.name, entry.num_samples, suite.seed, arguments.cache, arguments.device)
            cells = [_told(cell, arguments.plan) for cell in suite.cells() if cell.model.name == entry.name]
            cells = [c for c in cells if c.sampler != "tuned" or Path(c.options["plan"]).is_file()]
            if not any(c.sampler == "tuned" for c in cells):
                print(f"{entry.name}: there is no plan; its row is left out")
            for n in suite.nfe:
                write_rows(measure(noises, [c for c in cells if c.nfe == n], entry.name, n))
    draw(read_rows(), ROOT / "docs" / "tune.png")


def _told(cell: Cell, plan: Path | None) -> Cell:
    """With paths from the checkout's root, and the plan that was named."""
    if cell.sampler == "tuned":
        return replace(cell, options={**cell.options, "plan": str(plan or ROOT / cell.options["plan"])})
    if is_file(cell.grid):
        return replace(cell, grid=f"levels:file={ROOT / parse_grid(str(cell.grid))[1]['file']}")
    return cell


if __name__ == "__main__":
    main()
