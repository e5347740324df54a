"""Fitted plans of one network, one for each budget, and the file that holds them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import BudgetError, GridError, LoadError, ScheduleError
from ..files import artefact
from ..files.cache import write_whole
from ..files.regular_file import require_file
from ..grid.grid import Grid
from ..model.counting import report
from ..plan.plan import follow
from ..plan.trace import trace
from ..process.schedule import Schedule
from ..registry.registry import resolve
from ..run.choose import fit_grid

FORMAT, VERSION = "solverkit-plan", 1
FILE = "plan.safetensors"  # its name in a folder and on the hub
MADE = "`solverkit tune MODEL --out FILE` writes one."


@dataclass(frozen=True)
class Budget:
    """The plan of one budget: x_{i+1} = w_i0 x_i + sum_{j <= i} w_i,1+j D_j in the frame, D_j = E[x_0 | x_j] at levels[j].

    Attributes:
        levels: Of the evaluations, falling, (N,); the run ends at 0.
        weights: (N, N + 1); row i has i + 2 of them.
        sampler, grid: The untuned sampler that was better, in the place of weights.
        figures: What was measured on noises that nothing was fitted to.
    """

    levels: tuple[float, ...] = ()
    weights: np.ndarray | None = None
    sampler: str | None = None
    grid: str | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TunedPlans:
    """What `sk.tune` makes.

    Attributes:
        schedule: Of the network, as text.
        frame: Of levels and weights.
        start: The level that runs begin at.
        fingerprint: Of the network with its inputs and guidance; None where it has none.
        budgets: By the number of evaluations.
        facts: How it was made: seeds, counts, settings.
    """

    schedule: str
    frame: int
    start: float
    fingerprint: str | None
    budgets: Mapping[int, Budget]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def at(self, nfe: int) -> tuple[int, Budget]:
        """The plan of the largest budget that is at most `nfe`.

        Raises:
            BudgetError: there is none so small.
        """
        fitting = [n for n in self.budgets if n <= nfe]
        if not fitting:
            raise BudgetError(f"the plan has budgets {sorted(self.budgets)}, and none of at most {nfe} evaluations.")
        return max(fitting), self.budgets[max(fitting)]

    def require(self, schedule: Schedule) -> None:
        """Raises ScheduleError where the plan was fitted on another schedule."""
        if self.schedule != repr(schedule):
            raise ScheduleError(
                f"this plan was fitted on {self.schedule}, and the network has {schedule!r}: its weights mean nothing "
                "there. Tune the network that you run: solverkit tune."
            )

    def _require_ends(self, grid: Grid) -> None:
        frames, inside = ("sigma", "flow"), 1 + 1e-4
        if grid.frame != self.frame or not self.start / inside <= grid[0] <= self.start * inside:
            raise GridError(
                f"the plan begins at {self.start:.6g} in the {frames[self.frame]} frame, and the grid at "
                f"{float(grid[0]):.6g} in the {frames[grid.frame]} frame: take a grid from the most noise, such as "
                "'trailing', 'karras' or 'flow'."
            )
        if grid[-1] > grid.schedule.level(grid.schedule.ratio_min) * inside:
            raise GridError(f"the plan ends at 0, and the grid at {float(grid[-1]):.6g}: no plan is fitted to a part.")

    def sampler(self, model: Any, x: Any, grid: Grid, noise: Any) -> Any:
        """A sampler for `sk.sample` and `sk.trace`: as many steps as the grid has, or the next lower budget of the file.

        Levels are the plan's own; the run begins where the grid does, and ends at 0.

        Raises:
            BudgetError: the grid has fewer steps than the least budget.
            ScheduleError: the plan was fitted on another schedule.
            GridError: the grid begins elsewhere, ends above the smallest level, or is in another frame.
        """
        self.require(grid.schedule)
        self._require_ends(grid)
        n, budget = self.at(len(grid) - 1)
        report("plan", f"tuned for {n} evaluations" if budget.weights is not None else f"{budget.sampler} on {budget.grid}")
        if budget.weights is None:
            card = resolve(str(budget.sampler))
            own = fit_grid(card, str(budget.grid), grid.schedule, n, {})
            return follow(trace(card, own), model, x, own, noise)
        predictions: list[Any] = []
        for i, s in enumerate(budget.levels):
            grid.begin_step()
            predictions.append(model(x, grid.at(s)))
            x = float(budget.weights[i, 0]) * x
            for j, denoised in enumerate(predictions):
                if weight := float(budget.weights[i, 1 + j]):
                    x = x + weight * denoised
        return x

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            LoadError: it cannot be written.
        """
        from safetensors.torch import save

        tensors, entries = {}, {}
        for n, budget in self.budgets.items():
            entries[str(n)] = {"sampler": budget.sampler, "grid": budget.grid, "figures": dict(budget.figures)}
            if budget.weights is not None:
                tensors[f"{n}.levels"] = torch.tensor(budget.levels, dtype=torch.float64)
                tensors[f"{n}.weights"] = torch.from_numpy(np.ascontiguousarray(budget.weights))
        told = {
            "schedule": self.schedule, "frame": self.frame, "start": self.start, "fingerprint": self.fingerprint,
            "budgets": entries, "facts": dict(self.facts),
        }  # fmt: skip
        metadata = {"format": FORMAT, "version": str(VERSION), "plan": json.dumps(told)}
        try:
            write_whole(Path(path), save(tensors or {"empty": torch.zeros(0)}, metadata))
        except OSError as error:
            raise LoadError(f"the plan cannot be written to {path}: {error.strerror or error}.") from error

    def remember(self) -> Path:
        """Put the plans into the user's cache, where `auto` finds them for their network; returns the file.

        Raises:
            FingerprintError: the network has no fingerprint.
            LoadError: the cache cannot be written.
        """
        from .known import remember

        return remember(self)

    def card(self) -> str:
        """A page that says what the plans were fitted to, how well they do, and how to run them and make them again."""
        from .page import page

        return page(self)

    def push_to_hub(self, repo_id: str, private: bool = False, token: str | None = None) -> str:
        """Upload the file, and `card()` as README.md where the repository has none; returns the file's address.

        `sk.sample(denoiser, "tuned", plan=repo_id, nfe=...)` runs it from there.

        Raises:
            LoadError: the hub refused, or cannot be reached.
        """

        def written(path: Path) -> Path:
            self.save(path)
            return path

        return artefact.push(written, repo_id, token, private, FILE, self.card())


