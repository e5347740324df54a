"""A bench suite: which models, samplers, grids and budgets are run, read from TOML and expanded to cells.

name = "default"
nfe = [5, 10, 20]
samplers = ["euler", "dpmpp-2m", "diffusers:UniPCMultistepScheduler"]
grids = ["karras", "log-snr"]       # what grid = "best" sweeps
grid = "best"                       # or one grid for all; leave it out to use the models' choices

seeds = [0, 1]                      # or seed = 0
caches = ["none", "frozen:every=2"] # rules that answer some evaluations from earlier ones (`caching`)

[models.mnist]
num_samples = 48
grid = "karras"                     # where the next table names none
data = "mnist.npz"                  # real samples, for metrics that compare with them

[models.mnist.grids]
euler = "time-uniform"              # one grid, or one for each entry of nfe

[options.dpmpp-2m]
lower_order_final = true

[[cells]]                           # beside the product of models, samplers and budgets
model = "mnist"
sampler = "dpmpp-3m"
nfe = [8]
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import BenchError, OptionError
from .named import K_DIFFUSION, PEER, with_own_options

__all__ = ["BEST", "K_DIFFUSION", "NO_CACHE", "PEER", "Cell", "ExtraCells", "ModelEntry", "Suite", "short_name"]

BEST = "best"
NO_CACHE = "none"


@dataclass(frozen=True)
class ModelEntry:
    """One model of a suite.

    Attributes:
        name: A registered model, a folder, a hub id, or path.py:function.
        num_samples: How many samples each cell draws.
        grid: The grid where the suite names none for a sampler; None leaves it to the sampler.
        batch_size: Samples that are run at once; None: at most 512, fewer where samples are large.
        reference_steps: Steps of the converged solution that `ode_error` compares with.
        grids: sampler -> grid, or one grid for each entry of the suite's `nfe`.
        options: Of the model's loader.
        data: A file of real samples (.npy, .npz, .safetensors), for metrics that compare with some.
    """

    name: str
    num_samples: int = 32
    grid: str | None = None
    batch_size: int | None = None
    reference_steps: int = 64
    grids: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    data: str | None = None


@dataclass(frozen=True)
class Cell:
    """One measurement: a sampler with its options, on a grid (None: its own choice), within a budget, from one seed.

    Attributes:
        cache: The rule that answers some evaluations from earlier ones; "none" asks the network each time.
        suite: Name and version of the suite that it is of.
    """

    model: ModelEntry
    sampler: str
    options: dict[str, Any]
    grid: str | None
    nfe: int
    seed: int = 0
    cache: str = NO_CACHE
    suite: str = ""

    @property
    def label(self) -> str:
        """What is running, for people."""
        seed = f"seed {self.seed}" if self.seed else ""
        cache = "" if self.cache == NO_CACHE else self.cache
        parts = (short_name(self.model.name), short_name(self.sampler), cache, self.grid or "", f"NFE {self.nfe}", seed)
        return " ".join(filter(None, parts))


@dataclass(frozen=True)
class ExtraCells:
    """A [[cells]] table, before it meets its model."""

    model: str
    sampler: str
    grid: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    nfe: tuple[int, ...] = ()
    cache: str = NO_CACHE


@dataclass(frozen=True)
class Suite:
    """What a run measures.

    Attributes:
        name: Of the suite.
        version: Of the suite; raised when what it measures changes.
        models, samplers, nfe: Their product is run. A sampler may have options behind its name; "diffusers:Class" is
            diffusers' own, "k-diffusion:sample_x" k-diffusion's, "path.py:function" anyone's.
        seed: All cells start from the noise of this seed.
        seeds: Several of them; empty means `seed` alone.
        grid: One grid for all, "best" to sweep `grids`, or None for the choices of each model.
        grids: What "best" sweeps.
        options: sampler -> options.
        metrics: Names; empty means `metrics.DEFAULT`.
        caches: Rules that answer some evaluations from earlier ones; "none" among them asks the network each time.
        extra: Cells beside the product.
        given: Denoisers and samplers that stand behind names, where they are objects and not names.
    """

    name: str = "unnamed"
    version: int = 1
    models: tuple[ModelEntry, ...] = ()
    samplers: tuple[str, ...] = ()
    nfe: tuple[int, ...] = (10,)
    seed: int = 0
    seeds: tuple[int, ...] = ()
    grid: str | None = None
    grids: tuple[str, ...] = ("karras", "log-snr", "time-uniform")
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    caches: tuple[str, ...] = (NO_CACHE,)
    extra: tuple[ExtraCells, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)

    def cells(self) -> Iterator[Cell]:
        """Every cell, model by model.

        Raises:
            BenchError: nothing to run.
        """
        if not self.models or not (self.samplers or self.extra):
            raise BenchError(f"suite {self.name!r} has nothing to run: it needs models, and samplers or [[cells]].")
        for model in self.models:
            for seed in self.seeds or (self.seed,):
                yield from self._of_model(model, seed)

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name}-{self.version}"

    def _of_model(self, model: ModelEntry, seed: int) -> Iterator[Cell]:
        for spelled in self.samplers:
            sampler, own = with_own_options(spelled, self.given)
            options = {**self.options.get(sampler, {}), **(self.options.get(spelled, {}) if own else {}), **own}
            for cache in self.caches:
                for nfe in self.nfe:
                    for grid in self._grids(model, sampler, nfe, self.grid):
                        yield Cell(model, sampler, options, grid, nfe, seed, cache, self.title)
        for extra in self.extra:
            if extra.model == model.name:
                sampler, own = with_own_options(extra.sampler, self.given)
                options = {**self.options.get(sampler, {}), **own, **extra.options}
                for nfe in extra.nfe or self.nfe:
                    for grid in self._grids(model, sampler, nfe, extra.grid or self.grid):
                        yield Cell(model, sampler, options, grid, nfe, seed, extra.cache, self.title)

    def _grids(self, model: ModelEntry, sampler: str, nfe: int, grid: str | None) -> tuple[str | None, ...]:
        if grid == BEST:
            return self.grids
        if grid is not None:
            return (grid,)
        choice = model.grids.get(sampler, model.grid)
        if isinstance(choice, tuple):  # one for each budget; another budget takes the one of the nearest
            at = min(range(len(choice)), key=lambda i: abs(math.log(self.nfe_of_choices[i] / nfe)))
            choice = choice[at]
        return self.grids if choice == BEST else (choice,)

    # The budgets that the lists in `ModelEntry.grids` belong to; the command line may override `nfe`, never these.
    nfe_of_choices: tuple[int, ...] = ()

    def override(
        self,
        models: Iterable[str] = (),
        samplers: Iterable[str] = (),
        grids: Iterable[str] = (),
        nfe: Iterable[int] = (),
        num_samples: int | None = None,
        seed: int | None = None,
        batch_size: int | None = None,
        model_options: Mapping[str, Any] | None = None,
    ) -> Suite:
        """This suite with what the user asked for instead; empty leaves a part as it is.

        `model_options` (device=, dtype=, labels=) are added to those of every model.
        """
        suite = self
        if names := tuple(models):
            known = {model.name: model for model in suite.models}
            suite = replace(suite, models=tuple(known.get(name, ModelEntry(name)) for name in names))
        if names := tuple(samplers):
            suite = replace(suite, samplers=names, extra=())
        if names := tuple(grids):
            grid = names[0] if len(names) == 1 else BEST
            suite = replace(suite, grid=grid, grids=suite.grids if len(names) == 1 else names)
        if budgets := tuple(nfe):
            suite = replace(suite, nfe=budgets, extra=tuple(replace(extra, nfe=budgets) for extra in suite.extra))
        if num_samples is not None:
            suite = replace(suite, models=tuple(replace(m, num_samples=num_samples) for m in suite.models))
        if batch_size is not None:
            suite = replace(suite, models=tuple(replace(m, batch_size=batch_size) for m in suite.models))
        if model_options:
            added = dict(model_options)
            suite = replace(suite, models=tuple(replace(m, options={**m.options, **added}) for m in suite.models))
        if seed is not None:
            suite = replace(suite, seed=seed, seeds=())
        return suite.checked()

    def checked(self) -> Suite:
        """This suite, if its numbers make sense.

        Raises:
            OptionError: a budget, a number of samples or a seed that cannot be run.
        """
        for nfe in (*self.nfe, *(n for extra in self.extra for n in extra.nfe)):
            _positive("nfe", nfe)
        for model in self.models:
            for name in ("num_samples", "batch_size", "reference_steps"):
                if (value := getattr(model, name)) is not None:
                    _positive(f"{name} of {model.name!r}", value)
        for seed in (self.seed, *self.seeds):
            if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
                raise OptionError(f"seed must be an integer >= 0 and below 2^63, got {seed!r}.")
        for extra in self.extra:
            if extra.model not in {model.name for model in self.models}:
                names = ", ".join(model.name for model in self.models)
                raise OptionError(f"[[cells]] names the model {extra.model!r}, which the suite does not have: {names}.")
        return self


def short_name(name: str) -> str:
    """A name for tables: diffusers' own without the tail that all of them share, a function without its file."""
    if name.startswith(PEER):
        return PEER + name[len(PEER) :].removesuffix("Scheduler")
    return name.rpartition(".py:")[2]


def _positive(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise OptionError(f"{name} must be a positive integer, got {value!r}.")
