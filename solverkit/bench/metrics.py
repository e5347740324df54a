"""What a run is judged by. A metric is fn(run) -> float, or None where it means nothing for that run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..registry.hookspecs import hookimpl
from .reference import root_mean_square

if TYPE_CHECKING:
    from .features import DigitFeatures
    from .reference import Reference

ENOUGH_IMAGES = 1000  # for a 64 x 64 covariance of features
ENOUGH_POINTS = 500  # for moments in the space of the target itself


@dataclass(frozen=True)
class Run:
    """What a metric sees of one finished cell.

    Attributes:
        model: Name of the model.
        denoiser: What was sampled.
        x: The samples (B, ...), in the model's own coordinates.
        deterministic: Whether the sampler drew no noise: only then does its output approximate the ODE's solution.
        reference: The converged solution from the same noise; computed (or read) at the first call.
    """

    model: str
    denoiser: Any
    x: torch.Tensor
    deterministic: bool
    reference: Callable[[], Reference]


def ode_error(run: Run) -> float | None:
    """RMS distance, over samples and coordinates, to the converged solution of the same probability-flow ODE.

    Both start from the same noise. None for a sampler that draws noise.
    """
    if not run.deterministic:
        return None
    return root_mean_square(run.x.cpu() - run.reference().x.cpu())


def reference_error(run: Run) -> float | None:
    """RMS distance between the converged solution and the one with half as many steps: a bound on its own error."""
    return run.reference().error if run.deterministic else None


def fd(run: Run) -> float | None:
    """Fréchet distance to the data.

    Of digits: in the features of the bundled classifier, from 1000 samples on. Of a target whose moments are known
    exactly: between the samples' moments and those, in the space of the samples, from 500 samples on. Else None.
    """
    target = getattr(run.denoiser, "target", None)
    from .frechet import frechet_distance, moments

    if target is not None and hasattr(target, "covariance"):
        if len(run.x) < ENOUGH_POINTS:
            return None
        return frechet_distance(*moments(run.x.flatten(1)), target.mean, target.covariance)
    if tuple(run.x.shape[1:]) != (1, 28, 28) or len(run.x) < ENOUGH_IMAGES:
        return None
    network, statistics = _digits()
    return frechet_distance(*moments(network.features(run.x.cpu())), *statistics)


@functools.lru_cache(maxsize=1)
def _digits() -> tuple[DigitFeatures, tuple[torch.Tensor, torch.Tensor]]:
    from .features import load_features, load_statistics

    return load_features(), load_statistics()


@hookimpl
def register_metrics(register: Callable[..., None]) -> None:
    register("ode_error", ode_error, reference="Lu et al. 2022 (DPM-Solver), figure 2: distance to a converged solution")
    register("reference_error", reference_error)
    register("fd", fd, reference="Heusel et al. 2017; Dowson and Landau 1982")
