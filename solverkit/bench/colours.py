"""One colour a sampler, in every figure: known samplers have theirs, others one that depends on their name alone.

Okabe and Ito's colours come first: most kinds of colour blindness tell them apart. Markers differ too.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

from .panel import PEER_MARK

KNOWN = {
    "euler": ("#0072B2", "o"), "heun": ("#D55E00", "s"), "dpmpp-2m": ("#009E73", "D"), "dpmpp-3m": ("#CC79A7", "^"),
    "unipc": ("#E69F00", "v"), "deis": ("#56B4E9", "P"), "ipndm": ("#7F3C8D", "*"), "teleport": ("#B2182B", "X"),
    "gaussian-exponential": ("#80BA5A", "h"), "lml": ("#A05A2C", "<"), "pc": ("#3B528B", ">"), "tuned": ("#117733", "p"),
    "auto": ("#AA3377", "H"), "ddpm": ("#999933", "d"),
}  # fmt: skip
PEERS = {
    "diffusers:DPMSolverMultistep": ("#000000", "D"), "diffusers:UniPCMultistep": ("#8C8C8C", "v"),
    "diffusers:EulerDiscrete": ("#5AB4AC", "o"), "diffusers:DEISMultistep": ("#6F6F6F", "P"),
}  # fmt: skip
OTHERS = ("#882255", "#44AA99", "#DDAA33", "#4477AA", "#66CCEE", "#AA4499", "#BBCC33", "#EE8866")
OTHER_PEERS = ("#404040", "#A6A6A6", "#5C4033", "#607D8B")
MARKERS = "osD^vP*Xh<>pHd"
DASHES = ("solid", "dash", "dot", "dashdot")


class Style(NamedTuple):
    """How a sampler is drawn; settings of one sampler share its colour and differ in dashes and markers."""

    colour: str
    marker: str
    dash: str
    peer: bool


def base_name(name: str) -> str:
    """A sampler's name without its options and marks."""
    return name.replace(PEER_MARK, "").partition(" (")[0]


def styles(names: Sequence[str]) -> dict[str, Style]:
    """A style for each line of a figure."""
    made: dict[str, Style] = {}
    settings: dict[str, int] = {}
    for name in names:
        base, peer = base_name(name), name.endswith(PEER_MARK)
        colour, marker = KNOWN.get(base) or PEERS.get(base) or _by_name(base, peer)
        place = settings[base] = settings.get(base, -1) + 1
        if place:
            marker = MARKERS[(MARKERS.index(marker) + place) % len(MARKERS)]
        made[name] = Style(colour, marker, DASHES[(place + peer) % len(DASHES)], peer)
    return made


def _by_name(base: str, peer: bool) -> tuple[str, str]:
    number, colours = zlib.crc32(base.encode()), OTHER_PEERS if peer else OTHERS
    return colours[number % len(colours)], MARKERS[number // 8 % len(MARKERS)]
