"""Lockstep or packed: how many samplers run on a system, unchanged, with the thinnest of either.

    python benchmarks/packed_trial.py

Lockstep: the sampler is traced once for each component's grid, and one joint evaluation advances all plans. Packed: the
sampler is called once with a state that holds all components, and levels and coefficients that are one number a component.
Both run the coupled Gaussian in 6 steps; a run counts if it ends with finite numbers that are the lockstep run's.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

import solverkit as sk
from solverkit.joint.grids import joint_grids
from solverkit.joint.lockstep import drive, lockstep
from solverkit.joint.spaces import symmetric_hollow
from solverkit.targets.coupled_gaussian import coupled_gaussian


class Numbers:
    """One number a component, with the arithmetic of floats; compares where all components agree."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def _with(self, other: Any, do: Callable[[Any, Any], Any]) -> Any:
        theirs = other.values if isinstance(other, Numbers) else dict.fromkeys(self.values, other)
        return type(self)._made({name: do(value, theirs[name]) for name, value in self.values.items()})

    @staticmethod
    def _made(values: dict[str, Any]) -> Any:
        if all(isinstance(v, bool) for v in values.values()):
            if len(set(values.values())) > 1:
                raise TypeError("components disagree about a condition")
            return next(iter(values.values()))
        return Numbers(values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Numbers({n: getattr(v, name) for n, v in self.values.items()})

    def __neg__(self) -> Any:
        return self._with(-1.0, operator.mul)


class State(Numbers):
    """The states of all components: tensors by name."""

    @staticmethod
    def _made(values: dict[str, Any]) -> Any:
        return State(values)


def _operators() -> None:
    for name in ("add", "sub", "mul", "truediv", "pow", "lt", "gt", "le", "ge", "eq", "ne"):
        do = getattr(operator, name)

        def forward(self: Numbers, other: Any, do: Any = do) -> Any:
            if isinstance(other, State) and not isinstance(self, State):
                return NotImplemented
            return self._with(other, do)

        setattr(Numbers, f"__{name}__", forward)
        if name in ("add", "sub", "mul", "truediv", "pow"):
            setattr(Numbers, f"__r{name}__", lambda self, other, do=do: self._with(other, lambda a, b: do(b, a)))


class PackedGrid:
    """The nodes of all components' grids, one `Numbers` of levels each."""

    def __init__(self, grids: dict[str, sk.Grid]) -> None:
        self.grids, self.frame = grids, 0
        self.levels = tuple(Numbers({n: g[i] for n, g in grids.items()}) for i in range(len(next(iter(grids.values())))))
        self.run_steps = len(self.levels) - 1

    def __getitem__(self, i: int) -> Any:
        return self.levels[i]

    def __len__(self) -> int:
        return len(self.levels)

    def begin_step(self) -> None:
        pass

    def steps(self) -> Any:
        return zip(self.levels, self.levels[1:])


def main() -> None:
    _operators()
    joint = coupled_gaussian(3, 1)
    start = joint.net.target.sample(2)
    gone: dict[str, Counter[str]] = {"lockstep": Counter(), "packed": Counter()}
    count = 0
    for card in sk.samplers().values():
        if not card.traceable or card.prepare is not None or card.required:
            continue
        count += 1
        expected = None
        try:
            grids = joint_grids(joint, card, None, 6, None, None, {})
            expected = by_plans(joint, card, grids, start)
            gone["lockstep"]["runs"] += 1
        except sk.errors.SolverKitError as error:
            gone["lockstep"][_why(error)] += 1
        try:
            packed = by_packing(joint, card, grids, start)
            same = expected is not None and all(torch.allclose(packed[n], expected[n], atol=1e-9) for n in packed)
            gone["packed"]["runs" if same else "runs, with another result"] += 1
        except Exception as error:  # whatever a sampler does with what it does not know
            gone["packed"][_why(error)] += 1
    for what, how in gone.items():
        others = "; ".join(f"{n} {k}" for k, n in how.items() if k != "runs")
        print(f"{what}: {how['runs']} of {count} samplers run unchanged; else {others}")


def _why(error: Exception) -> str:
    text = str(error)
    return "inner stages at different times" if "inner stages" in text else f"{type(error).__name__}: {text[:48]}"


def by_plans(joint: Any, card: Any, grids: Any, start: Any) -> Any:
    plans = lockstep(card, grids, {name: {} for name in grids}, joint.lead)

    def ask(j: int, xs: Any) -> Any:
        return joint(xs, {name: plan.levels[j] for name, plan in plans.items()})

    noise = {name: _draw(start, name) for name in plans}
    return drive(plans, ask, start, {n: lambda ordinal, s, t, n=n: noise[n] for n in plans})


def by_packing(joint: Any, card: Any, grids: Any, start: Any) -> Any:
    fixed = State({name: _draw(start, name) for name in grids})

    def model(x: State, level: Numbers) -> State:
        return State(joint(x.values, level.values))

    def noise(s: Any, t: Any) -> State:
        return fixed

    return card.fn(model, State(dict(start)), PackedGrid(grids), noise, **card.preset).values


def _draw(start: Any, name: str) -> torch.Tensor:
    z = torch.randn(start[name].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(name)))
    return z if name == "x" else symmetric_hollow.project(z, None)


if __name__ == "__main__":
    main()
