"""The registry: what plugins registered, as cards. Built-ins come through the same door as a stranger's package."""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import numbers
import os
import types
import typing
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import Any

import pluggy

from ..errors import BudgetError, OptionError, PluginError, PluginWarning, SolverKitError, UnknownNameError, nearest
from . import hookspecs
from .aliases import canonical
from .declare import DECLARED
from .spelled import FIRST, parse_options, with_names

KINDS = ("samplers", "decoders", "grids", "models", "metrics", "tasks")
RESERVED = {"denoiser", "sampler", "nfe", "steps", "num_samples", "shape", "x", "seed", "grid", "levels", "constrain",
            "device", "dtype", "progress", "callback", "return_trajectory", "models"}  # fmt: skip
BUILTIN = {"grids": "solverkit.grid.layouts", "models": "solverkit.files.builtin", "bench": "solverkit.bench.metrics",
           "token-models": "solverkit.files.token_models", "token-grids": "solverkit.tokens.grids"}  # fmt: skip
ENVIRONMENT = "SOLVERKIT_PLUGINS"


@dataclass(frozen=True)
class Card:
    """A registered function: its name, who registered it, and the options that it takes.

    Attributes:
        name: What users type.
        fn: The function.
        plugin: The plugin that registered it.
        reference: Where its formula is from.
        skip: How many leading parameters are not options.
        preset: Options that were written behind the name ("unipc:order=2"): defaults of their own.
    """

    name: str
    fn: Callable[..., Any]
    plugin: str = ""
    reference: str = ""
    skip: int = 0
    preset: Mapping[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def options(self) -> dict[str, inspect.Parameter]:
        """The keyword arguments of the function, by name."""
        parameters = list(inspect.signature(self.fn).parameters.values())[self.skip :]
        return {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}

    @functools.cached_property
    def hints(self) -> dict[str, Any]:
        """Annotated types of the options; none where the annotations cannot be resolved."""
        try:
            return typing.get_type_hints(inspect.unwrap(self.fn))
        except (NameError, TypeError):
            return {}

    @property
    def defaults(self) -> dict[str, Any]:
        """Options and their defaults."""
        return {**{name: p.default for name, p in self.options.items() if p.default is not p.empty}, **self.preset}

    @property
    def required(self) -> list[str]:
        """Options without a default."""
        return [name for name in self.options if name not in self.defaults]

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.fn) or "").split("\n")[0]

    def validate(self) -> None:
        """Raises TypeError for a card that cannot work."""
        if not isinstance(self.name, str) or not callable(self.fn):
            raise TypeError(f"expected register(name: str, fn: callable), got {self.name!r}, {self.fn!r}")

    def check(self, options: Mapping[str, Any], partial: bool = False) -> dict[str, Any]:
        """The options, after their names and types were checked; `partial` leaves out what has no default.

        A value without a name (`spelled.FIRST`) is that of the first option.

        Raises:
            OptionError: an unknown option (the known ones are named), or a value of the wrong type.
        """
        bare = FIRST in options
        options = {**self.preset, **with_names(self.name, dict(options), self.options)}
        for name, value in options.items():
            if name not in self.options:
                known = ", ".join(f"{k}={v!r}" for k, v in self.defaults.items()) or "none"
                raise OptionError(
                    f"{self.name!r} has no option {name!r}.{nearest(name, self.options)} Its options: {known}."
                )
            if not fits(value, self.hints.get(name, Any)):
                given = f"{value!r} is read as {name}=, the first option, and" if bare else f"option {name}={value!r}"
                raise OptionError(
                    f"{given} of {self.name!r} must be {describe(self.hints[name])} (default {self.defaults.get(name)!r})."
                )
        missing = [name for name in self.required if name not in options]
        if missing and not partial:
            raise OptionError(self.absent(missing[0]))
        return dict(options)

    def absent(self, name: str) -> str:
        """What is said where a required option is neither given nor found."""
        return f"{self.name!r} needs the option {name!r}: {describe(self.hints.get(name, Any))}."


