"""Which decoder a name means for a token model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from ..errors import OptionError
from .registry import DecoderCard, SamplerCard, registry
from .spelled import parse_options


def resolve_decoder(decoder: str | DecoderCard | Callable[..., Any], model: Any) -> DecoderCard:
    """A decoder's card from its name, itself, or a plain function; one that fits the model's process.

    Raises:
        UnknownNameError: no such decoder.
        OptionError: a sampler of continuous models, or a decoder of another process; the fitting ones are named.
    """
    noise = model.process.noise
    known = {n: c for n, c in registry().cards["decoders"].items() if cast(DecoderCard, c).process == noise}
    fitting, here = ", ".join(sorted(known)) or "none", f"this is a token model ({noise} noise)"
    card: DecoderCard
    if isinstance(decoder, DecoderCard):
        card = decoder
    elif isinstance(decoder, str):
        name, preset = parse_options(decoder)
        if name not in registry().cards["decoders"] and name in registry().cards["samplers"]:
            raise OptionError(f"{name!r} samples continuous models, and {here}. Decoders that fit: {fitting}.")
        card = cast(DecoderCard, registry().get("decoders", name))
        card = replace(card, name=decoder, preset=card.check(preset, partial=True)) if preset else card
    elif isinstance(decoder, SamplerCard):
        raise OptionError(f"{decoder.name!r} samples continuous models, and {here}. Decoders that fit: {fitting}.")
    elif callable(decoder):
        return DecoderCard(getattr(decoder, "__name__", "decoder"), decoder, skip=4, process=noise)
    else:
        raise OptionError(f"a decoder is a name or a function (model, x, grid, noise), got {type(decoder).__name__}.")
    if card.process != noise:
        raise OptionError(f"{card.name!r} is for {card.process} noise, and {here}. Decoders that fit: {fitting}.")
    return card
