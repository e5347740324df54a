"""A plan rewritten for other units: conversions of a state or a prediction become weights instead of passes over memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..errors import TraceError
from .plan import Combination, Instruction, Plan, Segment, Terms


def rescale(plan: Plan, start: float, states: Sequence[float], predictions: Sequence[float]) -> Plan:
    """The same plan for states and predictions that are stored in units of their own.

    Args:
        plan: A traced sampler, in its frame.
        start: The caller's starting state is `start` times the frame's.
        states: states[j] is that factor for the state of evaluation j; states[nfe] for the final one.
        predictions: The denoised prediction of evaluation j is predictions[j] times what `advance` is given.

    Returns:
        A plan for `begin` and `advance`; ops and draws see the frame's values.

    Raises:
        TraceError: factors that are missing or zero.
    """
    if len(states) != plan.nfe + 1 or len(predictions) != plan.nfe or 0.0 in (start, *states, *predictions):
        raise TraceError(
            f"a plan of {plan.nfe} evaluations needs {plan.nfe + 1} nonzero state factors and {plan.nfe} nonzero "
            f"prediction factors, got {len(states)} and {len(predictions)}."
        )
    segments, carried = [], [1.0 / start]
    for j, segment in enumerate(plan.segments):
        if j > 0:
            carried = [*carried, 1.0 / states[j - 1], predictions[j - 1]]
        segment, carried = _rescaled(segment, carried, states[j])
        segments.append(segment)
    return replace(plan, segments=tuple(segments))


def _rescaled(segment: Segment, inputs: Sequence[float], out: float) -> tuple[Segment, list[float]]:
    """`inputs`: the frame's value of each input slot is that factor times the stored one."""
    factors = list(inputs)

    def terms(given: Terms) -> Terms:
        return tuple((slot, weight * factors[slot]) for slot, weight in given)

    def arguments(value: Any) -> Any:
        return Combination(terms(value.terms)) if isinstance(value, Combination) else value

    instructions = []
    for kind, payload in segment.instructions:
        if kind == "keep":
            payload = (terms(payload[0]),)
        elif kind == "op":
            payload = _mapped(payload, arguments)
        instructions.append(Instruction(kind, payload))
        factors.append(1.0)
    x = tuple((slot, weight * out) for slot, weight in terms(segment.x))
    return Segment(tuple(instructions), x, segment.carry), [factors[slot] for slot in segment.carry]


def place(plan: Plan, device: torch.device | str | None) -> Plan:
    """The plan with its constants (tensors, and objects that have `.to`) on a device; itself where nothing moves."""
    if device is None:
        return plan
    moved = False

    def constant(value: Any) -> Any:
        nonlocal moved
        if not isinstance(value, torch.Tensor) and (isinstance(value, (Combination, type)) or not hasattr(value, "to")):
            return value
        there = value.to(device)
        moved = moved or there is not value
        return there

    segments = tuple(
        segment._replace(
            instructions=tuple(
                i._replace(payload=_mapped(i.payload, constant)) if i.kind == "op" else i for i in segment.instructions
            )
        )
        for segment in plan.segments
    )
    return replace(plan, segments=segments) if moved else plan


def _mapped(value: Any, fn: Callable[[Any], Any]) -> Any:
    """fn of every argument of an op, inside lists, tuples and the keyword arguments' dict."""
    if type(value) in (list, tuple):
        return type(value)(_mapped(v, fn) for v in value)
    if type(value) is dict:
        return {name: _mapped(v, fn) for name, v in value.items()}
    return fn(value)
