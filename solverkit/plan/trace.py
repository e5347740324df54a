"""From a sampler to its plan: call it with symbols, and compile what it did."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..errors import TraceError
from ..grid.grid import Grid
from ..registry.registry import SamplerCard, resolve
from .clock import planning
from .instructions import Affine, Apply, DrawNoise, Keep, Ref, TracedSegment, format_ref, format_terms
from .plan import INPUT, Combination, Instruction, Plan, Segment, Terms
from .symbol import Symbol
from .tape import Tape, TracedNoise


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
    with planning():
        return _traced(resolve(sampler), grid, options)


def _traced(card: SamplerCard, grid: Grid, options: dict[str, Any]) -> Plan:
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
                "call (a * x + b * model(x, s) does: Python reads it from left to right); it goes on from an older state, "
                "and an edit of the latents would be lost. Ask first: d = model(x, s), and derive everything else from "
                "that x afterwards."
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
    for j, segment in reversed(list(enumerate(traced))):
        after = set(needed)
        live, code = after | set(segment.x), []
        for instruction in reversed(segment.code):
            if instruction.out in live:
                code.append(instruction)
                live |= _reads(TracedSegment((instruction,), {}, None, False))
        produced = {instruction.out for instruction in code}
        pruned.append((segment._replace(code=tuple(reversed(code))), after))
        needed = live - produced - {("x", j - 1), ("D", j - 1)}  # made by the evaluation before this segment
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
        _unless_none([segment.to for segment in traced[:-1]]),
        _unless_none([segment.of for segment in traced[:-1]]),
    )


def _unless_none(said: Sequence[Any]) -> tuple[Any, ...]:
    """What evaluations say, as a tuple; empty where none says anything."""
    return tuple(said) if any(one is not None for one in said) else ()


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
