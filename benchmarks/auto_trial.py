"""What the trial of `auto` chooses, beside the best of all pairs of solver and grid, on noises that nothing was chosen on.

    python benchmarks/auto_trial.py mixture
    python benchmarks/auto_trial.py mnist-flow --noises 64 --nfe 5 8

The best of all pairs is chosen *on these very noises*, in hindsight. RMS and median of each sample's RMS distance to the
converged solution, and the ratio of RMS with a 95 % bootstrap interval over the noises. No plan is looked for, and no trial
of before.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings

import torch
from markdown_table import short, table

import solverkit as sk
from solverkit.run.choose import default_grid
from solverkit.tuning.auto import USUAL
from solverkit.tuning.loss import interval, per_sample, rms
from solverkit.tuning.trajectories import converge
from solverkit.tuning.untuned import candidates, trial

UNSEEN = 4242


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--nfe", type=int, nargs="+", default=[5, 6, 8, 10])
    parser.add_argument("--noises", type=int, default=512)
    parser.add_argument("--device", help="of the network")
    arguments = parser.parse_args()
    model = sk.load(arguments.model, **({} if arguments.device is None else {"device": arguments.device}))
    vars(model)["source"] = None  # no plan beside it
    warnings.simplefilter("ignore")
    lines = []
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        os.environ["SOLVERKIT_CACHE"] = folder
        unseen = converge(model, arguments.noises, UNSEEN, 1024 if hasattr(model, "target") else 128)
        usual = (USUAL, default_grid(sk.samplers()[USUAL], model.schedule))
        for n in arguments.nfe:
            pairs = list(candidates(model.schedule))
            pairs += [] if usual in pairs else [usual]
            found = {(one.sampler, one.grid): one for one in trial(model, unseen.own_start, unseen.own_end, n, pairs)}
            best = next(iter(found.values()))
            run = sk.sample(model, "auto", nfe=n, x=unseen.own_start, dtype=unseen.start.dtype)
            errors = per_sample(unseen.own_end - run.x)
            low, high = interval(errors, best.errors)
            cells = [str(n), f"{run.reports['trial_rows']:.0f}"]
            for which, e in ((str(run.reports["plan"]), errors), (f"{best.sampler} on {best.grid}", best.errors),
                             (" on ".join(usual), found[usual].errors)):  # fmt: skip
                cells.append(f"{rms(e):.4f} ({float(e.median()):.4f}), {which}")
            lines.append([*cells, f"{short(rms(errors) / rms(best.errors))} [{short(low)}, {short(high)}]"])
    head = ["NFE", "rows of the trial", "auto: RMS (median)", f"best of {len(pairs)} in hindsight", "the usual one"]
    print(f"{arguments.model}, {arguments.noises} noises\n\n" + table([*head, "ratio of RMS"], lines))


if __name__ == "__main__":
    main()
