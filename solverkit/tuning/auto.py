"""What `auto` runs: the plan that is known for a network, else the best of some untuned solvers in a short trial."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..errors import BudgetError, DenoiserError, LoadError, SolverKitError
from ..files.cache import cache_folder
from ..grid.named import lay
from ..model.counting import counting
from ..model.fingerprint import try_fingerprints
from ..model.guidance.wrapped import rows_of
from ..registry.registry import registry, resolve
from ..run.choose import default_grid
from ..run.sampling import sample
from .known import Known, all_known, keep
from .loss import per_sample, rms
from .plans import Budget, TunedPlans, load_plans
from .trajectories import Trajectories, converge
from .untuned import candidates, trial

NOISES, SEED = 8, 7_000_000  # of a trial: noises that nothing is fitted to or judged on elsewhere
LEAST, EXACT = 64, 512  # evaluations of a converged run: of a network at least so many, of an exact target so many
FIRST, MORE = ("dpmpp-2m", "ipndm"), ("unipc", "deis")  # tried on every grid, and on the two best of those grids
USUAL = "dpmpp-2m"
VERSION = "1"  # of a trial: raise it when another one would choose otherwise


class Chosen(NamedTuple):
    """What runs in a budget.

    Attributes:
        plans: Of that budget alone.
        reports: What it is, where it is from, and what the choice cost.
    """

    plans: TunedPlans
    reports: dict[str, float | str]


class Choice:
    """What runs of one network, for each budget that is asked for; each is chosen once.

    Args:
        denoiser: Of the run.
        shape: Of the batch, (B, ...); None where the denoiser's own shape of a sample is all that is known.
    """

    def __init__(self, denoiser: Any, shape: tuple[int, ...] | None = None) -> None:
        own = getattr(denoiser, "shape", None)
        self.denoiser = denoiser
        self.shape = shape if shape is not None or own is None else (NOISES, *own)
        self._chosen: dict[int, Chosen] = {}

    def at(self, nfe: int) -> Chosen:
        """What runs with at most `nfe` evaluations.

        A plan that was fitted to this very network for this budget; else the winner of a trial, in which a plan of the next
        lower budget, or one that lies beside the network and was fitted to another class or guidance, is tried too.
        """
        if nfe not in self._chosen:
            self._chosen[nfe] = self._choose(nfe)
        return self._chosen[nfe]

    def _choose(self, nfe: int) -> Chosen:
        own, network = try_fingerprints(self.denoiser)
        known = all_known(self.denoiser, own)
        for file, plans, fitted in known:
            if fitted and nfe in plans.budgets:
                return Chosen(_only(plans, nfe), {"auto": f"the plan for {nfe} evaluations of {file}", "trial_rows": 0.0})
        rivals = [rival for rival in known if _fits(rival.plans, nfe)]
        path = None if network is None else cache_folder("trials") / f"{network}-v{VERSION}.safetensors"
        if path is not None and (found := _cached(path, nfe, rivals)) is not None:
            said = f"{_told(found, nfe)}; the trial is one of before, {path}"
            return Chosen(found, {"auto": said, "trial_rows": 0.0})
        try:
            made = self._trial(nfe, rivals, path)
        except SolverKitError as error:
            return self._untried(nfe, rivals, error)
        rows = float(made.budgets[nfe].figures["rows"])
        return Chosen(made, {"auto": f"{_told(made, nfe)}; {_kept(path, made)}", "trial_rows": rows})

    def _trial(self, nfe: int, rivals: Sequence[Known], path: Path | None) -> TunedPlans:
        """The best of a few pairs of solver and grid, and of the rivals, on a few noises.

        Raises:
            SolverKitError: the network cannot be run on these noises.
        """
        if self.shape is None:
            raise DenoiserError("the shape of a sample is not known")
        schedule, exact = self.denoiser.schedule, hasattr(self.denoiser, "target")
        evaluations = EXACT if exact else max(LEAST, 4 * nfe)
        pairs = list(candidates(schedule))
        first = [pair for pair in pairs if pair[0] in FIRST]
        passes = evaluations + nfe * (len(first) + 2 * len(MORE) + len(rivals))
        warnings.warn(
            f"no plan for {nfe} evaluations of this network is known: some untuned solvers are tried on {NOISES} noises, "
            f"about {passes} evaluations of each. " + _once(path) + " `solverkit tune` fits a plan.",
            stacklevel=3,
        )
        with counting() as count:
            parts = self._parts(evaluations)
            errors = _errors(parts, nfe, first)
            grids = list(dict.fromkeys(grid for _, grid in sorted(errors, key=lambda pair: rms(errors[pair]))))
            errors |= _errors(parts, nfe, [pair for pair in pairs if pair[0] in MORE and pair[1] in grids[:2]])
        if not errors:
            raise BudgetError(f"none of {', '.join(FIRST)} runs in {nfe} evaluations")
        sampler, grid = min(errors, key=lambda pair: rms(errors[pair]))
        budget, best, origin = Budget((), None, sampler, grid), errors[sampler, grid], ""
        with counting() as more:
            for rival in rivals:
                at, fitted = rival.plans.at(nfe)
                found = _of_plans(parts, rival.plans, at)
                if found is not None and rms(found) < rms(best):
                    best, origin = found, f"the plan for {at} evaluations of {rival.path}"
                    budget = Budget(fitted.levels, fitted.weights, None, None)
        figures = {
            "noises": len(best), "rows": count.rows + more.rows, "tried": len(errors) + len(rivals), "rms": rms(best),
            "median": float(best.median()), "rivals": [_mark(rival.plans, nfe) for rival in rivals], "origin": origin,
        }  # fmt: skip
        top = parts[0][1].grid
        made = Budget(budget.levels, budget.weights, budget.sampler, budget.grid, figures)
        return TunedPlans(repr(schedule), top.frame, float(top[0]), None, {nfe: made}, {"reference": evaluations})

    def _parts(self, evaluations: int) -> list[tuple[Any, Trajectories]]:
        """NOISES converged runs, no more at once than the run itself has samples, so that they fit where it fits."""
        batch, *one = self.shape or ()
        size = max(n for n in (1, 2, 4, NOISES) if n <= batch)
        part = Shaped(rows_of(self.denoiser, 0, size, batch), tuple(one))
        return [(part, converge(part, size, SEED + i, evaluations, keep=8)) for i in range(NOISES // size)]

    def _untried(self, nfe: int, rivals: Sequence[Known], error: SolverKitError) -> Chosen:
        """Where no trial can be made: the plan of the next lower budget, else the usual solver."""
        why = f"no trial could be made: {error}"
        for path, plans, own in rivals:
            if own:
                at, _ = plans.at(nfe)
                said = f"the plan for {at} evaluations of {path}, the next lower budget; {why}"
                return Chosen(_only(plans, at), {"auto": said, "trial_rows": 0.0})
        card, schedule = resolve(USUAL), self.denoiser.schedule
        name = default_grid(card, schedule)
        top = lay(name, schedule, nfe)
        plans = TunedPlans(repr(schedule), top.frame, float(top[0]), None, {nfe: Budget((), None, USUAL, name)})
        return Chosen(plans, {"auto": f"{USUAL} on {name}; {why}", "trial_rows": 0.0})


class Shaped:
    """A denoiser that knows the shape of a sample."""

    def __init__(self, denoiser: Any, shape: tuple[int, ...]) -> None:
        self.denoiser, self.shape = denoiser, shape

    def __call__(self, x: torch.Tensor, level: Any) -> torch.Tensor:
        return self.denoiser(x, level)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.denoiser, name)


Pair = tuple[str, str]


def _errors(parts: Sequence[tuple[Any, Trajectories]], nfe: int, pairs: Sequence[Pair]) -> dict[Pair, torch.Tensor]:
    """Each sample's error (NOISES,) of the pairs that run on all noises."""
    found: dict[Pair, list[torch.Tensor]] = {}
    for part, reference in parts:
        for one in trial(part, reference.own_start, reference.own_end, nfe, pairs):
            found.setdefault((one.sampler, one.grid), []).append(one.errors)
    return {pair: torch.cat(errors) for pair, errors in found.items() if len(errors) == len(parts)}


