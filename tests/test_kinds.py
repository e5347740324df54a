"""The checks of grids, models and metrics must be able to fail: each fault is planted once, and found by name."""

from __future__ import annotations

import itertools
import json
import math
import random
import re

import pytest
import torch

import solverkit as sk
from solverkit.bench.measured import Measured
from solverkit.registry.registry import GridCard, MetricCard, ModelCard
from solverkit.testing import check_grid, check_metric, check_model


def failed(results):
    return {result.name: result for result in results if not result.passed}


# grids


def right(schedule, n, exponent: float = 2.0):
    top = 1 / (1 + 1 / schedule.ratio_max)
    return [schedule.ratio_max, *(s / (1 - s) for i in range(1, n + 1) for s in [top * (1 - i / n) ** exponent])]


def nan_at_the_start(schedule, n):
    return [schedule.ratio_max * (1 - i / n) for i in range(n + 1)]


def one_too_few(schedule, n):
    return right(schedule, n)[:-1]


def rising(schedule, n):
    return right(schedule, n)[::-1]


def shares_for_ratios(schedule, n):
    return [1 - i / n for i in range(n + 1)]


def beyond_the_top(schedule, n):
    return [2 * r for r in right(schedule, n)]


def above_zero(schedule, n):
    return [*right(schedule, n)[:-1], schedule.ratio_min / 2]


def all_at_the_bottom(schedule, n):
    return [schedule.ratio_max, *(schedule.ratio_min * 0.5**i for i in range(1, n)), 0.0]


def a_gap_that_stays(schedule, n):
    return [schedule.ratio_max, *(0.3 * 0.99**i for i in range(1, n)), 0.0]


def by_chance(schedule, n):
    return [schedule.ratio_max, *sorted((random.random() for _ in range(n - 1)), reverse=True), 0.0]


def idle(schedule, n, exponent: float = 3.0):
    return right(schedule, n)


def never(schedule, n):
    raise sk.errors.GridError("not on a Tuesday.")


GRIDS = [
    (nan_at_the_start, {}, "grid_levels", "VP: .*nan.* is no noise level"),
    (one_too_few, {"to_zero": False}, "grid_levels", "1 steps have 1 levels, and not 2"),
    (rising, {}, "grid_falling", "level 1 does not fall"),
    (shares_for_ratios, {}, "grid_ends", "begin at sigma / alpha = 1, and the model at 80"),
    (beyond_the_top, {"from_the_top": False}, "grid_ends", "beyond the model's largest level 80"),
    (above_zero, {}, "grid_ends", "declared 0"),
    (right, {"to_zero": False}, "grid_ends", "end at 0, declared above 0"),
    (all_at_the_bottom, {}, "grid_integers", "levels are left after rounding"),
    (a_gap_that_stays, {}, "grid_refines", "Euler errs by .* in 8 steps and by .* in 32"),
    (by_chance, {}, "grid_repeats", "other levels the second time"),
    (idle, {}, "grid_options", "'exponent' does not act"),
    (never, {}, "grid_levels", "for no schedule.*not on a Tuesday"),
]


@pytest.mark.parametrize(("fn", "fields", "check", "words"), GRIDS, ids=lambda v: getattr(v, "__name__", ""))
def test_a_broken_grid_is_caught(fn, fields, check, words):
    result = failed(check_grid(GridCard(fn.__name__, fn, skip=2, **fields)))[check]
    assert result.cause and re.search(words, result.detail), result


def test_a_right_grid_passes_as_a_plain_function():
    assert failed(check_grid(right)) == {}


@pytest.mark.parametrize("name", [name for name, card in sk.grids().items() if not card.required and name != "beta"])
def test_the_registered_grids_pass(name):
    assert failed(check_grid(name)) == {}


# models


class Normal(torch.nn.Module):
    """The exact x_0 of a unit normal on EDM."""

    def forward(self, x, sigma):
        return x / (1 + sigma**2).view(-1, 1)


class Noisy(Normal):
    def forward(self, x, sigma):
        return super().forward(x, sigma) + 0.01 * torch.randn_like(x)


class InPlace(Normal):
    def forward(self, x, sigma):
        return x.div_((1 + sigma**2).view(-1, 1))


class OfTheBatch(Normal):
    def forward(self, x, sigma):
        return super().forward(x, sigma) - 0.1 * x.mean(0)


class NotAtTheTop(Normal):
    def forward(self, x, sigma):
        return super().forward(x, sigma) / (sigma < 80).view(-1, 1)


class Counting(Normal):
    def __init__(self):
        super().__init__()
        self.seen = {}

    def forward(self, x, sigma):
        self.seen[len(self.seen)] = 1.0
        return super().forward(x, sigma)


class Weights(Normal):
    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(1e-3 * torch.randn(4, generator=GENERATOR))

    def forward(self, x, sigma):
        return super().forward(x, sigma) + self.bias


class Single:
    """A denoiser of one's own that forgets the state's dtype, and answers half of the state."""

    schedule, shape = sk.EDM(), (4,)

    def __init__(self, half=False):
        self.half = half

    def __call__(self, x, level):
        answer = x / (1 + float(level) ** 2)
        return answer[:, :2] if self.half else answer.float()


