"""Which card a name means, whatever its kind: what `solverkit check NAME` is about."""

from __future__ import annotations

import difflib
from dataclasses import replace

from ..errors import UnknownNameError
from .aliases import GRIDS, SAMPLERS, canonical
from .registry import Card, registry
from .spelled import parse_options

PROVEN = ("sampler", "decoder", "grid", "model", "metric")  # kinds with checks; of two with one name the first is meant


def kinds_of(text: str) -> list[str]:
    """The kinds that have something of that name, options behind it left aside."""
    name = parse_options(text)[0]
    return [kind for kind in PROVEN if name in registry().cards[f"{kind}s"]]


def find_card(text: str, kind: str | None = None) -> Card:
    """The card of a name, with the options behind it ("flow:shift=3") as its defaults.

    Args:
        text: The name.
        kind: One of `PROVEN`; None for the first that has the name.

    Raises:
        UnknownNameError: nothing is called so, or no kind is.
        OptionError: an option that it does not have.
    """
    if kind is not None and kind not in PROVEN:
        raise UnknownNameError("kind", kind, PROVEN)
    if not kinds_of(text):
        for aliased, known in (("sampler", SAMPLERS), ("grid", GRIDS)):
            if kind in (None, aliased) and text.partition(":")[0] in known:
                text, kind = canonical(f"{aliased}s", text), aliased
    name, preset = parse_options(text)
    found = kind or next(iter(kinds_of(text)), None)
    if found is None:
        names = {other for kind in PROVEN for other in registry().cards[f"{kind}s"]}
        near = difflib.get_close_matches(name, sorted(names), n=1)
        lists = ["what `solverkit samplers`, `decoders`, `grids`, `models` and `metrics` list"]
        raise UnknownNameError("sampler, decoder, grid, model or metric", name, lists, near[0] if near else None)
    card = registry().get(f"{found}s", name)
    return replace(card, name=text, preset=card.check(preset, partial=True)) if preset else card