def _of_plans(parts: Sequence[tuple[Any, Trajectories]], plans: TunedPlans, nfe: int) -> torch.Tensor | None:
    """Each sample's error of fitted plans; None where they do not run or leave the data."""
    errors = []
    for part, reference in parts:
        start = reference.own_start
        try:
            run = sample(part, plans.sampler, nfe=nfe, x=start, dtype=start.dtype)
        except SolverKitError:
            return None
        errors.append(per_sample(reference.own_end - run.x))
    return torch.cat(errors) if all(bool(e.isfinite().all()) for e in errors) else None


def _fits(plans: TunedPlans, nfe: int) -> bool:
    """Whether they hold a fitted plan of at most so many evaluations."""
    fitting = [n for n in plans.budgets if n <= nfe]
    return bool(fitting) and plans.budgets[max(fitting)].weights is not None


def _only(plans: TunedPlans, nfe: int) -> TunedPlans:
    return TunedPlans(plans.schedule, plans.frame, plans.start, plans.fingerprint, {nfe: plans.budgets[nfe]}, plans.facts)


def _mark(plans: TunedPlans, nfe: int) -> str:
    """What tells a fitted plan from others."""
    _, budget = plans.at(nfe)
    weights = b"" if budget.weights is None else budget.weights.tobytes()
    return hashlib.sha256(repr(budget.levels).encode() + weights).hexdigest()[:16]


def _cached(path: Path, nfe: int, rivals: Sequence[Known]) -> TunedPlans | None:
    """The winner of a trial of before, if all these rivals took part in it and it can still be run."""
    if not path.is_file():
        return None
    try:
        plans = load_plans(path)
        budget = plans.budgets[nfe]
        tried = set(budget.figures["rivals"])
    except (LoadError, KeyError, TypeError):  # torn, of another version, or of other budgets: it is made anew
        return None
    if not {_mark(rival.plans, nfe) for rival in rivals} <= tried:
        return None
    known = registry().cards["samplers"]
    return _only(plans, nfe) if budget.sampler is None or budget.sampler.partition(":")[0] in known else None


def _told(plans: TunedPlans, nfe: int) -> str:
    budget = plans.budgets[nfe]
    what = budget.figures["origin"] or f"{budget.sampler} on {budget.grid}"
    return f"{what}, the best of {budget.figures['tried']} in a trial on {budget.figures['noises']} noises"


def _kept(path: Path | None, made: TunedPlans) -> str:
    """Keeps the trial, and says where."""
    if path is None:
        return "not kept, since the network has no fingerprint"
    try:
        return f"kept in {keep(path, made)}"
    except LoadError as error:
        return f"not kept: {error}"


def _once(path: Path | None) -> str:
    if path is None:
        return "The network has no fingerprint, so that this is done in every run."
    return f"This is done once and kept in {path.parent}."
