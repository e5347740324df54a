"""What a run makes, and what a callback sees of it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from ..process.level import Level


class Evaluation(NamedTuple):
    """What a callback sees after each evaluation, to read and not to change; x in the model's own coordinates.

    In a run of several batches the index begins again with each of them.
    """

    index: int  # type: ignore[assignment]  # shadows tuple.index
    level: Level
    x: torch.Tensor
    denoised: torch.Tensor


class Result(NamedTuple):
    """What a run made.

    Attributes:
        x: The samples, in the model's own coordinates.
        nfe: Network rows that were counted, divided by the number of samples.
        levels: The levels at which the network was called (of the first batch).
        trajectory: With return_trajectory=True: x at each evaluation and at the end, (evaluations + 1, B, ...).
        seconds: Wall time from the call to the answer.
        seconds_model: The part of it that was spent in the denoiser.
        reports: What the sampler said about the run, by name: the mean of the numbers that it gave, or its last word.
            Of a token model see `solverkit.tokens.sampling`.
        seconds_plan: The part that was spent on planning: tracing, fitting a budget, whatever a sampler searches first.
        passes: Calls of the network, whatever their batch.
        nfe_of: NFE of each model that was asked, by name; the run's own is "model".
        nonfinite: With on_nonfinite="mark": the samples whose prediction was NaN or inf; they are NaN in x.
        asked: Evaluations that the sampler asked for, a sample; `nfe` differs where a denoiser answers from memory or calls
            its network twice.
        products: Products with a network's Jacobian, whatever their batch (guidance by a gradient).
    """

    x: torch.Tensor
    nfe: float
    levels: tuple[Level, ...]
    trajectory: torch.Tensor | None
    seconds: float
    seconds_model: float
    reports: dict[str, Any]
    seconds_plan: float = 0.0
    passes: int = 0
    nonfinite: tuple[int, ...] = ()
    asked: float = 0.0
    products: int = 0
    nfe_of: Mapping[str, float] = MappingProxyType({})

    def __repr__(self) -> str:
        parts = [f"x={tuple(self.x.shape)} {str(self.x.dtype).removeprefix('torch.')}", f"nfe={self.nfe:g}"]
        parts += [f"seconds={self.seconds:.3g}"]
        if self.trajectory is not None:
            parts.append(f"trajectory={tuple(self.trajectory.shape)}")
        if said := {k: v for k, v in self.reports.items() if isinstance(v, (float, str))}:
            parts.append(f"reports={said}")
        if self.nonfinite:
            parts.append(f"nonfinite={list(self.nonfinite)}")
        return f"Result({', '.join(parts)})"

    def _repr_png_(self) -> bytes | None:
        """The first samples as a picture, where they are images."""
        from .picture import images_png

        return images_png(self.x)

    def _repr_html_(self) -> str:
        from ..notebook import html_image, html_table

        rows = [("samples", f"{tuple(self.x.shape)} {str(self.x.dtype).removeprefix('torch.')}"), ("NFE", f"{self.nfe:g}")]
        rows += [("seconds", f"{self.seconds:.3g}"), ("in the network", f"{self.seconds_model:.3g}")]
        rows += [(name, value if isinstance(value, str) else f"{value:g}") for name, value in self.reports.items()
                 if isinstance(value, (float, str))]  # fmt: skip
        if self.nonfinite:
            rows.append(("not finite", str(list(self.nonfinite))))
        png = self._repr_png_()
        return html_table("result", ("", ""), rows) + ("" if png is None else html_image(png, "the first samples"))
