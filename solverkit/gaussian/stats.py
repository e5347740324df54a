"""Gaussian statistics: the Gaussian, how the network leaves it, where they come from, and every way to make them."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from ..errors import StatsError
from . import files, match
from .data import from_data, from_samples
from .gaussian import Gaussian
from .network import from_network
from .profile import Profile, measure

if TYPE_CHECKING:
    from ..model.denoiser import DenoiserLike


@dataclass(frozen=True, eq=False, repr=False)
class GaussianStats(Gaussian):
    """N(mean, U diag(values) U^T + floor (I - U U^T)) in the coordinates of x_0. Never changed once made.

    Args:
        mean: Of the shape of one sample; of shape () it fits any sample, and there are no vectors.
        vectors: (r, D), orthonormal rows, the transposed U; float32 or float64.
        values: (r,) variances along them, falling.
        floor: Variance off the basis; without effect if r = D.
        profile: Measured once from the network (`measured`); what "auto" decisions need.
        provenance: Where they come from; "fingerprint" is the network's.

    Raises:
        StatsError: shapes that do not belong together, NaN, negative variances, rows that are not orthonormal.
    """

    profile: Profile | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    def __reduce__(self) -> tuple[Any, ...]:  # a mapping proxy cannot be pickled
        fields = (self.mean, self.vectors, self.values, self.floor, self.profile, dict(self.provenance))
        return GaussianStats, fields

    def __repr__(self) -> str:
        profile = "none" if self.profile is None else f"{len(self.profile.start)} trajectories"
        source = self.provenance.get("source", "?")
        return (
            f"GaussianStats(shape={tuple(self.mean.shape)}, rank={self.rank}, spread={self.spread:.4g}, "
            f"floor={self.floor:.3g}, profile={profile}, source={source})"
        )

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

    def with_provenance(self, **entries: Any) -> GaussianStats:
        """The same with more said of where they come from; these statistics are left as they are."""
        return replace(self, provenance={**self.provenance, **entries})

    def to(self, device: torch.device | str) -> GaussianStats:
        """The same with the vectors on a device (in float32 where it knows no float64); itself where they already are."""
        if self.vectors.device == torch.device(device):
            return self
        vectors = self.vectors.float() if torch.device(device).type == "mps" else self.vectors
        return replace(self, vectors=vectors.to(device))

    # ------------------------------------------------------------------------------------------------------- sources
    @classmethod
    def isotropic(cls, variance: float = 1.0, mean: float = 0.0) -> GaussianStats:
        """N(mean, variance I) in any dimension: what little is known of normalised latents."""
        return cls(torch.tensor(float(mean)), torch.zeros(0, 0), torch.zeros(0), variance, None, {"source": "isotropic"})

    @classmethod
    def from_data(cls, data: Any, rank: int | None = None, **options: Any) -> GaussianStats:
        """From a dataset; options and errors as of `solverkit.gaussian.data.from_data`."""
        return cls._of(from_data(data, rank, **options))

    @classmethod
    def from_samples(cls, denoiser: DenoiserLike, rank: int | None = None, **options: Any) -> GaussianStats:
        """From samples of the network; options and errors as of `solverkit.gaussian.data.from_samples`."""
        return cls._of(from_samples(denoiser, rank, **options)).with_provenance(**match.fingerprint_of(denoiser))

    @classmethod
    def from_network(cls, denoiser: DenoiserLike, rank: int = 64, **options: Any) -> GaussianStats:
        """From the network's Jacobian at high noise, without data; see `solverkit.gaussian.network.from_network`."""
        return cls._of(from_network(denoiser, rank, **options)).with_provenance(**match.fingerprint_of(denoiser))

    @classmethod
    def _of(cls, found: tuple[Gaussian, Mapping[str, Any]]) -> GaussianStats:
        gaussian, provenance = found
        return cls(gaussian.mean, gaussian.vectors, gaussian.values, gaussian.floor, None, provenance)

    @classmethod
    def of(cls, denoiser: DenoiserLike) -> GaussianStats:
        """The statistics that belong to a denoiser: bundled with its network, or saved in the folder it was opened from.

        Guidance is looked through: the statistics are then those of the conditional denoiser inside.

        Raises:
            StatsError: it has none, or does not say where it came from.
        """
        for inside in match.layers(denoiser):
            found = files.beside(getattr(inside, "source", None))
            if found is not None:
                return cls.load(found)
        raise StatsError(
            "no Gaussian statistics are bundled with this model or saved beside it: give stats= (GaussianStats, a name, a "
            "file), e.g. GaussianStats.from_network(denoiser).measured(denoiser), or solverkit stats MODEL --out FILE."
        )

    def require_match(self, denoiser: DenoiserLike) -> None:
        """Raises StatsError unless these statistics can be a denoiser's; see `solverkit.gaussian.match`."""
        match.require_match(self, self.provenance, denoiser)

    def measured(self, denoiser: DenoiserLike, **options: Any) -> GaussianStats:
        """With the network's `Profile` and fingerprint; refuses statistics that do not fit it.

        Options and errors as of `solverkit.gaussian.profile.measure`.
        """
        provenance = {**self.provenance, **match.fingerprint_of(denoiser)}
        return replace(self, profile=measure(self, denoiser, **options), provenance=provenance)

    # --------------------------------------------------------------------------------------------------------- files
    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one safetensors file (or FILE in a folder); the provenance is its metadata."""
        tensors = {"mean": self.mean, "vectors": self.vectors, "values": self.values}
        tensors["floor"] = torch.tensor(self.floor, dtype=torch.float64)
        if self.profile is not None:
            p = self.profile
            tensors |= {"residual": p.residual.half(), "jumped": p.jumped.half(), "start": p.start}
            tensors |= {"ratios": p.ratios, "profile_nfe": torch.tensor(p.nfe)}
        return files.write(path, tensors, dict(self.provenance))

    @classmethod
    def load(cls, source: str | os.PathLike[str] | GaussianStats) -> GaussianStats:
        """Statistics from a bundled name ("mnist"), a file, a folder, a hub id "org/name", or "isotropic:variance=0.5".

        Raises:
            LoadError: nothing readable there.
            StatsError: a file whose content makes no Gaussian.
        """
        if isinstance(source, GaussianStats):
            return source
        if isinstance(source, str) and source.partition(":")[0] == "isotropic":
            return _isotropic(**files.isotropic_options(source))
        found = files.located(source)
        return _opened(str(found), found.stat().st_mtime_ns)

    def push_to_hub(self, repo: str, token: str | None = None, private: bool = False) -> str:
        """Upload as FILE of a model repository; returns its address. `load(repo)` reads it back.

        Raises:
            LoadError: the hub refused, or cannot be reached.
        """
        return files.push(self.save, repo, token, private)


@functools.lru_cache(maxsize=8)
def _opened(path: str, changed: int) -> GaussianStats:
    """Of one file as it is now; kept, so that a plan that is traced again shares its tensors."""
    tensors, provenance = files.read(path)
    profile = None
    if {"ratios", "residual", "jumped", "start"} <= tensors.keys():
        nfe = int(tensors.get("profile_nfe", torch.tensor(0)))
        profile = Profile(tensors["ratios"], tensors["residual"].float(), tensors["jumped"].float(), tensors["start"], nfe)
    return GaussianStats(
        tensors["mean"], tensors["vectors"], tensors["values"], float(tensors["floor"]), profile, provenance
    )


@functools.lru_cache(maxsize=8)
def _isotropic(variance: float = 1.0, mean: float = 0.0) -> GaussianStats:
    return GaussianStats.isotropic(variance, mean)
