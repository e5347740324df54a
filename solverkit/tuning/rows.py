"""A plan as it is fitted: levels, and for each step the weights of features on top of a first-order step.

In the frame, with D_i = E[x_0 | x_i] at s_i and t = s_{i+1}:

    x_{i+1} = D_i + (t / s_i) (x_i - D_i) + sum_k c_ik f_ik,    f = x_i - D_i, D_i, D_i - D_{i-1}, D_{i-1} - D_{i-2}, ...

The features span every linear multistep update of x_i and the predictions so far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

Model = Callable[[torch.Tensor, float], torch.Tensor]


def features(x: torch.Tensor, predictions: list[torch.Tensor], most: int) -> list[torch.Tensor]:
    """x - D, D, and the newest differences of the predictions: at most `most` of these."""
    newest = predictions[-1]
    pairs = list(zip(predictions[::-1], predictions[-2::-1]))[:most]
    return [x - newest, newest, *(a - b for a, b in pairs)]


def first_order(x: torch.Tensor, denoised: torch.Tensor, s: float, t: float) -> torch.Tensor:
    """D + (t / s) (x - D)."""
    return denoised + (t / s) * (x - denoised)


@dataclass(frozen=True)
class Rows:
    """A plan of N evaluations.

    Attributes:
        levels: s_0 > ... > s_{N-1} in the frame; the run ends at 0.
        coefficients: For each step those of its features.
        history: The most differences of predictions that a step has.
    """

    levels: tuple[float, ...]
    coefficients: tuple[tuple[float, ...], ...]
    history: int = 5

    def target(self, i: int) -> float:
        """Where step i goes."""
        return self.levels[i + 1] if i + 1 < len(self.levels) else 0.0

    def advance(self, i: int, x: torch.Tensor, predictions: list[torch.Tensor]) -> torch.Tensor:
        """x_{i+1} from x_i and the predictions up to D_i."""
        out = first_order(x, predictions[-1], self.levels[i], self.target(i))
        for c, f in zip(self.coefficients[i], features(x, predictions, self.history)):
            out = out + c * f
        return out

    def run(
        self, model: Model, x: torch.Tensor, start: int = 0, predictions: list[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """From x_start to the end."""
        predictions = list(predictions or ())
        for i in range(start, len(self.levels)):
            predictions.append(model(x, self.levels[i]))
            x = self.advance(i, x, predictions)
        return x

    def traced(self, model: Model, x: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """All states x_0 .. x_N and predictions D_0 .. D_{N-1}."""
        states, predictions = [x], []
        for i in range(len(self.levels)):
            predictions.append(model(states[-1], self.levels[i]))
            states.append(self.advance(i, states[-1], predictions))
        return states, predictions

    def matrix(self) -> np.ndarray:
        """Row i: the weights of x_i and of D_0 .. D_i in x_{i+1}, (N, N + 1)."""
        n = len(self.levels)
        out = np.zeros((n, n + 1))
        for i, c in enumerate(self.coefficients):
            r = self.target(i) / self.levels[i]
            out[i, 0] = r + c[0]
            out[i, 1 + i] = 1 - r - c[0] + (c[1] if len(c) > 1 else 0.0)
            for k, weight in enumerate(c[2:]):
                out[i, 1 + i - k] += weight
                out[i, i - k] -= weight
        return out

    def with_levels(self, levels: tuple[float, ...]) -> Rows:
        return replace(self, levels=levels)


def counted(model: Any, did: Callable[[int], None] | None = None) -> Any:
    """A model that counts its rows: `.rows`; `did` is told those of each call."""

    class Counted:
        rows = 0

        def __call__(self, x: torch.Tensor, s: float) -> torch.Tensor:
            self.rows += len(x)
            if did is not None:
                did(len(x))
            return model(x, s)

    return Counted()