GENERATOR = torch.Generator().manual_seed(0)


def wrapped(net, prediction="sample"):
    return lambda: sk.wrap(net(), prediction=prediction, schedule=sk.EDM(), shape=(4,))


def of_another_density():
    model = sk.problems.gaussian(dim=4, condition=4.0)
    model.log_prob = lambda x, level: sk.problems.gaussian(dim=4, condition=2.0).log_prob(x, level)
    return model


def of_other_samples():
    model = sk.problems.gaussian(dim=4, condition=4.0)
    model.target.sample = lambda n, seed=0: 0.3 + sk.problems.gaussian(dim=4, condition=4.0).target.sample(n, seed=seed)
    return model


MODELS = [
    (lambda: 3, "model_shape", "answers int, which cannot be called"),
    (lambda: Single(half=True), "model_shape", r"\(3, 2\) is answered to a state of shape \(3, 4\)"),
    (Single, "model_shape", "torch.float32 is answered to a state of torch.float64"),
    (lambda: sk.wrap(Normal(), "sample", sk.EDM()), "model_shape", "does not say the shape"),
    (wrapped(NotAtTheTop), "model_finite", "at the most noise: 12 of 12 values of x are not finite"),
    (wrapped(OfTheBatch), "model_independence", "alone and in a batch of 3"),
    (wrapped(Noisy), "model_repeats", "the same question has another answer"),
    (wrapped(InPlace), "model_repeats", "changed the state"),
    (wrapped(Normal, "epsilon"), "model_denoises", "the answer is|samples spread"),
    (wrapped(Normal, "denoised"), None, ""),
    (wrapped(Normal, "score"), "model_denoises", "the answer is|samples spread|ends in NaN"),
    (wrapped(Counting), "model_again", "fingerprint changes"),
    (wrapped(Weights), "model_again", "opened again, it"),
    (lambda: sk.wrap(lambda x, s: Normal()(x, s), "sample", sk.EDM(), shape=(4,)), "model_again", "cannot be pickled"),
    (of_another_density, "model_target", "grad log p"),
    (of_other_samples, "model_target", "standard errors off"),
]


@pytest.mark.parametrize(("fn", "check", "words"), MODELS, ids=[f"{check}-{i}" for i, (_, check, _) in enumerate(MODELS)])
def test_a_broken_model_is_caught(fn, check, words):
    found = failed(check_model(ModelCard("broken", fn)))
    if check is None:
        assert found == {}
        return
    assert found[check].cause and re.search(words, found[check].detail), found


@pytest.mark.parametrize("name", ["gaussian", "mixture", "series", "coupled-gaussian", "communities", "markov-uniform"])
def test_registered_models_pass(name):
    assert failed(check_model(name)) == {}


def test_a_bundled_network_passes():
    assert failed(check_model("mnist-flow:labels=3")) == {}


# metrics


def spread(x):
    return float((x.flatten(1).double().mean(0)).norm())


def off_mean(run):
    return Measured(spread(run.x - run.reference().x))


def right_metric(run):
    values = (run.x.double() - run.reference().x.double()).flatten(1).square().mean(1)
    half = 1.96 * float(values.std(correction=0)) / math.sqrt(len(values))
    return Measured(float(values.mean()), (float(values.mean()) - half, float(values.mean()) + half))


def a_tensor(run):
    return right_metric(run).value * torch.ones(1)


def silent(run):
    return None


def log_of_the_spread(run):
    return float(run.x.double().var(0).sum().log())


def needs_more(run):
    return None if len(run.x) < 50 else right_metric(run)


def with_an_offset(run):
    return right_metric(run).value + 10


def the_wrong_way(run):
    return -right_metric(run).value


def blind(run):
    return 1.0 if len(run.x) else 2.0


def swapped(run):
    low, high = right_metric(run).interval
    return Measured(right_metric(run).value, (high, low))


def not_of_the_mean(run):
    made = right_metric(run)
    return Measured(made.value, (made.value - 1.0, made.value + 1.0))


def by_place(run):
    return float((run.x.double() * torch.arange(len(run.x)).view(-1, *[1] * (run.x.ndim - 1))).mean()) ** 2


def seeded_by_the_world(run):
    return right_metric(run).value + float(torch.rand(1)) * 1e-3


COUNT = itertools.count()


def drifting(run):
    return right_metric(run).value + 1e-3 * next(COUNT)


def in_place(run):
    run.x.mul_(2)
    return right_metric(run)


METRICS = [
    (a_tensor, {}, "metric_figure", "it answers Tensor"),
    (silent, {}, "metric_figure", "no figure for points of a mixture, pictures, a chain of tokens, text"),
    (log_of_the_spread, {"min_samples": 2}, "metric_figure", r"-inf \(all the same\)"),
    (needs_more, {"min_samples": 8}, "metric_figure", "no figure for 8 samples"),
    (with_an_offset, {}, "metric_floor", "right samples get 10, the floor is 0"),
    (the_wrong_way, {}, "metric_direction", "no worse"),
    (right_metric, {"lower_is_better": False}, "metric_direction", "no worse"),
    (blind, {}, "metric_direction", "no worse"),
    (swapped, {}, "metric_interval", r"in \("),
    (not_of_the_mean, {}, "metric_interval", "the interval is 2 wide for 64 samples and 2 for 1024"),
    (by_place, {}, "metric_order", "in another order"),
    (seeded_by_the_world, {}, "metric_repeats", "torch's global generator"),
    (drifting, {}, "metric_repeats", "the same samples get"),
    (in_place, {}, "metric_repeats", "changed the samples"),
]


