"""The bundled super-resolution network: digits of 7 x 7 pixels to 28 x 28 along ResShift's path."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import interpolate

from ..errors import LoadError, OptionError
from ..model.placement import usable_device
from ..model.towards import Towards, wrap_towards
from ..process.residual import Residual
from .diffusers_network import build, load_weights
from .network import NETWORKS
from .regular_file import read_json


class Beside(torch.nn.Module):
    """net([x, y], time): the noisy image and y side by side."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor, time: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
        y = beside.to(x).expand(len(x), -1, -1, -1)
        return self.net(torch.cat([x, y], dim=1), time).sample  # type: ignore[no-any-return]


def enlarged(small: torch.Tensor, factor: int = 4) -> torch.Tensor:
    """y (B, 1, 28, 28) of small images (B, 1, 7, 7): bicubic, within [-1, 1]."""
    return interpolate(small, scale_factor=factor, mode="bicubic", align_corners=False).clamp(-1, 1)


def open_super_resolution(name: str, small: Any, device: torch.device | str | None, dtype: torch.dtype | None) -> Towards:
    """The network, for small images (B, 1, 7, 7) in [-1, 1].

    Raises:
        LoadError: it is not part of this installation.
        OptionError: images of another shape.
    """
    if not (isinstance(small, torch.Tensor) and small.ndim == 4 and small.shape[1:] == (1, 7, 7)):
        given = tuple(small.shape) if isinstance(small, torch.Tensor) else type(small).__name__
        raise OptionError(f"small= must be the images to enlarge, (B, 1, 7, 7) in [-1, 1]; got {given}.")
    folder = NETWORKS / name
    if not folder.is_dir():
        raise LoadError(f"the bundled network {name!r} is not part of this installation ({folder}); reinstall solverkit.")
    record = read_json(folder / "training.json")
    unet = build(read_json(folder / "unet" / "config.json"), folder / "unet")
    unet.load_state_dict(load_weights(folder / "unet", unet))
    place = usable_device(device) if device is not None else torch.device("cpu")
    net = Beside(unet).to(device=place, dtype=dtype)
    first, last = record["sqrt_eta"]
    steps, kappa, power = record["steps_of_the_path"], record["kappa"], record["power"]
    schedule = Residual(kappa, steps, power, first, last, record["time_scale"])
    y = enlarged(small.float(), record["factor"]).to(place)
    return wrap_towards(net, y, record["prediction"], schedule, beside=y)
