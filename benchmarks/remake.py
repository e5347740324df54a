"""Measure again everything that docs/ states: references, rows, tables, plots. Needed whenever samples change.

    python benchmarks/remake.py --list              # the steps, cheapest first, with seconds on one core
    python benchmarks/remake.py                     # all of them
    python benchmarks/remake.py default lml         # some of them
    python benchmarks/remake.py --after lml         # those after one, to go on where it stopped

Rows go to benchmarks/results, everything else to docs/ and solverkit/bench/references. The files that a step replaces are
replaced when it is finished. `grids` prints the tables of solverkit/bench/suites/quick.toml, to be pasted there; run it
before `default` where samplers have changed. What is stated in sentences is listed in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from solverkit.bench.report import make_panels, write_figure
from solverkit.bench.runner import run_suite
from solverkit.bench.suite import Suite
from solverkit.bench.suite_file import bundled_suites, load_suite

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SUITES = ROOT / "benchmarks" / "suites"
DATA = "MNIST_NPZ"  # environment: a file with test_x (N, 28, 28) uint8, for the steps that need data


def script(name: str, *arguments: str) -> Callable[[Path], bool]:
    """A script of this folder; {runs} and {data} in its arguments are replaced."""

    def run(runs: Path) -> bool:
        if "{data}" in arguments and not os.environ.get(DATA):
            print(f"left out: {DATA} is not set (a .npz with test_x)", flush=True)
            return False
        values = {"runs": runs, "data": os.environ.get(DATA, "")}
        command = [sys.executable, str(ROOT / "benchmarks" / name), *(a.format(**values) for a in arguments)]
        return subprocess.run(command, cwd=ROOT, check=False).returncode == 0

    return run


def bench(
    file: str, suite: str = "quick", options: dict[str, dict[str, Any]] | None = None, **changes: Any
) -> Callable[[Path], bool]:
    """Run a suite; its rows become benchmarks/results/FILE, its figure {runs}/FILE.png. A failed cell is a row too."""

    def run(runs: Path) -> bool:
        plan: Suite = load_suite(suite if suite in bundled_suites() else SUITES / f"{suite}.toml").override(**changes)
        plan = replace(plan, options={**plan.options, **(options or {})})
        path = runs / file
        rows = list(run_suite(plan, path))
        write_figure(make_panels(rows), path.with_suffix(".png"))
        shutil.copyfile(path, RESULTS / file)
        return True

    return run


@dataclass(frozen=True)
class Step:
    """One thing to measure.

    Attributes:
        name: What the command line calls it.
        seconds: On one core, roughly.
        parts: Each returns whether it came to its end.
    """

    name: str
    seconds: int
    parts: tuple[Callable[[Path], bool], ...]


STEPS = (
    Step("jump-cost", 20, (script("jump_cost.py"),)),
    Step("overhead", 60, (script("overhead.py"),)),
    Step("references", 140, (script("make_references.py", "--force", "--prune"),)),
    Step("released-3m", 30, (
        bench("dpmpp-3m-released.jsonl", samplers=["dpmpp-3m"], options={"dpmpp-3m": {"released": True}}),
    )),
    Step("pc-mixtures", 60, (script("pc_mixtures.py"),)),
    Step("lm-langevin-mixture", 60, (script("lm_langevin.py", "mixture"),)),
    Step("lml-control", 60, (script("lml_control.py"),)),
    Step("round-trip", 120, (script("round_trip.py", "--data", "{data}"),)),
    Step("busy-core", 150, (script("busy_core.py"),)),
    Step("control-pictures", 300, (script("control_pictures.py", "--data", "{data}"),)),
    Step("lm-langevin-mnist", 360, (script("lm_langevin.py", "mnist"), script("lm_langevin.py", "picture"))),
    Step("lml", 420, (bench("lml.jsonl", "lml"), script("lml_plot.py"))),
    Step("default", 600, (
        bench("default-seed0.jsonl"),
        bench("default-seed1.jsonl", seed=1),
        script("readme_picture.py", "{runs}/default-seed0.png", "docs/bench.png"),
    )),
    Step("parallel", 900, (script("parallel_front.py", "measure"), script("parallel_front.py", "picture"))),
    Step("grids", 900, (
        script("choose_grids.py", "--model", "mnist", "--samples", "16"),
        script("choose_grids.py", "--model", "mnist-flow", "--samples", "16"),
        script("choose_grids.py", "--model", "mixture", "--samples", "256"),
    )),
    Step("tune-peers", 2400, (
        script("tune_peers.py", "mixture", "--nfe", "5", "6", "8", "10", "15", "20", "--cache", "{runs}"),
        script("tune_peers.py", "mnist", "mnist-flow", "--cache", "{runs}"),
    )),
    Step("teleportation", 3000, (bench("teleportation.jsonl", "teleportation"), script("teleportation_plot.py"))),
    Step("score", 3600, (bench("score_sde.jsonl", "score_sde"),)),
    Step("lml-distances", 3900, (bench("lml_fd.jsonl", "lml_fd"),)),
    Step("tables", 5, (script("tables.py", "--write"),)),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", help=f"some of: {', '.join(step.name for step in STEPS)}")
    parser.add_argument("--after", metavar="STEP", help="only the steps that follow this one")
    parser.add_argument("--list", action="store_true", help="print the steps and end")
    arguments = parser.parse_args()
    names = [step.name for step in STEPS]
    if unknown := [name for name in (*arguments.steps, *filter(None, [arguments.after])) if name not in names]:
        parser.error(f"no step {unknown[0]!r}; the steps are {', '.join(names)}")
    first = names.index(arguments.after) + 1 if arguments.after else 0
    chosen = [step for step in STEPS[first:] if not arguments.steps or step.name in arguments.steps]
    print(f"{sum(step.seconds for step in chosen)} seconds or so: " + ", ".join(f"{s.name} {s.seconds}" for s in chosen))
    if arguments.list:
        return
    failed = []
    with tempfile.TemporaryDirectory() as runs:
        os.environ["SOLVERKIT_CACHE"] = runs  # a reference that was cached by an older state would be taken for this one's
        for step in chosen:
            start = time.perf_counter()
            print(f"-- {step.name}", flush=True)
            if not all(part(Path(runs)) for part in step.parts):
                failed.append(step.name)
            print(f"-- {step.name}: {time.perf_counter() - start:.0f} s", flush=True)
    if failed:
        sys.exit(f"not done: {', '.join(failed)}")


if __name__ == "__main__":
    main()
