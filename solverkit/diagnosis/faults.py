"""What is wrong with a network, by name, with the figures that say so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ..model.denoiser import Denoiser
from .at_level import AtLevel
from .clean import Clean
from .readings import best_scale, loss, others

BETTER = 0.75  # of the loss: another reading that leaves less names a fault
USEFUL = 1.2  # times the best linear denoiser's loss: a reading that leaves more explains nothing
TURNED = 0.25  # asymmetry of a field that is no gradient
OFF = 0.25  # of the spread: a mean that is missed at high noise
BEYOND = 5.0  # times the largest of the data, and at high noise times sigma/alpha over their spread: a blow-up
UNBALANCED = 1.5
NEAR = (0.2, 5.0)  # levels, in standard deviations of the data, where the field's shape is judged


class Fault(NamedTuple):
    """Something that is wrong.

    Attributes:
        name: "prediction type", "swapped time", "time units", "scaled input", "data range", "no gradient field",
            "not finite", "blow-up", "mean" or "no score".
        said: What was seen, and what to do.
    """

    name: str
    said: str


def misread(denoiser: Any, data: Clean, batch: int, dtype: torch.dtype, seed: int) -> Fault | None:
    """The reading of the network under which it loses most clearly less than as it was wrapped; None if there is none.

    Args:
        denoiser: Of the network.
        data: Real clean samples: those that a misread network draws are no measure.
        batch, dtype, seed: As of `measured`.
    """
    own = loss(denoiser, data, batch, dtype, seed)
    best, found = math.inf, None
    for reading in others(denoiser, data):
        if (there := loss(reading.denoiser, reading.data, batch, dtype, seed)) < best:
            best, found = there, reading
    if isinstance(denoiser, Denoiser) and denoiser.prediction != "autoencoder":
        scaled, there = best_scale(denoiser, data, batch, dtype, seed)
        if there < best:
            best, found = there, scaled
    if found is None or not best < min(own + math.log(BETTER), math.log(USEFUL)):
        return None
    before = "not finite" if math.isinf(own) else f"{math.exp(own):.3g}"
    return Fault(
        found.fault,
        f"{found.said}. Denoising loss over the best linear denoiser's, {len(data.first(32).x)} samples, 5 levels: "
        f"{before} as it is, {math.exp(best):.3g} then.",
    )


def seen(levels: Sequence[AtLevel], spread: float, source: str) -> list[Fault]:
    """Faults that the figures show.

    Args:
        levels: Falling.
        spread: Of the data.
        source: Of the clean samples: "data", "target" or "samples".
    """
    found = []
    if broken := [row for row in levels if row.nonfinite]:
        found.append(Fault("not finite", f"NaN or inf at sigma/alpha = {_list(broken)}: run it in float32, or stay away."))
    good = [row for row in levels if not row.nonfinite]
    if wild := [row for row in good if row.largest > BEYOND * max(1.0, row.ratio / spread)]:
        most = max(row.largest for row in wild)
        text = f"predictions up to {most:.3g} times the largest of the data at sigma/alpha = {_list(wild)}."
        found.append(Fault("blow-up", text))
    shaped = [row for row in good if NEAR[0] * spread <= row.ratio <= NEAR[1] * spread]
    turned = [row for row in shaped if row.asymmetry > TURNED]
    if turned:
        worst = max(turned, key=lambda row: row.asymmetry)
        found.append(Fault(
            "no gradient field",
            f"the Jacobian is not symmetric: {worst.asymmetry:.2g} of it is rotation at sigma/alpha = {worst.ratio:.3g} "
            f"(0 for a score). Likelihoods and gradients of an energy are not to be trusted.",
        ))  # fmt: skip
    far = sorted((row for row in good if row.ratio > NEAR[1] * spread), key=lambda row: row.bias)
    if far and (row := far[len(far) // 2]).bias > OFF:
        text = f"at high noise the mean of predictions is {row.bias:.2g} standard deviations off (median level)."
        found.append(Fault("mean", text))
    uneven = [row for row in shaped if not 1 / UNBALANCED < row.balance < UNBALANCED]
    if uneven:
        worst = max(uneven, key=lambda row: abs(math.log(row.balance)) if row.balance > 0 else math.inf)
        whose = "its own samples" if source == "samples" else "the data"
        text = f"|score|^2 is {worst.balance:.3g} of what its divergence says at sigma/alpha = {worst.ratio:.3g}: it is no "
        found.append(Fault("no score", f"{text}score of {whose} with noise."))
    return found


def _list(rows: Sequence[AtLevel]) -> str:
    return ", ".join(f"{row.ratio:.3g}" for row in rows)
