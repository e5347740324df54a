"""The UNet of the bundled digit networks in torch alone, for machines without diffusers.

The names of its parameters and its config are those of diffusers' `UNet2DModel` (one resnet a block, attention at the
lowest resolution, positional time): `sk.load` and diffusers open what is written here. `python benchmarks/train/unet.py`
compares its answers with those of diffusers' own class on the bundled weights.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

WEIGHTS = "diffusion_pytorch_model.safetensors"
NULL_CLASS = 10
CONFIG: dict[str, Any] = {
    "_class_name": "UNet2DModel",
    "_diffusers_version": "0.35.0",
    "sample_size": 28,
    "in_channels": 1,
    "out_channels": 1,
    "layers_per_block": 1,
    "block_out_channels": [16, 32, 64],
    "down_block_types": ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    "norm_num_groups": 8,
    "attention_head_dim": 32,
    "num_class_embeds": NULL_CLASS + 1,
}  # of the bundled mnist and mnist-flow


class GroupNorm(nn.GroupNorm):
    """The fused one or, `written_out`, the same in plain operations: the fused one has no forward-mode derivative for
    tangents of every memory layout."""

    written_out = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.written_out:
            return super().forward(x)
        groups = x.reshape(len(x), self.num_groups, -1)
        variance, mean = torch.var_mean(groups, dim=2, correction=0, keepdim=True)
        x = ((groups - mean) * (variance + self.eps).rsqrt()).reshape(x.shape)
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return x * self.weight.view(shape) + self.bias.view(shape)


class Embedding(nn.Module):
    """A time (B,), told as cosines and sines of geometric frequencies, through two layers."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.linear_1 = nn.Linear(channels, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        half = self.channels // 2
        frequencies = torch.exp(-math.log(10000) / half * torch.arange(half, device=time.device))
        angles = time[:, None].float() * frequencies
        return self.linear_2(silu(self.linear_1(torch.cat([angles.cos(), angles.sin()], dim=1))))


class Resnet(nn.Module):
    def __init__(self, before: int, after: int, width: int, groups: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, before, eps=1e-5)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.time_emb_proj = nn.Linear(width, after)
        self.norm2 = GroupNorm(groups, after, eps=1e-5)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(before, after, 1) if before != after else None

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        h = self.conv1(silu(self.norm1(x))) + self.time_emb_proj(silu(embedded))[:, :, None, None]
        h = self.conv2(silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nn.Module):
    def __init__(self, channels: int, head: int, groups: int) -> None:
        super().__init__()
        self.heads = channels // head
        self.group_norm = GroupNorm(groups, channels, eps=1e-5)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        tokens = self.group_norm(x.reshape(B, C, H * W)).transpose(1, 2)
        q, k, v = (to(tokens).reshape(B, H * W, self.heads, -1).transpose(1, 2) for to in (self.to_q, self.to_k, self.to_v))
        weights = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(dim=-1)
        mixed = self.to_out[0]((weights @ v).transpose(1, 2).reshape(B, H * W, C))
        return x + mixed.transpose(1, 2).reshape(B, C, H, W)


