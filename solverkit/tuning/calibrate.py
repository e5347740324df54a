"""`sk.tune`: the best plan for a network and each budget, computed and checked on noises that it was not fitted to."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import DenoiserError, LoadError, NonFiniteError, OptionError
from ..grid.named import is_count
from ..model.fingerprint import try_fingerprint
from .asked import LEAST, Asked
from .fit import Fit, on
from .loss import interval, ratio, rms
from .plans import Budget, TunedPlans, load_plans
from .progress import Progress, Work
from .references import References, references
from .rows import counted
from .trajectories import usual_evaluations
from .untuned import Untuned, best_of, candidates

SEED, APART = 1000, 500_000  # validation noises have seeds of their own
CHANCE = 0.01  # how far two answers to one state may differ, relative: rounding is not chance


def tune(
    denoiser: Any,
    nfe: Sequence[int] = (5, 6, 8, 10),
    *,
    samples: int = 96,
    validation: int = 96,
    starts: int = 2,
    passes: int = 1,
    history: int = 4,
    fast: bool = False,
    seed: int = SEED,
    reference_evaluations: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TunedPlans:
    """Fit a plan for each budget.

    A plan is kept only where it beats the best untuned solver on the validation noises, in RMS and in the median.

    Args:
        denoiser: From `sk.wrap`, `sk.load` or `solverkit.guidance`; deterministic.
        nfe: Budgets, at least 2.
        samples, validation: Noises to fit to, and noises to judge on. The median of a network's errors needs few of the
            former, their RMS many: samples near a border between modes have to be seen.
        starts: Starts of the search of levels, up to 6; all are given a few batches, the best of them the rest.
        passes: How often each noise is fitted to.
        history: The most differences of predictions that a step weighs.
        fast: Levels and least squares only, from one start.
        seed: Of the noises.
        reference_evaluations: Of a converged run; default 128, 1024 for exact targets.
        out: Where the plans are written after each budget.
        resume: Go on with the budgets that the file lacks.
        model: What the plans' page calls the network.
        options: What `sk.load` was given besides (labels, guidance), for the page.
        progress: Called with what is running.

    Raises:
        OptionError: budgets or counts that make no sense.
        DenoiserError: two answers of the network to one state differ.
        LoadError: there is no place to write to, or the file to go on with is another's.
        NonFiniteError: the network answers NaN or inf.
        SolverKitError: from the denoiser.
    """
    if not isinstance(nfe, Iterable) or not all(is_count(n) for n in nfe):
        raise OptionError(f"nfe= is a list of different budgets of at least 2 evaluations, got {nfe!r}.")
    budgets = tuple(sorted(int(n) for n in nfe))
    counts = (samples, validation, starts, passes, history, fast, seed, reference_evaluations)
    asked = Asked(budgets, *counts, model, options or {})
    asked.require()
    if out is not None:
        _require_place(Path(out))
    with torch.no_grad():
        return _Calibration(denoiser, asked, out, resume, progress or (lambda told: None)).run()


class _Calibration:
    def __init__(
        self, denoiser: Any, asked: Asked, out: str | Path | None, resume: bool, progress: Callable[[Progress], None]
    ) -> None:
        self.denoiser, self.asked, self.out, self.resume = denoiser, asked, out, resume
        self.exact = hasattr(denoiser, "target")
        self.evaluations = asked.reference_evaluations or usual_evaluations(denoiser)
        self.fingerprint = try_fingerprint(denoiser)
        self.work = Work(asked, self.evaluations, progress)

    def run(self) -> TunedPlans:
        asked = self.asked
        train = self._references(asked.samples, asked.seed)
        self._require_deterministic(train)
        check = self._references(asked.validation, asked.seed + APART)
        facts = {
            "seed": asked.seed, "samples": asked.samples, "validation": asked.validation, "starts": asked.starts,
            "passes": asked.passes, "history": asked.history, "fast": asked.fast,
            "reference_evaluations": self.evaluations, **({} if asked.model is None else {"model": asked.model}),
            **({"options": dict(asked.options)} if asked.options else {}),
        }  # fmt: skip
        plans = self._begun(TunedPlans(
            repr(self.denoiser.schedule), train.ends.frame, train.top, self.fingerprint, {}, facts,
        ))  # fmt: skip
        for n in asked.nfe:
            if n in plans.budgets:
                self.work.skip(n)
                continue
            plans = replace(plans, budgets={**plans.budgets, n: self._budget(n, train, check, plans)})
            if self.out is not None:
                plans.save(self.out)
        return plans

    def _references(self, count: int, seed: int) -> References:
        self.work.say(f"{count} converged runs of {self.evaluations} evaluations")
        made = references(self.denoiser, count, seed, self.evaluations, self.work.did, self.fingerprint)
        if not made.rows:
            self.work.skip_rows(count * self.evaluations)
        return made

    def _require_deterministic(self, some: References) -> None:
        """Raises DenoiserError where two answers to one state differ: a plan would be fitted to chance."""
        middle = len(some.way.grid) // 2
        x, level = some.way.states[middle][:LEAST], some.way.grid[middle]
        one, two = (torch.as_tensor(self.denoiser(x, level), dtype=x.dtype) for _ in range(2))
        if float((one - two).norm()) > CHANCE * float(one.norm()):
            raise DenoiserError(
                f"two answers of the network to one state at {level!r} differ: a plan is fitted to a deterministic one. "
                "Put dropout into eval mode, and leave random inputs out."
            )

    def _budget(self, n: int, train: References, check: References, plans: TunedPlans) -> Budget:
        """The fitted plan, or where it does not win the best untuned solver."""
        kept = f"{self.out} has NFE {sorted(plans.budgets)}." if self.out and plans.budgets else "Nothing was written."
        began, model, asked = time.perf_counter(), counted(denoised_at(self.denoiser, kept), self.work.did), self.asked
        fit = Fit(
            model, self.denoiser.schedule, train, 1.3 if self.exact else 0.8, asked.history, asked.passes, self.work.say
        )
        rows = fit.quick(n) if asked.fast else fit.plan(n, asked.starts)
        errors, fitting = on(model, rows, check), time.perf_counter() - began
        self.work.say(f"NFE {n}: untuned solvers")
        pairs = list(candidates(self.denoiser.schedule, quick=asked.fast))
        best = best_of(self.denoiser, train.ends, check.ends, n, pairs, self.work.did)
        figures = judged(errors, best, model.rows, fitting)
        self.work.finished(n, figures)
        if figures["ratio_rms"] < 1 and figures["ratio_median"] < 1:
            return Budget(rows.levels, rows.matrix(), None, None, figures)
        return Budget((), None, best.sampler, best.grid, figures)

    def _begun(self, plans: TunedPlans) -> TunedPlans:
        """With the budgets of a file that was begun by the same call.

        Raises:
            LoadError: the file is of another network or another call.
        """
        if self.out is None or not self.resume or not Path(self.out).exists():
            return plans
        old = load_plans(self.out)
        if (old.schedule, old.fingerprint) != (plans.schedule, plans.fingerprint):
            raise LoadError(f"{self.out} was begun for another network; leave out resume, or name another file.")
        names = {**old.facts, **plans.facts}.keys() - {"model", "options"}  # what the network is called changes nothing
        other = [f"{name}={old.facts.get(name)!r}" for name in names if old.facts.get(name) != plans.facts.get(name)]
        if other:
            raise LoadError(
                f"{self.out} was begun with other settings, {', '.join(sorted(other))}; give these, leave out "
                "resume, or name another file."
            )
        if plans.fingerprint is None:
            warnings.warn(
                f"this network has no fingerprint: whether {self.out} was begun for it cannot be checked.", stacklevel=2
            )
        return replace(plans, budgets=old.budgets)


def _require_place(out: Path) -> None:
    """Raises LoadError where no file can be written: before the work, and not after it."""
    if not out.absolute().parent.is_dir():
        raise LoadError(f"the plan is to be written to {out}, and there is no folder {out.parent}; make it first.")
    if out.is_dir():
        raise LoadError(f"the plan is to be written to {out}, and that is a folder; name a file in it.")
    if not os.access(out.absolute().parent, os.W_OK):
        raise LoadError(f"the plan is to be written to {out}, and nothing may be written into {out.parent}.")


def denoised_at(denoiser: Any, kept: str) -> Callable[[torch.Tensor, float], torch.Tensor]:
    """E[x_0 | x] of states in the frame at s.

    Raises (when called):
        NonFiniteError: the network answers NaN or inf; says at which level, and what is kept.
    """
    schedule = denoiser.schedule

    def model(x: torch.Tensor, s: float) -> torch.Tensor:
        level = schedule.at(s)
        out = torch.as_tensor(denoiser(x, level), dtype=x.dtype)
        if not bool(out.isfinite().all()) and bool(x.isfinite().all()):
            raise NonFiniteError(
                f"during calibration the network answered NaN or inf at {level!r} to a finite state. {kept} "
                "sk.sample(..., on_nonfinite='mark') says which samples do that."
            )
        return out

    return model


def judged(errors: torch.Tensor, best: Untuned, rows: int, seconds: float) -> dict[str, Any]:
    """Figures of a plan beside the best untuned solver on the same noises, with a 95 % interval of the ratio of RMS."""

    keep = max(int(len(errors) * 0.95), 1)
    return {
        "noises": len(errors), "rms": rms(errors), "median": float(errors.median()),
        "rms_without_worst": rms(errors.sort().values[:keep]), "untuned": f"{best.sampler} on {best.grid}",
        "untuned_rms": rms(best.errors), "untuned_median": float(best.errors.median()),
        "ratio_rms": ratio(rms(errors), rms(best.errors)),
        "ratio_median": ratio(float(errors.median()), float(best.errors.median())),
        "interval": list(interval(errors, best.errors)), "rows": rows, "seconds": seconds,
    }  # fmt: skip
