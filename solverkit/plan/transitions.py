"""Steps of a plan as Gaussian transitions: mean, standard deviation, log-probability, score.

A segment whose draws enter the next state as terms, x+ = (all other terms) + sum_k w_k z_k with standard normal z_k, is the
transition N(sum of the other terms, sum_k w_k^2): it is read off any plan, and no sampler has to know. A draw that an op
sees (a Langevin step whose size contains the norm of its own draw), or that is kept for later, is refused.

States are those of the plan's frame. In a model's own coordinates a log-probability differs by a constant, and ratios of
probabilities do not.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch

from ..errors import OptionError, TraceError
from .plan import Combination, Plan, Segment, State, advance, begin

Reduce = Literal["sum", "mean"]


class Transition(NamedTuple):
    """p(x+ | x) = N(mean, std^2) of one step.

    Attributes:
        evaluation: The step follows this evaluation.
        mean: (B, ...).
        std: A number; 0 where the step draws nothing.
        x: The state that followed, (B, ...).
        log_prob: (B,) nats, the sum or the mean over the dimensions of a sample; None where std = 0.
        score: d log_prob / d x+ of the sum, -(x+ - mean) / std^2, (B, ...); None where std = 0.
    """

    evaluation: int
    mean: torch.Tensor
    std: float
    x: torch.Tensor
    log_prob: torch.Tensor | None
    score: torch.Tensor | None


def deviation(plan: Plan, evaluation: int) -> float:
    """The standard deviation of the step behind an evaluation; 0 where it draws nothing.

    Raises:
        TraceError: a draw that does not enter as a term alone.
    """
    segment = plan.segments[evaluation + 1]
    first = len(plan.segments[evaluation].carry) + 2
    drawn = [first + k for k, instruction in enumerate(segment.instructions) if instruction.kind == "draw"]
    if not drawn:
        return 0.0
    used = {slot for instruction in segment.instructions for slot in _slots(instruction.payload)} | set(segment.carry)
    if used & set(drawn):
        raise TraceError(
            f"the step behind evaluation {evaluation} is no Gaussian transition: its draw enters an operation or is kept "
            "for later steps, as in 'pc', whose step size contains its own draw. Take 'ddim:eta=1', 'ddpm', 'flow-sde' or "
            "'cps'."
        )
    weights = dict(segment.x)
    return math.sqrt(sum(float(weights.get(slot, 0.0)) ** 2 for slot in drawn))


def _slots(value: Any) -> list[int]:
    if isinstance(value, Combination):
        return [slot for slot, _ in value.terms]
    if isinstance(value, dict):
        value = list(value.values())
    if type(value) in (list, tuple):
        pairs = value and all(type(v) is tuple and len(v) == 2 and isinstance(v[0], int) for v in value)
        return [slot for slot, _ in value] if pairs else [slot for v in value for slot in _slots(v)]
    return []


def log_prob(mean: torch.Tensor, std: float, x: torch.Tensor, reduce: Reduce = "sum") -> torch.Tensor:
    """log N(x; mean, std^2) of each sample, (B,): the sum over its dimensions, or their mean."""
    if reduce not in ("sum", "mean"):
        raise OptionError(f"reduce must be 'sum' or 'mean' over the dimensions of a sample, got {reduce!r}.")
    each = -((x - mean) ** 2) / (2 * std * std) - math.log(std) - math.log(math.sqrt(2 * math.pi))
    flat = each.flatten(1)
    return flat.sum(1) if reduce == "sum" else flat.mean(1)


def transitions(
    plan: Plan, start: torch.Tensor, states: Sequence[torch.Tensor], denoised: Sequence[torch.Tensor], *, reduce: Reduce
) -> list[Transition]:
    """The transitions of a run that was made: what each step of a plan does, given the states that followed.

    Args:
        plan: Of the sampler that made the run.
        start: The state that the run began with, (B, ...) in the plan's frame.
        states: The state after each evaluation, nfe of them (`Rollout.states`).
        denoised: The answer of each evaluation, of the network that made the run or of another one; gradients flow from
            log_prob to them.
        reduce: "sum" or "mean" over the dimensions of a sample; there is no default, since codes differ.

    Raises:
        TraceError: a step that is no Gaussian transition, or lists of another length than the plan's.
    """
    if len(states) != plan.nfe or len(denoised) != plan.nfe:
        given = f"{len(states)} states and {len(denoised)} answers"
        raise TraceError(f"a plan of {plan.nfe} evaluations has as many states and answers; got {given}.")
    stds = [deviation(plan, j) for j in range(plan.nfe)]

    def silent(ordinal: int, s: float, t: float) -> torch.Tensor:
        return torch.zeros_like(start)

    x, state = begin(plan, start, silent)
    found = []
    for j, (std, after) in enumerate(zip(stds, states)):
        mean, state = advance(plan, state, x, denoised[j], silent)
        x = after
        if std == 0.0:
            found.append(Transition(j, mean, std, after, None, None))
        else:
            found.append(Transition(j, mean, std, after, log_prob(mean, std, after, reduce), -(after - mean) / std**2))
    return found


def mixed(stochastic: Plan, deterministic: Plan, steps: Collection[int]) -> Plan:
    """One plan that is stochastic in some of its steps, and deterministic in the others.

    Args:
        stochastic, deterministic: Plans at the same levels, of samplers that keep nothing between their steps: flow-sde and
            euler, cps and cps:eta=0, ddim:eta=1 and ddim.
        steps: Evaluations whose steps draw.

    Raises:
        TraceError: plans at other levels, or that keep something.
        OptionError: a step that the plans do not have.
    """
    if [float(s) for s in stochastic.levels] != [float(s) for s in deterministic.levels]:
        raise TraceError("the two plans ask at different levels: trace both on one grid.")
    if any(segment.carry for plan in (stochastic, deterministic) for segment in plan.segments[1:]):
        raise TraceError("one of the plans keeps earlier evaluations: its steps cannot be exchanged.")
    if not set(steps) <= set(range(stochastic.nfe)):
        raise OptionError(f"steps must be among 0 .. {stochastic.nfe - 1}, got {sorted(steps)}.")
    chosen = [stochastic if j in steps else deterministic for j in range(stochastic.nfe)]
    segments: list[Segment] = [stochastic.segments[0], *(plan.segments[j + 1] for j, plan in enumerate(chosen))]
    rows = [stochastic.rows[0], *(plan.rows[j + 1] for j, plan in enumerate(chosen))]
    return replace(stochastic, segments=tuple(segments), rows=tuple(rows))


__all__ = ["State", "Transition", "deviation", "log_prob", "mixed", "transitions"]
