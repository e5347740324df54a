"""Runs from data to noise, for pipelines that edit an image: what can be inverted, and the levels of the inverse classes.

DDIM inversion takes the step from level s to the next, t > s, with the network's answer at t for the latents at s (Song,
Meng, Ermon 2021, section 4.3, run upwards): a told time need not be the level's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from ..errors import GridError, OptionError, ScheduleError
from ..grid.grid import Grid, show
from ..plan.trace import trace
from ..process.schedule import VE
from ..process.variance_preserving import DiscreteVP
from ..registry.registry import SamplerCard
from .convention import Convention
from .peers import PEERS, peer_named

NEAR = 1e-6  # share of a step: data stands so far above level 0, or below the level that the first step repeats


def require_invertible(config: Mapping[str, Any], card: SamplerCard) -> None:
    """Refuse an inverse run that would not lead back.

    Args:
        config: Of `SolverKitScheduler`, with inverse=True.
        card: Of its sampler.

    Raises:
        OptionError: a sampler that is not known to be right upwards or draws noise, a grid by name, or clipping.
    """
    peer = peer_named(config["sampler"])
    if peer is None or peer.inverse is None:
        known = ", ".join(name for name, p in PEERS.items() if p.inverse is not None)
        raise OptionError(
            f"inverse=True runs from data to noise, and {config['sampler']!r} is not known to be right in that direction. "
            f"Choose one of {known}, or inverse=False."
        )
    probe = Grid.from_ratios(VE(), (4.0, 2.0, 1.0, 0.5))
    if trace(card, probe, **config["sampler_options"]).draws:
        raise OptionError(
            f"inverse=True needs a deterministic sampler, and {config['sampler']!r} draws noise with "
            f"sampler_options={dict(config['sampler_options'])}; leave them out."
        )
    if config["grid"] is not None:
        raise OptionError(
            f"inverse=True runs on the levels of {peer.inverse}, got grid={config['grid']!r}; leave grid out (None)."
        )
    for key in ("clip_sample", "thresholding"):
        if config.get(key):
            raise OptionError(
                f"inverse=True with {key}=True: what is clipped away cannot be found again. Pass {key}=False."
            )


def inverse_class(config: Mapping[str, Any]) -> str:
    """The class that lays out an inverse run: that of the sampler, or another inverse class that the user named."""
    named, own = config.get("layout_class"), PEERS[config["sampler"].partition(":")[0]].inverse
    return str(named if named in {peer.inverse for peer in PEERS.values()} - {None} else own)


def require_vp(config: Mapping[str, Any], convention: Convention) -> None:
    """Raises ScheduleError where the network is none of VP."""
    if not isinstance(convention.schedule, DiscreteVP):
        raise ScheduleError(
            f"inverse=True is for VP networks, and this config ({config['native_class']}) is one of "
            f"{type(convention.schedule).__name__}; diffusers has no inverse class for it."
        )


def rising(native: Any, convention: Convention) -> tuple[list[tuple[float, float]], float, int]:
    """The levels of an inverse class after its `set_timesteps`.

    The DDIM one has no sigmas: its timesteps are where steps end, and what the network is told. A step there is one of
    T // n timesteps; the class takes the start of each for that far below its end, also where rounding put the end of the
    one before elsewhere. Here a step starts where the last one ended.

    Returns:
        (sigma / alpha, told time) where each step begins, the end, and how many steps at the end go nowhere.

    Raises:
        GridError: levels that do not rise, or a start where the network's answer says nothing of the noise.
    """
    schedule, told = convention.schedule, native.timesteps.tolist()
    if getattr(native, "sigmas", None) is not None:
        *ratios, end = (convention.from_sigma(s) for s in native.sigmas.tolist()[: len(told) + 1])
    else:
        *ends, end = (schedule.ratio(t) for t in told)
        before = told[0] - native.config.num_train_timesteps // native.num_inference_steps
        lowest = 0.0 if native.config.set_alpha_to_one else schedule.ratio(0)
        ratios = [schedule.ratio(before) if before >= 0 else lowest, *ends]
    kept = len(ratios)
    while kept > 1 and ratios[kept - 1] == end:
        kept -= 1
    nodes, idle = list(zip(ratios[:kept], map(float, told))), len(ratios) - kept
    following = [*ratios[1:kept], end][0]
    if ratios[0] == 0 and convention.prediction == "sample":
        raise GridError(
            "the first step starts at data itself, where a network that predicts x_0 says nothing of the noise; pass "
            "set_alpha_to_one=False, or choose sampler='dpmpp-2m'."
        )
    if ratios[0] in (0.0, following):
        nodes[0] = (NEAR * min(following, 1.0) if ratios[0] == 0 else following * (1 - NEAR), nodes[0][1])
    if any(b <= a for a, b in pairwise([*(r for r, _ in nodes), end])):
        raise GridError(f"it lays out sigmas {show([*ratios, end])}, which do not rise.")
    return nodes, end, idle
