"""Fitted plans beside the best untuned solver of a wide list, on noises that nothing was fitted to or chosen on.

    python benchmarks/tuned_plans.py mixture                       # a minute
    python benchmarks/tuned_plans.py mnist-flow --noises 128       # about half an hour on one core
    python benchmarks/tuned_plans.py mnist-flow --noises 64 --plan FILE --nfe 8 --label 3 --guidance 2   # does it transfer?

The untuned solver is the best of all pairs of solver and grid *on these very noises*, in hindsight: harder to beat than one
that was chosen before. (For a network all 120 run on 32 of them, and the best 24 on all.) RMS and median of each sample's
distance to the converged solution, and the ratio of RMS with a 95 % bootstrap interval over the noises.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from markdown_table import short, table

import solverkit as sk
from solverkit.tuning.calibrate import judged
from solverkit.tuning.loss import per_sample
from solverkit.tuning.trajectories import Trajectories, converge
from solverkit.tuning.untuned import Untuned, candidates, trial

UNSEEN = 4242


def told(progress: Any) -> None:
    if progress.finished is not None:
        print(f"{progress.text}, {progress.done} rows", flush=True)


def hindsight(model: Any, unseen: Trajectories, n: int) -> Untuned:
    """The best of all pairs on these noises; for a network, of the 24 that are best on 32 of them."""
    pairs = list(candidates(model.schedule))
    if not hasattr(model, "target"):
        few = unseen.rows(slice(0, 32))
        pairs = [(u.sampler, u.grid) for u in trial(model, few.own_start, few.own_end, n, pairs)[:24]]
    return trial(model, unseen.own_start, unseen.own_end, n, pairs)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--nfe", type=int, nargs="+", default=[5, 6, 8, 10])
    parser.add_argument("--noises", type=int, default=512)
    parser.add_argument("--samples", type=int, default=None, help="to fit to")
    parser.add_argument("--plan", type=Path, help="a file that was tuned before")
    parser.add_argument("--label", type=int, help="a class: does a plan that was tuned without one hold there?")
    parser.add_argument("--guidance", type=float, help="and with guidance towards it?")
    parser.add_argument("--device", help="of the network")
    arguments = parser.parse_args()
    asked = {"labels": arguments.label, "guidance": arguments.guidance, "device": arguments.device}
    model = sk.load(arguments.model, **{name: value for name, value in asked.items() if value is not None})
    exact = hasattr(model, "target")
    began = time.perf_counter()
    if arguments.plan:
        plans = sk.load_plans(arguments.plan)
    else:
        samples = arguments.samples
        plans = sk.tune(model, arguments.nfe, **({} if samples is None else {"samples": samples}), progress=told)
        print(f"calibration: {time.perf_counter() - began:.0f} s")
    with torch.no_grad():
        unseen = converge(model, arguments.noises, UNSEEN, 1024 if exact else 128)
        lines = []
        for n in arguments.nfe:
            best = hindsight(model, unseen, n)
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
