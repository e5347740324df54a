"""Plans: a sampler traced to data, and the pure functions that drive it.

`trace` calls a sampler with symbols and compiles what it did. A `Plan` is a tuple of segments, one before each
evaluation and one after the last; a segment reads values from numbered slots. `begin` and `advance` are pure: a `State`
can be copied, pickled, rewound and shared, and they accept symbols as well as tensors, which is how wrappers are written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..errors import TraceError
from ..grid.grid import Grid
from ..process.level import Level
from .instructions import Ref

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Terms = tuple[tuple[int, float], ...]
INPUT: Ref = ("x", -1)


class Combination(NamedTuple):
    """sum of weight * values[slot], as an argument of an op."""

    terms: Terms


class Instruction(NamedTuple):
    """Append one value: a draw (ordinal, s, t), an op (fn, args, kwargs), or a register."""

    kind: str
    payload: tuple[Any, ...]


class Segment(NamedTuple):
    """From what is known after an evaluation to the next state: instructions, the state's terms, and what to carry."""

    instructions: tuple[Instruction, ...]
    x: Terms
    carry: tuple[int, ...]


class State(NamedTuple):
    """Where a run stands: how many evaluations are done, and the values that later segments read."""

    index: int  # type: ignore[assignment]  # shadows tuple.index, which nobody needs here
    values: tuple[Any, ...]


MODEL = "model"  # what the model of a run is called where several are counted


class PlanRow(NamedTuple):
    """One line of `Plan.table()`; `to` and `of` are None where the run's own model is asked for E[x_0 | x]."""

    evaluation: int
    level: Level
    boundary: bool
    carried: int
    update: str
    to: Level | None = None
    of: str | None = None


@dataclass(frozen=True)
class Plan:
    """A traced sampler on one grid: immutable, picklable, shared by copies.

    Attributes:
        segments: nfe + 1 of them.
        levels: The level of each evaluation.
        boundary: boundary[j] says that evaluation j sees the start of a step.
        rows: The update after each evaluation, in words (`table`).
        grid: What the sampler was traced on.
        to: The second level of each evaluation, None where a denoised prediction is asked for; empty where it always is.
        of: The name of the model that each evaluation asks, None for the run's own; empty where it always is.
    """

    segments: tuple[Segment, ...]
    levels: tuple[Level, ...]
    boundary: tuple[bool, ...]
    rows: tuple[str, ...]
    grid: Grid
    to: tuple[Level | None, ...] = ()
    of: tuple[str | None, ...] = ()

    @property
    def nfe(self) -> int:
        """How often the network is called."""
        return len(self.levels)

    @property
    def nfe_of(self) -> dict[str, int]:
        """The same for each model that is asked, by name; the run's own is "model"."""
        return dict(Counter(name or MODEL for name in self.of)) if self.of else {MODEL: self.nfe}

    def said(self, j: int) -> dict[str, Any]:
        """What evaluation j says beside its level: `to` and `of`, where it says them."""
        to, of = self.to[j] if self.to else None, self.of[j] if self.of else None
        return {**({} if to is None else {"to": to}), **({} if of is None else {"of": of})}

    def ask(self, j: int, model: Callable[..., Any], x: Any) -> Any:
        """The answer of evaluation j: of model(x, level), with what it says of a second level and of which model."""
        return model(x, self.levels[j], **self.said(j))

    @property
    def depth(self) -> int:
        """The largest number of tensors that a state carries between evaluations."""
        return max(len(segment.carry) for segment in self.segments)

    @property
    def draws(self) -> int:
        """How many draws a run makes."""
        return sum(i.kind == "draw" for segment in self.segments for i in segment.instructions)

    def table(self) -> list[PlanRow]:
        """One row an evaluation: its level, and the update that follows it."""
        return [
            PlanRow(j, level, self.boundary[j], len(self.segments[j].carry), self.rows[j + 1], **self.said(j))
            for j, level in enumerate(self.levels)
        ]

    def plot(self) -> Figure:
        """A matplotlib figure: where the network is asked, and the weights of each update as a heat map.

        Columns are relative to the row: D is the prediction that was just made, D-1 the one before, z a draw, op a value
        that is no sum. `plan.plot().savefig("plan.svg")` writes it.
        """
        from .picture import plan_figure

        return plan_figure(self)

    def _repr_html_(self) -> str:
        from ..notebook import html_table

        head = ("#", "s", "told", "step", "update")
        rows = [
            (str(r.evaluation), f"{r.level:.5g}", f"{r.level.time:.5g}", "*" * r.boundary, r.update) for r in self.table()
        ]
        caption = f"plan: {self.nfe} evaluations, {self.draws} draws, at most {self.depth} tensors carried"
        return html_table(caption, head, rows)

    def __deepcopy__(self, memo: dict[int, Any]) -> Plan:
        return self

    def __copy__(self) -> Plan:
        return self


