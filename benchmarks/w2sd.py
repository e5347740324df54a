"""What reflection between a strong and a weak model (W2SD) gains on `mnist`, at equal passes of the network.

    python benchmarks/w2sd.py --count 500                                     # half an hour on one CPU core
    python benchmarks/w2sd.py --count 5000 --device cuda --out runs/w2sd.jsonl

Two gaps: `mnist` over `mnist-early`, the same network after 1000 steps of training; and guidance 2 over the same network
without guidance (Z-sampling's gap). Beside reflection stand the same solver with as many passes, the solver with the steps
that reflection has, and guidance by the weak model, D + (scale - 1) (D - D_weak), with as many passes. Sample i is drawn
from seed i with label i mod 10 in every row. Fréchet distance, its level by `--count`, and jackknife errors are those of
benchmarks/students.py; a negative difference to the first row of a gap is better. Tables of the rows: benchmarks/tables.py
reflection --results FOLDER, where they are as w2sd.jsonl.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jackknife import distances
from students import CHUNK

import solverkit as sk
from solverkit.bench.features import load_features

GRID = "trailing"
STEPS, PASSES = 10, 28  # 3 * 10 - 2


class Row(NamedTuple):
    """One row: of which gap, what it is called, the sampler, its steps and options, which model, and which weak one."""

    gap: str
    name: str
    sampler: str
    steps: int
    options: dict[str, Any]
    model: str = "strong"
    weak: str | None = None


def rows() -> list[Row]:
    training, guidance = "training", "guidance"
    found = [Row(training, f"{s}, {n} steps", s, n, {}) for s in ("ddim", "dpmpp-2m") for n in (PASSES, STEPS)]
    found += [Row(training, f"guided by the weak, 1.5, {s}", s, PASSES // 2, {}, "by weak") for s in ("ddim", "dpmpp-2m")]
    for solver, ways in (("ddim", ({}, {"at": "between"}, {"at": "start"}, {"released": True})), ("dpmpp-2m", ({},))):
        for way in ways:
            said = ", ".join(str(v) if k == "at" else k for k, v in way.items()) or "end"
            options = {"solver": solver, "weak": "weak", **way}
            found.append(Row(training, f"reflect {solver}, {said}", "reflect", STEPS, options, "strong", "early"))
    for s in ("ddim", "dpmpp-2m"):
        found += [Row(guidance, f"guidance 2, {s}, {n} steps", s, n, {}, "guided") for n in (24, STEPS)]
    for way in ({}, {"released": True}):
        options = {"solver": "ddim", "weak": "weak", **way}
        said = "released" if way else "end"
        found.append(Row(guidance, f"guidance 2, reflect ddim, {said}", "reflect", STEPS, options, "guided", "strong"))
    return found


def drawn(row: Row, count: int, device: str) -> tuple[torch.Tensor, float]:
    """(count, 1, 28, 28) in [-1, 1], and how many passes a sample cost."""
    labels, made, passes = torch.arange(count) % 10, [], 0.0
    for seeds in torch.arange(count).split(CHUNK):
        own = labels[seeds]
        models: dict[str, Callable[[], Any]] = {
            "strong": lambda own=own: sk.load("mnist", labels=own, device=device),
            "early": lambda own=own: sk.load("mnist-early", labels=own, device=device),
            "guided": lambda own=own: sk.load("mnist", labels=own, guidance=2.0, device=device),
        }
        if row.model == "by weak":
            model = sk.guidance.classifier_free(models["strong"](), models["early"](), 1.5)
        else:
            model = models[row.model]()
        weak = {} if row.weak is None else {"models": {"weak": models[row.weak]()}}
        given = {"steps": row.steps, "grid": GRID, "num_samples": len(seeds), "seed": seeds.tolist(), **row.options, **weak}
        run = sk.sample(model, row.sampler, **given)
        made.append(run.x)
        passes += run.nfe * len(seeds) / count
    return torch.cat(made).clamp(-1, 1), passes


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="append a line of JSON a row, and do not measure again what is there")
    args = parser.parse_args()
    network, known = load_features().to(args.device), {}
    if args.out is not None and args.out.is_file():
        for line in args.out.read_text(encoding="utf-8").splitlines():
            found = json.loads(line)
            known[found["gap"], found["name"], found["count"]] = found
    for row in rows():
        found = known.get((row.gap, row.name, args.count))
        if found is None:
            clock = time.perf_counter()
            x, passes = drawn(row, args.count, args.device)
            labels = torch.arange(args.count, device=x.device) % 10
            features = torch.cat([network.features(part).cpu() for part in x.split(500)])
            right = torch.cat([network(part).argmax(1) for part in x.split(500)]) == labels
            found = {
                "gap": row.gap, "name": row.name, "count": args.count, "device": args.device, "passes": passes,
                "distances": distances(features).tolist(), "right": float(right.double().mean()),
                "seconds": time.perf_counter() - clock,
            }  # fmt: skip
            if args.out is not None:
                args.out.parent.mkdir(parents=True, exist_ok=True)
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(found) + "\n")
        print(row.name, f"{found['distances'][0]:.2f}", f"{found['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
