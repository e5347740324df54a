"""Tiny U-Nets of one block that predict nearly the noise."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from tiny_pipe import seeded

TINY_UNET: dict[str, Any] = {"sample_size": 8, "layers_per_block": 1, "block_out_channels": (8,), "norm_num_groups": 4}


def calm(net: Any, spread: float = 0.2) -> Any:
    """Makes a U-Net of one block with 8 channels predict the normalised input, plus `spread` of what it predicted.

    That is near enough to the noise; with unrelated noise the sample would grow by 1 / alpha at the first step.
    The input goes through in pairs of channels, c and -c, since silu(c) - silu(-c) = c.
    """
    eye = torch.eye(8)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if ".conv2." in name or ".proj_out." in name or ".to_out." in name:
                parameter.mul_(spread)
            elif name.endswith("conv_shortcut.weight"):
                parameter.copy_(torch.cat([eye, eye], 1)[:, :, None, None] / 2)
        count = min(net.conv_out.out_channels, 4)
        pairs = torch.kron(torch.eye(count), torch.tensor([[1.0], [-1.0]]))
        net.conv_in.weight[: 2 * count] *= spread
        net.conv_in.weight[: 2 * count, :count, 1, 1] = pairs
        net.conv_out.weight *= spread
        net.conv_out.weight[:count, : 2 * count, 1, 1] += pairs.T
    return net


def unet(**options: Any) -> Any:
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    config = {**TINY_UNET, **blocks, "cross_attention_dim": 8, "attention_head_dim": 2, **options}
    return calm(seeded(diffusers.UNet2DConditionModel, **config))


def pixel_unet() -> Any:
    """One group for the norms and a small spread keep most pixels off the clamp at the end of the pipeline."""
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "add_attention": False}
    return calm(seeded(diffusers.UNet2DModel, **{**TINY_UNET, **blocks, "norm_num_groups": 1}), 0.05)
