"""Plans: a sampler traced to data, and the pure functions that drive it.

`trace` calls a sampler with symbols and compiles what it did. A `Plan` is a tuple of segments, one before each
evaluation and one after the last; a segment reads values from numbered slots. `begin` and `advance` are pure: a `State`
can be copied, pickled, rewound and shared, and they accept symbols as well as tensors, which is how wrappers are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from .errors import TraceError
from .grid import Grid
from .level import Level
from .symbol import Affine, Apply, DrawNoise, Keep, Ref, Symbol, Tape, TracedNoise, TracedSegment, format_ref, format_terms

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


class PlanRow(NamedTuple):
    """One line of `Plan.table()`."""

    evaluation: int
    level: Level
    boundary: bool
    carried: int
    update: str


@dataclass(frozen=True)
class Plan:
    """A traced sampler on one grid: immutable, picklable, shared by copies.

    Attributes:
        segments: nfe + 1 of them.
        levels: The level of each evaluation.
        boundary: boundary[j] says that evaluation j sees the start of a step.
        rows: The update after each evaluation, in words (`table`).
        grid: What the sampler was traced on.
    """

    segments: tuple[Segment, ...]
    levels: tuple[Level, ...]
    boundary: tuple[bool, ...]
    rows: tuple[str, ...]
    grid: Grid

    @property
    def nfe(self) -> int:
        """How often the network is called."""
        return len(self.levels)

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
            PlanRow(j, level, self.boundary[j], len(self.segments[j].carry), self.rows[j + 1])
            for j, level in enumerate(self.levels)
        ]

    def __deepcopy__(self, memo: dict[int, Any]) -> Plan:
        return self

    def __copy__(self) -> Plan:
        return self


def trace(sampler: Any, grid: Grid, **options: Any) -> Plan:
    """Trace a sampler on a grid to a plan.

    Args:
        sampler: A registered name, a card, or a function (model, x, grid, noise, **options) -> x.
        grid: The levels of the run.
        options: Keyword arguments of the sampler.

    Raises:
        TraceError: the sampler branches on values or does something that is no instruction.
        UnknownNameError, OptionError: no such sampler or option.
    """
    from .plugins import resolve

    card = resolve(sampler)
    options = card.check(options)
    if not card.traceable:
        raise TraceError(f"{card.name!r} chooses its steps by what it sees (pull-only): it has no plan. Use sk.sample.")
    tape = Tape(grid)
    traced_grid = replace(grid, on_step=tape.begin_step)
    out = card.fn(tape.model, Symbol({INPUT: 1.0}, tape), traced_grid, TracedNoise(tape), **options)
    if not isinstance(out, Symbol):
        raise TraceError(f"{card.name!r} returned {type(out).__name__}, expected the final state.")
    tape.touch()
    tape.close(out, None)
    if len(tape.segments) < 2:
        raise TraceError(f"{card.name!r} never called the model.")
    _refuse_temporaries(tape, card.name)
    return compile_plan(tape.segments, grid)


def _refuse_temporaries(tape: Tape, name: str) -> None:
    """An edit of the state must reach what follows: the symbol that was evaluated must be the one that goes on.

    After a boundary evaluation j nothing may read a state that x_j itself was made of, unless it reads x_j too. (States of
    another inner plan, driven side by side, are no ancestors of x_j.)
    """
    boundaries = [j for j, segment in enumerate(tape.segments[:-1]) if segment.boundary]
    for j, following in zip(boundaries, [*boundaries[1:], len(tape.segments) - 1]):
        reads = set().union(*(_reads(segment) for segment in tape.segments[j + 1 : following + 1]))
        ancestors = {ref for ref in _ancestors(tape.segments[j]) if ref[0] == "x"}
        if reads & ancestors and (j in tape.lost or ("x", j) not in reads):
            raise TraceError(
                f"{name!r} passed a temporary to model() at evaluation {j}, the start of a step, or used x before the "
                "call; it goes on from an older state, and an edit of the latents would be lost. Ask first: "
                "d = model(x, s), and derive everything else from that x afterwards."
            )


def _ancestors(segment: TracedSegment) -> set[Ref]:
    """What a segment's state is made of, through the ops and registers of that segment."""
    found, code = set(segment.x), {instruction.out: instruction for instruction in segment.code}
    queue = [ref for ref in found if ref in code]
    while queue:
        new = _reads(TracedSegment((code[queue.pop()],), {}, None, False)) - found
        found |= new
        queue += [ref for ref in new if ref in code]
    return found


