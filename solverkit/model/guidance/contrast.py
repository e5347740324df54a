"""The contrast of a prediction: its standard deviation over one sample."""

from __future__ import annotations

import torch


def rescaled(guided: torch.Tensor, conditional: torch.Tensor, amount: float) -> torch.Tensor:
    """The guided prediction scaled towards the conditional one's standard deviation; as it is where there is none."""
    if amount == 0 or guided[0].numel() < 2:
        return guided
    factor = std(conditional) / std(guided).clamp_min(torch.finfo(guided.dtype).tiny)
    return guided * (1 + amount * (factor - 1))


def std(x: torch.Tensor) -> torch.Tensor:
    """Standard deviation of each sample, (B, 1, ...)."""
    return x.flatten(1).std(dim=1).view(-1, *[1] * (x.ndim - 1))
