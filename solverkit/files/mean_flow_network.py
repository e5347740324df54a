"""A bundled flow map: a `UNet2DModel` that is told a time, and a second one beside its label."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ..errors import LoadError
from ..model.flow_map import MapDenoiser, wrap_map
from ..process.schedule import Flow
from .diffusers_network import build, load_weights
from .network import NETWORKS, said_from
from .regular_file import read_json

SECOND = "second_time.safetensors"


class TwoTimes(nn.Module):
    """u(x, t, h) (B, C, H, W) for times told as time_scale t and time_scale h, (B,), and labels (B,).

    The network is told t itself; the length of the map h is embedded, as cosines and sines of `scale` h at geometric
    frequencies and two layers, and added to the embedding of the label, which the network adds to that of t.
    """

    def __init__(self, unet: Any, labels: int, time_scale: float, scale: float) -> None:
        super().__init__()
        width, self.channels = unet.time_embedding.linear_2.out_features, unet.time_embedding.linear_1.in_features
        self.unet, self.factor = unet, scale / time_scale
        self.class_embedding = nn.Embedding(labels, width)
        self.linear_1 = nn.Linear(self.channels, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, x: Tensor, time: Tensor, h: Tensor, class_labels: Tensor) -> Tensor:
        half = self.channels // 2
        frequencies = torch.exp(-math.log(10000) / half * torch.arange(half, device=x.device))
        angles = (self.factor * h)[:, None].float() * frequencies
        told = torch.cat([angles.cos(), angles.sin()], dim=1).to(self.linear_1.weight.dtype)
        second = self.linear_2(silu(self.linear_1(told)))
        return self.unet(x, time, self.class_embedding(class_labels) + second).sample  # type: ignore[no-any-return]


def open_mean_flow(
    name: str, labels: int | Tensor | None, device: torch.device | str | None, dtype: torch.dtype | None
) -> MapDenoiser:
    """A flow map of `solverkit/networks`; labels default to the null class.

    Raises:
        LoadError: it is not part of this installation, or its files do not fit together.
        DenoiserError: labels that it does not have.
    """
    from .diffusers_network import check_labels, read_weights

    folder: Path = NETWORKS / name
    if not folder.is_dir():
        raise LoadError(f"the bundled network {name!r} is not part of this installation ({folder}); reinstall solverkit.")
    record, config = read_json(folder / "training.json"), read_json(folder / "unet" / "config.json")
    unet = build(config, folder / "unet")
    unet.load_state_dict(load_weights(folder / "unet", unet))
    second = read_weights(folder / SECOND)
    n = len(second["class_embedding.weight"])
    net = TwoTimes(unet, n, record["time_scale"], record["second_time_scale"])
    try:
        missing, unexpected = net.load_state_dict(second, strict=False)
    except RuntimeError as error:
        raise LoadError(f"{folder / SECOND} does not fit the network: {error}") from error
    if unexpected or any(not key.startswith("unet.") for key in missing):
        raise LoadError(f"{folder / SECOND} does not fit the network: it lacks {missing[:3]} or has {unexpected[:3]}.")
    asked = check_labels({**config, "class_embed_type": None, "num_class_embeds": n}, labels, None, is_ours=True)
    net = net.to(device=device, dtype=dtype)
    if isinstance(asked, Tensor):
        asked = asked.to(unet.device)
    size = config["sample_size"]
    shape = (config["in_channels"], size, size)
    schedule = Flow(time_scale=record["time_scale"])
    found = wrap_map(net, record["told"], schedule, shape=shape, class_labels=asked)
    said_from(name, found.denoiser)
    return found
