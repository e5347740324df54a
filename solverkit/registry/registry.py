"""The registry: what plugins registered, as cards. Built-ins come through the same door as a stranger's package.

Nothing that a stranger's plugin does takes solverkit down: what is wrong with it is told in one line, and left out.
"""

from __future__ import annotations

import functools
import importlib
import os
import typing
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, distributions, entry_points
from typing import Any

import pluggy

from ..errors import OptionError, PluginWarning, UnknownNameError, nearest
from . import hookspecs
from .aliases import canonical
from .cards import RESERVED, Card, DecoderCard, GridCard, MetricCard, ModelCard, SamplerCard
from .declare import DECLARED
from .hints import describe, fits
from .spelled import parse_options

__all__ = [
    "BUILTIN", "CARDS", "ENVIRONMENT", "KINDS", "RESERVED", "Card", "DecoderCard", "GridCard", "MetricCard", "ModelCard",
    "Registry", "SamplerCard", "build_registry", "describe", "fits", "installed", "known_here", "load_plugins",
    "load_registry", "registry", "resolve",
]  # fmt: skip

KINDS = ("samplers", "decoders", "grids", "models", "metrics", "tasks")
BUILTIN = {"grids": "solverkit.grid.layouts", "models": "solverkit.files.builtin", "bench": "solverkit.bench.metrics",
           "token-models": "solverkit.files.token_models", "token-grids": "solverkit.tokens.grids"}  # fmt: skip
OWN = "solverkit_plugins"
ENVIRONMENT = "SOLVERKIT_PLUGINS"
LONGEST = 300  # of what is told of a fault

CARDS: dict[str, tuple[type[Card], int]] = {
    "samplers": (SamplerCard, 4),
    "decoders": (DecoderCard, 4),
    "grids": (GridCard, 2),
    "models": (ModelCard, 0),
    "metrics": (MetricCard, 1),
    "tasks": (Card, 0),
}


@dataclass(frozen=True)
class Registry:
    """All cards by kind and name, the plugins that were loaded, and (plugin, what is wrong) of those that are not whole."""

    cards: dict[str, dict[str, Card]]
    plugins: tuple[tuple[str, str], ...]
    failed: tuple[tuple[str, str], ...]

    def get(self, kind: str, name: str) -> Card:
        """The card of that name.

        Raises:
            UnknownNameError: names the nearest and lists the rest.
        """
        try:
            return self.cards[kind][name]
        except KeyError:
            raise UnknownNameError(kind[:-1], name, self.cards[kind]) from None


def build_registry(modules: Mapping[str, Any]) -> Registry:
    """A registry of plugin modules (or objects with hooks), by plugin name; of two with one name the first has it.

    Warns:
        PluginWarning: a plugin without hooks, a hook that does not exist or fails, a name that is taken, or a card that
            cannot work; the rest is registered.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    cards: dict[str, dict[str, Card]] = {kind: {} for kind in KINDS}
    failed: list[tuple[str, str]] = []

    def tell(plugin: str, what: str) -> None:
        failed.append((plugin, what))
        warnings.warn(f"the plugin {plugin!r}: {what}", PluginWarning, stacklevel=4)

    for name, module in modules.items():
        try:
            for what in _not_hooks(manager, module):
                tell(name, what)
            manager.register(module, name=name)
        except (Exception, SystemExit) as error:  # such as a hook that takes other arguments
            if manager.has_plugin(name):
                manager.unregister(name=name)
            tell(name, f"its hooks cannot be called: {_line(error)}")
    for kind in KINDS:
        for implementation in getattr(manager.hook, f"register_{kind}").get_hookimpls():  # in the order of modules
            _registered(cards, kind, implementation.plugin_name, implementation.function, tell)
    return Registry(cards, tuple((n, getattr(m, "__name__", repr(m))) for n, m in modules.items()), tuple(failed))


def _not_hooks(manager: pluggy.PluginManager, module: Any) -> Iterable[str]:
    """What is wrong with the hooks of a module before any is called."""
    known = [name for name in vars(hookspecs) if name.startswith("register_")]
    said = ((name, manager.parse_hookimpl_opts(module, name)) for name in dir(module))
    marked = [options["specname"] or name for name, options in said if options is not None]
    for name in marked:
        if name not in known:
            yield f"there is no hook {name!r}.{nearest(name, known)} Hooks: {', '.join(known)}."
    if not marked:
        yield f"{getattr(module, '__name__', repr(module))} has no hook and registers nothing: mark one with @sk.hookimpl."


def _registered(
    cards: dict[str, dict[str, Card]], kind: str, plugin: str, hook: Callable[..., Any], tell: Callable[[str, str], None]
) -> None:
    """Call a plugin's hook, and keep the cards that it registers."""
    card_type, skip = CARDS[kind]

    def register(name: str | Callable[..., Any], fn: Callable[..., Any] | None = None, **fields: Any) -> None:
        if callable(name):  # declared where it is written
            fn = name
            name = str(getattr(fn, DECLARED, {}).get("name", getattr(fn, "__name__", "")))
            fields = {**{k: v for k, v in getattr(fn, DECLARED, {}).items() if k != "name"}, **fields}
        try:
            made: Any = fn  # validate() says what is wrong with it
            card = card_type(name=name, fn=made, plugin=plugin, skip=skip, **fields)
            card.validate()
        except (TypeError, ValueError) as error:
            return tell(plugin, f"the {kind[:-1]} {name!r} is left out, its card is wrong: {_line(error, bare=True)}")
        if name in cards[kind]:
            other = cards[kind][name].plugin
            whose = "it registers two" if other == plugin else f"{other} has that name"
            told = f"the {kind[:-1]} {name!r} is left out, {whose}. Restrict what is loaded with {ENVIRONMENT}."
            return tell(plugin, told)
        cards[kind][name] = card

    try:
        answer = hook(register)
    except (Exception, SystemExit) as error:  # a stranger's hook may fail in any way; the rest must work
        return tell(plugin, f"register_{kind} failed: {_line(error)}")
    if answer is not None:
        made_of = type(answer).__name__
        tell(plugin, f"register_{kind} returns {made_of}, which nobody reads: it calls register(name, fn, ...).")


