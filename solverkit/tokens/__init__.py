"""Discrete diffusion: masked and uniform token models beside the continuous ones; nothing here is affine, all is pull."""

from .around import Around, classifier_free, planned, temperature, top_k, top_p
from .noise import TokenNoise
from .steps import margin, masked_in, negative_entropy, numbered, top

__all__ = [
    "Around", "TokenNoise", "classifier_free", "margin", "masked_in", "negative_entropy", "numbered", "planned",
    "temperature", "top", "top_k", "top_p",
]  # fmt: skip