def _refs(value: Any) -> Iterable[Ref]:
    if isinstance(value, Affine):
        yield from value.terms
    elif type(value) in (list, tuple):
        for v in value:
            yield from _refs(v)


def _reads(segment: TracedSegment) -> set[Ref]:
    reads = set(segment.x)
    for instruction in segment.code:
        if isinstance(instruction, Apply):
            reads.update(_refs(instruction.args), _refs(list(instruction.kwargs.values())))
        elif isinstance(instruction, Keep):
            reads.update(instruction.value.terms)
    return reads


def compile_plan(traced: Sequence[TracedSegment], grid: Grid) -> Plan:
    """Drop what nobody reads, number the slots, and note what each state must carry."""
    needed: set[Ref] = set()  # what later segments read
    pruned: list[tuple[TracedSegment, set[Ref]]] = []
    for segment in reversed(traced):
        after = set(needed)
        live, code = after | set(segment.x), []
        for instruction in reversed(segment.code):
            if instruction.out in live:
                code.append(instruction)
                live |= _reads(TracedSegment((instruction,), {}, None, False))
        produced = {instruction.out for instruction in code}
        pruned.append((segment._replace(code=tuple(reversed(code))), after))
        needed = live - produced
    pruned.reverse()

    segments: list[Segment] = []
    carried: list[Ref] = []
    for j, (segment, after) in enumerate(pruned):
        inputs = [INPUT] if j == 0 else [*carried, ("x", j - 1), ("D", j - 1)]
        slots = {ref: slot for slot, ref in enumerate(inputs)}
        instructions = []
        for instruction in segment.code:
            instructions.append(_compile(instruction, slots))
            slots[instruction.out] = len(slots)
        carried = sorted(after & slots.keys())
        segments.append(Segment(tuple(instructions), _terms(segment.x, slots), tuple(slots[r] for r in carried)))
    return Plan(
        tuple(segments),
        tuple(segment.level for segment in traced if segment.level is not None),
        tuple(segment.boundary for segment in traced[:-1]),
        tuple(_describe(segment) for segment, _ in pruned),
        grid,
    )


def _terms(terms: dict[Ref, float], slots: dict[Ref, int]) -> Terms:
    return tuple((slots[ref], weight) for ref, weight in terms.items())


def _slotted(value: Any, slots: dict[Ref, int]) -> Any:
    if isinstance(value, Affine):
        return Combination(_terms(value.terms, slots))
    if type(value) in (list, tuple):
        return type(value)(_slotted(v, slots) for v in value)
    return value


def _compile(instruction: DrawNoise | Apply | Keep, slots: dict[Ref, int]) -> Instruction:
    if isinstance(instruction, DrawNoise):
        return Instruction("draw", (instruction.ordinal, instruction.s, instruction.t))
    if isinstance(instruction, Keep):
        return Instruction("keep", (_terms(instruction.value.terms, slots),))
    kwargs = {name: _slotted(value, slots) for name, value in instruction.kwargs.items()}
    return Instruction("op", (instruction.fn, _slotted(instruction.args, slots), kwargs))


def _describe(segment: TracedSegment) -> str:
    lines = []
    for instruction in segment.code:
        name = format_ref(instruction.out)
        if isinstance(instruction, DrawNoise):
            lines.append(f"{name} = draw({instruction.s:.4g} -> {instruction.t:.4g})")
        elif isinstance(instruction, Keep):
            lines.append(f"{name} = {format_terms(instruction.value.terms)}")
        else:
            refs = ", ".join(dict.fromkeys(format_ref(r) for r in _refs(instruction.args)))
            lines.append(f"{name} = {instruction.fn.__name__}({refs})")
    return "; ".join([*lines, f"x = {format_terms(segment.x)}"])


def combine(terms: Terms, values: Sequence[Any]) -> Any:
    """sum of weight * values[slot]; always a new tensor."""
    if not terms:
        return values[0] * 0.0
    slot, weight = terms[0]
    out = values[slot] * weight
    if isinstance(out, torch.Tensor):
        for slot, weight in terms[1:]:
            try:
                out.add_(values[slot], alpha=weight)
            except RuntimeError:  # an op made a value that broadcasts
                out = torch.add(out, values[slot], alpha=weight)
        return out
    for slot, weight in terms[1:]:
        out = out + values[slot] * weight
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
    for level, boundary in zip(plan.levels, plan.boundary):
        if boundary:
            grid.begin_step()
        x, state = advance(plan, state, x, model(x, level), noise.draw)
    return x