def combine(terms: Terms, values: Sequence[Any]) -> Any:
    """sum of weight * values[slot]; always a new tensor."""
    if not terms:
        return values[0] * 0.0
    rest = iter(terms)
    slot, weight = next(rest)
    out = values[slot] * weight
    if not isinstance(out, torch.Tensor):
        for slot, weight in rest:
            out = out + values[slot] * weight
        return out
    for slot, weight in rest:
        try:
            out.add_(values[slot], alpha=weight)
        except RuntimeError:  # an op made a value that broadcasts
            out = torch.add(out, values[slot], alpha=weight)
    return out


def _filled(value: Any, values: Sequence[Any]) -> Any:
    if isinstance(value, Combination):
        return combine(value.terms, values)
    if type(value) in (list, tuple):
        return type(value)(_filled(v, values) for v in value)
    return value


def _run(segment: Segment, values: list[Any], draw: Callable[[int, float, float], Any] | None) -> Any:
    for kind, payload in segment.instructions:
        if kind == "keep":
            values.append(combine(payload[0], values))
        elif kind == "draw":
            if draw is None:
                raise TraceError("this plan draws noise; pass draw(ordinal, s, t) -> standard normal.")
            values.append(draw(*payload))
        else:
            fn, args, kwargs = payload
            filled = {name: _filled(value, values) for name, value in kwargs.items()}
            values.append(fn(*_filled(args, values), **filled))
    return combine(segment.x, values)


def begin(plan: Plan, x: Any, draw: Callable[[int, float, float], Any] | None = None) -> tuple[Any, State]:
    """The state that the first evaluation sees, and where the run stands.

    Args:
        plan: A traced sampler.
        x: The starting state in the plan's frame (a tensor, or a symbol inside another sampler).
        draw: draw(ordinal, s, t) -> standard normal noise of x's shape; needed by stochastic plans only.
    """
    segment, values = plan.segments[0], [x]
    x = _run(segment, values, draw)
    return x, State(0, tuple([values[slot] for slot in segment.carry]))


def advance(
    plan: Plan,
    state: State,
    x: Any,
    denoised: Any,
    draw: Callable[[int, float, float], Any] | None = None,
) -> tuple[Any, State]:
    """One evaluation further: from (x, denoised) to the next state. Pure; calling it again with `state` repeats it.

    Args:
        plan: A traced sampler.
        state: From `begin` or the previous `advance`.
        x: The state that the network really saw (edits of it are honoured).
        denoised: Its denoised prediction E[x_0 | x], same shape and dtype as x.
        draw: draw(ordinal, s, t) -> standard normal noise of x's shape; needed by stochastic plans only.

    Raises:
        TraceError: the plan is finished, or it draws and `draw` is missing.
    """
    index = state.index + 1
    if index >= len(plan.segments):
        raise TraceError(f"the plan is finished: it has {plan.nfe} evaluations and all of them are done.")
    segment, values = plan.segments[index], [*state.values, x, denoised]
    x = _run(segment, values, draw) if segment.instructions else combine(segment.x, values)
    return x, State(index, tuple([values[slot] for slot in segment.carry]))


def follow(plan: Plan, model: Any, x: Any, grid: Grid, noise: Any) -> Any:
    """Run a plan inside another sampler: steps of its `grid` begin where the plan's do, draws are numbered with its own.

    Args:
        plan: Of the inner sampler.
        model, x, grid, noise: What the outer sampler was called with.
    """
    x, state = begin(plan, x, noise.draw)
    for j, boundary in enumerate(plan.boundary):
        if boundary:
            grid.begin_step()
        x, state = advance(plan, state, x, plan.ask(j, model, x), noise.draw)
    return x
