"""The measurement of a run: the one that its denoiser carries."""

from __future__ import annotations

from typing import Any

from solverkit.errors import OptionError
from solverkit.inverse import Measurement

ADVICE = (
    "this sampler draws from a posterior and needs what was measured: give it sk.inverse.measured(denoiser, operator, "
    "values, noise_std) in the place of the denoiser."
)


def from_denoiser(denoiser: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The options with the denoiser's own measurement, where none was given."""
    found = getattr(denoiser, "measurement", None)
    return options if "measurement" in options or found is None else {**options, "measurement": found}


def of_run(model: Any, measurement: Any) -> Measurement:
    """The measurement of the batch that runs; a denoiser's own is cut to its samples.

    Raises:
        OptionError: something else.
    """
    found = getattr(getattr(model, "denoiser", model), "measurement", measurement)
    if not isinstance(found, Measurement):
        raise OptionError(f"measurement must be a sk.inverse.Measurement, got {type(found).__name__}: {ADVICE}")
    return found