@pytest.mark.parametrize(("fn", "fields", "check", "words"), METRICS, ids=lambda v: getattr(v, "__name__", ""))
def test_a_broken_metric_is_caught(fn, fields, check, words):
    result = failed(check_metric(MetricCard(fn.__name__, fn, skip=1, **fields)))[check]
    assert result.cause and re.search(words, result.detail), result


def test_a_right_metric_passes():
    assert failed(check_metric(right_metric)) == {}


@pytest.mark.parametrize("name", ["fd", "nll", "mode_weights", "ode_flips", "calls", "bigram_tv", "judge_bits"])
def test_registered_metrics_pass(name):
    assert failed(check_metric(name)) == {}


# the functions and the command


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: check_grid("heun"), "unknown grid 'heun'"),
        (lambda: check_grid(5), "a grid is a name, its card or a function, got a int"),
        (lambda: check_grid(sk.metrics()["fd"]), "a grid is a name, its card or a function, got a MetricCard"),
        (lambda: check_model("mnist-super-resolution"), "needs the option 'small'"),
        (lambda: check_metric(None), "a metric is a name"),
        (lambda: sk.testing.check_sampler("karras"), "unknown sampler 'karras'"),
        (lambda: sk.testing.check_sampler(5), "a sampler is a name, its card or a function, got a int"),
        (lambda: sk.testing.parametrize_with_checks(["karras"], "gird"), "Did you mean 'grid'"),
    ],
)
def test_what_cannot_be_checked_is_told_in_one_sentence(call, words):
    with pytest.raises(sk.errors.SolverKitError) as found:
        call()
    assert words in str(found.value)


def test_check_finds_the_kind_and_prints_figures_limits_and_causes(cli):
    code, out, err = cli("check", "quick-or-not")
    assert (code, "unknown sampler, decoder, grid, model or metric 'quick-or-not'" in err) == (2, True)
    code, out, _ = cli("check", "flow:shift=3", "--json")
    records = json.loads(out)
    assert code == 0
    assert {record["name"] for record in records} >= {"grid_levels", "grid_refines {'last': 'min'}"}
    refines = next(record for record in records if record["name"] == "grid_refines")
    assert set(refines) == {"name", "passed", "detail", "figure", "limit", "bound", "cause"}
    assert 0 < refines["figure"] <= refines["limit"] and refines["bound"] == "at most" and refines["cause"] == ""
    code, _, err = cli("check", "karras", "--kind", "sampler")
    assert code == 2 and "unknown sampler 'karras'" in err
    code, _, err = cli("check", "karras", "--kind", "gird")
    assert code == 2 and "Did you mean 'grid'" in err
    code, _, err = cli("check", "levels")
    assert code == 2 and "levels:file=" in err
    code, _, err = cli("check", "karras:roh=3")
    assert code == 2 and "Did you mean 'rho'" in err
    code, out, err = cli("check", "euler", "--kind", "decoder")
    assert code == 0 and "token_law" in out


def test_a_function_in_a_file_is_checked_without_a_package(cli, tmp_path):
    (tmp_path / "idea.py").write_text("""
def quadratic(schedule, n, exponent: float = 2.0):
    top = 1 / (1 + 1 / schedule.ratio_max)
    shares = [top * (1 - i / n) ** exponent for i in range(1, n + 1)]
    return [schedule.ratio_max, *(s / (1 - s) for s in shares)]
""")
    code, out, _ = cli("check", "idea.py:quadratic:exponent=3", "--kind", "grid")
    assert code == 0 and "7 of 7 passed" in out
    code, _, err = cli("check", "idea.py:quadratik", "--kind", "grid")
    assert code == 2 and "Did you mean 'quadratic'" in err
    code, _, err = cli("check", "idea.py:quadratic")
    assert code == 2 and "quadratic is no sampler: its function takes 3 arguments, and is called with 4" in err
    code, _, err = cli("check", "missing.py:quadratic")
    assert code == 2 and "cannot read missing.py" in err
    code, _, err = cli("check", "idea.py:quadratic:power=3", "--kind", "grid")
    assert code == 2 and "has no option 'power'" in err


def test_a_failed_check_is_printed_with_its_figure_and_its_cause(cli, monkeypatch):
    from solverkit.registry.registry import registry

    monkeypatch.setitem(registry().cards["grids"], "broken", GridCard("broken", a_gap_that_stays, skip=2))
    code, out, _ = cli("check", "broken")
    assert code == 1
    assert "grid_refines: usually one gap does not close as n grows" in out and "at most 0.8" in out
    assert "6 of 7 passed" in out
