"""What a run is judged by. A metric is fn(run) -> float, `Measured`, or None where it means nothing for that run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ..registry.hookspecs import hookimpl
from .judged import DIGIT, digits
from .judged import Real as Real
from .judged import Run as Run
from .measured import Measured, of_samples, of_set

if TYPE_CHECKING:
    pass

DEFAULT = ("ode_error", "ode_median", "ode_flips", "reference_error", "fd")  # what is measured where nobody says
ENOUGH_IMAGES = 1000  # for a 64 x 64 covariance of features
ENOUGH_POINTS = 500  # for moments in the space of the target itself


def distances(run: Run) -> torch.Tensor:
    """RMS distance of each sample, over its coordinates, to the converged solution from the same noise: (B,) float64."""
    difference = run.x.cpu().double() - run.reference().x.cpu().double()
    return difference.flatten(1).square().mean(1).sqrt()


def ode_error(run: Run) -> Measured | None:
    """RMS distance, over samples and coordinates, to the converged solution of the same probability-flow ODE.

    Both start from the same noise. None for a sampler that draws noise.
    """
    return of_samples(distances(run), "rms") if run.deterministic else None


def ode_median(run: Run) -> Measured | None:
    """Median over samples of the distance that `ode_error` squares: one sample that ends elsewhere does not move it."""
    return of_samples(distances(run), "median") if run.deterministic else None


def ode_flips(run: Run) -> Measured | None:
    """Share of samples that end in another mode than the converged solution: another digit, another mode of a mixture.

    A few of them carry most of an RMS error. None where there are no modes to tell apart.
    """
    if not run.deterministic:
        return None
    own, other = (mode_of(run, x) for x in (run.x, run.reference().x))
    return None if own is None or other is None else of_samples((own != other).double(), "mean")


def mode_of(run: Run, x: torch.Tensor) -> torch.Tensor | None:
    """The mode that each sample belongs to: the likeliest of a mixture, or the digit that the bundled classifier sees."""
    target = getattr(run.denoiser, "target", None)
    if target is not None and getattr(target, "modes", 1) > 1:
        return target.responsibilities(x.cpu().double()).argmax(1)
    if target is None and tuple(x.shape[1:]) == DIGIT:
        with torch.no_grad():
            return torch.cat([digits()[0](part.float()).argmax(1) for part in x.cpu().split(500)])
    return None


def reference_error(run: Run) -> float | None:
    """RMS distance between the converged solution and the one with half as many steps: a bound on its own error."""
    return run.reference().error if run.deterministic else None


def calls(run: Run) -> float:
    """Calls of the network in the whole run, whatever their batch: what of it is sequential."""
    return float(run.passes)


def fd(run: Run) -> Measured | None:
    """Fréchet distance to the data.

    Of digits: in the features of the bundled classifier, from 1000 samples on. Of a target whose moments are known
    exactly: between the samples' moments and those, in the space of the samples, from 500 samples on. Of another model: to
    real samples, where there are some, in the space of the samples. Else None.

    Its floor is the distance of as many draws of the normal distribution that the moments describe.
    """
    found = _moments(run)
    if found is None:
        return None
    features, mean, covariance, against = found
    from .frechet import frechet_distance, moments

    def distance(rows: torch.Tensor) -> float:
        return frechet_distance(*moments(rows), mean, covariance)

    made = of_set(distance, features)
    return Measured(made.value, made.interval, floor=distance(_normal(mean, covariance, len(features))), against=against)


def _moments(run: Run) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, str] | None:
    """Features of the samples, and mean and covariance of the real ones."""
    target, n = getattr(run.denoiser, "target", None), len(run.x)
    if target is not None and hasattr(target, "covariance"):
        return None if n < ENOUGH_POINTS else (run.x.flatten(1), target.mean, target.covariance, "target")
    if tuple(run.x.shape[1:]) == DIGIT:
        if n < ENOUGH_IMAGES:
            return None
        network, statistics = digits()
        return network.features(run.x.cpu()), *statistics, "MNIST"
    real = run.real(n, 0) if n >= ENOUGH_POINTS else None
    if real is None:
        return None
    from .frechet import moments

    return run.x.flatten(1), *moments(real.x.flatten(1)), real.source


def _normal(mean: torch.Tensor, covariance: torch.Tensor, n: int) -> torch.Tensor:
    values, Q = torch.linalg.eigh(covariance.double())
    z = torch.randn(n, len(mean), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return mean + (z * values.clamp(min=0).sqrt()) @ Q.T


def nll(run: Run) -> Measured | None:
    """-log p of the samples under the exact density of a target, bits a dimension; None without one.

    Too low is as wrong as too high: the floor, that of as many real samples, is what to reach.
    """
    target = getattr(run.denoiser, "target", None)
    if target is None or not hasattr(target, "log_prob"):
        return None
    bits = math.log(2) * run.x[0].numel()
    made = of_samples(-target.log_prob(run.x.cpu().double()) / bits, "mean")
    floor = float(-target.log_prob(target.sample(len(run.x), seed=1)).mean() / bits)
    return Measured(made.value, made.interval, made.values, floor, "target")


def mode_weights(run: Run) -> Measured | None:
    """Total variation between the shares of a mixture's modes among the samples and their weights; None without modes."""
    return _of_modes(run, lambda share, weight: float((share - weight).abs().sum() / 2))


def mode_kl(run: Run) -> Measured | None:
    """KL divergence, in nats, of the shares of a mixture's modes from their weights; None without modes."""
    return _of_modes(run, lambda share, weight: float(torch.special.xlogy(share, share / weight).sum()))


def _of_modes(run: Run, distance: Callable[[torch.Tensor, torch.Tensor], float]) -> Measured | None:
    target = getattr(run.denoiser, "target", None)
    if target is None or getattr(target, "modes", 1) < 2:
        return None

    def of(modes: torch.Tensor) -> float:
        return distance(torch.bincount(modes, minlength=target.modes).double() / len(modes), target.weights)

    real = target.responsibilities(target.sample(len(run.x), seed=1)).argmax(1)
    modes = mode_of(run, run.x)
    assert modes is not None
    made = of_set(of, modes)
    return Measured(made.value, made.interval, floor=of(real), against="target")


@hookimpl
def register_metrics(register: Callable[..., None]) -> None:
    from . import inception, sequences, sets

    distance, share = "distance in data units", "share of samples"
    register("ode_error", ode_error, statistic="rms", unit=distance,
             reference="Lu et al. 2022 (DPM-Solver), figure 2: distance to a converged solution")  # fmt: skip
    register("ode_median", ode_median, statistic="median", unit=distance)
    register("ode_flips", ode_flips, statistic="mean", unit=share)
    register("reference_error", reference_error, unit=distance)
    register("calls", calls, unit="network calls")
    register("fd", fd, unit="squared distance of features", min_samples=ENOUGH_POINTS,
             reference="Heusel et al. 2017; Dowson and Landau 1982")  # fmt: skip
    register("nll", nll, statistic="mean", unit="bits a dimension", to_floor=True)
    register("mode_weights", mode_weights, unit="total variation", min_samples=100)
    register("mode_kl", mode_kl, unit="nats", min_samples=100)
    sets.register_metrics(register)
    inception.register_metrics(register)
    sequences.register_metrics(register)
