"""Weights step by step: each step's features fitted to the reference at its end, on the plan's own trajectory."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .rows import Model, Rows, features, first_order
from .trajectories import Trajectories

RIDGE = 1e-4


def solve(columns: Sequence[torch.Tensor], residual: torch.Tensor, ridge: float = RIDGE) -> list[float]:
    """Least squares with columns of unit norm, float64: coefficients of the given columns."""
    a = torch.stack([c.double().flatten() for c in columns], 1)
    norms = a.norm(dim=0).clamp(min=1e-300)
    a = a / norms
    gram = a.T @ a + ridge * torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
    return (torch.linalg.solve(gram, a.T @ residual.double().flatten()) / norms).tolist()


def fitted(model: Model, references: Trajectories, levels: Sequence[float], history: int = 5) -> tuple[Rows, torch.Tensor]:
    """The plan on these levels, and where its run ends, (B, ...). Costs one row a level and sample."""
    x, predictions, coefficients = references.start, [], []
    for i, s in enumerate(levels):
        t = levels[i + 1] if i + 1 < len(levels) else 0.0
        predictions.append(model(x, s))
        base = first_order(x, predictions[-1], s, t)
        columns = features(x, predictions, history)
        row = solve(columns, references.at(t) - base)
        coefficients.append(tuple(row))
        x = base + sum(c * f for c, f in zip(row, columns))
    return Rows(tuple(levels), tuple(coefficients), history), x
