"""Which grid suits which sampler: sweep a few grids and print the `[models.<name>.grids]` table of a suite.

    python benchmarks/choose_grids.py --model mnist-flow --samples 16 --seed 1

The winners are those of another seed than the suite reports (so that nobody is flattered by the choice), one a budget, and
diffusers' schedulers are given the same choice.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

from solverkit.bench.report import best_grids
from solverkit.bench.runner import run_suite
from solverkit.bench.suite_file import load_suite

GRIDS = ("karras", "log-snr", "time-uniform", "time-quadratic", "trailing", "flow", "flow:shift=3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--grids", nargs="+", default=GRIDS)
    parser.add_argument("--sampler", default="", help="comma-separated; default: those of the suite")
    parser.add_argument("--out", type=Path, help="keep the rows in this JSONL file")
    args = parser.parse_args()
    suite = load_suite().override(
        models=[args.model], samplers=[s for s in args.sampler.split(",") if s], grids=args.grids,
        num_samples=args.samples, seed=args.seed,
    )  # fmt: skip
    errors: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    rows = list(run_suite(suite, args.out))
    for row in rows:
        if row.get("ode_error") is not None:
            errors[(row["sampler"], row["budget"])][row["grid"]] = row["ode_error"]
    print(f"[models.{args.model}.grids]")
    for sampler, best in best_grids(rows)[args.model].items():
        print(f'"{sampler}" = {json.dumps(best)}')
    for sampler in suite.samplers:
        for nfe in suite.nfe:
            cells = sorted(errors[(sampler, nfe)].items(), key=lambda item: item[1])
            print(f"# {sampler} {nfe}: " + ", ".join(f"{grid} {error:.4f}" for grid, error in cells))


if __name__ == "__main__":
    main()
