"""Adversarial purification with a score (Yoon, Hwang, Lee 2021): noise the input, then climb log p in a few large steps.

    from purify import purify
    clean = purify(denoiser, attacked, std=0.25)

The step size is a share of the inverse curvature along the gradient, measured with one more evaluation, so that it needs
no tuning to the network's scale of score. Average a classifier's answers over several runs with different seeds. Later
adaptive attacks have broken much of what such defences promised: a preprocessing step, no guarantee.
"""

from __future__ import annotations

import torch

import solverkit as sk


def purify(
    denoiser: sk.Denoiser,
    x: torch.Tensor,
    std: float = 0.25,
    max_iter: int = 10,
    share: float = 0.05,
    delta: float = 1e-3,
    smallest: float = 1e-5,
    largest: float = 0.1,
    stop_below: float = 1e-3,
    data_range: tuple[float, float] = (-1.0, 1.0),
    seed: int = 0,
) -> torch.Tensor:
    """Images (B, ...) without what an attack added; same shape and range.

    g = score(x), g' = score(x + delta g), step = share * delta / (1 - <g, g'> / <g, g>), clipped to [smallest, largest]; a
    sample stops for good when its step falls to stop_below. Two evaluations an iteration.

    Args:
        denoiser: A network on any process; its score at sigma / alpha = std is used throughout.
        x: Inputs in the model's own coordinates.
        std: Of the noise that is added first, and the level of the score.
        max_iter, share, delta, smallest, largest, stop_below: See above (defaults of the published configuration).
        data_range: Of x.
        seed: Of the noise.
    """
    level = denoiser.schedule.level(std)
    low, high = data_range

    def score(y: torch.Tensor) -> torch.Tensor:
        return (denoiser(y * level.alpha, level) - y) / std**2

    def dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * b).flatten(1).sum(1)

    generator = torch.Generator().manual_seed(seed)
    y = (x + std * torch.randn(x.shape, generator=generator).to(x)).clamp(low, high)
    active = torch.ones(len(x), dtype=torch.bool)
    with torch.no_grad():
        for _ in range(max_iter):
            g = score(y)
            bent = 1 - dot(g, score(y + delta * g)) / dot(g, g).clamp_min(1e-12)
            step = (share * delta / bent.clamp_min(1e-12)).clamp(smallest, largest)
            active &= step > stop_below
            if not bool(active.any()):
                break
            y = y + (step * active).reshape(-1, *[1] * (x.ndim - 1)) * g
            y = y.clamp(low, high)
    return y