def _line(error: BaseException, bare: bool = False) -> str:
    """An error in one line."""
    text = " ".join(f"{'' if bare else f'{type(error).__name__}: '}{error}".split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def installed() -> tuple[list[EntryPoint], list[tuple[str, str]]]:
    """The entry points of the group "solverkit", those of solverkit itself first, then by name; and (package, reason) of
    packages whose entry points cannot be read.
    """
    found, unreadable = list[EntryPoint](), list[tuple[str, str]]()
    try:
        found = list(entry_points(group=hookspecs.PROJECT))
    except Exception:  # one malformed file; whose it is, is found one by one
        for package in distributions():
            try:
                found += [e for e in package.entry_points if e.group == hookspecs.PROJECT]
            except Exception as error:  # whatever a parser of metadata raises
                unreadable.append((package.metadata["Name"], f"its entry points cannot be read: {_line(error)}"))
    return sorted(found, key=lambda e: (not e.value.startswith(OWN), e.name)), unreadable


def load_plugins(restrict: str | None = None) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Import the built-ins and the plugins of the entry-point group "solverkit".

    Args:
        restrict: Comma-separated names of the only plugins to load; None loads all.

    Returns:
        The modules by name of the plugin, and (name, reason) of those that failed to import.

    Raises:
        UnknownNameError: a name of `restrict` that no installed plugin has.

    Warns:
        PluginWarning: a plugin failed to import, or another has its name; the rest works.
    """
    modules: dict[str, Any] = {name: importlib.import_module(path) for name, path in BUILTIN.items()}
    values = dict(BUILTIN)
    found, failed = installed()
    for name, reason in failed:
        warnings.warn(f"the package {name!r}: {reason}", PluginWarning, stacklevel=2)
    wanted = None if restrict is None else {name.strip() for name in restrict.split(",") if name.strip()}
    for name in sorted((wanted or set()) - {entry.name for entry in found} - set(BUILTIN)):
        raise UnknownNameError(f"plugin in {ENVIRONMENT}", name, [entry.name for entry in found])
    for entry in found:
        if (wanted is not None and entry.name not in wanted) or values.get(entry.name) == entry.value:
            continue
        try:
            if entry.name in modules:
                raise ImportError(f"another plugin ({values[entry.name]}) has that name")
            modules[entry.name] = entry.load()
            values[entry.name] = entry.value
        except (Exception, SystemExit) as error:  # a stranger's package may fail in any way; the rest must work
            failed.append((entry.name, _line(error)))
            warnings.warn(
                f"the plugin {entry.name!r} ({entry.value}) failed to import and is left out: {failed[-1][1]}",
                PluginWarning,
                stacklevel=2,
            )
    return modules, failed


def load_registry(restrict: str | None = None) -> Registry:
    """The registry of the installed plugins; arguments, errors and warnings as of `load_plugins` and `build_registry`."""
    modules, failed = load_plugins(restrict)
    registry = build_registry(modules)
    return Registry(registry.cards, registry.plugins, (*failed, *registry.failed))


@functools.lru_cache(maxsize=4)
def _loaded(restrict: str | None) -> Registry:
    return load_registry(restrict)


def registry() -> Registry:
    """The registry of this process, made at the first use."""
    return _loaded(os.environ.get(ENVIRONMENT))


def known_here(kind: str, text: str) -> str:
    """The name itself where it is registered; else what it means here, if it is known from elsewhere (`aliases`).

    Raises:
        OptionError: it is known from elsewhere, and nothing here is the same.
    """
    registered = registry().cards
    if any(text.partition(":")[0] in registered[other] for other in (kind, *(["decoders"] if kind == "samplers" else []))):
        return text
    return canonical(kind, text)


def resolve(sampler: str | SamplerCard | Callable[..., Any]) -> SamplerCard:
    """A sampler's card from its name (its options may stand behind it: "unipc:order=2"), itself, or a plain function."""
    if isinstance(sampler, SamplerCard):
        return sampler
    if isinstance(sampler, str):
        sampler = known_here("samplers", sampler)
        name, preset = parse_options(sampler)
        if name not in registry().cards["samplers"] and name in registry().cards["decoders"]:
            fitting = ", ".join(sorted(registry().cards["samplers"])) or "none"
            raise OptionError(f"{name!r} decodes tokens, and this model is continuous. Samplers that fit: {fitting}.")
        card = typing.cast(SamplerCard, registry().get("samplers", name))
        return replace(card, name=sampler, preset=card.check(preset, partial=True)) if preset else card
    if callable(sampler):
        said = {"name": getattr(sampler, "__name__", "sampler"), **getattr(sampler, DECLARED, {})}
        return SamplerCard(**said, fn=sampler, skip=4)
    raise OptionError(f"sampler must be a name or a function (model, x, grid, noise), got {type(sampler).__name__}.")
