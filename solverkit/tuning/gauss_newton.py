"""All weights and levels at once: Gauss-Newton with columns by finite differences, no gradients of the network.

A column of a weight reruns the plan from the state that the weight moves; a column of a level asks the network there. A
rerun shares everything before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from .loss import huber, per_sample, weights
from .rows import Model, Rows, features
from .trajectories import Trajectories

NUDGE, SHIFT, FARTHEST = 0.02, 0.03, 0.7


def moved(levels: Sequence[float], shifts: Sequence[float], frame: int, fixed_first: bool) -> tuple[float, ...]:
    """Levels whose log ratio sigma / alpha moved by `shifts`, kept falling and (the first) at most where it was."""
    out: list[float] = []
    for i, (s, u) in enumerate(zip(levels, shifts)):
        if i == 0 and fixed_first:
            out.append(s)
            continue
        alpha = 1 - frame * s
        ratio = math.inf if alpha <= 0 else s / alpha * math.exp(u)
        value = ratio if frame == 0 else (1.0 if math.isinf(ratio) else ratio / (1 + ratio))
        value = min(value, levels[0] if i == 0 else out[-1] * 0.98)
        out.append(value)
    return tuple(out)


def jacobian(
    model: Model, rows: Rows, states: list[torch.Tensor], predictions: list[torch.Tensor], frame: int
) -> tuple[torch.Tensor, int]:
    """(weights and levels, B * numbers): how the end moves, and how many of the columns are weights'."""
    n, columns = len(rows.levels), []
    for i in range(n):
        s = rows.target(i)
        scale = math.hypot(1 - frame * s, s)
        for f in features(states[i], predictions[: i + 1], rows.history)[: len(rows.coefficients[i])]:
            if i == n - 1:
                columns.append(f)
                continue
            h = NUDGE * scale / max(float(f.square().mean().sqrt()), 1e-12)
            end = rows.run(model, states[i + 1] + h * f, i + 1, predictions[: i + 1])
            columns.append((end - states[-1]) / h)
    weights_count = len(columns)
    for j in range(n):
        shifts = [SHIFT if k == j else 0.0 for k in range(n)]
        if j == 0:
            shifts[0] = -SHIFT
        there = rows.with_levels(moved(rows.levels, shifts, frame, fixed_first=rows.levels[0] == 1.0 and frame == 1))
        if there.levels[j] == rows.levels[j]:
            columns.append(torch.zeros_like(states[-1]))
            continue
        x = states[0] if j == 0 else there.advance(j - 1, states[j - 1], predictions[:j])
        end = there.run(model, x, j, predictions[:j])
        columns.append((end - states[-1]) / shifts[j])
    return torch.stack([c.flatten() for c in columns]), weights_count


def _applied(rows: Rows, step: Sequence[float], count: int, frame: int) -> Rows:
    flat = iter(step[:count])
    coefficients = tuple(tuple(c + next(flat) for c in row) for row in rows.coefficients)
    shifts = [max(-FARTHEST, min(FARTHEST, u)) for u in step[count:]]
    levels = moved(rows.levels, shifts, frame, fixed_first=rows.levels[0] == 1.0 and frame == 1)
    return replace(rows, coefficients=coefficients, levels=levels)


class Step:
    """The normal equations of one iteration, (J' W J + lam I) d = J' W r with columns of unit norm, float64.

    Attributes:
        before: The loss where it starts.
    """

    def __init__(self, model: Model, rows: Rows, references: Trajectories, robust: bool) -> None:
        self.model, self.rows, self.references, self.robust = model, rows, references, robust
        states, predictions = rows.traced(model, references.start)
        residual = references.end - states[-1]
        errors = per_sample(residual)
        self.before = huber(errors, robust)
        columns, self.count = jacobian(model, rows, states, predictions, references.grid.frame)
        root = weights(errors, robust).double().sqrt().repeat_interleave(columns.shape[1] // len(errors))
        a = columns.double() * root
        self.norms = a.norm(dim=1).clamp(min=1e-300)
        a = a / self.norms[:, None]
        self.gram, self.side = a @ a.T, a @ (residual.double().flatten() * root)

    def damped(self, lam: float) -> tuple[float, Rows]:
        """The loss with this damping, and the plan."""
        eye = torch.eye(len(self.gram), dtype=self.gram.dtype)
        step = torch.linalg.solve(self.gram + lam * eye, self.side) / self.norms
        there = _applied(self.rows, step.tolist(), self.count, self.references.grid.frame)
        ends = there.run(self.model, self.references.start)
        value = huber(per_sample(self.references.end - ends), self.robust)
        return (value if math.isfinite(value) else math.inf), there


def improve(
    model: Model, rows: Rows, references: Trajectories, iterations: int = 3, robust: bool = True
) -> tuple[Rows, float]:
    """The plan after some iterations, and its loss; it stops where one gains less than 2 %."""
    lam, best = 1e-2, math.inf
    for _ in range(iterations):
        step = Step(model, rows, references, robust)
        best = min(best, step.before)
        tried = {damping: step.damped(damping) for damping in (lam, lam / 10)}
        for damping in (lam / 100,) if tried[lam / 10][0] < tried[lam][0] else (10 * lam, 100 * lam):
            tried[damping] = step.damped(damping)
        damping = min(tried, key=lambda key: tried[key][0])
        value, found = tried[damping]
        if not value < step.before:
            break
        rows, best, lam = found, value, min(max(damping, 1e-5), 1.0)
        if value > 0.98 * step.before:
            break
    return rows, best
