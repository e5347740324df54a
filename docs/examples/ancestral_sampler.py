"""An ancestral sampler: down to a level below the next one, and up to it again with fresh noise."""

from __future__ import annotations

import math

import solverkit as sk
from solverkit.steps import contraction, from_ratio


def down_and_up(model, x, grid, noise, eta: float = 1.0):
    """From s down to u < t, then up from u to t.

    w = eta t sqrt(1 - r^2), r = t alpha_s / (alpha_t s), is the standard deviation of the fresh noise; u is the level from
    which that noise leads to t. First order in law; one evaluation a step. Source: Song, Meng, Ermon 2021, eq. 12 and 16.

    Args:
        eta: 0 goes down only (Euler), 1 renews as much noise as DDPM.
    """
    if not 0 <= eta <= 1:
        raise sk.errors.OptionError(f"eta must lie in [0, 1], got {eta}.")
    for s, t in grid.steps():
        denoised = model(x, s)
        r = contraction(s, t)
        w = eta * t * math.sqrt(1 - r * r)
        kept = t * math.sqrt(1 - eta**2 * (1 - r * r))  # what is left of the old noise at t: kept^2 + w^2 = t^2
        u = from_ratio(kept / t.alpha, grid.frame)  # before the way up: there sigma / alpha is the same, and alpha is not
        alpha_u = 1 - grid.frame * u  # 1 in the sigma frame (grid.frame = 0), 1 - u in the flow frame (1)
        x = (u / s) * x + (1 - u / s) * denoised  # down: the same line in both frames
        if w > 0:  # not in the step to 0, where t = w = 0
            x = (t.alpha / alpha_u) * x + w * noise(s, t)  # up: x shrinks with alpha, and the fresh noise is added
    return x


@sk.hookimpl
def register_samplers(register):
    register("down-and-up", down_and_up, reference="Song, Meng, Ermon 2021, eq. 12 and 16", variants=({"eta": 0.5},))
