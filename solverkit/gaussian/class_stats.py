"""Gaussian statistics of a conditional network: one set a class, chosen by the label that the denoiser is given."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from ..errors import LoadError, StatsError
from ..model.denoiser import DenoiserLike
from .stats import GaussianStats


class ClassStats:
    """label -> `GaussianStats`.

    For a guided denoiser the statistics are best taken from the guided denoiser itself: `ClassStats.made` with a function
    that guides.
    """

    def __init__(self, sets: dict[int, GaussianStats]) -> None:
        self.sets = dict(sets)

    @classmethod
    def made(
        cls,
        denoiser_of: Callable[[int], DenoiserLike],
        labels: Iterable[int],
        source: Callable[[DenoiserLike], GaussianStats] = GaussianStats.from_network,
    ) -> ClassStats:
        """One set a label, e.g. `ClassStats.made(lambda k: net.with_inputs(class_labels=k), range(10))`.

        Args:
            denoiser_of: The denoiser of a label, guided or not.
            labels: Of the classes.
            source: How statistics are made of a denoiser.
        """
        return cls({int(label): source(denoiser_of(int(label))) for label in labels})

    def of(self, denoiser: Any) -> GaussianStats:
        """The set of the label that a denoiser (or the conditional one under guidance) is given.

        Raises:
            StatsError: no label, several in one batch, or one without statistics.
        """
        inside = getattr(denoiser, "conditional", denoiser)
        label = getattr(inside, "inputs", {}).get("class_labels")
        if label is None:
            raise StatsError("this denoiser is given no class_labels, so no class's statistics can be chosen.")
        values = torch.as_tensor(label).flatten().unique().tolist()
        if len(values) > 1:
            raise StatsError(f"one run jumps with one Gaussian, and its batch has the classes {values}; run them apart.")
        if int(values[0]) not in self.sets:
            raise StatsError(f"no statistics of class {int(values[0])}; there are {sorted(self.sets)}.")
        return self.sets[int(values[0])]

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """One file a class, LABEL.safetensors; `GaussianStats.load(folder / "7.safetensors")` reads one alone."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        for label, stats in self.sets.items():
            stats.save(path / f"{label}.safetensors")
        return path

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> ClassStats:
        """What `save` wrote.

        Raises:
            LoadError: no such files.
        """
        files = [p for p in Path(folder).glob("*.safetensors") if p.stem.lstrip("-").isdigit()]
        if not files:
            raise LoadError(f"{folder} has no files LABEL.safetensors.")
        return cls({int(p.stem): GaussianStats.load(p) for p in files})
