"""`sk.tune`: the best plan for a network and each budget, computed and checked on noises that it was not fitted to."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import LoadError, NonFiniteError, OptionError
from ..grid.named import is_count
from ..model.fingerprint import try_fingerprint
from .gauss_newton import improve
from .least_squares import fitted
from .loss import huber, interval, per_sample
from .plans import Budget, TunedPlans, load_plans
from .rows import Rows, counted
from .search import compass, family
from .trajectories import Trajectories, converge
from .untuned import Untuned, candidates, trial

SEARCH = 48  # noises of a search of levels
SEED, APART = 1000, 500_000  # validation noises have seeds of their own


def tune(
    denoiser: Any,
    nfe: Sequence[int] = (5, 6, 8, 10),
    *,
    samples: int = 64,
    validation: int = 64,
    starts: int = 2,
    iterations: int = 3,
    history: int = 5,
    fast: bool = False,
    seed: int = SEED,
    reference_evaluations: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[str], None] | None = None,
) -> TunedPlans:
    """Fit a plan for each budget.

    A plan is kept only where it beats the best untuned solver on the validation noises, in RMS and in the median.

    Args:
        denoiser: From `sk.wrap`, `sk.load` or `solverkit.guidance`; deterministic.
        nfe: Budgets, at least 2.
        samples, validation: Noises to fit to, and noises to judge on.
        starts: Starts of the search of levels; the lower validation error is kept.
        iterations: Of Gauss-Newton.
        history: The most differences of predictions that a step weighs.
        fast: Search and least squares only, and a short trial of untuned solvers.
        seed: Of the noises.
        reference_evaluations: Of a converged run.
        out: Where the plan is written after each budget.
        resume: Go on with the budgets that the file lacks.
        progress: Called with what is running.

    Raises:
        OptionError: budgets or counts that make no sense.
        LoadError: there is no place to write to, or the file to go on with is another's.
        NonFiniteError: the network answers NaN or inf.
        SolverKitError: from the denoiser.
    """
    budgets = sorted({int(n) for n in nfe if is_count(n)})
    if len(budgets) != len(list(nfe)) or not budgets or budgets[0] < 2:
        raise OptionError(f"nfe= is a list of budgets of at least 2 evaluations, got {list(nfe)!r}.")
    if samples < 8 or validation < 8 or starts < 1 or iterations < 0 or history < 1:
        raise OptionError("tune needs samples and validation of at least 8, starts and history of at least 1.")
    if out is not None and not Path(out).absolute().parent.is_dir():
        raise LoadError(f"the plan is to be written to {out}, and there is no folder {Path(out).parent}; make it first.")
    say = progress or (lambda text: None)
    with torch.no_grad():
        return _tuned(
            denoiser, budgets, samples, validation, starts, 0 if fast else iterations, history, fast, seed,
            reference_evaluations, out, resume, say,
        )  # fmt: skip


def _tuned(
    denoiser: Any, budgets: Sequence[int], samples: int, validation: int, starts: int, iterations: int, history: int,
    fast: bool, seed: int, evaluations: int | None, out: str | Path | None, resume: bool, say: Callable[[str], None],
) -> TunedPlans:  # fmt: skip
    exact = hasattr(denoiser, "target")
    evaluations = evaluations or (1024 if exact else 128)
    say(f"{samples + validation} converged runs of {evaluations} evaluations")
    train = converge(denoiser, samples, seed, evaluations)
    check = converge(denoiser, validation, seed + APART, evaluations)
    frame, top = train.grid.frame, float(train.grid[0])
    plans = TunedPlans(
        repr(denoiser.schedule), frame, top, try_fingerprint(denoiser), {},
        {"seed": seed, "samples": samples, "validation": validation, "reference_evaluations": evaluations, "fast": fast},
    )  # fmt: skip
    plans = _begun(plans, out, resume)
    rho, last = (1.3, None) if exact else (0.8, None)
    for n in budgets:
        if n in plans.budgets:
            last = plans.budgets[n].figures["last_level"]
            continue
        kept = "Nothing was written." if out is None or not plans.budgets else f"{out} has NFE {sorted(plans.budgets)}."
        began, model = time.perf_counter(), counted(_model(denoiser, kept))
        say(f"NFE {n}: untuned solvers")
        pairs = list(candidates(denoiser.schedule, quick=fast))
        few = trial(denoiser, train.own_start[:32], train.own_end[:32], n, pairs)
        best = trial(denoiser, check.own_start, check.own_end, n, [(u.sampler, u.grid) for u in few[:4]])[0]
        usual = (0.6 if frame == 0 else 0.4) * 5 / n
        first = [(usual if last is None else last * 0.8, rho), (usual, 1.0 if exact else 1.1), (usual * 0.5, rho)][:starts]
        choices = []
        for place in first:
            say(f"NFE {n}: levels")
            rows = _levels(model, train, n, top, place, history if n <= 6 else min(history, 5))
            choices.append(rows)
            if iterations:
                for robust in (True, False):
                    say(f"NFE {n}: weights and levels")
                    choices.append(improve(model, rows, train, iterations, robust)[0])
        errors = [per_sample(check.end - rows.run(model, check.start)) for rows in choices]
        chosen = min(range(len(choices)), key=lambda i: float(errors[i].square().mean()))
        rows, last = choices[chosen], choices[chosen].levels[-1]
        figures = judged(errors[chosen], best, model.rows, time.perf_counter() - began)
        figures["last_level"] = last
        wins = figures["ratio_rms"] < 1 and figures["ratio_median"] < 1
        budget = Budget(rows.levels, rows.matrix(), None, None, figures)
        if not wins:
            budget = Budget((), None, best.sampler, best.grid, figures)
        plans = replace(plans, budgets={**plans.budgets, n: budget})
        say(f"NFE {n}: RMS {figures['rms']:.4f}, best untuned {figures['untuned_rms']:.4f} ({best.sampler} on {best.grid})")
        if out is not None:
            plans.save(out)
    return plans


def _begun(plans: TunedPlans, out: str | Path | None, resume: bool) -> TunedPlans:
    """With the budgets of a file that was begun by the same call.

    Raises:
        LoadError: the file is of another network or another call.
    """
    if out is None or not resume or not Path(out).exists():
        return plans
    old = load_plans(out)
    if (old.schedule, old.fingerprint, dict(old.facts)) != (plans.schedule, plans.fingerprint, dict(plans.facts)):
        raise LoadError(
            f"{out} was begun for another network or with other settings; leave out resume, or name another file."
        )
    return replace(plans, budgets=old.budgets)


def _model(denoiser: Any, kept: str) -> Callable[[torch.Tensor, float], torch.Tensor]:
    """E[x_0 | x] of states in the frame at s; levels of an integer network snap.

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


