"""What a metric must be: at its floor for samples that are right, worse for samples that are not, and the same twice.

A metric is asked about runs of an exact mixture, of pictures, of a chain of tokens and of text; the first of them on which
it says anything is what it is proven on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..files.hub import load
from ..proofs.finding import CheckError, at_most, holds
from ..registry.registry import MetricCard
from ..targets.exact import mixture
from ..tokens.targets import markov
from .judged import Real, Run
from .measured import Measured
from .reference import Reference

FLOOR = 0.25  # of what the worst samples are away from the floor
SAME = 1e-9
MORE = 16
TEXT = """
To be, or not to be, that is the question:
Whether 'tis nobler in the mind to suffer
The slings and arrows of outrageous fortune,
Or to take arms against a sea of troubles,
And by opposing end them. To die: to sleep;
No more; and by a sleep to say we end
The heart-ache and the thousand natural shocks
That flesh is heir to, 'tis a consummation
Devoutly to be wish'd. To die, to sleep;
To sleep: perchance to dream: ay, there's the rub;
For in that sleep of death what dreams may come
When we have shuffled off this mortal coil,
Must give us pause.
"""
LENGTH = 128


class Stage(NamedTuple):
    """What samples of a metric may be of: a model, right samples by number and seed, and what spoils them."""

    name: str
    denoiser: Any
    draw: Callable[[int, int], Tensor]
    spoiled: Mapping[str, Callable[[Tensor], Tensor]]


def stages() -> Iterator[Stage]:
    """Points, pictures, tokens and text, from cheap to dear."""
    points = mixture(dim=4, modes=3)
    of_numbers = {
        "moved": lambda x: x + 3 * x.std(),
        "all the same": lambda x: x[:1].expand_as(x).clone(),
        "noise": lambda x: 5 * torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(3)),
    }
    yield Stage("points of a mixture", points, lambda n, seed: points.target.sample(n, seed=seed), of_numbers)
    yield Stage("pictures", load("mnist"), _pictures, of_numbers)
    chain = markov(12, 4)
    yield Stage("a chain of tokens", chain, chain.target.sample, _of_tokens(4))  # type: ignore[attr-defined]
    text: Any = load("shakespeare")
    yield Stage("text", text, lambda n, seed: _lines(n, seed, text.alphabet), _of_tokens(text.vocabulary))


def _pictures(n: int, seed: int) -> Tensor:
    noise = torch.randn(n, 1, 7, 7, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, scale_factor=4, mode="bilinear").clamp(-1, 1)


def _lines(n: int, seed: int, alphabet: str) -> Tensor:
    """Windows (n, LENGTH) of the text."""
    ids = torch.tensor([alphabet.index(c) for c in TEXT])
    starts = torch.randint(0, len(ids) - LENGTH, (n,), generator=torch.Generator().manual_seed(seed))
    return ids[starts[:, None] + torch.arange(LENGTH)]


def _of_tokens(symbols: int) -> Mapping[str, Callable[[Tensor], Tensor]]:
    return {
        "all the same": torch.zeros_like,
        "noise": lambda x: torch.randint(0, symbols, x.shape, generator=torch.Generator().manual_seed(3)),
    }


def run_of(stage: Stage, x: Tensor, error: float = 0.0, n: int | None = None) -> Run:
    """A deterministic run with these samples; its converged solution and its real samples are the right ones."""
    right = stage.draw(n or len(x), 0)

    def real(k: int, part: int) -> Real | None:
        return Real(stage.draw(k, part), "right samples")

    return Run(stage.name, stage.denoiser, x, True, lambda: Reference(right, error), real)


def figure(card: MetricCard, run: Run, options: Mapping[str, Any]) -> Measured | None:
    """What the metric answers, as a `Measured`."""
    made = card.fn(run, **card.check(options))
    holds(
        made is None or isinstance(made, Measured) or (isinstance(made, (int, float)) and not isinstance(made, bool)),
        f"it answers {type(made).__name__}", "a tensor or a tuple is returned: float(...), or solverkit.bench.Measured",
    )  # fmt: skip
    return made if made is None or isinstance(made, Measured) else Measured(float(made))


def same_figure(card: MetricCard, run: Run, options: Mapping[str, Any]) -> Measured:
    """The figure of a run like one that it had a figure for."""
    made = figure(card, run, options)
    if made is None:
        text = "it has a figure for some samples and none for others like them"
        raise CheckError(text, "a condition on the values of the samples")
    return made


def stage_of(card: MetricCard, options: Mapping[str, Any]) -> tuple[Stage, int]:
    """The first stage on which the metric says anything, and a number of samples that is enough.

    Raises:
        CheckError: there is none.
    """
    n = max(card.min_samples, 64)
    tried = []
    for stage in stages():
        if figure(card, run_of(stage, stage.draw(n, 0)), options) is not None:
            return stage, n
        tried.append(stage.name)
    raise CheckError(
        f"it has no figure for {', '.join(tried)} ({n} samples each)",
        "a condition on the run that nothing meets, or min_samples that is below what the function asks for",
    )


def _wrong(card: MetricCard, options: Mapping[str, Any]) -> tuple[float, dict[str, float], float | None]:
    """The figure of right samples, those of spoiled ones, and the floor that the metric itself tells."""
    stage, n = stage_of(card, options)
    x = stage.draw(n, 0)
    right = same_figure(card, run_of(stage, x), options)
    figures = {how: figure(card, run_of(stage, spoil(x)), options) for how, spoil in stage.spoiled.items()}
    figures["a reference that is none"] = figure(card, run_of(stage, x, error=1.0), options)
    figures["a hundred calls"] = figure(card, replace(run_of(stage, x), passes=100), options)
    return right.value, {how: made.value for how, made in figures.items() if made is not None}, right.floor


def check_metric_figure(card: MetricCard, options: Mapping[str, Any]) -> None:
    """It answers a finite number (or `Measured`, or None) for right and for spoiled samples, and from min_samples on."""
    stage, _ = stage_of(card, options)
    made = figure(card, run_of(stage, stage.draw(card.min_samples, 0)), options)
    holds(
        made is not None, f"it has no figure for {card.min_samples} samples, and min_samples says that it has one",
        "min_samples is too small: say the number that the function really needs, so that a run is told before the work",
    )  # fmt: skip
    right, wrong, _ = _wrong(card, options)
    bad = {how: value for how, value in {"right samples": right, **wrong}.items() if not math.isfinite(value)}
    holds(
        not bad, f"it answers {_shown(bad)}",
        "a logarithm of 0, a division by a variance that is 0 (all samples the same), or too few samples for a covariance",
    )  # fmt: skip


def check_metric_floor(card: MetricCard, options: Mapping[str, Any]) -> None:
    """Right samples are near the floor: 0, or what the metric calls it; within a quarter of what spoiled ones are away."""
    right, wrong, floor = _wrong(card, options)
    if floor is None and (card.to_floor or not card.lower_is_better):
        return  # it says nothing of where right samples are: `direction` compares them
    away = max((abs(v - (floor or 0.0)) for v in wrong.values()), default=0.0)
    at_most(
        abs(right - (floor or 0.0)), FLOOR * away,
        f"right samples get {right:.4g}, the floor is {floor or 0.0:.4g}, and spoiled ones are up to {away:.4g} away",
        "a distance that is not 0 for equal sets (a biased estimate, a term left out), or a floor of another "
        "number of samples",
    )  # fmt: skip


def check_metric_direction(card: MetricCard, options: Mapping[str, Any]) -> None:
    """Samples that are moved, all the same, or noise are never better than right ones, and some of them are worse."""
    right, wrong, floor = _wrong(card, options)

    def loss(value: float) -> float:
        if card.to_floor:
            return abs(value - (right if floor is None else floor))
        return value if card.lower_is_better else -value

    best, scale = loss(right), max(abs(right), 1e-9)
    losses = {how: loss(value) for how, value in wrong.items()}
    worse = max(losses.values(), default=best) > best + SAME * scale
    holds(
        worse, f"right samples get {right:.4g}, and spoiled ones no worse: {_shown(wrong)}",
        "lower_is_better is the wrong way round, or the figure does not depend on the samples",
    )  # fmt: skip
    better = {how: wrong[how] for how, value in losses.items() if value < best - 0.05 * (max(losses.values()) - best)}
    holds(
        not better, f"right samples get {right:.4g}, and better ones are {_shown(better)}",
        "lower_is_better is the wrong way round; or neither low nor high is good: to_floor=True, and a floor",
    )  # fmt: skip


def check_metric_interval(card: MetricCard, options: Mapping[str, Any]) -> None:
    """An interval holds the figure, is finite, and is narrower for sixteen times as many samples."""
    stage, n = stage_of(card, options)
    widths = []
    for k in (n, MORE * n):
        made = figure(card, run_of(stage, _half_spoiled(stage, k)), options)
        if made is None or made.interval is None:
            return
        low, high = made.interval
        holds(
            low <= made.value <= high and high - low < math.inf,
            f"{k} samples: {made.value:.4g} in ({low:.4g}, {high:.4g})",
            "the ends are swapped, or they are of another statistic than the figure",
        )  # fmt: skip
        widths.append(high - low)
    at_most(
        widths[1], 0.9 * widths[0],
        f"the interval is {widths[0]:.3g} wide for {n} samples and {widths[1]:.3g} for {MORE * n}",
        "the spread over samples is taken where the error of the mean is meant (a root of n), or the interval is "
        "a constant",
    )  # fmt: skip


def _half_spoiled(stage: Stage, n: int) -> Tensor:
    """Every other sample is noise, so that samples differ in what they contribute."""
    x = stage.draw(n, 0)
    x[::2] = stage.spoiled["noise"](x)[::2]
    return x


def check_metric_order(card: MetricCard, options: Mapping[str, Any]) -> None:
    """The order of the samples (and of their converged solutions with them) does not matter, to 1e-9."""
    stage, n = stage_of(card, options)
    run = run_of(stage, _half_spoiled(stage, n))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    solved = Reference(run.reference().x[order], run.reference().error)
    first = same_figure(card, run, options)
    other = same_figure(card, replace(run, x=run.x[order], reference=lambda: solved), options)
    at_most(
        abs(first.value - other.value), SAME * max(1.0, abs(first.value)) * (1 if run.x.dtype == torch.float64 else 1e3),
        f"the figure is {first.value:.10g}, and {other.value:.10g} for the same samples in another order",
        "samples are paired with real ones by their place, or only some of them are looked at",
    )  # fmt: skip


def check_metric_repeats(card: MetricCard, options: Mapping[str, Any]) -> None:
    """The same run has the same figure and interval whatever torch was seeded with, and is left as it was."""
    stage, n = stage_of(card, options)
    run = run_of(stage, _half_spoiled(stage, n))
    before, state, found = run.x.clone(), torch.get_rng_state(), []
    try:
        for seed in (0, 1):
            torch.manual_seed(seed)
            seeded = torch.get_rng_state()
            made = same_figure(card, run, options)
            found.append((made.value, made.interval))
            drawn = torch.equal(torch.get_rng_state(), seeded)
            text = "the metric used torch's global generator"
            holds(drawn, text, "torch.randn or randperm without a generator of its own")
    finally:
        torch.set_rng_state(state)
    holds(torch.equal(run.x, before), "the metric changed the samples", "an operation in place on run.x")
    holds(found[0] == found[1], f"the same samples get {found[0]} and {found[1]}", "random numbers without a fixed seed")


def _shown(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{value:.4g} ({how})" for how, value in figures.items())


METRIC_CHECKS = (
    check_metric_figure, check_metric_floor, check_metric_direction, check_metric_interval, check_metric_order,
    check_metric_repeats,
)  # fmt: skip
