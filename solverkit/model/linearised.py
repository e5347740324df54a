"""A denoiser's answer and products with the transpose of its Jacobian there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from ..errors import DenoiserError
from .counting import record_product


class Linearised(NamedTuple):
    """D(x) and what moves it.

    Attributes:
        denoised: D, (B, ...), without gradient unless one was asked for.
        pull: v -> (dD/dx)^T v, (B, ...) -> (B, ...); each call is one counted product with the Jacobian.
    """

    denoised: torch.Tensor
    pull: Callable[[torch.Tensor], torch.Tensor]


def linearised(denoiser: Callable[..., torch.Tensor], x: torch.Tensor, level: Any) -> Linearised:
    """One evaluation whose graph is kept for products.

    Where gradients are on and x has one, the answer and the products keep theirs.

    Raises:
        DenoiserError: an answer without a gradient with respect to x.
    """
    through = torch.is_grad_enabled() and not torch.is_inference_mode_enabled() and x.requires_grad
    with torch.inference_mode(False), torch.enable_grad():
        inside = x if through else x.detach().clone().requires_grad_()
        denoised = denoiser(inside, level)
    if not denoised.requires_grad:
        raise DenoiserError(
            "the denoised prediction has no gradient with respect to x: the network is not differentiable (no_grad, "
            "detach, numpy?). Without gradients there are sk.inverse.diffpir and solverkit.constraints."
        )

    def pull(v: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            (pulled,) = torch.autograd.grad(denoised, inside, v.to(denoised.dtype), retain_graph=True, create_graph=through)
        record_product()
        return pulled

    return Linearised(denoised if through else denoised.detach(), pull)
