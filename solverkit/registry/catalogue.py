"""What is installed: name -> card."""

from __future__ import annotations

from typing import cast

from .registry import Card, DecoderCard, MetricCard, SamplerCard, registry


def samplers() -> dict[str, SamplerCard]:
    """The registered samplers by name."""
    return {name: cast(SamplerCard, card) for name, card in sorted(registry().cards["samplers"].items())}


def decoders() -> dict[str, DecoderCard]:
    """The registered decoders (samplers of token models) by name."""
    return {name: cast(DecoderCard, card) for name, card in sorted(registry().cards["decoders"].items())}


def grids() -> dict[str, Card]:
    """The registered grids by name."""
    return dict(sorted(registry().cards["grids"].items()))


def models() -> dict[str, Card]:
    """The registered models by name: bundled networks and exact targets."""
    return dict(sorted(registry().cards["models"].items()))


def metrics() -> dict[str, MetricCard]:
    """The registered metrics by name."""
    return {name: cast(MetricCard, card) for name, card in sorted(registry().cards["metrics"].items())}
