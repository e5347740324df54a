"""The conformance kit: what every sampler must prove, a stranger's included.

In a plugin's tests, two lines:

    from solverkit.testing import parametrize_with_checks

    @parametrize_with_checks(["my-sampler"])
    def test_conformance(card, options, check):
        check(card, options)

A check raises AssertionError with the measured figures. `check_sampler` runs all of them and returns what happened.
"""

from __future__ import annotations

import math
import pickle
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from .counting import counting
from .errors import BudgetError, OptionError, SolverKitError
from .grid import Grid
from .level import Level
from .noise import Noise, SampleNoise, sample_seeds
from .plan import Plan, advance, begin, trace
from .plugins import SamplerCard, resolve
from .problems import gaussian, mixture
from .sampling import default_grid, fit_grid, make_grid, sample
from .schedule import EDM, Flow, Schedule
from .variance_preserving import VP

Check = Callable[[SamplerCard, Mapping[str, Any]], None]
ORDER_STEPS = (26, 50, 80, 158)  # 2 more than a multiple of 6: packed single-step solvers then end alike, with full steps
ORDER_SLACK = 0.25


class CheckResult(NamedTuple):
    """One check of one option set: did it pass, and if not, the figures."""

    name: str
    passed: bool
    detail: str


def _schedules() -> list[Schedule]:
    return [EDM(), VP(continuous=True), Flow()]


def order_grid(
    schedule: Schedule, order: int, n: int, high: float = 5.0, low: float = 0.2, jagged: bool = True
) -> tuple[Grid, float]:
    """n steps between two ratios, and the length h of a regular one, in log-SNR, after a ramp of small ones.

    The ramp begins with steps of relative length h^(order - 1) and doubles them until they are regular. It gives a
    multistep method starting values of its own accuracy (without it the first-order first step hides the order), and it
    doubles because a polynomial through nearly equal nodes would amplify their errors. Regular steps alternate between
    1.3 h and 0.7 h (jagged), so that a method which forgets the ratio of its steps is found out. The grid ends well above
    0, where the jump to 0 would hide the order again.
    """
    ramp: list[float] = []
    if order > 2:
        ramp = [2.0**k * n ** (2.0 - order) for k in range(math.ceil((order - 2) * math.log2(n)))]
    swing = 0.3 if jagged else 0.0
    lengths = np.array(ramp + [1.0 + swing * (-1.0) ** i for i in range(n - len(ramp) - 1, -1, -1)])
    u = np.concatenate([[0.0], np.cumsum(lengths)]) / lengths.sum()
    ratios = np.exp(math.log(high) + u * math.log(low / high))
    return Grid.from_ratios(schedule, [float(v) for v in ratios]), float(math.log(high / low) / lengths.sum())


def _run(
    card: SamplerCard, model: Any, x: torch.Tensor, grid: Grid, options: Mapping[str, Any], seed: int = 0
) -> torch.Tensor:
    draw = SampleNoise(sample_seeds(seed, len(x)), x.shape[1:], x.dtype)
    return card.fn(model, x, grid, Noise(draw), **options)


def _drive(
    plan: Plan, model: Any, x: torch.Tensor, seed: int = 0, edit: Callable[[int, torch.Tensor], torch.Tensor] | None = None
) -> torch.Tensor:
    draw = SampleNoise(sample_seeds(seed, len(x)), x.shape[1:], x.dtype)
    x, state = begin(plan, x, draw)
    for j, level in enumerate(plan.levels):
        if edit is not None:
            x = edit(j, x)
        x, state = advance(plan, state, x, model(x, level), draw)
    return x


