"""A flow map as a denoiser: a network of two times, asked once from one noise level to any lower one.

An answer is always a prediction of x_0. Asked from s to t the map answers g(x, s, t), the prediction with which one exact
first-order step is the map (Kim et al. 2024, Consistency Trajectory Models, arXiv 2310.02279, eq. 9),

    psi(x, s, t) = (t / s) x + alpha_t (1 - r) g(x, s, t),    r = t alpha_s / (alpha_t s),

in any frame; g(x, s, s) = D(x, s) = E[x_0 | x], so that the same network serves every ordinary solver. In the flow frame
r = t (1 - s) / ((1 - t) s), and with the average velocity u of MeanFlow (Geng et al. 2025, arXiv 2505.13447, eq. 3)

    psi = x - (s - t) u(x, s, t),    g = x - s u(x, s, t).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from ..errors import DenoiserError, OptionError, UnknownNameError
from ..process.level import Level
from ..process.schedule import Schedule
from .denoiser import Denoiser, wrap

__all__ = ["MapDenoiser", "Told", "wrap_map"]

Told = Literal["t,h", "t,r"]
TOLD = ("t,h", "t,r")


class MapDenoiser:
    """A network of two times behind the one interface. Build it with `wrap_map`.

    Attributes:
        denoiser: The network as it is asked at one level, its second time among its inputs.
        told: "t,h" or "t,r".
        maps: It answers `to=`.
        takes_rows: It cannot be asked at one level a row.
    """

    maps = True
    takes_rows = False

    def __init__(self, denoiser: Denoiser, told: str) -> None:
        self.denoiser, self.told = denoiser, told
        self.schedule, self.shape = denoiser.schedule, denoiser.shape

    @property
    def name(self) -> str:
        """What the network is called in messages."""
        return self.denoiser.name

    @property
    def calls(self) -> int:
        """Passes through the network since it was wrapped."""
        return self.denoiser.calls

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.denoiser.device

    @property
    def dtype(self) -> torch.dtype | None:
        """What the network computes in."""
        return self.denoiser.dtype

    @property
    def prior(self) -> Any:
        """A source that is not Gaussian; None for a Gaussian one."""
        return self.denoiser.prior

    @property
    def source(self) -> str | None:
        """What it was opened from."""
        return self.denoiser.source

    def with_inputs(self, **inputs: Any) -> MapDenoiser:
        """The same network with other fixed inputs."""
        return MapDenoiser(self.denoiser.with_inputs(**inputs), self.told)

    def rows(self, start: int | Sequence[int], stop: int | None = None, total: int | None = None) -> MapDenoiser:
        """The denoiser of some samples of a batch; see `Denoiser.rows`."""
        return MapDenoiser(self.denoiser.rows(start, stop, total), self.told)

    def __call__(self, x: torch.Tensor, level: float, to: float | None = None) -> torch.Tensor:
        """g(x, level, to) of x (B, ...) in the frame; without `to`, D(x, level). Dtype and shape of x.

        Raises:
            DenoiserError: one level a row, a map to more noise, or what `Denoiser` raises.
        """
        if isinstance(level, (tuple, list)):
            raise DenoiserError("a flow map is asked from one level to another, not at one level a row.")
        s: Level = self.schedule.at(level)
        t: Level = s if to is None else self.schedule.at(to)
        if t > s:
            raise DenoiserError(f"this flow map goes from noise to data: it was asked from {s:.6g} to {float(t):.6g}.")
        second = s.time - t.time if self.told == "t,h" else t.time
        kind = torch.float64 if (self.dtype or x.dtype) == torch.float64 else torch.float32
        times = torch.full((len(x),), abs(second) if self.told == "t,h" else second, dtype=kind, device=x.device)
        return self.denoiser.view(second_time=times)(x, s)

    def __repr__(self) -> str:
        return f"MapDenoiser({self.told}, {self.denoiser!r})"


class _Second:
    """net(x, time, second, **inputs) with its second time as an input."""

    def __init__(self, net: Callable[..., Any]) -> None:
        self.net, self.name = net, str(getattr(net, "name", type(net).__name__))

    def __call__(self, x: torch.Tensor, time: torch.Tensor, *, second_time: torch.Tensor, **inputs: Any) -> Any:
        return self.net(x, time, second_time, **inputs)


def wrap_map(
    net: Callable[..., Any],
    told: Told = "t,h",
    schedule: Schedule | None = None,
    *,
    prediction: str = "flow_prediction",
    shape: tuple[int, ...] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    **fixed_kwargs: Any,
) -> MapDenoiser:
    """Adapt a flow map: MeanFlow, CTM, shortcut and AnyFlow networks (a torch module is switched to eval mode).

    Args:
        net: Called as net(x, time, second, **fixed_kwargs): x (B, ...) in its own coordinates, both times (B,).
        told: What the second is. "t,h": the length of the map, |time(s) - time(t)|; "t,r": where it goes, time(t). By the
            clock of the schedule (time_scale included), and codes differ: look at the training code. For a network that
            names its arguments: sk.wrap_map(lambda x, t, r: net(x, timestep=t, r_timestep=r), "t,r", schedule).
        schedule: What the network was trained on, `sk.Flow()` for MeanFlow.
        prediction: "flow_prediction" for the average velocity u; "sample" for CTM's g; other types of `sk.wrap` mean g in
            the same way.
        shape, dtype, device, fixed_kwargs: As in `sk.wrap`.

    Raises:
        UnknownNameError: another `told`, or a prediction type that does not exist.
        DenoiserError: as `sk.wrap`.
    """
    if told not in TOLD:
        raise UnknownNameError("order of the two times", told, TOLD)
    if not callable(net):
        raise DenoiserError(f"net must be callable as net(x, time, second), got {type(net).__name__}.")
    if prediction == "autoencoder":
        raise OptionError("a flow map is told two times, and an autoencoder none: leave out prediction='autoencoder'.")
    if isinstance(net, torch.nn.Module):
        net.eval()
    denoiser = wrap(
        _Second(net), prediction, schedule, shape=shape, dtype=dtype, device=device, **fixed_kwargs
    )
    return MapDenoiser(denoiser, told)
