"""A plan by Picard sweeps: a window of evaluations is asked at once, and the plan's own rows follow the answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from solverkit import Level
from solverkit.flow.rows import ask
from solverkit.plan.plan import Plan, State, advance, begin
from solverkit.steps import contraction

Draw = Callable[[int, float, float], torch.Tensor]


def deviations(plan: Plan) -> list[float]:
    """sigma_j of each evaluation: t sqrt(1 - r^2), r = contraction(s, t), the standard deviation of x_t given x_s and x_0.

    s -> t is the step that the evaluation belongs to; the step to 0 has 0. Source: Ho et al. 2020, eq. 7, in the frame.
    """
    starts = [j for j, boundary in enumerate(plan.boundary) if boundary]
    ends: list[Level] = [*(plan.levels[j] for j in starts[1:]), plan.grid[-1]]
    found: list[float] = []
    for j, t, stop in zip(starts, ends, [*starts[1:], plan.nfe]):
        r = contraction(plan.levels[j], t)
        found += [t * math.sqrt(abs(1 - r * r))] * (stop - j)
    return found


class Once:
    """The draws of a plan, each made when its segment is first run and kept until the segment is final."""

    def __init__(self, draw: Draw) -> None:
        self.draw, self.made = draw, dict[int, dict[tuple[int, float, float], torch.Tensor]]()

    def of(self, segment: int) -> Draw:
        """The draws of one segment; segments are first run in their order, so that draws are numbered as in a plain run."""
        made = self.made.setdefault(segment, {})

        def draw(ordinal: int, s: float, t: float) -> torch.Tensor:
            place = (ordinal, s, t)
            if place not in made:
                made[place] = self.draw(ordinal, s, t)
            return made[place]

        return draw


class Sweeps:
    """Where a run by sweeps stands.

    Attributes:
        starts: For each sample the first evaluation whose state is final and whose answer is not known there.
        nodes: x_j, (B, ...): what evaluation j sees as far as is known; the last is the end of the run.
        answers: D_j, (B, ...): the newest answer of evaluation j, at the x_j of the sweep before.
        states: What the plan carries when it is at x_j.
        guess: The answer of the last evaluation in each sample's window: it stands for those behind the window.
        count: Sweeps so far.
    """

    def __init__(self, plan: Plan, model: Any, x: torch.Tensor, draw: Draw, window: int, tolerance: float) -> None:
        self.plan, self.model, self.window, self.draw = plan, model, window, Once(draw)
        self.exact, self.most = tolerance == 0, [(tolerance * sigma) ** 2 for sigma in deviations(plan)]
        first, state = begin(plan, x, self.draw.of(0))
        self.starts, self.count = [0] * len(x), 0
        self.nodes: dict[int, torch.Tensor] = {0: first}
        self.states: dict[int, State] = {0: state}
        self.answers: dict[int, torch.Tensor] = {}
        self.guess = torch.zeros_like(first)  # as if the data were all 0: nodes are then noise of their level
        self._reach(0)

    @property
    def done(self) -> bool:
        return min(self.starts) == self.plan.nfe

    def sweep(self) -> None:
        """One batch of the model, and the plan's rows over what it answered."""
        low, stops = min(self.starts), self._stops()
        self._ask(low, stops)
        old = [self.nodes[j + 1] for j in range(low, max(stops))]
        far = self._changed(old, [self._advance(j) for j in range(low, max(stops))])
        self.starts = [
            next((j for j in range(a + 1, b) if not far[j - 1 - low][i] <= self.most[j]), b)
            for i, (a, b) in enumerate(zip(self.starts, stops))
        ]
        self.count += 1
        self._forget(low)
        self._reach(max(stops))

    def _stops(self) -> list[int]:
        return [min(a + self.window, self.plan.nfe) for a in self.starts]

    def _ask(self, low: int, stops: Sequence[int]) -> None:
        """D_j of the evaluations in each sample's window, all in one batch; behind a window its last answer."""
        places, batch = range(low, max(stops)), len(stops)
        window = [(j, i) for j in places for i, (a, b) in enumerate(zip(self.starts, stops)) if a <= j < b]
        behind = [(j, i) for j in places for i, b in enumerate(stops) if j >= b]

        def rows(of: Sequence[tuple[int, int]]) -> torch.Tensor:
            return torch.tensor([(j - low) * batch + i for j, i in of], device=self.guess.device)

        asked = rows(window)
        x = torch.cat([self.nodes[j] for j in places])[asked]
        levels, samples = tuple(self.plan.levels[j] for j, _ in window), [i for _, i in window]
        ahead = getattr(self.model, "ahead", None)
        new = ask(self.model, x, levels, torch.tensor(samples)) if ahead is None else ahead(x, levels, samples)
        answers = torch.cat([self.answers[j] for j in places]).index_copy(0, asked, new)
        if behind:
            answers = answers.index_copy(0, rows(behind), answers[rows([(stops[i] - 1, i) for _, i in behind])])
        self.answers.update(zip(places, answers.split(batch)))
        self.guess = self.answers[places[-1]]

    def _advance(self, j: int) -> torch.Tensor:
        """x_{j + 1} by row j of the plan."""
        draw = self.draw.of(j + 1)
        new, self.states[j + 1] = advance(self.plan, self.states[j], self.nodes[j], self.answers[j], draw)
        self.nodes[j + 1] = new
        return new

    def _changed(self, old: Sequence[torch.Tensor], new: Sequence[torch.Tensor]) -> list[list[float]]:
        """The mean square change of each node in each sample; with tolerance 0 whether any number of it changed."""
        a, b = torch.stack(list(old)), torch.stack(list(new))
        far = (a != b).flatten(2).any(2) if self.exact else (b - a).flatten(2).square().mean(2)
        return far.cpu().tolist()  # type: ignore[no-any-return]

    def _forget(self, low: int) -> None:
        """Tell of the evaluations that are final in all samples, and let them go."""
        tell = getattr(self.model, "tell", None)
        for j in range(low, min(self.starts)):
            x, denoised = self.nodes.pop(j), self.answers.pop(j)
            del self.states[j]
            self.draw.made.pop(j, None)
            if tell is not None:
                tell(x, self.plan.levels[j], denoised)

    def _reach(self, top: int) -> None:
        """Nodes of new evaluations in the windows, from the guess of their answers."""
        for j in range(top, max(self._stops())):
            self.answers[j] = self.guess
            self._advance(j)
