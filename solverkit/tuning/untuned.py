"""The best of the untuned solvers on some noises: what a fitted plan has to beat."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from ..errors import BudgetError, SolverKitError
from ..process.schedule import Flow
from ..process.variance_preserving import DiscreteVP
from ..registry.registry import registry
from ..run.sampling import sample
from .loss import per_sample
from .references import Ends

SOLVERS = (
    "euler", "heun", "midpoint", "dpmpp-2m", "dpmpp-3m", "unipc:order=2", "unipc", "deis:order=2", "deis",
    "deis:variable=log-rho", "ipndm", "adams-bashforth", "lms", "dpmpp-2s", "dpmpp-3s",
)  # fmt: skip
GRIDS = {
    "vp": ("trailing", "linspace", "karras", "karras:rho=3", "log-snr", "time-uniform", "time-quadratic", "beta"),
    "flow": ("flow", "flow:shift=2", "flow:shift=3", "flow:shift=5", "karras", "karras:rho=3", "log-snr", "beta"),
    "other": ("karras", "karras:rho=3", "karras:rho=5", "log-snr", "beta", "flow", "flow:shift=3", "time-uniform"),
}  # fmt: skip
QUICK = ("dpmpp-2m", "unipc", "deis", "ipndm")  # solvers of a short trial


class Untuned(NamedTuple):
    """A solver on a grid, and each sample's error (B,)."""

    sampler: str
    grid: str
    errors: torch.Tensor


def candidates(schedule: Any, quick: bool = False) -> Iterator[tuple[str, str]]:
    """Pairs of solver and grid that are tried; solvers that no plugin registered are left out."""
    kind = "vp" if isinstance(schedule, DiscreteVP) else "flow" if isinstance(schedule, Flow) else "other"
    solvers, grids = QUICK if quick else SOLVERS, GRIDS[kind]
    known = registry().cards["samplers"]
    for solver in solvers:
        for grid in grids:
            if solver.partition(":")[0] in known:
                yield solver, grid


def best_of(
    denoiser: Any, few: Ends, judge: Ends, nfe: int, pairs: Sequence[tuple[str, str]], tick: Callable[[int], None]
) -> Untuned:
    """The best pair on the noises of `judge`, of those that do best on a few others: all on 8, 16 on 32, 4 on all.

    Args:
        few, judge: Noises and converged ends.
        tick: Called with the rows of each run.

    Raises:
        BudgetError: none of the pairs runs in the budget.
    """
    for count, kept in ((8, 16), (32, 4)):
        some = few.rows(slice(0, count))
        rows = nfe * len(some.start)
        found = trial(denoiser, some.own_start, some.own_end, nfe, pairs, partial(tick, rows))
        pairs = [(u.sampler, u.grid) for u in found[:kept]]
    found = trial(denoiser, judge.own_start, judge.own_end, nfe, pairs, partial(tick, nfe * len(judge.start)))
    if not found:
        raise BudgetError(f"no untuned solver runs in {nfe} evaluations on this network; take a larger budget.")
    return found[0]


def trial(
    denoiser: Any, start: torch.Tensor, end: torch.Tensor, nfe: int, pairs: Sequence[tuple[str, str]],
    tick: Callable[[], None] | None = None,
) -> list[Untuned]:  # fmt: skip
    """Every pair on the same noises, best RMS first; pairs that cannot run in the budget are left out.

    Args:
        start, end: The noises at the first level and the converged samples, in the model's coordinates, (B, ...).
    """
    found = []
    for solver, name in pairs:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of pairs that leave the data: they lose, and that is all
                run = sample(denoiser, solver, nfe=nfe, x=start, grid=name, dtype=start.dtype)
        except SolverKitError:
            continue
        finally:
            if tick is not None:
                tick()
        errors = per_sample(end - run.x)
        if bool(errors.isfinite().all()):
            found.append(Untuned(solver, name, errors))
    return sorted(found, key=lambda u: float(u.errors.square().mean()))