def _levels(model: Any, references: Trajectories, n: int, top: float, start: tuple[float, float], history: int) -> Rows:
    """The levels of a local search, and the weights that fit them."""
    few, frame = references.rows(slice(0, SEARCH)), references.grid.frame

    def loss(last: float, rho: float) -> float:
        _, x = fitted(model, few, family(n, top, min(last, 0.5 * min(top, 1.0)), rho, frame), history)
        value = huber(per_sample(few.end - x))
        return value if math.isfinite(value) else math.inf

    last, rho, _ = compass(loss, *start)
    return fitted(model, references, family(n, top, min(last, 0.5 * min(top, 1.0)), rho, frame), history)[0]


def judged(errors: torch.Tensor, best: Untuned, rows: int, seconds: float) -> dict[str, Any]:
    """Figures of a plan beside the best untuned solver on the same noises, with a 95 % interval of the ratio of RMS."""

    def rms(e: torch.Tensor) -> float:
        return float(e.square().mean().sqrt())

    keep = max(int(len(errors) * 0.95), 1)
    return {
        "noises": len(errors), "rms": rms(errors), "median": float(errors.median()),
        "rms_without_worst": rms(errors.sort().values[:keep]), "untuned": f"{best.sampler} on {best.grid}",
        "untuned_rms": rms(best.errors), "untuned_median": float(best.errors.median()),
        "ratio_rms": rms(errors) / rms(best.errors), "ratio_median": float(errors.median() / best.errors.median()),
        "interval": list(interval(errors, best.errors)), "rows": rows, "seconds": seconds,
    }  # fmt: skip
