"""Targets whose denoiser, score, density and (for one Gaussian) probability-flow map are known exactly.

A solver's error can only be measured against the truth. For a mixture of Gaussians the truth is closed-form
at every noise level: mode k of x = alpha x_0 + s eps is N(alpha mu_k, alpha^2 C_k + s^2 I), and everything
follows from its eigenvectors. The formulas take (alpha, s), so they hold in the sigma frame and in the flow
frame alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..errors import ProblemError
from ..model.counting import record
from ..model.denoiser import describe
from ..process.level import Level
from .gaussian_mixture import GaussianMixture

if TYPE_CHECKING:
    from ..process.schedule import Schedule

SUBSTEPS = 24
MNIST_8X8 = Path(__file__).parent.parent / "networks" / "mixture" / "mixture.safetensors"


class ExactDenoiser:
    """The denoiser that a perfectly trained network would be, as `model(x, level)`.

    Args:
        target: The distribution of x_0.
        schedule: Turns a plain float into a `Level`, and gives the frame of a run.

    Attributes:
        target, schedule: As above.
        shape: Shape of one sample.
        takes_rows: It can be asked at one level a row.
        exact: It is every model of its target: whatever name it is asked by, and for a second level too.
    """

    takes_rows = True
    exact = maps = True

    def __init__(self, target: GaussianMixture, schedule: Schedule) -> None:
        self.target = target
        self.schedule = schedule
        self.shape = target.shape

    def __call__(
        self, x: Tensor, level: Level | float | Sequence[Level | float], to: Level | float | None = None,
        of: str | None = None,
    ) -> Tensor:  # fmt: skip
        """E[x_0 | x] of x (B, *shape) in the frame's coordinates; same shape and dtype.

        Args:
            x: The state.
            level: A level for all rows, or a tuple of them, one a row.
            to: The answer of the target's flow map to this level instead, g of `model/flow_map.py`.
            of: Whatever model of this target is meant: itself.

        Raises:
            ProblemError: x has the wrong shape or dtype, or the level lies outside the frame.
        """
        record(len(x), x, level)
        if to is not None:
            return self._map(x, self._at(level), self._at(to))
        if not isinstance(level, (tuple, list)):
            return self.target.denoised(x, *self._alpha_s(level))  # type: ignore[arg-type]
        if len(level) != len(x):
            raise ProblemError(f"{len(level)} levels were given for {len(x)} rows: one level, or one a row.")
        alpha, s = torch.tensor([self._alpha_s(one) for one in level], dtype=torch.float64).T
        return self.target.denoised(x, alpha, s)

    def rows(self, start: int | Sequence[int], stop: int | None = None, total: int | None = None) -> ExactDenoiser:
        """The denoiser of some samples of a batch: itself, it has no inputs."""
        return self

    def __repr__(self) -> str:
        return f"ExactDenoiser({self.target!r}, {describe(self.schedule)})"

    def score(self, x: Tensor, level: Level | float) -> Tensor:
        """Gradient of `log_prob`, (alpha D - x) / s^2, (B, *shape); its errors are those of `log_prob`."""
        return self.target.noised_score(x, *self._alpha_s(level))

    def log_prob(self, x: Tensor, level: Level | float) -> Tensor:
        """log density in nats, (B,), of the noised x (B, *shape) in the frame's coordinates.

        Raises:
            ProblemError: as for a call; also at s = 0 if the target has no density.
        """
        return self.target.noised_log_prob(x, *self._alpha_s(level))

    def transport(self, x: Tensor, from_level: Level | float, to_level: Level | float) -> Tensor:
        """Where the probability flow takes x (B, *shape) from one level to another; same shape and dtype.

        Raises:
            ProblemError: more than one mode, or the flow starts at s = 0 of a degenerate Gaussian.
        """
        return self.target.transport(x, *self._alpha_s(from_level), *self._alpha_s(to_level))

    def _map(self, x: Tensor, s: Level, t: Level) -> Tensor:
        """g(x, s, t): closed form for one mode, else `SUBSTEPS` steps of RK4: 2.5e-5 off (RMS) over all noise levels."""
        if t == s:
            return self.target.denoised(x, *self._alpha_s(s))
        r = t * s.alpha / (t.alpha * s)
        if len(self.target.means) == 1:
            psi = self.transport(x, s, t)
        else:
            psi = self._moved(x, s, t)
        return (psi - (t / s) * x) / (t.alpha * (1 - r))

    def _moved(self, x: Tensor, s: Level, t: Level) -> Tensor:
        def slope(x: Tensor, s: float) -> Tensor:
            return (x - self.target.denoised(x, *self._alpha_s(s))) / s

        end = max(float(t), 1e-3 * float(s))
        nodes = [float(s) * (end / float(s)) ** (i / SUBSTEPS) for i in range(SUBSTEPS + 1)]
        for a, b in pairwise(nodes):
            h, m = b - a, (a + b) / 2
            k1 = slope(x, a)
            k2 = slope(x + h / 2 * k1, m)
            k3 = slope(x + h / 2 * k2, m)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(x + h * k3, b))
        return x if t > 0 else self.target.denoised(x, *self._alpha_s(end))

    def _at(self, level: Any) -> Level:
        return level if isinstance(level, Level) else self.schedule.at(level)

    def _alpha_s(self, level: Level | float) -> tuple[float, float]:
        level = self._at(level)
        return level.alpha, float(level)


def gaussian(dim: int = 8, condition: float = 100.0, schedule: Schedule | None = None, seed: int = 0) -> ExactDenoiser:
    """One Gaussian with a random basis: its `transport` is what the order of a solver is measured against.

    Args:
        dim: D.
        condition: Largest over smallest eigenvalue; they are spaced geometrically and the largest is 1.
        schedule: `EDM()` if not given.
        seed: Of the basis and the mean (entries N(0, 1/4)).

    Raises:
        ProblemError: dim < 1 or condition < 1.
    """
    if dim < 1 or not condition >= 1:
        raise ProblemError(f"a Gaussian needs dim >= 1 and condition >= 1, got dim={dim}, condition={condition}")
    generator = torch.Generator().manual_seed(seed)
    eigenvalues = torch.logspace(0, -math.log10(condition), dim, dtype=torch.float64)
    means = 0.5 * torch.randn(1, dim, dtype=torch.float64, generator=generator)
    target = GaussianMixture(torch.ones(1), means, _random_basis(1, dim, generator), eigenvalues[None])
    return ExactDenoiser(target, _or_edm(schedule))


def mixture(
    dim: int | None = None,
    modes: int = 10,
    rank: int | None = None,
    schedule: Schedule | None = None,
    seed: int = 0,
) -> ExactDenoiser:
    """A mixture of Gaussians: MNIST at 8 x 8, one mode a digit, or a random one in any dimension.

    Args:
        dim: None for the bundled MNIST mixture (D = 64, made by ``benchmarks/train/mixture.py``); else D of a
            random one, with means N(0, I), variances from 0.1 down to 0.001 and uneven weights.
        modes: K of a random mixture.
        rank: Keep only the `rank` largest eigenvalues of each mode, and no floor; None keeps all.
        schedule: `EDM()` if not given.
        seed: Of a random mixture.

    Raises:
        ProblemError: dim, modes or rank out of range, or another number of modes of the bundled mixture.
    """
    if dim is None:
        if modes != 10:
            raise ProblemError(f"the bundled mixture has 10 modes, got modes={modes}: give dim for a random one")
        file = load_file(MNIST_8X8)
        weights, means, basis, eigenvalues = (
            file["weights"],
            file["means"],
            file["basis"],
            file["eigenvalues"],
        )
    else:
        if dim < 1 or modes < 1:
            raise ProblemError(f"a mixture needs dim >= 1 and modes >= 1, got dim={dim}, modes={modes}")
        generator = torch.Generator().manual_seed(seed)
        means = torch.randn(modes, dim, dtype=torch.float64, generator=generator)
        weights = 0.5 + torch.rand(modes, dtype=torch.float64, generator=generator)
        basis = _random_basis(modes, dim, generator)
        eigenvalues = torch.logspace(-1, -3, dim, dtype=torch.float64).repeat(modes, 1)
    D = means.shape[1]
    if rank is not None and not 1 <= rank <= D:
        raise ProblemError(f"rank must be between 1 and the dimension {D}, got {rank}")
    target = GaussianMixture(weights / weights.sum(), means, basis[:, :, :rank], eigenvalues[:, :rank])
    return ExactDenoiser(target, _or_edm(schedule))


def _random_basis(modes: int, dim: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(modes, dim, dim, dtype=torch.float64, generator=generator)).Q


def _or_edm(schedule: Schedule | None) -> Schedule:
    from ..process.schedule import EDM

    return EDM() if schedule is None else schedule
