"""Fréchet distance of the bundled students at 1, 2 and 4 evaluations, beside their teachers' solvers at 4, 8 and 16.

    python benchmarks/students.py --count 1000                                # a quarter of an hour on one CPU core
    python benchmarks/students.py --count 5000 --device cuda --out runs/students.jsonl

Sample i is drawn from seed i with label i mod 10, whatever runs: every row begins from the same noise. The distance is that
in the features of the bundled classifier to the statistics of the 10000 test images; its level depends on `--count`, so
that equal counts alone compare. Errors are benchmarks/jackknife.py's. Nothing was chosen on these seeds. The axis from
"ode" to fresh noise is `fresh` of renoise, `gamma` of tcd, `kind` of flow-map. Tables of the rows: benchmarks/tables.py
students --results FOLDER, where they are as students.jsonl.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from jackknife import distances

import solverkit as sk
from solverkit.bench.features import load_features

CHUNK = 250
FEW, MANY = (1, 2, 4), (4, 8, 16)
SOLVERS = ("ddim", "dpmpp-2m", "unipc")

# student -> teacher, its grid; and the student's samplers with their grid
FAMILIES: dict[str, tuple[str, str, tuple[tuple[str, str], ...]]] = {
    "mnist-consistency": (
        "mnist", "trailing",
        (
            ("renoise:fresh=0.0", "lcm"), ("renoise:fresh=0.5", "lcm"), ("renoise", "lcm"), ("tcd", "tcd"),
            ("tcd:gamma=1.0", "tcd"),
        ),
    ),
    "mnist-map": ("mnist-flow", "flow", (("flow-map", "flow"), ("flow-map:kind=sde", "flow"))),
}  # fmt: skip


def rows_of(student: str) -> list[tuple[str, str, str, int]]:
    """(network, sampler, grid, evaluations); runs of one evaluation are the same for every sampler of a student."""
    teacher, grid, samplers = FAMILIES[student]
    few = [(student, s, g, n) for n in FEW for k, (s, g) in enumerate(samplers) if n > 1 or k == 0]
    return few + [(teacher, s, grid, n) for s in SOLVERS for n in MANY]


def images(row: tuple[str, str, str, int], count: int, device: str) -> torch.Tensor:
    """(count, 1, 28, 28) in [-1, 1], on the device."""
    name, sampler, grid, n = row
    labels, made = torch.arange(count) % 10, []
    for seeds in torch.arange(count).split(CHUNK):
        model = sk.load(name, labels=labels[seeds], device=device)
        made.append(sk.sample(model, sampler, nfe=n, grid=grid, num_samples=len(seeds), seed=seeds.tolist()).x)
    return torch.cat(made).clamp(-1, 1)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--student", nargs="*", default=list(FAMILIES))
    parser.add_argument("--out", type=Path, help="append a line of JSON a row, and do not measure again what is there")
    args = parser.parse_args()
    network = load_features().to(args.device)
    known: dict[tuple[Any, ...], dict[str, Any]] = {}
    if args.out is not None and args.out.is_file():
        for line in args.out.read_text(encoding="utf-8").splitlines():
            found = json.loads(line)
            known[(*found["row"], found["count"])] = found
    for student in args.student:
        for row in rows_of(student):
            found = known.get((*row, args.count))
            if found is None:
                clock, x = time.perf_counter(), images(row, args.count, args.device)
                labels = torch.arange(args.count, device=x.device) % 10
                features = torch.cat([network.features(part).cpu() for part in x.split(500)])
                right = torch.cat([network(part).argmax(1) for part in x.split(500)]) == labels
                found = {
                    "row": row, "count": args.count, "device": args.device, "distances": distances(features).tolist(),
                    "right": float(right.double().mean()), "seconds": time.perf_counter() - clock,
                }  # fmt: skip
                if args.out is not None:
                    args.out.parent.mkdir(parents=True, exist_ok=True)
                    with args.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(found) + "\n")
            print(row, f"{found['distances'][0]:.2f}", f"{found['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
