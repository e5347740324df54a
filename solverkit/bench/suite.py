"""A bench suite: which models, samplers, grids and budgets are run, read from TOML and expanded to cells.

name = "default"
nfe = [5, 10, 20]
samplers = ["euler", "dpmpp-2m", "diffusers:UniPCMultistepScheduler"]
grids = ["karras", "log-snr"]       # what grid = "best" sweeps
grid = "best"                       # or one grid for all; leave it out to use the models' choices

[models.mnist]
num_samples = 48
grid = "karras"                     # where the next table names none

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
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..errors import BenchError, OptionError, nearest

SUITES = Path(__file__).parent / "suites"
PEER = "diffusers:"
BEST = "best"


@dataclass(frozen=True)
class ModelEntry:
    """One model of a suite.

    Attributes:
        name: A registered model, a folder or a hub id.
        num_samples: How many samples each cell draws.
        grid: The grid where the suite names none for a sampler; None leaves it to the sampler.
        batch_size: Samples that are run at once.
        reference_steps: Steps of the converged solution that `ode_error` compares with.
        grids: sampler -> grid, or one grid for each entry of the suite's `nfe`.
        options: Of the model's loader.
    """

    name: str
    num_samples: int = 32
    grid: str | None = None
    batch_size: int = 512
    reference_steps: int = 32
    grids: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One measurement: a sampler with its options, on a grid (None: its own choice), within a budget."""

    model: ModelEntry
    sampler: str
    options: dict[str, Any]
    grid: str | None
    nfe: int

    @property
    def label(self) -> str:
        """What is running, for people."""
        parts = (self.model.name, short_name(self.sampler), self.grid or "", f"NFE {self.nfe}")
        return " ".join(filter(None, parts))


@dataclass(frozen=True)
class ExtraCells:
    """A [[cells]] table, before it meets its model."""

    model: str
    sampler: str
    grid: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    nfe: tuple[int, ...] = ()


@dataclass(frozen=True)
class Suite:
    """What a run measures.

    Attributes:
        name: Of the suite.
        models, samplers, nfe: Their product is run; a sampler "diffusers:Class" is diffusers' own.
        seed: All cells start from the noise of this seed.
        grid: One grid for all, "best" to sweep `grids`, or None for the choices of each model.
        grids: What "best" sweeps.
        options: sampler -> options.
        metrics: Names; empty means all that are registered.
        extra: Cells beside the product.
    """

    name: str = "unnamed"
    models: tuple[ModelEntry, ...] = ()
    samplers: tuple[str, ...] = ()
    nfe: tuple[int, ...] = (10,)
    seed: int = 0
    grid: str | None = None
    grids: tuple[str, ...] = ("karras", "log-snr", "time-uniform")
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    extra: tuple[ExtraCells, ...] = ()

    def cells(self) -> Iterator[Cell]:
        """Every cell, model by model.

        Raises:
            BenchError: nothing to run.
        """
        if not self.models or not (self.samplers or self.extra):
            raise BenchError(f"suite {self.name!r} has nothing to run: it needs models, and samplers or [[cells]].")
        for model in self.models:
            for sampler in self.samplers:
                options = self.options.get(sampler, {})
                for nfe in self.nfe:
                    for grid in self._grids(model, sampler, nfe, self.grid):
                        yield Cell(model, sampler, options, grid, nfe)
            for extra in self.extra:
                if extra.model == model.name:
                    options = {**self.options.get(extra.sampler, {}), **extra.options}
                    for nfe in extra.nfe or self.nfe:
                        for grid in self._grids(model, extra.sampler, nfe, extra.grid or self.grid):
                            yield Cell(model, extra.sampler, options, grid, nfe)

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
    ) -> Suite:
        """This suite with what the user asked for instead; empty leaves a part as it is."""
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
        if seed is not None:
            suite = replace(suite, seed=seed)
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
                _positive(f"{name} of {model.name!r}", getattr(model, name))
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
            raise OptionError(f"seed must be an integer >= 0, got {self.seed!r}.")
        for extra in self.extra:
            if extra.model not in {model.name for model in self.models}:
                names = ", ".join(model.name for model in self.models)
                raise OptionError(f"[[cells]] names the model {extra.model!r}, which the suite does not have: {names}.")
        return self


def short_name(sampler: str) -> str:
    """A sampler's name for tables: diffusers' own without the tail that all of them share."""
    if not sampler.startswith(PEER):
        return sampler
    return PEER + sampler[len(PEER) :].removesuffix("Scheduler")


