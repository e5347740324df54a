"""Gaussian statistics of a conditional network: one set a class, chosen by the label that the denoiser is given."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import torch

from ..errors import LoadError, StatsError
from ..model.denoiser import DenoiserLike
from .match import layers
from .stats import GaussianStats

Label = int | str
NAMES = ("class_labels", "class_label", "labels", "label", "classes", "y")  # what networks call the label


class ClassStats:
    """label -> `GaussianStats`; labels are integers or words.

    For a guided denoiser the statistics are best taken from the guided denoiser itself: `ClassStats.made` with a function
    that guides.

    Args:
        sets: Statistics by label.
        name: The input of the network that holds the label; None finds it: class_labels, label, y or the like, else the
            only input that there is.
    """

    def __init__(self, sets: Mapping[Any, GaussianStats], name: str | None = None) -> None:
        self.sets: dict[Label, GaussianStats] = {_label(label): stats for label, stats in sets.items()}
        self.name = name

    def __repr__(self) -> str:
        shown = ", ".join(repr(label) for label in list(self.sets)[:6])
        return f"ClassStats({len(self.sets)} classes: {shown}{', ...' if len(self.sets) > 6 else ''})"

    @classmethod
    def made(
        cls,
        denoiser_of: Callable[[Any], DenoiserLike],
        labels: Iterable[Any],
        source: Callable[[DenoiserLike], GaussianStats] = GaussianStats.from_network,
        name: str | None = None,
    ) -> ClassStats:
        """One set a label, e.g. `ClassStats.made(lambda k: net.with_inputs(class_labels=k), range(10))`.

        Args:
            denoiser_of: The denoiser of a label, guided or not.
            labels: Of the classes, integers or words.
            source: How statistics are made of a denoiser.
            name: As of the class.
        """
        return cls({_label(label): source(denoiser_of(_label(label))) for label in labels}, name)

    def of(self, denoiser: Any) -> GaussianStats:
        """The set of the label that a denoiser (or the conditional one under guidance) is given.

        Raises:
            StatsError: no label, several in one batch, or one without statistics.
        """
        value = next((found for inside in layers(denoiser) if (found := self._input(inside)) is not None), None)
        if value is None:
            wanted = self.name or "class_labels"
            raise StatsError(
                f"this denoiser is given no {wanted}, so no class's statistics can be chosen: give it one "
                f"(denoiser.with_inputs({wanted}=...)), or say with ClassStats(sets, name=...) which input the label is."
            )
        labels = list(dict.fromkeys(_labels(value)))
        if len(labels) > 1:
            raise StatsError(f"one run jumps with one Gaussian, and its batch has the classes {labels}; run them apart.")
        if labels[0] not in self.sets:
            raise StatsError(f"no statistics of class {labels[0]!r}; there are {', '.join(map(repr, self.sets))}.")
        return self.sets[labels[0]]

    def _input(self, denoiser: Any) -> Any:
        inputs = getattr(denoiser, "inputs", {})
        if self.name is not None:
            return inputs.get(self.name)
        known = [name for name in NAMES if name in inputs]
        only = list(inputs) if len(inputs) == 1 and _is_label(next(iter(inputs.values()))) else []
        return inputs[(known or only)[0]] if known or only else None

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """One file a class, LABEL.safetensors; `GaussianStats.load(folder / "7.safetensors")` reads one alone."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        for label, stats in self.sets.items():
            stats.with_provenance(label=label).save(path / f"{_stem(label)}.safetensors")
        return path

    @classmethod
    def load(cls, folder: str | os.PathLike[str], name: str | None = None) -> ClassStats:
        """What `save` wrote.

        Raises:
            LoadError: no such files.
        """
        sets: dict[Label, GaussianStats] = {}
        for file in sorted(Path(folder).glob("*.safetensors")):
            if file.stem.lstrip("-").isdigit():
                sets[int(file.stem)] = GaussianStats.load(file)
            elif "label" in (stats := GaussianStats.load(file)).provenance:
                sets[unquote(file.stem)] = stats
        if not sets:
            raise LoadError(f"{folder} has no files LABEL.safetensors.")
        return cls(sets, name)


def _label(value: Any) -> Label:
    if isinstance(value, str):
        return value
    try:
        return int(value)
    except (TypeError, ValueError):
        raise StatsError(f"a class's label is an integer or a word, got {value!r}.") from None


def _labels(value: Any) -> list[Label]:
    """The labels of an input: one, or one a row."""
    if isinstance(value, torch.Tensor):
        value = value.flatten().tolist()
    return [_label(v) for v in value] if isinstance(value, (list, tuple)) else [_label(value)]


def _is_label(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.ndim <= 1 and not value.is_floating_point()
    return isinstance(value, (int, str, list, tuple))


def _stem(label: Label) -> str:
    """A file's name; a word that looks like a number is told from the number."""
    if isinstance(label, int):
        return str(label)
    stem = quote(label, safe="")
    return f"%{ord(stem[0]):02X}{stem[1:]}" if stem.lstrip("-").isdigit() or stem[:1] == "." else stem
