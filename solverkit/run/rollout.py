"""Rollouts: runs whose states are kept, so that their probability can be told again, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import NonFiniteError, OptionError
from ..grid.grid import Grid
from ..model.denoiser import DenoiserLike
from ..plan.plan import Plan, advance, begin
from ..plan.transitions import Reduce, Transition, transitions
from .asked import Asked
from .start import Start


@dataclass(frozen=True)
class Rollout:
    """A run of a plan, and what it went through; all states in the plan's frame.

    Attributes:
        plan: What was run.
        start: The state at the first level, (B, ...).
        states: The state after each evaluation, nfe of them.
        denoised: The answers, nfe of them.
    """

    plan: Plan
    start: torch.Tensor
    states: tuple[torch.Tensor, ...]
    denoised: tuple[torch.Tensor, ...]

    @property
    def x(self) -> torch.Tensor:
        """The samples, in the model's own coordinates."""
        return self.states[-1] * self.plan.grid[-1].scale

    def transitions(self, denoiser: DenoiserLike | None = None, *, reduce: Reduce) -> list[Transition]:
        """The transitions of this run under a denoiser: with gradients to its network where they are enabled.

        Args:
            denoiser: Which is asked at the stored states; None takes the stored answers.
            reduce: "sum" or "mean" over the dimensions of a sample.
        """
        if denoiser is None:
            return transitions(self.plan, self.start, self.states, self.denoised, reduce=reduce)
        seen = (self.start, *self.states[:-1])
        answers = [self.plan.ask(j, denoiser, x) for j, x in enumerate(seen)]
        return transitions(self.plan, self.start, self.states, answers, reduce=reduce)

    def log_prob(self, denoiser: DenoiserLike | None = None, *, reduce: Reduce) -> torch.Tensor:
        """(steps that draw, B): the log-probability of each of them."""
        found = [t.log_prob for t in self.transitions(denoiser, reduce=reduce) if t.log_prob is not None]
        if not found:
            raise OptionError("no step of this run draws: it has no probability. Take 'flow-sde', 'cps' or 'ddim:eta=1'.")
        return torch.stack(found)


def rollout(
    denoiser: DenoiserLike,
    plan: Plan,
    num_samples: int | None = None,
    *,
    x: torch.Tensor | None = None,
    seed: int | Sequence[int] = 0,
    dtype: torch.dtype | None = None,
    storage: torch.dtype | None = None,
) -> Rollout:
    """Run a plan without gradients and keep its states.

    Args:
        denoiser: Of the run.
        plan: From `sk.trace` or `sk.mixed`; its first evaluation is at the start of the run.
        num_samples, x, seed, dtype: As in `sk.sample`.
        storage: What the states are rounded to before the run goes on, torch.bfloat16 say: probabilities are those of the
            states that are stored, never of what they were before rounding.

    Raises:
        OptionError: as `sk.sample`, or a plan that does something before its first evaluation.
    """
    grid: Grid = plan.grid
    begins = plan.segments[0]
    if begins.instructions or begins.x != ((0, 1.0),):
        raise OptionError("this plan changes the state before its first evaluation; a rollout begins with an evaluation.")
    start = Start(denoiser, num_samples, None, x, seed, None, dtype, None, False)
    state, draw = start.rows(grid[0], 0, start.shape[0])
    first = state / grid[0].scale
    model = Asked(denoiser, grid, start.shape[0], "raise", None)
    states, answers = [], []
    with torch.no_grad():
        first = _rounded(first, storage)
        now, carried = begin(plan, first, draw)
        for j in range(plan.nfe):
            answer = plan.ask(j, model, now)
            now, carried = advance(plan, carried, now, answer, draw)
            now = _rounded(now, storage)
            states.append(now)
            answers.append(answer)
    if not bool(torch.isfinite(now).all()):
        raise NonFiniteError("the rollout ended in NaN or inf.")
    return Rollout(plan, first, tuple(states), tuple(answers))


def _rounded(x: torch.Tensor, dtype: Any) -> torch.Tensor:
    return x if dtype is None else x.to(dtype).to(x.dtype)