@dataclass(frozen=True)
class SamplerCard(Card):
    """A sampler (model, x, grid, noise, **options) -> x.

    Attributes:
        order: Order of convergence of the deterministic part; a function of the options where it depends on them; None
            where the method has none (a stochastic one).
        traceable: False for a solver that branches on values (adaptive steps): it runs in `sk.sample` only.
        variants: Option sets that the proofs run beside the defaults; instead of them where an option is required.
        grid: The grid to use where the user names none.
        order_options: Options that the order proof sets (no lower-order ending).
        smooth_steps: The order holds only where neighbouring steps have nearly the same length.
        linear: On a linear problem the result is linear in the start and the draws; a function of the options where it
            depends on them. False for steps that depend on norms: their law and edits are then proven in another way.
        informed: It knows something of the model (statistics of the data): what it does to a model that contradicts
            them, a constant prediction or another Gaussian, is proven by its own tests.
        student: With an exact denoiser it does not keep the law of the data: it runs networks whose one answer is a sample,
            or renews noise however short its steps are. Its law is proven by its own tests.
        option_examples: Option sets that only the proof of the options traces.
        multistep: It uses evaluations of earlier steps.
        lower: (name, options) of the family's next lower order: growing steps must not make it worse than that.
        prepare: prepare(denoiser, options) -> options, called by `sk.sample` before anything else: for options that can be
            found from what is sampled (statistics that belong to the model). It may take a third argument, shape: of the
            batch, (B, ...), or None where there is no batch.
        advice: What is said where a required option is neither given nor found.
        from_the_top: A run begins at the most noise of the schedule, on whatever layout a pipeline has.
        restarts: From the start of any step on, a run is the sampler on the rest of its grid. False for a sampler that
            repeats parts of it.
        paced: paced(options) -> (card, options) of the sampler whose plan a pull-only one runs: a budget is the plan's.
    """

    order: int | Callable[[dict[str, Any]], int | None] | None = None
    traceable: bool = True
    variants: tuple[dict[str, Any], ...] = ()
    grid: str | None = None
    order_options: dict[str, Any] = field(default_factory=dict)
    smooth_steps: bool = False
    linear: bool | Callable[[dict[str, Any]], bool] = True
    restarts: bool = True
    from_the_top: bool = False
    informed: bool = False
    student: bool = False
    option_examples: tuple[dict[str, Any], ...] = ()
    multistep: bool = False
    lower: tuple[str, dict[str, Any]] | None = None
    prepare: Callable[..., dict[str, Any]] | None = None
    advice: str = ""
    paced: Callable[[dict[str, Any]], tuple[SamplerCard, dict[str, Any]]] | None = None

    def validate(self) -> None:
        """Raises TypeError for a card that cannot work, or whose options `sk.sample` would take for its own."""
        super().validate()
        if not (self.order is None or callable(self.order) or isinstance(self.order, int)):
            raise TypeError(f"order must be an int, a function of the options, or None; got {self.order!r}")
        taken = sorted(RESERVED & set(self.options))
        if taken:
            raise TypeError(f"{taken[0]!r} is an argument of sk.sample and cannot be an option; rename it")

    def absent(self, name: str) -> str:
        """What is said where a required option is neither given nor found."""
        return self.advice or super().absent(name)

    def prepared(self, denoiser: Any, options: Mapping[str, Any], shape: tuple[int, ...] | None = None) -> dict[str, Any]:
        """The checked options of a run: those that were given, and what `prepare` finds from the denoiser.

        Args:
            denoiser: Of the run.
            options: That were given.
            shape: Of the batch, (B, ...), where there is one.

        Raises:
            OptionError: as `check`.
            SolverKitError: from `prepare`.
        """
        if self.prepare is None:
            return self.check(options)
        batch = {"shape": shape} if "shape" in inspect.signature(self.prepare).parameters else {}
        return self.check(self.prepare(denoiser, self.check(options, partial=True), **batch))

    @property
    def takes_budget(self) -> bool:
        """Whether nfe= says how long a run is: there is a plan, its own or that of `paced`."""
        return self.traceable or self.paced is not None

    def pace(self, options: Mapping[str, Any]) -> tuple[SamplerCard, dict[str, Any]]:
        """The card and the options whose plan a budget lays out: its own, or those of `paced`."""
        if self.paced is None:
            return self, dict(options)
        card, own = self.paced({**self.defaults, **options})
        return card, card.check(own)

    def is_linear(self, options: Mapping[str, Any]) -> bool:
        """Whether the sampler is linear at these options."""
        return bool(self.linear({**self.defaults, **options}) if callable(self.linear) else self.linear)

    def order_of(self, options: Mapping[str, Any]) -> int | None:
        """The declared order at these options."""
        return self.order({**self.defaults, **options}) if callable(self.order) else self.order