def load_suite(name_or_path: str | Path = "default") -> Suite:
    """Read a suite: a bundled one by name, one that a plugin registered as a task, or a TOML file.

    Raises:
        BenchError: no such suite, or a file that is no TOML.
        OptionError: an unknown key (the nearest is named), or a value of the wrong kind.
    """
    path = _find(name_or_path)
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib  # type: ignore[import-not-found, no-redef, unused-ignore]
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchError(f"cannot read the suite {path}: {error.strerror or error}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BenchError(f"the suite {path} is not valid TOML: {error}.") from None
    return parse_suite(table, name=path.stem)


def bundled_suites() -> list[str]:
    """Names of the suites that come with solverkit."""
    return sorted(path.stem for path in SUITES.glob("*.toml"))


def _find(name_or_path: str | Path) -> Path:
    if (bundled := SUITES / f"{name_or_path}.toml").is_file() and not Path(name_or_path).suffix:
        return bundled
    if (path := Path(name_or_path)).is_file():
        return path
    from ..plugins import registry

    tasks = registry().cards["tasks"]
    if str(name_or_path) in tasks:
        return Path(tasks[str(name_or_path)].fn())
    known = [*bundled_suites(), *tasks]
    raise BenchError(
        f"no suite {str(name_or_path)!r}.{nearest(str(name_or_path), known)} "
        f"Give a TOML file or one of: {', '.join(known)}."
    )


def parse_suite(table: Mapping[str, Any], name: str = "unnamed") -> Suite:
    """A suite from a parsed TOML table; errors as in `load_suite`."""
    keys = {f.name for f in fields(Suite)} - {"extra", "nfe_of_choices"} | {"cells"}
    _known(table, keys, "the suite")
    nfe = _list(table.get("nfe", [10]), int, "nfe")
    models = _table(table.get("models", {}), "models")
    suite = Suite(
        name=_value(table, "name", str, name),
        models=tuple(_model(key, _table(value, f"[models.{key}]"), nfe) for key, value in models.items()),
        samplers=_list(table.get("samplers", []), str, "samplers"),
        nfe=nfe,
        seed=_value(table, "seed", int, 0),
        grid=_value(table, "grid", str, None),
        grids=_list(table.get("grids", list(Suite.grids)), str, "grids"),
        options={s: dict(_table(o, f"[options.{s}]")) for s, o in _table(table.get("options", {}), "options").items()},
        metrics=_list(table.get("metrics", []), str, "metrics"),
        extra=tuple(_extra(entry) for entry in table.get("cells", [])),
        nfe_of_choices=nfe,
    )
    return suite.checked()


def _model(name: str, table: Mapping[str, Any], nfe: tuple[int, ...]) -> ModelEntry:
    where = f"models.{name}"
    _known(table, {f.name for f in fields(ModelEntry)} - {"name"}, f"[{where}]")
    grids = _table(table.get("grids", {}), f"[{where}.grids]")
    choices = {sampler: _choice(choice, nfe, f"{where}.grids.{sampler}") for sampler, choice in grids.items()}
    _value(table, "grid", str, None)
    options = dict(_table(table.get("options", {}), f"[{where}.options]"))
    return ModelEntry(name, **{**table, "grids": choices, "options": options})


def _extra(table: Mapping[str, Any]) -> ExtraCells:
    _known(table, {f.name for f in fields(ExtraCells)}, "[[cells]]")
    for key in ("model", "sampler"):
        if key not in table:
            raise OptionError(f"a [[cells]] table of the suite lacks {key!r}.")
    nfe = table.get("nfe", [])
    return ExtraCells(**{**table, "nfe": _list(nfe if isinstance(nfe, list) else [nfe], int, "cells.nfe")})


def _choice(value: Any, nfe: tuple[int, ...], where: str) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return value
    choices = _list(value, str, where)
    if len(choices) != len(nfe):
        raise OptionError(f"{where} has {len(choices)} grids for {len(nfe)} budgets: give one, or one for each nfe.")
    return choices


def _known(table: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    for key in table:
        if key not in (known := sorted(keys)):
            raise OptionError(f"{where} has no key {key!r}.{nearest(key, known)} Its keys: {', '.join(known)}.")


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise OptionError(f"{where} of the suite must be a table, got {value!r}.")
    return value


def _list(value: Any, kind: type, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list) or not all(isinstance(v, kind) and not isinstance(v, bool) for v in value):
        raise OptionError(f"{where} of the suite must be a list of {kind.__name__}, got {value!r}.")
    return tuple(value)


def _value(table: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    value = table.get(key, default)
    if value is not default and not isinstance(value, kind):
        raise OptionError(f"{key} of the suite must be {kind.__name__}, got {value!r}.")
    return value


def _positive(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise OptionError(f"{name} must be a positive integer, got {value!r}.")
