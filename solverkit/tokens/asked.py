"""The token model as a decoder sees it in a run: cached for each sequence, counted, watched."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import OptionError
from ..model.counting import counting
from ..process.level import Level
from ..run.result import Evaluation

NEVER = -1  # the evaluation after which a given token was revealed: none


class AskedTokens:
    """model(x, level) -> log-probabilities, where only sequences that changed are evaluated.

    A sequence is answered from memory when its ids are those that were evaluated last (compared exactly, each sequence on
    its own) and the network is told nothing else. One in which nothing is masked is not evaluated either, unless the
    decoder asks for `complete` ones too: its answer is then meaningless and must not be used.

    Attributes:
        free: (B, L) bool, the positions that are not given.
        asked, rows, passes: Sequences that the decoder asked for, that the network evaluated, and calls of it.
        revealed: (B, L) number of the evaluation that a token was last revealed or changed by, -1 where it was given.
    """

    def __init__(self, model: Any, x: Tensor, free: Tensor, report: Callable[[Evaluation], None] | None = None) -> None:
        self.model, self.free, self._report = model, free, report
        self.mask, self.vocabulary, self.process = model.mask, model.vocabulary, model.process
        self.planner = _Plan(model.planner) if getattr(model, "planner", None) is not None else None
        self.asked = self.rows = self.passes = self.calls = 0
        self.seconds, self.levels = 0.0, []  # type: ignore[var-annotated]
        self.revealed = torch.full_like(x, NEVER)
        self._before = x.clone()
        self._seen: Tensor | None = None
        self._told: Any = None
        self._answer: Tensor | None = None

    def __call__(self, x: Tensor, level: float | Tensor, complete: bool = False) -> Tensor:
        """Log-probabilities (B, L, V) of ids (B, L) at a level, or at one level a sample (B,).

        Raises:
            OptionError: the state has another shape than the run.
        """
        if x.shape != self._before.shape:
            raise OptionError(
                f"the decoder asked for ids of shape {tuple(x.shape)} in a run of {tuple(self._before.shape)}."
            )
        self.watch(x)
        needed = torch.ones(len(x), dtype=torch.bool, device=x.device)
        if self.mask is not None and not complete:
            needed = (x == self.mask).any(dim=1)
        changed = needed & self._changed(x, level)
        self.asked += int(needed.sum())
        self.levels.append(level)
        if bool(changed.any()):
            self._evaluate(x, level, changed)
        assert self._answer is not None or not bool(needed.any())
        answer = self._answer
        if answer is None:  # nothing is masked anywhere
            answer = torch.zeros(*x.shape, self.vocabulary, device=x.device)
        if self._report is not None:
            at = level if isinstance(level, Level) else Level(float(torch.as_tensor(level).float().mean()), frame=1)
            self._report(Evaluation(self.calls, at, x, answer))
        self.calls += 1
        return answer

    def _changed(self, x: Tensor, level: float | Tensor) -> Tensor:
        if self._seen is None or not self.model.cache:
            return torch.ones(len(x), dtype=torch.bool, device=x.device)
        changed = (x != self._seen).any(dim=1)
        if self.model.time is not None:
            told = torch.as_tensor(level, dtype=torch.float64, device=x.device).expand(len(x))
            changed = changed | (told != self._told)
        return changed

    def _evaluate(self, x: Tensor, level: float | Tensor, rows: Tensor) -> None:
        began = time.perf_counter()
        every = bool(rows.all())
        at = level[rows] if isinstance(level, Tensor) and level.ndim else level
        with counting(x, level) as count:
            new = self.model(x if every else x[rows], at)
        self.rows, self.passes = self.rows + count.rows, self.passes + count.passes
        told = torch.as_tensor(level, dtype=torch.float64, device=x.device).expand(len(x))
        if every or self._answer is None or self._seen is None:
            self._answer = new if every else new.new_zeros(len(x), *new.shape[1:])
            self._seen, self._told = torch.full_like(x, NEVER), told.clone()
        if not every:
            self._answer = self._answer.clone()  # the decoder may hold the last one
            self._answer[rows] = new
        self._seen[rows], self._told = x[rows], torch.where(rows, told, self._told)
        self.seconds += time.perf_counter() - began

    def watch(self, x: Tensor) -> None:
        """Note which tokens changed since the last look: they were revealed by the evaluation before this one."""
        changed = (x != self._before) & self.free
        self.revealed = torch.where(changed, max(self.calls - 1, 0), self.revealed)
        self._before = x.clone()


class _Plan:
    """A planner's log-probabilities: another network, counted with the first."""

    def __init__(self, planner: Any) -> None:
        self.planner = planner

    def __call__(self, x: Tensor, level: float | Tensor) -> Tensor:
        return self.planner(x, level)  # type: ignore[no-any-return]
