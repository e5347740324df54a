"""NaN and inf in what a network answers, told with their level and their samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import NonFiniteError
from ..process.level import Level


def require_finite(denoised: torch.Tensor, evaluation: int, level: Level) -> None:
    """Raises NonFiniteError naming the evaluation and the level."""
    if not bool(torch.isfinite(denoised).all()):
        rows = (~torch.isfinite(denoised.reshape(len(denoised), -1)).all(1)).nonzero().flatten().tolist()
        raise NonFiniteError(
            f"the network returned NaN or inf at evaluation {evaluation} (s = {float(level):.6g}, time {level.time:.6g}) "
            f"for {len(rows)} of {len(denoised)} samples (first: {rows[0]}). Run it in float32, or check its input."
        )


def require_finite_rows(answer: torch.Tensor, levels: Sequence[Level], rows: torch.Tensor | None, what: str) -> None:
    """Raises NonFiniteError that says `what`, and names the level and the samples, if an answer (b, ...) is not finite."""
    if bool(torch.isfinite(answer).all()):
        return
    bad = (~torch.isfinite(answer.detach().reshape(len(answer), -1)).all(1)).cpu().nonzero().flatten()
    samples = (bad if rows is None else rows[bad]).tolist()
    at = levels[int(bad[0])]
    raise NonFiniteError(
        f"{what} at s = {float(at):.6g} (time {at.time:.6g}) for {len(samples)} of {len(answer)} samples that it was asked "
        f"about (first: sample {samples[0]}). Run it in float32, or check its input."
    )
