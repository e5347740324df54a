"""What pipelines read of a scheduler's levels: `timesteps`, `sigmas`, the tables of training, and noised samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..process.cosine import CosineVP
from ..process.level import Level
from ..process.schedule import Flow
from ..process.variance_preserving import DiscreteVP
from .convention import Convention


def shown(
    convention: Convention, levels: Sequence[Level], end: Level, device: torch.device | str | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`timesteps` (what the network is told; integers where all are) and `sigmas` (one more), as pipelines read them."""
    told = [convention.told(level) for level in levels]
    whole = isinstance(convention.schedule, DiscreteVP) and all(t == round(t) for t in told)
    with torch.inference_mode(False):  # so that an edit of sigmas is seen
        timesteps = torch.tensor(told, dtype=torch.int64 if whole else torch.float32, device="cpu")
        values = [convention.sigma(level) for level in (*levels, end)]
        sigmas = torch.tensor(values, dtype=torch.float32, device="cpu")
    return timesteps.to(device), sigmas


def training_table(convention: Convention, total: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`timesteps` and `sigmas` before a run has begun: those of training, from the most noise to none."""
    schedule = convention.schedule
    with torch.inference_mode(False), torch.device("cpu"):
        if isinstance(schedule, DiscreteVP):
            sigmas = torch.from_numpy(schedule.log_ratios.copy()).exp().flip(0).float()
            return torch.arange(len(sigmas) - 1, -1, -1), torch.cat([sigmas, torch.zeros(1)])
        u = torch.linspace(1, 1 / total, total)
        if isinstance(schedule, Flow):
            t = schedule.shift * u / (1 + (schedule.shift - 1) * u)
            t, end = (1 - t, torch.ones(1)) if convention.inverted else (t, torch.zeros(1))
            told = 1 - t if schedule.data_at else t
            return told * schedule.time_scale, torch.cat([t, end])
        if isinstance(schedule, CosineVP):
            sigmas = torch.tensor([*map(schedule.ratio, u.tolist()), 0.0])
            return u, sigmas
        ratios = schedule.ratio_min * (schedule.ratio_max / schedule.ratio_min) ** u
        told = torch.tensor([schedule.time(r) for r in ratios.tolist()])
        return told, torch.cat([ratios, torch.zeros(1)])


def betas(schedule: DiscreteVP) -> dict[str, torch.Tensor]:
    """The tables that pipelines read of a VP scheduler, float32."""
    alphas_cumprod = 1 / (1 + np.exp(2 * schedule.log_ratios))
    alphas = alphas_cumprod / np.concatenate([[1.0], alphas_cumprod[:-1]])
    tables: dict[str, Any] = {
        "alphas_cumprod": alphas_cumprod, "alphas": alphas, "betas": 1 - alphas, "final_alpha_cumprod": np.array(1.0),
    }  # fmt: skip
    return {name: torch.tensor(table, dtype=torch.float32, device="cpu") for name, table in tables.items()}


def mixed(weights: Sequence[tuple[float, float]], x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """a x + b noise with one pair of weights, or one a sample; dtype and device of x."""
    if len(set(weights)) == 1:
        return x * weights[0][0] + noise * weights[0][1]
    columns = torch.tensor(weights, dtype=torch.float32).to(x.device, x.dtype)
    a, b = (column.reshape(-1, *[1] * (x.ndim - 1)) for column in columns.T)
    return a * x + b * noise