class Conv(nn.Module):
    """A convolution under the name that diffusers gives it."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=stride, padding=1)


class Block(nn.Module):
    def __init__(self, resnets: list[Resnet], attentions: list[Attention]) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        if attentions:
            self.attentions = nn.ModuleList(attentions)
        self.has_attention = bool(attentions)

    def layers(self, x: Tensor, skips: list[Tensor] | None, embedded: Tensor) -> list[Tensor]:
        """The state after each layer; `skips` are taken from their end, one a layer, where this is an upward block."""
        states = []
        for i, resnet in enumerate(self.resnets):
            x = resnet(x if skips is None else torch.cat([x, skips.pop()], dim=1), embedded)
            x = self.attentions[i](x) if self.has_attention else x
            states.append(x)
        return states


class UNet(nn.Module):
    """(B, C, H, W), times (B,) and labels (B,) to (B, C', H, W).

    Args:
        config: keys of `CONFIG`. Without `num_class_embeds` there are no labels, or (`class_embed_type` "identity") they
            are vectors (B, 4 * first width) that are added to the embedded time.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        widths, groups, head = config["block_out_channels"], config["norm_num_groups"], config["attention_head_dim"]
        n, width = len(widths), 4 * widths[0]
        self.config = dict(config)
        self.conv_in = nn.Conv2d(config["in_channels"], widths[0], 3, padding=1)
        self.time_embedding = Embedding(widths[0], width)
        classes = config.get("num_class_embeds")
        self.class_embedding = nn.Embedding(classes, width) if classes else None
        self.down_blocks = nn.ModuleList()
        for i, (before, after) in enumerate(zip([widths[0], *widths[:-1]], widths)):
            attention = [Attention(after, head, groups)] if config["down_block_types"][i].startswith("Attn") else []
            block = Block([Resnet(before, after, width, groups)], attention)
            if i < n - 1:
                block.downsamplers = nn.ModuleList([Conv(after, stride=2)])
            self.down_blocks.append(block)
        middle = [Resnet(widths[-1], widths[-1], width, groups) for _ in range(2)]
        self.mid_block = Block(middle, [Attention(widths[-1], head, groups)])
        self.up_blocks = nn.ModuleList()
        x = widths[-1]
        for i, after in enumerate(widths[::-1]):
            below = widths[::-1][min(i + 1, n - 1)]  # the width of the skip that the second resnet takes
            attention = config["up_block_types"][i].startswith("Attn")
            attentions = [Attention(after, head, groups) for _ in range(2)] if attention else []
            resnets = [Resnet(x + after, after, width, groups), Resnet(after + below, after, width, groups)]
            block = Block(resnets, attentions)
            if i < n - 1:
                block.upsamplers = nn.ModuleList([Conv(after, stride=1)])
            self.up_blocks.append(block)
            x = after
        self.conv_norm_out = GroupNorm(groups, widths[0], eps=1e-5)
        self.conv_out = nn.Conv2d(widths[0], config["out_channels"], 3, padding=1)

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        embedded = self.time_embedding(time)
        if labels is not None:
            embedded = embedded + (labels if self.class_embedding is None else self.class_embedding(labels))
        x = self.conv_in(x)
        skips = [x]
        for block in self.down_blocks:
            x = block.layers(x, None, embedded)[-1]
            skips.append(x)
            if hasattr(block, "downsamplers"):
                x = block.downsamplers[0].conv(x)
                skips.append(x)
        middle = self.mid_block
        x = middle.resnets[1](middle.attentions[0](middle.resnets[0](x, embedded)), embedded)
        for block in self.up_blocks:
            x = block.layers(x, skips, embedded)[-1]
            if hasattr(block, "upsamplers"):
                x = block.upsamplers[0].conv(interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv_out(silu(self.conv_norm_out(x)))


def load(folder: Path) -> UNet:
    """The network of a folder `unet` (config.json and weights)."""
    net = UNet(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    net.load_state_dict(load_file(folder / WEIGHTS))
    return net


def save(folder: Path, config: dict[str, Any], state: dict[str, Tensor]) -> None:
    """config.json and weights, as diffusers writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().float().cpu().contiguous() for k, v in state.items()}, folder / WEIGHTS, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def save_pipeline(
    out: Path, net: UNet, state: dict[str, Tensor], scheduler: dict[str, Any], record: dict[str, Any]
) -> None:
    """The folder that `sk.load` opens: unet/, scheduler/, model_index.json, and training.json."""
    save(out / "unet", net.config, state)
    (out / "scheduler").mkdir(exist_ok=True)
    index = {
        "_class_name": "DDPMPipeline",
        "_diffusers_version": "0.35.0",
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "unet": ["diffusers", "UNet2DModel"],
    }
    files = {"scheduler/scheduler_config.json": scheduler, "model_index.json": index, "training.json": record}
    for name, content in files.items():
        (out / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    from diffusers import UNet2DModel

    for name in ("mnist", "mnist-flow"):
        folder = Path(__file__).parents[2] / "solverkit" / "networks" / name / "unet"
        theirs, ours = UNet2DModel.from_pretrained(folder).eval(), load(folder)
        x, time, labels = torch.randn(4, 1, 28, 28), torch.rand(4) * 999, torch.tensor([0, 3, 9, 10])
        with torch.no_grad():
            error = (ours(x, time, labels) - theirs(x, time, labels).sample).abs().max()
        print(f"{name}: largest difference from diffusers' class {float(error):.1e}")


if __name__ == "__main__":
    main()
