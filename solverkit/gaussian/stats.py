"""The Gaussian that a model's data look like from afar: mean, leading eigenvectors, their variances, and a floor.

At noise levels well above the data's spread a network's answer is nearly that of N(mu, Sigma), Sigma = U diag(l) U^T +
floor (I - U U^T), whose denoiser and probability flow are closed form. In a frame x = alpha x_0 + s eps, with
v_k = alpha^2 l_k + s^2 and y = x - alpha mu:

    D_G = mu + sum_k (alpha l_k / v_k) u_k u_k^T y        the denoiser
    x_t = alpha_t mu + sum_k (v_k(t) / v_k(s))^(1/2) u_k u_k^T y        the flow from (alpha_s, s) to (alpha_t, t)

and the same with `floor` off the basis. Source: Wang and Vastola 2024, arXiv 2412.09726, eq. 6 to 8.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..errors import LoadError, StatsError
from ..process.level import Level

if TYPE_CHECKING:
    from ..model.denoiser import DenoiserLike

FILE = "gaussian_stats.safetensors"


class Profile(NamedTuple):
    """How a network leaves its Gaussian, along K true trajectories of its probability flow; coordinates along the
    leading r' directions.

    Attributes:
        ratios: sigma / alpha of L levels, falling.
        residual: (K, L, r'): D - D_G there.
        jumped: (K, L, r'): D - D_G where the Gaussian's flow leads from the same start: what a jump to there would see.
        start: (K, r'): the starting noise along the basis, in standard deviations of the noised Gaussian.
        nfe: Network rows that it took.
    """

    ratios: torch.Tensor
    residual: torch.Tensor
    jumped: torch.Tensor
    start: torch.Tensor
    nfe: int


@dataclass(frozen=True, eq=False)
class GaussianStats:
    """N(mean, U diag(values) U^T + floor (I - U U^T)) in the coordinates of x_0.

    Args:
        mean: Of the shape of one sample; of shape () it fits any sample, and there are no vectors.
        vectors: (r, D), orthonormal rows, the transposed U; float32 or float64.
        values: (r,) variances along them, falling.
        floor: Variance off the basis; without effect if r = D.
        profile: Measured once from the network (`measured`); what "auto" decisions need.
        provenance: Where they come from.

    Raises:
        StatsError: shapes that do not belong together, NaN, negative variances, rows that are not orthonormal.
    """

    mean: torch.Tensor
    vectors: torch.Tensor
    values: torch.Tensor
    floor: float = 0.0
    profile: Profile | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.vectors.dtype not in (torch.float32, torch.float64):
            object.__setattr__(self, "vectors", self.vectors.float())
        object.__setattr__(self, "mean", self.mean.double())
        object.__setattr__(self, "values", self.values.double().cpu())
        object.__setattr__(self, "floor", float(self.floor))
        self._validate()

    def _validate(self) -> None:
        D, r = self.mean.numel() if self.mean.ndim else 0, len(self.values)
        if self.values.ndim != 1 or self.vectors.ndim != 2 or tuple(self.vectors.shape) != (r, D) or r > D:
            raise StatsError(
                f"a mean of shape {tuple(self.mean.shape)} needs vectors (r, {D}) and values (r,) with r <= {D}, got "
                f"{tuple(self.vectors.shape)} and {tuple(self.values.shape)}."
            )
        finite = all(bool(torch.isfinite(v).all()) for v in (self.mean, self.vectors, self.values))
        if not finite or not math.isfinite(self.floor):
            raise StatsError("Gaussian statistics hold NaN or inf: the data or the predictions that they come from do.")
        if self.floor < 0 or bool((self.values < 0).any()):
            least = min([self.floor, *self.values.tolist()])
            raise StatsError(f"variances must be at least 0, got {least:.3g}.")
        if r and self.vectors.isfinite().all():
            rows = self.vectors[:: max(1, r // 64)]
            gram = rows @ rows.T
            off = float((gram - torch.eye(len(rows)).to(gram)).abs().max())
            if off > 1e-3:
                raise StatsError(f"the vectors must be orthonormal rows; their products are off by {off:.2g}.")

    # ------------------------------------------------------------------------------------------------- what they say
    @property
    def rank(self) -> int:
        """r."""
        return len(self.values)

    @property
    def dim(self) -> int:
        """D; 0 for statistics that fit any sample."""
        return self.mean.numel() if self.mean.ndim else 0

    @property
    def variance(self) -> float:
        """Mean variance of a coordinate, tr Sigma / D."""
        if not self.dim:
            return self.floor
        return (float(self.values.sum()) + (self.dim - self.rank) * self.floor) / self.dim

    @property
    def spread(self) -> float:
        """Standard deviation along the leading direction."""
        return math.sqrt(float(self.values[0]) if self.rank else self.floor)

    @property
    def explained(self) -> float:
        """The part of the variance along the basis."""
        return float(self.values.sum()) / (self.variance * self.dim) if self.variance * self.dim > 0 else 0.0

    def truncated(self, rank: int) -> GaussianStats:
        """The leading `rank` directions; the others' mean variance becomes the floor.

        Raises:
            StatsError: rank is negative or above what there is.
        """
        if not 0 <= rank <= self.rank:
            raise StatsError(f"rank must be between 0 and {self.rank}, what these statistics hold; got {rank}.")
        if rank == self.rank:
            return self
        rest = float(self.values[rank:].sum()) + (self.dim - self.rank) * self.floor
        p = self.profile
        if p is not None:
            p = Profile(p.ratios, p.residual[:, :, :rank], p.jumped[:, :, :rank], p.start[:, :rank], p.nfe)
        return replace(
            self, vectors=self.vectors[:rank], values=self.values[:rank], floor=rest / (self.dim - rank), profile=p
        )

    def fit_check(self, shape: tuple[int, ...]) -> None:
        """Raises StatsError unless samples of this shape (without the batch) are what the statistics describe."""
        if self.mean.ndim and tuple(shape) != tuple(self.mean.shape):
            raise StatsError(
                f"these statistics are of samples of shape {tuple(self.mean.shape)}, and the run has {tuple(shape)}: take "
                "those of this model (solverkit stats MODEL)."
            )

    # -------------------------------------------------------------------------------------------------- the Gaussian
    def gains(self, level: Level) -> tuple[torch.Tensor, float]:
        """Variances of the noised Gaussian along the basis, alpha^2 l + s^2, (r,) float64, and off it."""
        return level.alpha**2 * self.values + float(level) ** 2, level.alpha**2 * self.floor + float(level) ** 2

    def along(self, y: torch.Tensor, gains: torch.Tensor, off: float) -> torch.Tensor:
        """U diag(gains) U^T y + off (I - U U^T) y of y (B, *shape)."""
        if not self.rank:
            return off * y
        flat = y.flatten(1)
        basis = self.vectors.to(flat)
        return (off * flat + ((flat @ basis.T) * (gains - off).to(flat)) @ basis).reshape(y.shape)

    def denoised(self, x: torch.Tensor, level: Level) -> torch.Tensor:
        """D_G (B, *shape) of states x (B, *shape) in a frame; x / alpha at s = 0."""
        v, w = self.gains(level)
        if float(level) == 0:
            return x / level.alpha
        mean = self.mean.to(x)
        return mean + self.along(x - level.alpha * mean, level.alpha * self.values / v, level.alpha * self.floor / w)

    def transport(self, x: torch.Tensor, start: Level, end: Level) -> torch.Tensor:
        """Where the Gaussian's probability flow takes states x (B, *shape), from a level above 0 to any other."""
        self.fit_check(tuple(x.shape[1:]))
        (v, w), (v_to, w_to) = self.gains(start), self.gains(end)
        mean = self.mean.to(x)
        out = self.along(x - start.alpha * mean, (v_to / v).sqrt(), math.sqrt(w_to / w))
        return end.alpha * mean + out

    def coordinates(self, y: torch.Tensor) -> torch.Tensor:
        """U^T y of (B, *shape), (B, r) float64 on the CPU."""
        flat = y.flatten(1)
        return (flat @ self.vectors.to(flat).T).double().cpu()

    def to(self, device: torch.device | str) -> GaussianStats:
        """The same on a device; itself where it already is there."""
        if self.vectors.device == torch.device(device):
            return self
        return replace(self, mean=self.mean.to(device), vectors=self.vectors.to(device))

    # ------------------------------------------------------------------------------------------------------- sources
    @classmethod
    def isotropic(cls, variance: float = 1.0, mean: float = 0.0) -> GaussianStats:
        """N(mean, variance I) in any dimension: what little is known of normalised latents."""
        return cls(torch.tensor(float(mean)), torch.zeros(0, 0), torch.zeros(0), variance, None, {"source": "isotropic"})

    @classmethod
    def from_data(cls, data: Any, rank: int | None = None, **options: Any) -> GaussianStats:
        """From a dataset; see `solverkit.gaussian_data.from_data`."""
        from .data import from_data

        return from_data(data, rank, **options)

    @classmethod
    def from_samples(cls, denoiser: DenoiserLike, rank: int | None = None, **options: Any) -> GaussianStats:
        """From samples of the network; see `solverkit.gaussian_data.from_samples`."""
        from .data import from_samples

        return from_samples(denoiser, rank, **options)

    @classmethod
    def from_network(cls, denoiser: DenoiserLike, rank: int = 64, **options: Any) -> GaussianStats:
        """From the network's Jacobian at high noise, without data; see `solverkit.gaussian_network.from_network`."""
        from .network import from_network

        return from_network(denoiser, rank, **options)

    def measured(self, denoiser: DenoiserLike, **options: Any) -> GaussianStats:
        """With the network's `Profile`; refuses statistics that do not fit it. See `solverkit.gaussian_profile.measure`."""
        from .profile import measure

        return measure(self, denoiser, **options)

    # --------------------------------------------------------------------------------------------------------- files
    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one safetensors file (or FILE in a folder); the provenance is its metadata."""
        from safetensors.torch import save_file

        target = Path(path)
        target = target / FILE if target.is_dir() or not target.suffix else target
        tensors = {"mean": self.mean, "vectors": self.vectors, "values": self.values}
        tensors["floor"] = torch.tensor(self.floor, dtype=torch.float64)
        if self.profile is not None:
            p = self.profile
            tensors |= {"residual": p.residual.half(), "jumped": p.jumped.half(), "start": p.start}
            tensors |= {"ratios": p.ratios, "profile_nfe": torch.tensor(p.nfe)}
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            metadata = {"format": "solverkit-gaussian-stats", "provenance": json.dumps(self.provenance)}
            save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, target, metadata)
        except OSError as error:
            raise LoadError(f"cannot write {target}: {error}") from error
        return target

    @classmethod
    def load(cls, source: str | os.PathLike[str] | GaussianStats) -> GaussianStats:
        """Statistics from a bundled name ("mnist"), a file, a folder, a hub id "org/name", or "isotropic:variance=0.5".

        Raises:
            LoadError: nothing readable there.
            StatsError: a file whose content makes no Gaussian.
        """
        from .files import open_stats

        return source if isinstance(source, GaussianStats) else open_stats(source)

    def push_to_hub(self, repo: str, token: str | None = None, private: bool = False) -> str:
        """Upload as FILE of a model repository; returns its address. `load(repo)` reads it back.

        Raises:
            LoadError: the hub refused, or cannot be reached.
        """
        from .files import push

        return push(self, repo, token, private)
