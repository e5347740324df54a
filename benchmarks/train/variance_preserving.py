"""The discrete process of the bundled `mnist`: 1000 linear betas, and the level without noise behind its first."""

from __future__ import annotations

import torch
from torch import Tensor

SCHEDULER = {
    "_class_name": "DDPMScheduler",
    "_diffusers_version": "0.35.0",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "clip_sample": False,
    "num_train_timesteps": 1000,
}


def alphas_cumprod(device: str) -> Tensor:
    """alpha^2 at the timesteps 0 .. 999, float32 (the products are taken in float64)."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    return (1 - betas).cumprod(0).float().to(device)


def alpha_sigma(abar: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma (B, 1, 1, 1) at integer timesteps t (B,); t = -1 is the clean image, alpha = 1, sigma = 0."""
    squared = torch.where(t < 0, torch.ones_like(abar[t.clamp(min=0)]), abar[t.clamp(min=0)])
    return squared.sqrt().view(-1, 1, 1, 1), (1 - squared).sqrt().view(-1, 1, 1, 1)