@dataclass(frozen=True)
class DecoderCard(Card):
    """A sampler of token models (model, x, grid, noise, **options) -> x, x of ids (B, L).

    Attributes:
        process: Of the models that it is for: "absorbing" (masks) or "uniform".
        order: How fast its law approaches the model's in total variation as steps grow; a function of the options where it
            depends on them; None where nothing is claimed.
        exact: "always": its law is the model's; "one-token": it is where one token is revealed an evaluation; or "". A
            function of the options where it depends on them.
        evaluations: (steps, options) -> evaluations of a run of that many steps; None: one a step.
        own_pace: It decides itself how many tokens it reveals at once; a budget is then a ceiling.
        biased: Its law is not the model's even on independent tokens (it looks at a draw before it keeps it).
        remembers: A step depends on more than the tokens and the step's number, so its law is proven by samples alone.
        variants: Option sets that the proofs run beside the defaults.
    """

    process: str = "absorbing"
    order: int | Callable[[dict[str, Any]], int | None] | None = None
    exact: str | Callable[[dict[str, Any]], str] = ""
    evaluations: Callable[..., int] | None = None
    own_pace: bool = False
    biased: bool | Callable[[dict[str, Any]], bool] = False
    remembers: bool | Callable[[dict[str, Any]], bool] = False
    variants: tuple[dict[str, Any], ...] = ()

    def validate(self) -> None:
        """Raises TypeError for a card that cannot work."""
        super().validate()
        if self.process not in ("absorbing", "uniform"):
            raise TypeError(f"process must be 'absorbing' or 'uniform', got {self.process!r}")
        taken = sorted(RESERVED & set(self.options))
        if taken:
            raise TypeError(f"{taken[0]!r} is an argument of sk.sample and cannot be an option; rename it")

    def said(self, name: str, options: Mapping[str, Any]) -> Any:
        """A field (order, exact, biased, remembers) at these options."""
        value = getattr(self, name)
        return value({**self.defaults, **options}) if callable(value) else value

    def steps_for(self, nfe: int, options: Mapping[str, Any]) -> int:
        """The most steps that `nfe` evaluations pay for.

        Raises:
            BudgetError: not even one.
        """
        if self.evaluations is None:
            return nfe
        cost = functools.partial(self.evaluations, options={**self.defaults, **options})
        if cost(1) > nfe:
            raise BudgetError(f"one step of {self.name!r} takes {cost(1)} evaluations, got nfe={nfe}.")
        low, high = 1, nfe + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if cost(middle) <= nfe else (low, middle)
        return low


@dataclass(frozen=True)
class GridCard(Card):
    """A grid fn(schedule, n, **options) -> n + 1 falling ratios sigma / alpha.

    Attributes:
        to_zero: The last level is 0; a function of the options where it depends on them.
        from_the_top: The first level is the schedule's largest; a function of the options where it depends on them.
        variants: Option sets that the proofs run beside the defaults; instead of them where an option is required.
    """

    to_zero: bool | Callable[[dict[str, Any]], bool] = True
    from_the_top: bool | Callable[[dict[str, Any]], bool] = True
    variants: tuple[dict[str, Any], ...] = ()

    def said(self, name: str, options: Mapping[str, Any]) -> bool:
        """A field (to_zero, from_the_top) at these options."""
        value = getattr(self, name)
        return bool(value({**self.defaults, **options}) if callable(value) else value)


