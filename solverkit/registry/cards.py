"""What a plugin says of each thing that it registers: a card with its name, its options, and what is claimed of it."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import BudgetError, OptionError, nearest
from .hints import describe, fits
from .spelled import FIRST, with_names

RESERVED = {"denoiser", "sampler", "nfe", "steps", "num_samples", "shape", "x", "seed", "grid", "levels", "constrain",
            "device", "dtype", "progress", "callback", "return_trajectory", "models"}  # fmt: skip


POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL,
)  # fmt: skip


@dataclass(frozen=True)
class Card:
    """A registered function: its name, who registered it, and the options that it takes.

    Attributes:
        name: What users type.
        fn: The function.
        plugin: The plugin that registered it.
        reference: Where its formula is from.
        cite: The same for a bibliography: keys of references.bib, separated by spaces, or BibTeX entries.
        skip: How many leading parameters are not options.
        preset: Options that were written behind the name ("unipc:order=2"): defaults of their own.
    """

    name: str
    fn: Callable[..., Any]
    plugin: str = ""
    reference: str = ""
    cite: str = ""
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
        except Exception:  # an annotation may be any text
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

    def _facts(self) -> list[tuple[str, str]]:
        """What a notebook shows beside the options."""
        return [("source", self.reference), ("plugin", self.plugin)]

    def _repr_html_(self) -> str:
        from ..notebook import html_table

        options = [(f"option {name}", repr(self.defaults.get(name, "required"))) for name in self.options]
        facts = [(name, value) for name, value in self._facts() if value]
        return html_table(f"{self.name}: {self.summary}", ("", ""), [*facts, *options])

    def validate(self) -> None:
        """Raises TypeError for a card that cannot work: a field of another type, a function that takes something else."""
        if not isinstance(self.name, str) or not callable(self.fn):
            raise TypeError(f"expected register(name: str, fn: callable), got {self.name!r}, {self.fn!r}")
        if not self.name or set(self.name) & set(" \t\n,:="):
            raise TypeError(f"a name is one word without commas, colons and equals signs, got {self.name!r}")
        hints = typing.get_type_hints(type(self))
        for one in fields(self):
            value = getattr(self, one.name)
            if not fits(value, hints[one.name]):
                raise TypeError(f"{one.name} must be {describe(hints[one.name])}, got {value!r}")
        given = [p for p in inspect.signature(self.fn).parameters.values() if p.kind in POSITIONAL]
        if len(given) < self.skip and not any(p.kind is p.VAR_POSITIONAL for p in given):
            raise TypeError(f"its function takes {len(given)} arguments, and is called with {self.skip}")
        for options in getattr(self, "variants", ()):
            unknown = sorted(set(options) - set(self.options)) if isinstance(options, Mapping) else [repr(options)]
            if unknown:
                raise TypeError(f"variants are option sets, such as ({{'order': 2}},), and {unknown[0]} is no option")

    def _must_answer(self, *names: str) -> None:
        """Raises TypeError for a field that is a function of the options and fails at their defaults."""
        for name in names:
            value = getattr(self, name)
            if callable(value) and not self.required:
                try:
                    value(self.defaults)
                except Exception as error:  # a stranger's function may fail in any way
                    raise TypeError(f"{name} fails at the defaults {self.defaults}: {error!r}") from None

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
        taken = sorted(RESERVED & set(self.options))
        if taken:
            raise TypeError(f"{taken[0]!r} is an argument of sk.sample and cannot be an option; rename it")
        self._must_answer("order", "linear")

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

    def _facts(self) -> list[tuple[str, str]]:
        order = self.order_of({})
        kind = "" if self.traceable else "chooses its steps while it runs"
        return [("order", "none" if order is None else str(order)), ("steps", kind), *super()._facts()]


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
        self._must_answer("order", "exact", "biased", "remembers")

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

    def validate(self) -> None:
        """Raises TypeError for a card that cannot work."""
        super().validate()
        self._must_answer("to_zero", "from_the_top")

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
