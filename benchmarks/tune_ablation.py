"""What each part of a calibration brings: one changed at a time, on noises that nothing was fitted to or chosen on.

    python benchmarks/tune_ablation.py mixture --nfe 5 8          # some minutes
    python benchmarks/tune_ablation.py mnist-flow --nfe 8 --noises 128 --only default noises-64 by-error

RMS and median of each sample's distance to the converged solution, the ratio of RMS to the default's with a 95 % interval
over the noises, and the rows that the fit took. "by-error" draws batches by the error that each noise has before.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from unittest.mock import patch

import torch
from markdown_table import short, table

import solverkit as sk
from solverkit.tuning import fit, gauss_newton, least_squares
from solverkit.tuning.calibrate import denoised_at
from solverkit.tuning.fit import Fit, on
from solverkit.tuning.loss import interval, per_sample, rms
from solverkit.tuning.references import Ends, References, references
from solverkit.tuning.rows import Rows, counted

UNSEEN, SEED = 4242, 1000
# Name: noises, starts, history, passes.
SIZES = {
    "default": (96, 2, 4, 1), "noises-64": (64, 4, 4, 1), "noises-160": (160, 4, 4, 1), "noises-512": (512, 4, 4, 1),
    "one-start": (96, 1, 4, 1), "two-starts": (96, 2, 4, 1), "six-starts": (96, 6, 4, 1), "history-1": (96, 4, 1, 1),
    "history-2": (96, 4, 2, 1), "history-8": (96, 4, 8, 1), "two-passes": (96, 4, 4, 2), "huber": (96, 4, 4, 1),
    "rms": (96, 4, 4, 1), "least-squares": (96, 4, 4, 1), "by-error": (96, 4, 4, 1), "forgetful": (96, 4, 4, 1),
    "ridge": (96, 4, 4, 1),
}  # fmt: skip


def huber(errors: torch.Tensor) -> float:
    """sqrt of the mean of e^2 below kappa = 3 medians and of 2 kappa e - kappa^2 above."""
    kappa = float(3 * errors.median())
    return float(torch.where(errors > kappa, 2 * kappa * errors - kappa**2, errors.square()).mean().sqrt())


def of_huber(errors: torch.Tensor) -> torch.Tensor:
    return (3 * errors.median() / errors.clamp(min=1e-12)).clamp(max=1.0)


# Name: the loss, and the weights of squares that lower it.
LOSSES = {"huber": (huber, of_huber), "rms": (rms, torch.ones_like)}


class ByError(gauss_newton.Improving):
    """Batches drawn without repetition, half evenly and half by the error that each noise has."""

    def _batch(self, k: int) -> Ends:
        if k <= self.at:
            errors = per_sample(self.references.end - self.rows.run(self.model, self.references.start))
            chance = 0.5 / len(errors) + 0.5 * errors / errors.sum()
            chosen = torch.multinomial(chance, self.batch, generator=torch.Generator().manual_seed(k))
            all_of = self.references
            return Ends(all_of.frame, all_of.start[chosen], all_of.end[chosen], all_of.scale)
        return super()._batch(k)


def fitted(name: str, n: int, model: Callable[..., torch.Tensor], schedule: object, exact: bool, some: References) -> Rows:
    _, starts, history, passes = SIZES[name]
    fitting = Fit(model, schedule, some, 1.3 if exact else 0.8, history, passes, lambda text: None)
    if name == "least-squares":
        return fitting.quick(n)
    if name in LOSSES:
        loss, weights = LOSSES[name]
        with patch.multiple(gauss_newton, mean_error=loss, weights=weights), patch.object(fit, "mean_error", loss):
            return fitting.plan(n, starts)
    if name == "by-error":
        with patch.object(fit, "Improving", ByError):
            return fitting.plan(n, starts)
    if name == "forgetful":
        with patch.object(gauss_newton, "MEMORY", 0.0):
            return fitting.plan(n, starts)
    if name == "ridge":
        with patch.object(least_squares.solve, "__defaults__", (1e-2,)):
            return fitting.plan(n, starts)
    return fitting.plan(n, starts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--nfe", type=int, nargs="+", default=[5, 8])
    parser.add_argument("--noises", type=int, default=512)
    parser.add_argument("--only", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--device", help="of the network")
    arguments = parser.parse_args()
    denoiser = sk.load(arguments.model, **({} if arguments.device is None else {"device": arguments.device}))
    exact = hasattr(denoiser, "target")
    evaluations = 1024 if exact else 128
    with torch.no_grad():
        unseen = references(denoiser, arguments.noises, UNSEEN, evaluations)
        most = references(denoiser, max(SIZES[name][0] for name in arguments.only), SEED, evaluations)
        lines, usual = [], {}
        for name in arguments.only:
            line = [name]
            for n in arguments.nfe:
                ends = most.ends.rows(slice(0, SIZES[name][0]))
                some = References(most.way.rows(slice(0, len(ends.start))), ends, most.top, 0)
                model = counted(denoised_at(denoiser, ""))
                errors = on(model, fitted(name, n, model, denoiser.schedule, exact, some), unseen)
                rows = model.rows - n * len(errors)
                usual.setdefault(n, errors)
                low, high = interval(errors, usual[n])
                ratio = float((errors.square().mean() / usual[n].square().mean()).sqrt())
                line += [f"{rms(errors):.4f} ({float(errors.median()):.4f})"]
                line += [f"{short(ratio)} [{short(low)}, {short(high)}]", f"{rows / 1000:.0f}k"]
            print(" | ".join(line), flush=True)
            lines.append(line)
    head = ["changed"]
    for n in arguments.nfe:
        head += [f"NFE {n}: RMS (median)", "to the default", "rows"]
    print(f"\n{arguments.model}, {arguments.noises} noises\n\n" + table(head, lines))


if __name__ == "__main__":
    main()
