"""Reading a suite from TOML: by name, from a plugin's task, or from a file; every slip is named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import BenchError, LoadError, OptionError, nearest
from ..files.regular_file import JSON_BYTES, require_file
from .suite import ExtraCells, ModelEntry, Suite

SUITES = Path(__file__).parent / "suites"
DEFAULT = "quick"
ALIASES = {"default": DEFAULT}
OF_ITS_OWN = ("graphs", "inverse", "tokens")  # suites of the command line that are no files


def load_suite(name_or_path: str | Path = DEFAULT) -> Suite:
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
        table = tomllib.loads(require_file(path, JSON_BYTES).read_text(encoding="utf-8"))
    except LoadError as error:
        raise BenchError(f"the suite cannot be read: {error}") from None
    except OSError as error:
        raise BenchError(f"cannot read the suite {path}: {error.strerror or error}.") from None
    except RecursionError:
        raise BenchError(f"the suite {path} is nested too deep to be one.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BenchError(f"the suite {path} is not valid TOML: {error}.") from None
    return parse_suite(table, name=path.stem)


def bundled_suites() -> list[str]:
    """Names of the suites that come with solverkit."""
    return sorted(path.stem for path in SUITES.glob("*.toml"))


def _find(name_or_path: str | Path) -> Path:
    name_or_path = ALIASES.get(str(name_or_path), name_or_path)
    if (bundled := SUITES / f"{name_or_path}.toml").is_file() and not Path(name_or_path).suffix:
        return bundled
    if (path := Path(name_or_path)).is_file():
        return path
    from ..registry.registry import registry

    tasks = registry().cards["tasks"]
    if str(name_or_path) in tasks:
        return Path(tasks[str(name_or_path)].fn())
    known = [*bundled_suites(), *OF_ITS_OWN, *tasks]
    raise BenchError(
        f"no suite {str(name_or_path)!r}.{nearest(str(name_or_path), known)} "
        f"Give a TOML file or one of: {', '.join(known)}."
    )


def parse_suite(table: Mapping[str, Any], name: str = "unnamed") -> Suite:
    """A suite from a parsed TOML table; errors as in `load_suite`."""
    keys = {f.name for f in fields(Suite)} - {"extra", "nfe_of_choices", "given"} | {"cells"}
    _known(table, keys, "the suite")
    nfe = _list(table.get("nfe", [10]), int, "nfe")
    models = _table(table.get("models", {}), "models")
    suite = Suite(
        name=_value(table, "name", str, name),
        version=_value(table, "version", int, 1),
        models=tuple(_model(key, _table(value, f"[models.{key}]"), nfe) for key, value in models.items()),
        samplers=_list(table.get("samplers", []), str, "samplers"),
        nfe=nfe,
        seed=_value(table, "seed", int, 0),
        seeds=_list(table.get("seeds", []), int, "seeds"),
        caches=_list(table.get("caches", list(Suite.caches)), str, "caches"),
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
    for key in ("grid", "data"):
        _value(table, key, str, None)
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
