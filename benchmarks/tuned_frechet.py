"""Fréchet distance of samples by fitted plans, beside the best untuned solver's, from equal noise.

    python benchmarks/tuned_frechet.py mnist-flow --plan solverkit/networks/mnist-flow/plan.safetensors   # half an hour

5000 samples each, by the bundled classifier's features against its statistics of the test images, with a jackknife standard
error over 20 parts; and of the difference, since both run from the same noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from jackknife import distances, jackknife
from markdown_table import table

import solverkit as sk
from solverkit.bench.features import load_features

SEED = 5000


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--nfe", type=int, nargs="*", default=[5, 8], help="none: --nfe with nothing behind it")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--device", help="of the networks")
    parser.add_argument("--long", type=int, help="and of UniPC with so many evaluations: where small errors lead to")
    arguments = parser.parse_args()
    placed = {} if arguments.device is None else {"device": arguments.device}
    model, plans, network = sk.load(arguments.model, **placed), sk.load_plans(arguments.plan), load_features()
    lines = []
    if arguments.long:
        run = sk.sample(model, "unipc", nfe=arguments.long, num_samples=arguments.count, seed=SEED, batch_size=250)
        far = distances(torch.cat([network.features(part) for part in run.x.cpu().clamp(-1, 1).split(500)]))
        print(f"UniPC, {arguments.long} evaluations: {far[0]:.2f} ± {jackknife(far):.2f}", flush=True)
    for n in arguments.nfe:
        solver, _, grid = plans.budgets[n].figures["untuned"].partition(" on ")
        found = []
        for sampler, options in (("tuned", {"plan": plans}), (solver, {"grid": grid})):
            run = sk.sample(model, sampler, nfe=n, num_samples=arguments.count, seed=SEED, batch_size=250, **options)
            found.append(distances(torch.cat([network.features(part) for part in run.x.cpu().clamp(-1, 1).split(500)])))
        tuned, untuned = found
        lines.append([
            str(n), f"{tuned[0]:.2f} ± {jackknife(tuned):.2f}", f"{untuned[0]:.2f} ± {jackknife(untuned):.2f}",
            f"`{solver}` on {grid}", f"{tuned[0] - untuned[0]:+.2f} ± {jackknife(tuned - untuned):.2f}",
        ])  # fmt: skip
        print(" | ".join(lines[-1]), flush=True)
    head = ["NFE", "fitted", "best untuned", "which", "difference"]
    print(f"\n{arguments.model}, {arguments.count} samples\n\n" + table(head, lines))


if __name__ == "__main__":
    main()
