"""Levels that were chosen for a network, one list for each number of steps, and the file that holds them."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from ..errors import GridError, LoadError, OptionError, ScheduleError
from ..files.regular_file import read_json
from ..grid.grid import Grid, show
from ..grid.named import is_count
from ..model.fingerprint import try_fingerprint
from ..process.level import to_ratio
from ..process.schedule import Schedule
from ..run.sampling import sample
from .gits import Cost, cheapest, jump_costs
from .loss import per_sample
from .oss import carried
from .trajectories import Trajectories, converge, usual_evaluations

FORMAT, VERSION = "solverkit-levels", 1
SEED = 1000  # of the noises, as of sk.tune
GAMMAS = (0.7, 0.8, 0.9, 0.95, 0.97, 0.985, 1.0, 1.02, 1.05, 1.1, 1.2, 1.35, 1.5)  # of GITS, tried where none is given
Method = Literal["gits", "oss"]


@dataclass(frozen=True)
class ChosenLevels:
    """What `sk.choose_levels` makes.

    Attributes:
        method: How they were chosen.
        schedule: Of the network, as text.
        frame: Of the levels.
        levels: By the number of steps n: n + 1 levels, falling to 0.
        fingerprint: Of the network; None where it has none.
        facts: How they were made: noises, candidates, settings.
    """

    method: str
    schedule: str
    frame: int
    levels: Mapping[int, tuple[float, ...]]
    fingerprint: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def ratios(self, schedule: Schedule, n: int) -> list[float]:
        """sigma / alpha of n steps.

        Raises:
            ScheduleError: they were chosen on another schedule.
            GridError: there are none for n steps.
        """
        if self.schedule != repr(schedule):
            raise ScheduleError(
                f"these levels were chosen on {self.schedule}, and the network has {schedule!r}: choose them for the "
                "network that you run, with sk.choose_levels."
            )
        if n not in self.levels:
            raise GridError(f"levels were chosen for {sorted(self.levels)} steps, and not for {n}.")
        return [to_ratio(s, self.frame) for s in self.levels[n]]

    def grid(self, schedule: Schedule, n: int) -> Grid:
        """The grid of n steps, for `sk.sample(..., grid=...)`; errors as in `ratios`."""
        return Grid.from_ratios(schedule, self.ratios(schedule, n))

    def save(self, path: str | Path) -> None:
        """Write the file, as JSON.

        Raises:
            LoadError: it cannot be written.
        """
        told: dict[str, Any] = {
            "format": FORMAT, "version": VERSION, "method": self.method, "schedule": self.schedule, "frame": self.frame,
            "fingerprint": self.fingerprint, "facts": dict(self.facts),
        }  # fmt: skip
        lines = [f'"{n}": {json.dumps(list(levels))}' for n, levels in self.levels.items()]
        head = json.dumps(told, indent=1).removesuffix("\n}")
        try:  # a line for each number of steps
            Path(path).write_text(head + ',\n "levels": {\n  ' + ",\n  ".join(lines) + "\n }\n}\n", encoding="utf-8")
        except OSError as error:
            raise LoadError(f"the levels cannot be written to {path}: {error}.") from error


def choose_levels(
    denoiser: Any,
    steps: int = 10,
    method: Method = "gits",
    *,
    samples: int = 64,
    candidates: int = 64,
    gamma: float | None = None,
    solver: str | None = None,
    cost: Cost | None = None,
    seed: int = SEED,
    reference_evaluations: int | None = None,
) -> ChosenLevels:
    """Levels for 1 .. `steps` steps of a network, by dynamic programming on its converged trajectories.

    Args:
        denoiser: From `sk.wrap`, `sk.load` or `solverkit.guidance`; deterministic.
        steps: The most steps.
        method: "gits" (Chen et al. 2024, arXiv 2405.11326): the least sum of errors of first-order jumps from the
            trajectory; an evaluation a candidate and noise. "oss" (Pei et al. 2025, arXiv 2503.21774): the first-order run
            that stays nearest to it; `steps` times as many.
        samples: Noises.
        candidates: Levels to choose from, on a named grid of the network: about so many.
        gamma: Of "gits": jumps later by one count so many times as much. None tries 0.7 to 1.5 and keeps, for each number
            of steps, the one of least RMS error of `solver` on these noises.
        solver: Of "gits" without a gamma: what the levels are for; default "ipndm".
        cost: Of "gits": "distance" of a jump from the trajectory (default), or its "deviation" from the chord.
        seed: Of the noises.
        reference_evaluations: Of a converged run.

    Raises:
        OptionError: counts or settings that make no sense.
        NonFiniteError: the network answers NaN or inf.
        SolverKitError: from the denoiser.
    """
    if method not in get_args(Method):
        raise OptionError(f"method must be 'gits' or 'oss', got {method!r}.")
    for name, count, least in (("steps", steps, 1), ("samples", samples, 1), ("candidates", candidates, 4)):
        if not is_count(count) or count < least:
            raise OptionError(f"{name} must be a whole number of at least {least}, got {count!r}.")
    if method == "oss" and not (gamma is solver is cost is None):
        raise OptionError("gamma, solver and cost belong to method='gits'; 'oss' has none of them.")
    if gamma is not None and (solver is not None or not 0 < gamma < math.inf):
        raise OptionError(f"gamma must be a positive number, or left out where a solver is named; got {gamma!r}.")
    if cost not in (None, *get_args(Cost)):
        raise OptionError(f"cost must be 'distance' or 'deviation', got {cost!r}.")
    evaluations = reference_evaluations or usual_evaluations(denoiser)
    with torch.no_grad():
        trajectories = converge(denoiser, samples, seed, evaluations, keep=candidates)
        grid = trajectories.grid
        if steps > len(grid) - 1:
            raise OptionError(f"{steps} steps need more than the {len(grid) - 1} candidate levels above 0; ask for more.")
        facts: dict[str, Any] = {
            "seed": seed, "samples": samples, "candidates": len(grid) - 1, "reference_evaluations": evaluations,
        }  # fmt: skip
        if method == "oss":
            paths = carried(denoiser, trajectories, steps)
        else:
            costs = jump_costs(denoiser, trajectories, cost or "distance")
            by_gamma = {g: cheapest(costs, steps, g) for g in (GAMMAS if gamma is None else (gamma,))}
            if gamma is None:
                solver, counts = solver or "ipndm", range(1, steps + 1)
                chosen = {n: _best(denoiser, trajectories, {g: by_gamma[g][n] for g in GAMMAS}, solver) for n in counts}
            else:
                chosen = dict.fromkeys(range(1, steps + 1), gamma)
            paths = {n: by_gamma[g][n] for n, g in chosen.items()}
            facts |= {"cost": cost or "distance", "solver": solver, "gamma": {str(n): g for n, g in chosen.items()}}
    levels = {n: tuple(float(grid[i]) for i in path) for n, path in paths.items()}
    return ChosenLevels(method, repr(denoiser.schedule), grid.frame, levels, try_fingerprint(denoiser), facts)


def _best(denoiser: Any, trajectories: Trajectories, paths: Mapping[float, tuple[int, ...]], solver: str) -> float:
    """The key of the path on which a solver ends nearest to the trajectories, in RMS."""

    @functools.cache
    def error(path: tuple[int, ...]) -> float:
        grid = Grid(tuple(trajectories.grid[i] for i in path), trajectories.grid.schedule)
        run = sample(denoiser, solver, x=trajectories.own_start, grid=grid, dtype=trajectories.start.dtype)
        return float(per_sample(run.x - trajectories.own_end).square().mean())

    return min(paths, key=lambda key: error(paths[key]))


def load_levels(path: str | Path) -> ChosenLevels:
    """The levels of a file.

    Raises:
        LoadError: no file, none that holds levels, one of another version, or levels that do not fall to 0.
    """
    told = read_json(Path(path))
    if told.get("format") != FORMAT:
        raise LoadError(f"{path} holds no levels; such a file is what sk.choose_levels(...).save(path) writes.")
    if told.get("version") != VERSION:
        raise LoadError(f"{path} is of version {told.get('version')}, this solverkit reads {VERSION}; choose levels again.")
    try:
        levels = {int(n): tuple(float(s) for s in each) for n, each in told["levels"].items()}
        chosen = ChosenLevels(
            told["method"], told["schedule"], int(told["frame"]), levels, told["fingerprint"], told["facts"]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LoadError(f"{path} is no whole file of levels: {type(error).__name__} {error}.") from error
    for n, each in levels.items():
        if len(each) != n + 1 or each[-1] != 0 or not all(a > b for a, b in pairwise(each)):  # NaN fails
            raise LoadError(
                f"{path} is no whole file of levels: {n} steps need {n + 1} levels that fall to 0, got {show(each)}."
            )
    return chosen
