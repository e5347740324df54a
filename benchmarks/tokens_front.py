"""The front of decoders, and RADD's claim told straight: evaluations and seconds that the cache saves.

    python benchmarks/tokens_front.py front --models markov,markov-uniform --samples 128 --out benchmarks/results/tokens
    python benchmarks/tokens_front.py front --models shakespeare --samples 64 --device cuda --out benchmarks/results/tokens
    python benchmarks/tokens_front.py cache --steps 64,256,1024 --samples 8 --out benchmarks/results/tokens
    python benchmarks/tokens_front.py picture --out benchmarks/results/tokens --picture docs/tokens.png

Rows are appended to OUT/front.jsonl and OUT/cache.jsonl. `solverkit bench --suite tokens` runs the same cells.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

import solverkit as sk
from solverkit.bench.token_front import BUDGETS, run, subject, write_front


def front(args: argparse.Namespace) -> None:
    with (args.out / "front.jsonl").open("a", encoding="utf-8") as file:
        for name in args.models.split(","):
            one = subject(name, args.samples, args.length, args.device)
            for row in run(one, args.decoders.split(",") if args.decoders else None, numbers(args.budgets), args.seed):
                row["torch"], row["device"] = torch.__version__, args.device or "cpu"
                print(json.dumps(row), flush=True)
                file.write(json.dumps(row) + "\n")


def cache(args: argparse.Namespace) -> None:
    """The same runs cached and not, in turn; ids must be equal."""
    model = sk.load("shakespeare", **({"length": args.length} if args.length else {}), device=args.device)
    plain = replace(model, cache=False)  # type: ignore[type-var]
    with (args.out / "cache.jsonl").open("a", encoding="utf-8") as file:
        for steps in numbers(args.steps):
            runs = [
                (sk.sample(m, "ancestral", steps=steps, num_samples=args.samples, seed=args.seed)) for m in (model, plain)
            ]
            with_cache, without = runs
            row = {
                "model": "shakespeare", "length": int(with_cache.x.shape[1]), "steps": steps, "num_samples": args.samples,
                "rows": with_cache.nfe, "rows_uncached": without.nfe, "seconds": with_cache.seconds,
                "seconds_uncached": without.seconds, "seconds_model": with_cache.seconds_model,
                "seconds_model_uncached": without.seconds_model, "ids_equal": bool(torch.equal(with_cache.x, without.x)),
                "device": args.device or "cpu",
            }  # fmt: skip
            print(json.dumps(row), flush=True)
            file.write(json.dumps(row) + "\n")


def picture(args: argparse.Namespace) -> None:
    rows = [json.loads(line) for line in (args.out / "front.jsonl").read_text().splitlines()]
    write_front(rows, args.picture)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["front", "cache", "picture"])
    parser.add_argument("--models", default="markov,markov-uniform,shakespeare")
    parser.add_argument("--decoders", default="")
    parser.add_argument("--budgets", default=",".join(map(str, BUDGETS)))
    parser.add_argument("--steps", default="64,256,1024")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--length", type=int, default=None)
    parser.add_argument("--device", default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/tokens"))
    parser.add_argument("--picture", type=Path, default=Path("docs/tokens.png"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    {"front": front, "cache": cache, "picture": picture}[args.what](args)


if __name__ == "__main__":
    main()
