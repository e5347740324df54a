"""One colour a sampler, in every figure: known samplers have theirs, others one that depends on their name alone.

Okabe and Ito's colours come first: most kinds of colour blindness tell them apart. Markers differ too.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from typing import NamedTuple

from .panel import PEER_MARK

KNOWN = {
    "euler": ("#0072B2", "o"), "heun": ("#D55E00", "s"), "dpmpp-2m": ("#009E73", "D"), "dpmpp-3m": ("#CC79A7", "^"),
    "unipc": ("#E69F00", "v"), "deis": ("#56B4E9", "P"), "ipndm": ("#7F3C8D", "*"), "teleport": ("#B2182B", "X"),
    "gaussian-exponential": ("#80BA5A", "h"), "lml": ("#A05A2C", "<"), "pc": ("#3B528B", ">"), "tuned": ("#117733", "p"),
    "auto": ("#AA3377", "H"), "ddpm": ("#999933", "d"),
    # decoders of tokens, which never stand beside solvers
    "ancestral": ("#56B4E9", "o"), "posterior": ("#7F3C8D", "s"), "first-hitting": ("#D55E00", "D"),
    "choose-then-sample": ("#009E73", "^"), "sample-then-choose": ("#B2182B", "v"), "p2": ("#CC79A7", "P"),
    "remdm": ("#E69F00", "*"), "threshold": ("#3B528B", "X"), "entropy-bounded": ("#000000", "h"),
    "block-refinement": ("#A05A2C", "<"), "blocks": ("#999933", ">"), "theta-trapezoidal": ("#117733", "p"),
    "gibbs": ("#AA3377", "H"), "tau": ("#8C8C8C", "d"), "dfm-corrector": ("#80BA5A", "<"),
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
    taken: dict[str, tuple[str, str]] = {}
    for name in names:
        base, peer = base_name(name), name.endswith(PEER_MARK)
        if base not in taken:
            used = {colour for colour, _ in taken.values()}
            taken[base] = KNOWN.get(base) or PEERS.get(base) or _by_name(base, peer, used)
        colour, marker = taken[base]
        place = settings[base] = settings.get(base, -1) + 1
        if place:
            marker = MARKERS[(MARKERS.index(marker) + place) % len(MARKERS)]
        made[name] = Style(colour, marker, DASHES[(place + peer) % len(DASHES)], peer)
    return made


def _by_name(base: str, peer: bool, used: Collection[str]) -> tuple[str, str]:
    """By the name alone, but for a colour that another line of the figure has already, while there are others."""
    number, colours = zlib.crc32(base.encode()), OTHER_PEERS if peer else OTHERS
    ordered = [colours[(number + i) % len(colours)] for i in range(len(colours))]
    return next((c for c in ordered if c not in used), ordered[0]), MARKERS[number // 8 % len(MARKERS)]
