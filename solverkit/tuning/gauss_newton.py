"""All weights and levels at once: Gauss-Newton over batches of noises, with columns by finite differences.

A column of a weight reruns the plan from the state that the weight moves; a column of a level asks the network there. A
rerun shares everything before it, and the columns of a step run as one batch. No gradients of the network are needed.

Each batch is linearised where the plan stands, and its normal equations are added to those of the batches before, which are
forgotten little by little (the extended Kalman filter with a forgetting factor: Ljung and Söderström 1983, chapter 2): many
noises shape the plan, and each is linearised once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from .loss import mean_error, per_sample, weights
from .references import Ends
from .rows import Model, Rows, features

NUDGE, SHIFT, FARTHEST = 0.02, 0.03, 0.7
MEMORY = 0.8  # what is kept of the normal equations at each batch
LEAST, MOST = 1e-5, 10.0  # of the damping
TOGETHER = {"cpu": 2**17, "cuda": 2**21}  # numbers of a state that one call of the network is given: caches are small


def moved(levels: Sequence[float], shifts: Sequence[float], frame: int) -> tuple[float, ...]:
    """Levels whose log ratio sigma / alpha moved by `shifts`, kept falling and the first at most where it was.

    A first level without signal (alpha 0) stays.
    """
    out: list[float] = []
    for i, (s, u) in enumerate(zip(levels, shifts)):
        alpha = 1 - frame * s
        if i == 0 and alpha <= 0:
            out.append(s)
            continue
        ratio = math.inf if alpha <= 0 else s / alpha * math.exp(u)
        value = ratio if frame == 0 else (1.0 if math.isinf(ratio) else ratio / (1 + ratio))
        out.append(min(value, levels[0] if i == 0 else out[-1] * 0.98))
    return tuple(out)


def jacobian(
    model: Model, rows: Rows, states: list[torch.Tensor], predictions: list[torch.Tensor], frame: int, held: bool = False
) -> tuple[torch.Tensor, int]:
    """(weights and levels, B * numbers): how the end moves, and how many of the columns are weights'.

    Columns of levels that are held are 0.
    """
    n, end, columns = len(rows.levels), states[-1], []
    for i in range(n):
        s = rows.target(i)
        size = math.hypot(1 - frame * s, s)
        moves = features(states[i], predictions[: i + 1], rows.history)[: len(rows.coefficients[i])]
        if i == n - 1:
            columns += moves
            continue
        steps = [NUDGE * size / max(float(f.square().mean().sqrt()), 1e-12) for f in moves]
        some = max(TOGETHER.get(end.device.type, 2**20) // end.numel(), 1)
        for first in range(0, len(moves), some):
            part = list(zip(moves, steps))[first : first + some]
            x = torch.cat([states[i + 1] + h * f for f, h in part])
            so_far = [p.repeat(len(part), *[1] * (p.ndim - 1)) for p in predictions[: i + 1]]
            ends = rows.run(model, x, i + 1, so_far).split(len(end))
            columns += [(there - end) / h for there, (_, h) in zip(ends, part)]
    weights_count = len(columns)
    for j in range(n):
        shift = -SHIFT if j == 0 else SHIFT
        there = rows.with_levels(moved(rows.levels, [shift * (k == j) for k in range(n)], frame))
        if held or there.levels[j] == rows.levels[j]:
            columns.append(torch.zeros_like(end))
            continue
        x = states[0] if j == 0 else there.advance(j - 1, states[j - 1], predictions[:j])
        columns.append((there.run(model, x, j, predictions[:j]) - end) / shift)
    return torch.stack([c.flatten() for c in columns]), weights_count


def applied(rows: Rows, step: Sequence[float], count: int, frame: int) -> Rows:
    """The plan with `count` weights and its levels moved by a step."""
    flat = iter(step[:count])
    coefficients = tuple(tuple(c + next(flat) for c in row) for row in rows.coefficients)
    shifts = [max(-FARTHEST, min(FARTHEST, u)) for u in step[count:]]
    return replace(rows, coefficients=coefficients, levels=moved(rows.levels, shifts, frame))


class Improving:
    """A plan that improves batch by batch.

    Each batch: (H + lam I) d = J' W r with H = MEMORY H + J' W J, columns scaled to unit norm, float64. A step is taken
    where it lowers the loss on this batch and the next one together; the damping lam follows.

    Args:
        model: E[x_0 | x] in the frame.
        rows: Where it begins.
        references: Noises and converged ends; batches are taken in turn, from the first.
        batch: Noises of a batch.
        held: The levels stay.

    Attributes:
        rows: The plan.
    """

    def __init__(self, model: Model, rows: Rows, references: Ends, batch: int = 32, held: bool = False) -> None:
        self.model, self.rows, self.references, self.held = model, rows, references, held
        self.batch = min(batch, len(references.start))
        self.at, self.damping = 0, 1e-2
        self.normal: torch.Tensor | None = None

    def _batch(self, k: int) -> Ends:
        count = len(self.references.start) // self.batch
        first = (k % count) * self.batch
        return self.references.rows(slice(first, first + self.batch))

    def _loss(self, rows: Rows, *batches: Ends) -> float:
        errors = torch.cat([per_sample(b.end - rows.run(self.model, b.start)) for b in batches])
        value = mean_error(errors)
        return value if math.isfinite(value) else math.inf

    def step(self) -> None:
        """One batch."""
        now, after = self._batch(self.at), self._batch(self.at + 1)
        self.at += 1
        frame = now.frame
        states, predictions = self.rows.traced(self.model, now.start)
        residual = now.end - states[-1]
        errors = per_sample(residual)
        columns, count = jacobian(self.model, self.rows, states, predictions, frame, self.held)
        root = weights(errors).double().sqrt().repeat_interleave(columns.shape[1] // len(errors))
        a = columns.double() * root
        gram, side = a @ a.T, a @ (residual.double().flatten() * root)
        self.normal = gram if self.normal is None else MEMORY * self.normal + gram
        norms = self.normal.diagonal().sqrt().clamp(min=1e-300)
        scaled, eye = self.normal / norms[:, None] / norms, torch.eye(len(norms), dtype=norms.dtype, device=norms.device)
        before = mean_error(torch.cat([errors, per_sample(after.end - self.rows.run(self.model, after.start))]))

        def damped(lam: float) -> tuple[float, Rows, float]:
            move = torch.linalg.solve(scaled + lam * eye, side / norms) / norms
            there = applied(self.rows, move.tolist(), count, frame)
            return self._loss(there, now, after), there, lam

        tried = [damped(self.damping)]
        tried.append(damped(self.damping / 10 if tried[0][0] < before else self.damping * 10))
        value, there, lam = min(tried, key=lambda t: t[0])
        if value < before:
            self.rows = there
        else:
            lam *= 10
        self.damping = min(max(lam, LEAST), MOST)
