"""Model statistics in a table of levels, where they come from, and every way to name them."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch

from ..errors import StatsError
from ..files import artefact
from ..gaussian import files, match
from .closed import Coefficients, Constant, OfGaussian

FILE, FORM = "model_statistics.safetensors", "solverkit-model-statistics"
DATA, NOISE = Constant(1.0, 0.0, 0.0), Constant(0.0, -1.0, 0.0)
MADE = "Or data, noise, isotropic:variance=V. `solverkit stats MODEL --ems --out FILE` makes them."


class Statistics(Protocol):
    """What a step is computed from."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """Half log-SNRs at which they have a kink, rising."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample; () fits any."""

    def at(self, lams: torch.Tensor) -> Coefficients:
        """l, s and b (n, *shape) at half log-SNRs (n,), float64."""

    def __hash__(self) -> int:
        """Of the object itself: steps are kept by it."""


@dataclass(frozen=True, eq=False, repr=False)
class ModelStats:
    """l, s and b of a network at some levels, a number a coordinate; linear in lam between them, constant outside.

    With y = x / alpha and f = (1 - l) y - D: l makes f depend least on y, and f' = s f + b is its best linear fit along
    the network's trajectories (Zheng et al. 2023, arXiv 2310.13268, eq. 7 and 11).

    Args:
        lams: (n,) half log-SNRs, rising.
        l, s, b: (n, *shape).
        provenance: Where they come from; "fingerprint" is the network's.

    Raises:
        StatsError: shapes that do not belong together, levels that do not rise, or NaN.
    """

    lams: torch.Tensor
    l: torch.Tensor  # noqa: E741  the paper's letter
    s: torch.Tensor
    b: torch.Tensor
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("lams", "l", "s", "b"):
            object.__setattr__(self, name, getattr(self, name).detach().cpu().double())
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))
        n = len(self.lams)
        if self.lams.ndim != 1 or n < 2 or not self.l.shape == self.s.shape == self.b.shape or len(self.l) != n:
            shapes = ", ".join(str(tuple(t.shape)) for t in (self.lams, self.l, self.s, self.b))
            raise StatsError(f"model statistics need lams (n,), n >= 2, and l, s, b (n, *shape), got {shapes}.")
        if not all(bool(t.isfinite().all()) for t in (self.lams, self.l, self.s, self.b)):
            raise StatsError("model statistics hold NaN or inf.")
        if not bool((self.lams.diff() > 0).all()):
            raise StatsError("the levels of model statistics must rise in lam.")

    def __reduce__(self) -> tuple[Any, ...]:  # a mapping proxy cannot be pickled
        return ModelStats, (self.lams, self.l, self.s, self.b, dict(self.provenance))

    def __repr__(self) -> str:
        span = f"l {float(self.l.min()):.3g}..{float(self.l.max()):.3g}"
        return f"ModelStats(shape={self.shape}, {len(self.lams)} levels, {span})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(self.l.shape[1:])

    @functools.cached_property
    def breaks(self) -> tuple[float, ...]:
        """The half log-SNRs of the table."""
        return tuple(self.lams.tolist())

    def at(self, lams: torch.Tensor) -> Coefficients:
        """l, s and b (n, *shape) at half log-SNRs (n,), float64."""
        right = torch.searchsorted(self.lams, lams).clamp(1, len(self.lams) - 1)
        low, high = self.lams[right - 1], self.lams[right]
        share = ((lams - low) / (high - low)).clamp(0, 1).reshape(-1, *[1] * len(self.shape))
        l, s, b = (t[right - 1] + share * (t[right] - t[right - 1]) for t in (self.l, self.s, self.b))  # noqa: E741
        return l, s, b

    def without(self, *names: str) -> ModelStats:
        """The same with "s" or "b" at 0.

        Raises:
            StatsError: another name.
        """
        if not set(names) <= {"s", "b"}:
            raise StatsError(f"s and b can be left out, got {names}.")
        s, b = (torch.zeros_like(t) if name in names else t for name, t in (("s", self.s), ("b", self.b)))
        return ModelStats(self.lams, self.l, s, b, self.provenance)

    @classmethod
    def measured(cls, denoiser: Any, **options: Any) -> ModelStats:
        """From a network's own trajectories; options and errors as of `solverkit.ems.measure.measure`."""
        from .measure import measure

        found, provenance = measure(denoiser, **options)
        return cls(*found, provenance={**provenance, **match.fingerprint_of(denoiser)})

    @classmethod
    def of(cls, denoiser: Any) -> Statistics:
        """The statistics in the folder that a denoiser was opened from, or bundled with it.

        Raises:
            StatsError: it has none.
        """
        for inside in match.layers(denoiser):
            for path in artefact.beside(getattr(inside, "source", None), FILE):
                return cls.load(path)
        raise StatsError(
            "no model statistics are saved beside this model: give stats= (ModelStats, a file, data, noise, or "
            "isotropic:variance=V), e.g. sk.ModelStats.measured(denoiser), or solverkit stats MODEL --ems --out FILE."
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one safetensors file (or FILE in a folder); the provenance is its metadata."""
        tensors = {"lams": self.lams, "l": self.l.float(), "s": self.s.float(), "b": self.b.float()}
        return files.write(path, tensors, dict(self.provenance), FILE, FORM)

    @classmethod
    def load(cls, source: Any) -> Statistics:
        """Statistics from a file, a folder, a bundled name, a hub id, "data", "noise", or "isotropic:variance=V,mean=M".

        Raises:
            LoadError: nothing readable there.
            StatsError: a file that holds none.
        """
        if isinstance(source, (ModelStats, Constant, OfGaussian)):
            return source
        if source in ("data", "noise"):
            return DATA if source == "data" else NOISE
        if isinstance(source, str) and source.partition(":")[0] == "isotropic":
            return _isotropic(**files.isotropic_options(source))
        found = artefact.located(source, FILE, "model statistics", MADE)
        return _opened(str(found), found.stat().st_mtime_ns)

    def require_match(self, denoiser: Any) -> None:
        """Refuses statistics of another shape.

        Raises:
            StatsError: the denoiser makes samples of another shape.

        Warns:
            UserWarning: they were measured on another network.
        """
        shape = getattr(denoiser, "shape", None)
        if shape is not None and tuple(shape) != self.shape:
            given = tuple(shape)
            raise StatsError(f"these model statistics are of samples of shape {self.shape}, and the model makes {given}.")
        measured, mine = self.provenance.get("fingerprint"), match.fingerprint_of(denoiser).get("fingerprint")
        if measured and mine and measured != mine:
            warnings.warn(
                "these model statistics were measured on another network, or on other inputs or guidance of it.",
                stacklevel=2,
            )


@functools.lru_cache(maxsize=8)
def _opened(path: str, changed: int) -> ModelStats:
    """Of one file as it is now; kept, so that a plan that is traced again shares its tensors."""
    tensors, provenance = files.read(path, ("lams", "l", "s", "b"), "model statistics")
    return ModelStats(tensors["lams"], tensors["l"], tensors["s"], tensors["b"], provenance)


@functools.lru_cache(maxsize=8)
def _isotropic(variance: float = 1.0, mean: float = 0.0) -> OfGaussian:
    return OfGaussian(torch.tensor(variance, dtype=torch.float64), torch.tensor(mean, dtype=torch.float64))