@dataclass(frozen=True)
class ModelCard(Card):
    """A model fn(**options) -> denoiser, token model or system of components.

    Attributes:
        variants: Option sets that the proofs run beside the defaults; instead of them where an option is required.
    """

    variants: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class MetricCard(Card):
    """A metric of a bench run.

    Attributes:
        lower_is_better: Which way is better.
        unit: Of the figure, in words.
        min_samples: Fewer samples than that give no figure: the metric is then not asked.
        statistic: "rms", "mean" or "median", where the figure is that of one number a sample (`Measured.values`): samples
            of several seeds are then pooled, and two samplers that share their noise are compared sample by sample.
        to_floor: Neither low nor high is good: the figure should be that of real samples (`Measured.floor`).
        variants: Option sets that the proofs run beside the defaults.
    """

    lower_is_better: bool = True
    unit: str = ""
    min_samples: int = 1
    statistic: str | None = None
    to_floor: bool = False
    variants: tuple[dict[str, Any], ...] = ()

    @property
    def better(self) -> str:
        """Which way is better, in a word."""
        return "as real samples" if self.to_floor else "less" if self.lower_is_better else "more"


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
    """All cards by kind and name, the plugins that were loaded, and those that failed."""

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
    """A registry of plugin modules (or objects with hooks), by plugin name.

    Raises:
        PluginError: two plugins register one name, or a registration is malformed.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for name, module in modules.items():
        manager.register(module, name=name)
    cards: dict[str, dict[str, Card]] = {kind: {} for kind in KINDS}
    failed: list[tuple[str, str]] = []
    for kind in KINDS:
        card_type, skip = CARDS[kind]
        for implementation in reversed(getattr(manager.hook, f"register_{kind}").get_hookimpls()):
            plugin = implementation.plugin_name

            def register(
                name: str | Callable[..., Any], fn: Callable[..., Any] | None = None, *, _kind: str = kind,
                _plugin: str = plugin, _type: type[Card] = card_type, _skip: int = skip, **fields: Any,
            ) -> None:  # fmt: skip
                if callable(name):  # declared where it is written
                    fn = name
                    name = str(getattr(fn, DECLARED, {}).get("name", getattr(fn, "__name__", "")))
                    fields = {**{k: v for k, v in getattr(fn, DECLARED, {}).items() if k != "name"}, **fields}
                if name in cards[_kind]:
                    other = cards[_kind][name].plugin
                    raise PluginError(
                        f"two plugins register the {_kind[:-1]} {name!r}: {other} and {_plugin}. "
                        f"Restrict what is loaded with {ENVIRONMENT}=name,name."
                    )
                try:
                    made: Any = fn  # validate() says what is wrong with it
                    card = _type(name=name, fn=made, plugin=_plugin, skip=_skip, **fields)
                    card.validate()
                except TypeError as error:
                    raise PluginError(f"plugin {_plugin} registers {_kind[:-1]} {name!r} wrongly: {error}") from None
                cards[_kind][name] = card

            try:
                implementation.function(register)
            except SolverKitError:
                raise
            except Exception as error:  # a stranger's hook may fail in any way; the rest must work
                failed.append((plugin, f"{type(error).__name__}: {error}"))
                warnings.warn(
                    f"the plugin {plugin!r} failed in register_{kind} and is left out: {failed[-1][1]}",
                    PluginWarning,
                    stacklevel=3,
                )
    return Registry(cards, tuple((n, getattr(m, "__name__", repr(m))) for n, m in modules.items()), tuple(failed))


def load_plugins(restrict: str | None = None) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Import the built-ins and the plugins of the entry-point group "solverkit".

    Args:
        restrict: Comma-separated names of the only plugins to load; None loads all.

    Returns:
        The modules by name of the plugin, and (name, reason) of those that failed to import.

    Raises:
        UnknownNameError: a name of `restrict` that no installed plugin has.

    Warns:
        PluginWarning: a plugin failed to import; the rest works.
    """
    modules: dict[str, Any] = {name: importlib.import_module(path) for name, path in BUILTIN.items()}
    failed: list[tuple[str, str]] = []
    installed = sorted(entry_points(group=hookspecs.PROJECT), key=lambda e: e.name)
    wanted = None if restrict is None else {name.strip() for name in restrict.split(",") if name.strip()}
    for name in sorted((wanted or set()) - {entry.name for entry in installed} - set(BUILTIN)):
        raise UnknownNameError(f"plugin in {ENVIRONMENT}", name, [entry.name for entry in installed])
    for entry in installed:
        if wanted is not None and entry.name not in wanted:
            continue
        try:
            modules[entry.name] = entry.load()
        except Exception as error:  # a stranger's package may fail in any way; the rest must work
            failed.append((entry.name, f"{type(error).__name__}: {error}"))
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


def fits(value: Any, hint: Any) -> bool:
    """Whether a value can be what an annotation says; annotations that are no plain type always fit."""
    if hint is Any:
        return True
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, h) for h in typing.get_args(hint))
    if origin is typing.Literal:
        return isinstance(value, (str, int)) and value in typing.get_args(hint)
    if hint is float:
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and not math.isnan(value)
    if hint is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if hint is type(None):
        return value is None
    return isinstance(value, hint) if hint in (bool, str) else True


def describe(hint: Any) -> str:
    """'int', 'one of bh1, bh2', 'float or None'."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(v) for v in typing.get_args(hint))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(h) for h in typing.get_args(hint))
    return "None" if hint is type(None) else getattr(hint, "__name__", str(hint))
