"""What the run of a system makes, and what a callback sees of it."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from ..process.level import Level


class JointEvaluation(NamedTuple):
    """What a callback sees after each evaluation, by component; x in its own coordinates. To read and not to change."""

    index: int  # type: ignore[assignment]  # shadows tuple.index
    levels: dict[str, Level]
    x: dict[str, Tensor]
    denoised: dict[str, Tensor]


class JointResult(NamedTuple):
    """What a run made.

    Attributes:
        x: The samples of each component, in its own coordinates.
        nfe: Joint evaluations a sample, counted.
        levels: The levels of each evaluation, by component.
        trajectory: With return_trajectory=True: x of each evaluation and of the end, (evaluations + 1, B, ...), by name.
        seconds, seconds_model, seconds_plan, passes, reports, nonfinite: As of `Result`.
        mask: (B, N), 1 where a sample has a node; None where there is no mask.
    """

    x: dict[str, Tensor]
    nfe: float
    levels: dict[str, tuple[Level, ...]]
    trajectory: dict[str, Tensor] | None
    seconds: float
    seconds_model: float
    reports: dict[str, Any]
    seconds_plan: float = 0.0
    passes: int = 0
    nonfinite: tuple[int, ...] = ()
    mask: Tensor | None = None

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}={tuple(x.shape)}" for name, x in self.x.items())
        bad = f", nonfinite={list(self.nonfinite)}" if self.nonfinite else ""
        return f"JointResult({shapes}, nfe={self.nfe:g}, seconds={self.seconds:.3g}{bad})"
