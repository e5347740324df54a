"""Networks whose forward takes something else before the time: asked as net(x, time, **inputs) all the same."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from ..errors import LoadError

# told the timestep that the scheduler says, as a keyword; others of this form are told other times (Flux: a thousandth)
NAMED = ("PixArtTransformer2DModel", "SD3Transformer2DModel")


class NamedTime(torch.nn.Module):
    """net(x, timestep=time, **inputs) called as net(x, time, **inputs).

    Attributes:
        net: The network.
        name: Of its class.
    """

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net, self.name = net, type(net).__name__

    def forward(self, x: torch.Tensor, time: torch.Tensor, **inputs: Any) -> Any:
        return self.net(x, timestep=time, **inputs)


def told_by_position(net: torch.nn.Module) -> Callable[..., Any]:
    """The network, or one around it, as net(x, time, **inputs).

    Raises:
        LoadError: a class that takes no time, or is told it in a way that is not known here.
    """
    names, kind = list(inspect.signature(net.forward).parameters), type(net).__name__
    if names[1:2] == ["timestep"]:
        return net
    if kind in NAMED:
        return NamedTime(net)
    raise LoadError(
        f"{kind} is called as {kind}({', '.join(names[:4])}, ...), and how it is told the time is not known here. Wrap it "
        "yourself: sk.wrap(lambda x, t, **inputs: net(x, timestep=..., **inputs), prediction, schedule, shape=...)."
    )
