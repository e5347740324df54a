"""Fitted plans beside the best untuned solver of a wide list, on noises that nothing was fitted to or chosen on.

    python benchmarks/tuned_plans.py mixture                       # a minute
    python benchmarks/tuned_plans.py mnist-flow --noises 128       # about half an hour on one core

The untuned solver is the best of all pairs of solver and grid *on these very noises*, in hindsight: harder to beat than one
that was chosen before. RMS and median of each sample's RMS distance to the converged solution, and the ratio of RMS with a
95 % bootstrap interval over the noises.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from markdown_table import short, table

import solverkit as sk
from solverkit.tuning.calibrate import judged
from solverkit.tuning.loss import per_sample
from solverkit.tuning.trajectories import converge
from solverkit.tuning.untuned import candidates, trial

UNSEEN = 4242


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--nfe", type=int, nargs="+", default=[5, 6, 8, 10])
    parser.add_argument("--noises", type=int, default=512)
    parser.add_argument("--samples", type=int, default=None, help="to fit to; default 128 for exact targets, else 64")
    parser.add_argument("--plan", type=Path, help="a file that was tuned before")
    arguments = parser.parse_args()
    model = sk.load(arguments.model)
    exact = hasattr(model, "target")
    began = time.perf_counter()
    if arguments.plan:
        plans = sk.load_plans(arguments.plan)
    else:
        samples = arguments.samples or (128 if exact else 64)
        plans = sk.tune(model, arguments.nfe, samples=samples, validation=512 if exact else 64, progress=print)
        print(f"calibration: {time.perf_counter() - began:.0f} s")
    with torch.no_grad():
        unseen = converge(model, arguments.noises, UNSEEN, 1024 if exact else 128)
        lines = []
        for n in arguments.nfe:
            best = trial(model, unseen.own_start, unseen.own_end, n, list(candidates(model.schedule)))[0]
            x = sk.sample(model, "tuned", plan=plans, nfe=n, x=unseen.own_start, dtype=unseen.start.dtype).x
            errors = per_sample(unseen.own_end - x)
            f = judged(errors, best, 0, 0.0)
            low, high = f["interval"]
            lines.append([
                str(n), f"{f['untuned_rms']:.4f} ({f['untuned_median']:.4f})", f"`{best.sampler}` on {best.grid}",
                f"{f['rms']:.4f} ({f['median']:.4f})", f"{short(f['ratio_rms'])} [{short(low)}, {short(high)}]",
                short(f["ratio_median"]),
            ])  # fmt: skip
    head = ["NFE", "best untuned: RMS (median)", "which", "tuned: RMS (median)", "ratio of RMS", "of medians"]
    print(f"\n{arguments.model}, {arguments.noises} noises\n\n" + table(head, lines))


if __name__ == "__main__":
    main()
