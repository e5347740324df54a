"""Is the ranking of the samplers stable under another seed? Compares two results files of one suite.

    solverkit bench --out runs/seed0 && solverkit bench --seed 1 --out runs/seed1
    python benchmarks/ranking.py runs/seed0/results.jsonl runs/seed1/results.jsonl

Prints, for each model and budget, Kendall's tau of the two rankings by `ode_error`, and the pairs of samplers that changed
places although one was better by more than 10 % in the first file.
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from pathlib import Path

from solverkit.bench.store import read

Errors = dict[tuple[str, int], dict[str, float]]


def load(path: Path) -> Errors:
    errors: Errors = defaultdict(dict)
    for row in read(path):
        if row["status"] == "ok" and row.get("ode_error") is not None:
            errors[(row["model"], row["budget"])][row["sampler"]] = row["ode_error"]
    return errors


def compare(one: dict[str, float], other: dict[str, float]) -> tuple[float, list[str]]:
    """Kendall's tau over the samplers of both, and the clear swaps."""
    pairs = list(itertools.combinations(sorted(one.keys() & other.keys()), 2))
    agree = [(one[a] < one[b]) == (other[a] < other[b]) for a, b in pairs]
    swaps = [
        f"{a} / {b}" for (a, b), same in zip(pairs, agree) if not same and max(one[a], one[b]) > 1.1 * min(one[a], one[b])
    ]
    return (2 * sum(agree) - len(agree)) / len(agree), swaps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    args = parser.parse_args()
    first, second = load(args.first), load(args.second)
    for key in sorted(first.keys() & second.keys()):
        tau, swaps = compare(first[key], second[key])
        print(f"{key[0]:12} NFE {key[1]:3}  tau {tau:+.2f}  {'; '.join(swaps) or 'no clear swap'}")


if __name__ == "__main__":
    main()