def load_plans(source: str | os.PathLike[str]) -> TunedPlans:
    """The plans of a file; of a folder or a hub id that has one as plan.safetensors; or those bundled with a network.

    Raises:
        LoadError: no file, no plan, a torn file, or one of another version; or the hub cannot be reached.
    """
    from safetensors import safe_open

    path = artefact.located(source, FILE, "plan", MADE)
    try:
        with safe_open(str(require_file(path)), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises a dozen types for files that are not its own
        raise LoadError(f"{path} cannot be read as a plan: {error}. {MADE}") from error
    if metadata.get("format") != FORMAT:
        raise LoadError(f"{path} holds tensors but no plan. {MADE}")
    if metadata.get("version") != str(VERSION):
        raise LoadError(
            f"{path} is a plan of version {metadata.get('version')}, this solverkit reads {VERSION}; tune again."
        )
    try:
        told = json.loads(metadata["plan"])
        budgets = {int(n): _budget(int(n), entry, tensors) for n, entry in told["budgets"].items()}
        return TunedPlans(told["schedule"], told["frame"], told["start"], told["fingerprint"], budgets, told["facts"])
    except (KeyError, TypeError, ValueError) as error:
        raise LoadError(f"{path} is no whole plan: {type(error).__name__} {error}.") from error


def _budget(n: int, entry: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Budget:
    """The plan of n evaluations.

    Raises:
        KeyError, TypeError, ValueError: something is missing, or has not the size of n evaluations.
    """
    if entry["sampler"] is not None:
        return Budget((), None, str(entry["sampler"]), str(entry["grid"]), entry["figures"])
    levels, weights = tensors[f"{n}.levels"], tensors[f"{n}.weights"]
    if levels.shape != (n,) or weights.shape != (n, n + 1):
        raise ValueError(f"NFE {n} has levels {tuple(levels.shape)} and weights {tuple(weights.shape)}")
    if not (bool(levels.isfinite().all()) and bool(weights.isfinite().all())):
        raise ValueError(f"NFE {n} has weights or levels that are not finite")
    return Budget(tuple(levels.tolist()), weights.numpy(), None, None, entry["figures"])