def check_order(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """Against the exact ODE map of a Gaussian, log error falls with at least the declared order - 0.25, in every frame."""
    order = card.order_of(options)
    if order is None:
        return
    settings = {**card.order_options, **options}
    for schedule in _schedules():
        slope, errors = measured_order(card, settings, schedule, order)
        assert slope >= order - ORDER_SLACK, (
            f"{card.name} {dict(options)} on {type(schedule).__name__}: declared order {order}, measured {slope:.2f} "
            f"(errors {', '.join(f'{e:.2e}' for e in errors)} at {ORDER_STEPS} steps)"
        )


def measured_order(
    card: SamplerCard, options: Mapping[str, Any], schedule: Schedule, order: int
) -> tuple[float, list[float]]:
    """Slope of log error against log h on `order_grid`s that serve `order`, and the errors (RMS to the exact ODE map)."""
    target = gaussian(dim=6, condition=100.0, schedule=schedule)
    errors, lengths = [], []
    for n in ORDER_STEPS:
        grid, h = order_grid(schedule, order, n, jagged=not card.smooth_steps)
        x = grid[0] * torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        exact = target.transport(x, grid[0], grid[-1])
        errors.append(float((_run(card, target, x, grid, options) - exact).square().mean().sqrt()))
        lengths.append(h)
    slope = np.polyfit(np.log(lengths[1:]), np.log(np.maximum(errors[1:], 1e-300)), 1)[0]
    return float(slope), errors


def _short_grids(steps: int = 7) -> list[tuple[Any, Grid]]:
    return [
        (mixture(dim=4, modes=3, schedule=schedule), make_grid("flow" if schedule.frame else "karras", schedule, steps))
        for schedule in _schedules()
    ]


def check_spellings(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """Pull = plan to 1e-12 in float64; a plan survives pickling, and a state survives it in the middle of a run."""
    if not card.traceable:
        return
    for target, grid in _short_grids():
        x = _start(grid, 3, 4)
        plan = pickle.loads(pickle.dumps(trace(card, grid, **options)))
        pulled, pushed = _run(card, target, x, grid, options), _drive(plan, target, x)
        difference = float((pulled - pushed).abs().max())
        assert difference <= 1e-12 * max(1.0, float(pulled.abs().max())), f"pull and plan differ by {difference:.2e}"
        draw = SampleNoise(sample_seeds(0, len(x)), x.shape[1:], x.dtype)
        y, state = begin(plan, x, draw)
        for level in plan.levels:
            state = pickle.loads(pickle.dumps(state))
            denoised = target(y, level)
            advance(plan, state, y, 2 * denoised, draw)  # a step that is repeated must leave no trace
            y, state = advance(plan, state, y, denoised, draw)
        assert torch.equal(y, pushed), "a pickled state, or a repeated step, changes the run"


def _start(grid: Grid, batch: int, dim: int, seed: int = 1) -> torch.Tensor:
    draw = SampleNoise(sample_seeds(seed, batch), (dim,), torch.float64)
    return draw(0) * float(grid[0])


def check_nfe(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """Counted evaluations = the plan's; a budget is a ceiling that is met as closely as the method allows."""
    for target, grid in _short_grids():
        if card.traceable:
            with counting() as count:
                result = sample(target, card, grid=grid, num_samples=3, **options)
            plan = trace(card, grid, **options)
            assert result.nfe == plan.nfe == count.rows / 3, f"counted {result.nfe}, the plan says {plan.nfe}"
            assert len(plan.boundary) == plan.nfe and plan.boundary[0], "the first evaluation must start a step"
            for nfe in (5, 8):
                try:
                    fitted = fit_grid(card, default_grid(card, target.schedule), target.schedule, nfe, dict(options))
                except BudgetError:
                    continue
                spent = trace(card, fitted, **options).nfe
                finer = make_grid(default_grid(card, target.schedule), target.schedule, len(fitted))
                assert spent <= nfe < trace(card, finer, **options).nfe, f"asked for {nfe} evaluations, spent {spent}"
        else:
            result = sample(target, card, grid=grid, num_samples=2, **options)
            assert result.nfe >= 1


def alternatives(card: SamplerCard, name: str) -> list[Any]:
    """Other values of an option, by its type."""
    default, hint = card.defaults[name], card.hints.get(name)
    if typing.get_origin(hint) is Literal:
        return [v for v in typing.get_args(hint) if v != default]
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, int):
        return [v for v in (default - 1, default + 1, default + 2, 1) if v >= 1 and v != default]
    if isinstance(default, float):
        return [0.5, 2.0] if not math.isfinite(default) else [0.7 * default, 1.1 * default, default + 0.2, default + 1.0]
    return [variant[name] for variant in card.variants if variant.get(name, default) != default]


def check_options(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """Every declared option really changes what the sampler does, alone or together with one of its variants."""
    for name in card.defaults:
        values = alternatives(card, name)
        assert values, f"{card.name}: the option {name!r} has no other value to try; annotate it, or name one in `variants`"
        acts = {
            repr(value): any(
                _behaves(card, {**context, name: value}) not in (None, _behaves(card, dict(context)))
                for context in ({}, options, *card.variants)
            )
            for value in values
        }
        literal = typing.get_origin(card.hints.get(name)) is Literal
        assert all(acts.values()) if literal else any(acts.values()), (
            f"{card.name}: the option {name!r} does not act (which values change anything: {acts})"
        )


def _behaves(card: SamplerCard, options: dict[str, Any]) -> Any:
    """What an option set does: the plan's segments, or a run's output; None if it refuses."""
    schedule = EDM()
    grids = [make_grid("karras", schedule, 8, last=last) for last in ("zero", "min")]
    try:
        if card.traceable:
            return [trace(card, grid, **options).segments for grid in grids]
        x = _start(grids[0], 2, 4)
        return _run(card, mixture(dim=4, modes=3, schedule=schedule), x, grids[0], options).numpy().tobytes()
    except SolverKitError as error:
        return str(error) if not isinstance(error, OptionError) else None


def check_edits(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """An edit of the state at the start of any step acts as if the run had been started there with the edited state.

    On a Gaussian everything is linear, so the effect of an edit is the difference of two runs. History from before the
    edit may change it by O(h): 2 % and a term that halves with h.
    """
    if not card.traceable:
        return
    for schedule in (EDM(), Flow()):
        target = gaussian(dim=4, condition=10.0, schedule=schedule)
        errors = []
        for n in (40, 80):
            grid, _ = order_grid(schedule, 1, n, high=8.0, low=0.3, jagged=False)
            plan = trace(card, grid, **options)
            x = _start(grid, 2, 4)
            delta, plain, worst = 0.1 * torch.ones_like(x), _drive(plan, target, x), 0.0
            nodes = {float(s) for s in grid}  # a churned level lies between them: its step cannot be restarted
            starts = [j for j in range(plan.nfe) if plan.boundary[j] and float(plan.levels[j]) in nodes]
            for at in starts[n // 8 : -2 : n // 8 + 1]:
                edited = _drive(plan, target, x, edit=lambda j, y, at=at, d=delta: y + d if j == at else y)  # type: ignore[misc]
                expected = _effect(target, grid, plan.levels[at], delta, card, options)
                worst = max(worst, float((edited - plain - expected).norm() / expected.norm()))
            errors.append(worst)
        assert errors[0] <= 0.25 and errors[1] <= max(0.02, 0.75 * errors[0]), (
            f"an edit at the start of a step is off by {errors[0]:.1%} (40 steps) and {errors[1]:.1%} (80 steps) "
            "of its effect"
        )


def _effect(
    target: Any, grid: Grid, level: Level, delta: torch.Tensor, card: SamplerCard, options: Mapping[str, Any]
) -> torch.Tensor:
    """What an edit at `level` does to the end of the run: the sampler itself, restarted there."""
    rest = [level, *(s for s in grid if s < level)]
    tail = trace(card, Grid(tuple(rest), grid.schedule), **options)
    zero = torch.zeros_like(delta)
    return _drive(tail, target, delta) - _drive(tail, target, zero)


def check_independence(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """Sample i is the same alone or in a batch: its noise bit for bit, its result to 1e-10 in float64."""
    for target, grid in _short_grids():
        together = sample(target, card, grid=grid, num_samples=5, seed=3, dtype=torch.float64, **options).x
        seeds = sample_seeds(3, 5)
        for i in (0, 4):
            alone = sample(target, card, grid=grid, num_samples=1, seed=[seeds[i]], dtype=torch.float64, **options).x
            difference = float((alone[0] - together[i]).abs().max())
            assert difference <= 1e-10, f"sample {i} differs by {difference:.2e} between batches of 1 and 5"


def check_finite(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """No NaN from sigma_max, from alpha = 0, to 0, in one step, in float32."""
    for schedule in (*_schedules(), VP(), VP(zero_terminal_snr=True), VP(integer_time=True)):
        target = mixture(dim=4, modes=3, schedule=schedule)
        name = "flow" if schedule.frame else "karras"
        for steps in (1, 2, 3, 6, 17):
            x = sample(target, card, steps=steps, grid=name, num_samples=2, **options).x
            assert bool(torch.isfinite(x).all()), f"{type(schedule).__name__}, {steps} steps: {x}"


def check_input_untouched(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """The caller's tensor, the states that the network saw, its answers and global randomness are left as they were."""
    for target, grid in _short_grids():
        x = _start(grid, 2, 4)
        before = x.clone()
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []

        def model(
            y: torch.Tensor, s: float, target: Any = target, grid: Grid = grid, seen: list[Any] = seen
        ) -> torch.Tensor:
            denoised = target(y, s if isinstance(s, Level) else grid.at(s))
            seen.extend([(y, y.clone()), (denoised, denoised.clone())])
            return denoised

        torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
        _run(card, model, x, grid, options)
        assert torch.equal(x, before), "the sampler changed x in place"
        assert all(torch.equal(a, b) for a, b in seen), "the sampler changed an evaluated state or an answer in place"
        assert torch.equal(torch.get_rng_state(), torch_state), "the sampler used or set torch's global generator"
        assert (np.random.get_state()[1] == numpy_state).all(), "the sampler used numpy's global generator"  # type: ignore[index]


def check_ends(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """A denoiser that always answers mu ends exactly at mu: at s = 0, from alpha = 0 and from sigma_max, in a few steps."""
    for target, _ in _short_grids():
        mu = torch.tensor([0.3, -1.0, 0.0, 2.0], dtype=torch.float64)
        for n in (1, 2, 5, 16):
            grid = make_grid("flow" if target.schedule.frame else "karras", target.schedule, n)
            out = _run(card, lambda y, s, mu=mu: mu.expand_as(y).clone(), _start(grid, 2, 4), grid, options)  # type: ignore[misc]
            error = float((out - mu).abs().max())
            assert error <= 1e-10, f"{n} steps: a constant prediction is missed by {error:.2e} at s = 0"


def check_law(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """A stochastic sampler keeps the law: on a Gaussian its exact mean and variance converge to the marginal's.

    The run is linear in its start and its draws, so one run a draw with that draw alone set to 1 gives the variance without
    Monte Carlo. Two draws and two seeds must differ.
    """
    if not card.traceable:
        return
    for schedule in (EDM(), Flow()):
        target = gaussian(dim=1, schedule=schedule)
        variance, mean = float(target.target.eigenvalues), float(target.target.means)
        errors = []
        for n in (30, 120):
            grid, _ = order_grid(schedule, 1, n, high=8.0, low=0.2, jagged=False)
            plan = trace(card, grid, **options)
            if plan.draws == 0:
                return
            ordinals = [i.payload[0] for segment in plan.segments for i in segment.instructions if i.kind == "draw"]
            s, t = grid[0], grid[-1]
            rows = len(ordinals) + 2
            x = torch.full((rows, 1), s.alpha * mean, dtype=torch.float64)
            x[1] += math.sqrt(s.alpha**2 * variance + s**2)

            def draw(ordinal: int, s: float, t: float, ordinals: list[int] = ordinals, rows: int = rows) -> torch.Tensor:
                z = torch.zeros(rows, 1, dtype=torch.float64)
                z[2 + ordinals.index(ordinal)] = 1.0
                return z

            x, state = begin(plan, x, draw)
            for level in plan.levels:
                x, state = advance(plan, state, x, target(x, level), draw)
            got = float((x[1:] - x[0]).square().sum())
            wanted = t.alpha**2 * variance + t**2
            errors.append(max(abs(got / wanted - 1), abs(float(x[0]) - t.alpha * mean)))
        assert errors[1] <= max(0.02, 0.6 * errors[0]) and errors[1] <= 0.1, (
            f"the law is off by {errors[0]:.1%} (30 steps) and {errors[1]:.1%} (120 steps): wrong noise or wrong mean"
        )
    target, grid = _short_grids()[0]
    x = _start(grid, 2, 4)
    assert not torch.equal(_run(card, target, x, grid, options, 0), _run(card, target, x, grid, options, 1)), (
        "seeds do not act"
    )


CHECKS: tuple[Check, ...] = (
    check_order,
    check_spellings,
    check_nfe,
    check_options,
    check_edits,
    check_independence,
    check_finite,
    check_ends,
    check_law,
    check_input_untouched,
)


def option_sets(card: SamplerCard) -> list[dict[str, Any]]:
    """The defaults and the declared variants."""
    return [{}, *card.variants]


def check_sampler(sampler: str | SamplerCard | Callable[..., Any]) -> list[CheckResult]:
    """Run every check on a sampler's defaults and variants.

    Args:
        sampler: A registered name, a card, or a function.

    Returns:
        One result a check and option set; nothing is raised for a failed check.
    """
    card = resolve(sampler)
    results = []
    for options in option_sets(card):
        for check in CHECKS:
            name = f"{check.__name__.removeprefix('check_')} {options or ''}".strip()
            try:
                check(card, options)
                results.append(CheckResult(name, True, ""))
            except Exception as error:  # whatever a stranger's sampler raises is a failed check
                results.append(CheckResult(name, False, f"{type(error).__name__}: {error}"))
    return results


def parametrize_with_checks(samplers: Iterable[str | SamplerCard | Callable[..., Any]]) -> Any:
    """A pytest decorator: the test gets (card, options, check) for each sampler, option set and check."""
    import pytest

    cards: Sequence[SamplerCard] = [resolve(s) for s in samplers]
    cases = [
        pytest.param(card, options, check, id=f"{card.name}-{_label(options)}{check.__name__.removeprefix('check_')}")
        for card in cards
        for options in option_sets(card)
        for check in CHECKS
    ]
    return pytest.mark.parametrize(("card", "options", "check"), cases)


def _label(options: Mapping[str, Any]) -> str:
    return "".join(f"{k}={v}-" for k, v in options.items())
