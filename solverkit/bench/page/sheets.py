"""Samples as pictures: those of each sampler beside the converged ones from the same noise."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from safetensors.torch import load

from ..panel import Panel

SHOWN = 10
USUAL = 10  # evaluations: the budget that is shown beside the smallest
SCALE = 2


def sheets(panels: Iterable[Panel], pictures: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """A sheet a model: rows of (label, PNG as a data address), the converged samples first.

    Args:
        panels: What is shown.
        pictures: `RunStore.pictures`.
    """
    made = []
    for panel in panels:
        found = [point.row for line in panel.points.values() for point in line.values()]
        if not found:
            continue
        budgets = sorted({panel.budgets[0], min(panel.budgets, key=lambda n: abs(n - USUAL))})
        first = found[0]
        lines = [("converged", pictures.get(f"converged {first['model_fingerprint']} {first['seed']}"))]
        for budget in budgets:
            lines += [
                (f"{name.rstrip('†')}, NFE {budget}", pictures.get(line[budget].row.get("key") or ""))
                for name, line in panel.points.items()
                if budget in line
            ]
        images = [(label, address(content)) for label, content in lines if content is not None]
        if shown := [(label, image) for label, image in images if image is not None]:
            made.append({"title": panel.title, "lines": shown})
    return made


def address(content: bytes) -> str | None:
    """A strip of samples as a data address; None for samples that are no pictures."""
    x = load(content)["x"][:SHOWN].float()
    strip = as_strip(x)
    if strip is None:
        return None
    from PIL import Image

    out = io.BytesIO()
    image = Image.fromarray(strip.numpy())
    image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.NEAREST).save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def as_pixels(x: torch.Tensor) -> torch.Tensor | None:
    """Images (B, 1 or 3, H, W) in [-1, 1] as bytes; None for what is none."""
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        return None
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def as_strip(x: torch.Tensor) -> torch.Tensor | None:
    """Samples side by side as bytes: images in [-1, 1], or square vectors in their own range; None for others."""
    side = math.isqrt(x[0].numel())
    if x.ndim == 2 and side * side == x.shape[1] and side > 2:
        x = (x / x.abs().max().clamp(min=1e-6)).reshape(-1, 1, side, side)
    pixels = as_pixels(x)
    if pixels is None:
        return None
    strip = torch.cat([torch.nn.functional.pad(image, (0, 1), value=128) for image in pixels], dim=2)
    return strip[0] if len(strip) == 1 else strip.permute(1, 2, 0).contiguous()
