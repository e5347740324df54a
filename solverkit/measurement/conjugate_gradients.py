"""Symmetric positive systems by conjugate gradients, one system a sample, none knowing of the others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


def conjugate_gradients(apply: Map, right: Tensor, iterations: int, tolerance: float = 1e-6) -> Tensor:
    """x with M x = right for each sample of a batch; after as many iterations as M has different eigenvalues it is exact.

    A sample stops where its residual is `tolerance` times its right side, or where M is not positive along the next
    direction (M made of a network's Jacobian need not be). Source: Hestenes and Stiefel 1952, section 3.

    Args:
        apply: v -> M v on batches, (B, ...).
        right: (B, ...).
        iterations: Most applications of M.
        tolerance: Of the relative residual.
    """
    shape = (-1, *[1] * (right.ndim - 1))

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).flatten(1).sum(1)

    x, residual, direction = torch.zeros_like(right), right, right
    square = dot(residual, residual)
    enough = tolerance**2 * square
    for _ in range(iterations):
        going = square > enough
        if not bool(going.any()):
            break
        applied = apply(direction)
        curvature = dot(direction, applied)
        going = going & (curvature > 0)
        step = torch.where(going, square / torch.where(going, curvature, 1.0), 0.0)
        x = x + step.reshape(shape) * direction
        residual = residual - step.reshape(shape) * applied
        new = dot(residual, residual)
        ratio = torch.where(going, new / torch.where(going, square, 1.0), 0.0)
        direction = residual + ratio.reshape(shape) * direction
        square = torch.where(going, new, 0.0)  # who stopped stays where it is
    return x
