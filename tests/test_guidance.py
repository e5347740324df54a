"""Denoisers around denoisers."""

from __future__ import annotations

import pytest
import torch

import solverkit as sk
from solverkit import guidance
from solverkit.errors import DenoiserError, OptionError, ScheduleError
from solverkit.model.counting import counting

torch.set_num_threads(1)

SHAPE = (2, 4, 4)


class Labelled(torch.nn.Module):
    """An epsilon network with an embedding of labels, and optionally a context."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(5, 2)

    def forward(self, x, t, class_labels, context=None):
        y = self.embed(class_labels)[:, :, None, None] + torch.tanh(x) + 1e-3 * t.view(-1, 1, 1, 1)
        return y if context is None else y + context.mean(1)[:, None, None, None]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Labelled()


@pytest.fixture
def pair(net):
    d = sk.wrap(net, "epsilon", sk.VP(), shape=SHAPE, class_labels=1)
    return d, d.with_inputs(class_labels=4)


@pytest.fixture
def x():
    return 3 * torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_classifier_free_is_the_formula(pair, x):
    c, u = pair
    level = c.schedule.at(2.0)
    for scale in (0.0, 1.0, 2.5):
        d = guidance.classifier_free(c, u, scale)
        torch.testing.assert_close(d(x, level), u(x, level) + scale * (c(x, level) - u(x, level)))
    assert d.schedule is c.schedule and d.shape == SHAPE and d.device == torch.device("cpu")


@pytest.mark.parametrize("labels", [(1, 4), (torch.tensor([0, 1, 2]), 4), (torch.tensor(1), torch.tensor([4]))])
def test_batched_equals_two_passes_and_costs_the_same(net, x, labels):
    c = sk.wrap(net, "epsilon", sk.VP(), class_labels=labels[0])
    u = c.with_inputs(class_labels=labels[1])
    out, rows = [], []
    for batched in (False, True):
        with counting() as count:
            out.append(guidance.classifier_free(c, u, 2.0, batched=batched)(x, 1.5))
        rows.append((count.rows, count.passes))
    torch.testing.assert_close(out[0], out[1])
    assert rows == [(6, 2), (6, 1)]


@pytest.mark.parametrize("batched", [False, True])
def test_a_run_counts_two_evaluations(pair, batched):
    d = guidance.classifier_free(*pair, 2.0, batched=batched)
    result = sk.sample(d, "euler", steps=3, num_samples=4)
    assert result.nfe == 6 and result.x.shape == (4, *SHAPE)


def test_batched_stacks_contexts(net, x):
    c = sk.wrap(net, "epsilon", sk.VP(), class_labels=1, context=torch.ones(3, 7))
    u = c.with_inputs(context=torch.zeros(1, 7))
    both, two = (guidance.classifier_free(c, u, 2.0, batched=b)(x, 1.0) for b in (True, False))
    torch.testing.assert_close(both, two)
    shared = c.with_inputs(class_labels=2)
    both, two = (guidance.classifier_free(c, shared, 2.0, batched=b)(x, 1.0) for b in (True, False))
    torch.testing.assert_close(both, two)
    bad = guidance.classifier_free(c, c.with_inputs(context=torch.zeros(1, 9)), 2.0, batched=True)
    with pytest.raises(DenoiserError, match="context"):
        bad(x, 1.0)


def test_batched_needs_one_network(pair):
    c, _ = pair
    other = sk.wrap(Labelled(), "epsilon", sk.VP(), class_labels=1)
    with pytest.raises(DenoiserError, match="one network"):
        guidance.classifier_free(c, other, 2.0, batched=True)
    with pytest.raises(DenoiserError, match="same names"):
        guidance.classifier_free(c, c.with_inputs(context=None), 2.0, batched=True)
    with pytest.raises(DenoiserError, match=r"sk\.wrap"):
        guidance.classifier_free(c, guidance.clip(c), 2.0, batched=True)


def test_rescale_restores_the_conditional_deviation(pair, x):
    c, u = pair
    level = c.schedule.at(2.0)
    plain, full, half = (guidance.classifier_free(c, u, 7.5, rescale=r)(x, level) for r in (0.0, 1.0, 0.5))
    torch.testing.assert_close(full.flatten(1).std(1), c(x, level).flatten(1).std(1))
    torch.testing.assert_close(half, 0.5 * plain + 0.5 * full)
    assert plain.flatten(1).std(1).min() > full.flatten(1).std(1).min()


def test_rescale_survives_constant_predictions():
    zero = sk.wrap(lambda x, t: torch.zeros_like(x), "sample", sk.EDM())
    d = guidance.classifier_free(zero, zero, 2.0, rescale=1.0)
    assert torch.isfinite(d(torch.ones(2, 3), 1.0)).all()


def test_mismatches_are_errors(pair, net):
    c, u = pair
    with pytest.raises(ScheduleError, match="schedules differ"):
        guidance.classifier_free(c, sk.wrap(net, "epsilon", sk.VP("cosine"), class_labels=4), 2.0)
    with pytest.raises(DenoiserError, match="shapes"):
        guidance.classifier_free(c, sk.wrap(net, "epsilon", sk.VP(), shape=(2, 8, 8), class_labels=4), 2.0)
    with pytest.raises(DenoiserError, match=r"sk\.wrap"):
        guidance.classifier_free(net, u, 2.0)
    for bad in ({"scale": "two"}, {"scale": float("nan")}, {"scale": 2.0, "rescale": 1.5}):
        with pytest.raises(OptionError):
            guidance.classifier_free(c, u, **bad)


# ----------------------------------------------------------------------------------------------------- classifier


@pytest.mark.parametrize("schedule", [sk.EDM(), sk.Flow(), sk.VP()], ids=["edm", "flow", "vp"])
def test_classifier_guidance_is_bayes(schedule):
    """x_0 ~ N(0, 1) and y = x_0 + N(0, 1): the guided denoiser is the posterior's, E[x_0 | x, y], in every frame."""
    y, s = 1.7, 0.6
    level = schedule.at(s)
    a, v = level.alpha, level.alpha**2 + s**2

    def prior(x, level):
        return level.alpha * x / (level.alpha**2 + float(level) ** 2)

    prior.schedule = schedule

    def log_prob(x, level):  # p(y | x) = N(E[x_0 | x], Var[x_0 | x] + 1)
        return -((y - level.alpha * x / v) ** 2).sum(1) / (2 * (float(level) ** 2 / v + 1))

    x = torch.randn(5, 1, dtype=torch.float64)
    with torch.no_grad():
        guided = guidance.classifier(prior, log_prob)(x, level)
    precision = 1 + 1 + a**2 / s**2
    torch.testing.assert_close(guided, (y + a * x / s**2) / precision)


def test_classifier_works_inside_inference_mode_and_leaves_x_alone(pair, x):
    d = guidance.classifier(pair[0], lambda y, level: -(y**2).flatten(1).sum(1), scale=0.1)
    with torch.inference_mode():
        out = d(x.clone(), 1.0)
    expected = pair[0](x, 1.0) + 0.1 * (-2 * x)
    torch.testing.assert_close(out.clone(), expected)
    assert not x.requires_grad and not out.requires_grad


def test_classifier_runs_and_counts_the_network_only(pair):
    d = guidance.classifier(pair[0], lambda y, level: -(y**2).flatten(1).sum(1), scale=1e-3)
    result = sk.sample(d, "heun", steps=3, num_samples=2)
    assert result.nfe == 5 and not result.x.requires_grad


@pytest.mark.parametrize(
    ("log_prob", "words"),
    [
        (lambda x, level: -(x.detach() ** 2).flatten(1).sum(1), "no gradient"),
        (lambda x, level: torch.zeros(len(x)), "no gradient"),
        (lambda x, level: torch.zeros(len(x), requires_grad=True) * 2, "no gradient"),
        (lambda x, level: -(x**2).sum(), "one number a sample"),
        (lambda x, level: -(x**2), "one number a sample"),
        (lambda x, level: 1.0, "one number a sample"),
    ],
)
def test_a_gradient_that_does_not_exist(pair, x, log_prob, words):
    with torch.no_grad(), pytest.raises(DenoiserError, match=words):
        guidance.classifier(pair[0], log_prob)(x, 1.0)


def test_classifier_refuses_pure_noise_and_non_functions(x):
    flow = sk.wrap(lambda x, t: x, "flow_prediction", sk.Flow())
    d = guidance.classifier(flow, lambda x, level: -(x**2).flatten(1).sum(1))
    with pytest.raises(DenoiserError, match="alpha = 0"):
        d(x, 1.0)
    with pytest.raises(OptionError, match="log_prob"):
        guidance.classifier(flow, 3.0)


# ----------------------------------------------------------------------------------------------------- thresholds


def fixed(value):
    return sk.wrap(lambda x, t: value.to(x.dtype), "denoised", sk.EDM(), shape=tuple(value.shape[1:]))


def test_clip():
    d = guidance.clip(fixed(torch.tensor([[-3.0, 0.5, 2.0]])), -1.0, 1.5)
    assert d(torch.zeros(1, 3), 1.0).tolist() == [[-1.0, 0.5, 1.5]] and d.shape == (3,)
    with pytest.raises(OptionError, match="low < high"):
        guidance.clip(d, 1.0, -1.0)


def test_dynamic_threshold_is_per_sample():
    rows = torch.stack([torch.linspace(-0.5, 0.5, 101), torch.linspace(-4, 4, 101)])
    out = guidance.dynamic_threshold(fixed(rows), quantile=0.9)(torch.zeros(2, 101), 1.0)
    torch.testing.assert_close(out[0], rows[0])  # inside the range: untouched
    s = float(torch.quantile(rows[1].abs(), 0.9))
    torch.testing.assert_close(out[1], rows[1].clamp(-s, s) / s)
    wide = guidance.dynamic_threshold(fixed(rows), quantile=1.0, maximum=2.0)(torch.zeros(2, 101), 1.0)
    torch.testing.assert_close(wide[1], rows[1] / 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dynamic_threshold_keeps_dtype_and_shape(dtype):
    x = torch.randn(2, 3, 4, 4).to(dtype) * 5
    out = guidance.dynamic_threshold(fixed(x))(x, 1.0)
    assert out.dtype == dtype and out.shape == x.shape and out.abs().max() <= 1.01


@pytest.mark.parametrize("bad", [{"quantile": 0.0}, {"quantile": 1.5}, {"maximum": 0.0}, {"maximum": "x"}])
def test_dynamic_threshold_options(bad):
    with pytest.raises(OptionError):
        guidance.dynamic_threshold(fixed(torch.zeros(1, 3)), **bad)


def test_they_nest(pair):
    d = guidance.dynamic_threshold(guidance.clip(guidance.classifier_free(*pair, 3.0), -5, 5))
    result = sk.sample(d, "euler", steps=2, num_samples=2)
    assert result.nfe == 4 and result.x.abs().max() <= 1.0001


# ------------------------------------------------------------------------------------- scales, intervals, rescale


def test_a_scale_a_sample_and_a_scale_a_step(pair, x):
    c, u = pair
    level, scales = c.schedule.at(2.0), (0.0, 1.5, 4.0)
    rows = [guidance.classifier_free(c, u, s)(x, level)[i] for i, s in enumerate(scales)]
    torch.testing.assert_close(guidance.classifier_free(c, u, torch.tensor(scales))(x, level), torch.stack(rows))
    torch.testing.assert_close(guidance.classifier_free(c, u, torch.tensor([1.5]))(x, level)[1], rows[1])
    by_level = guidance.classifier_free(c, u, lambda level: 2 * float(level))
    for s in (0.5, 2.0):
        torch.testing.assert_close(by_level(x, s), guidance.classifier_free(c, u, 2 * s)(x, s))
    with pytest.raises(OptionError, match="3 entries for 2 samples"):
        guidance.classifier_free(c, u, torch.tensor(scales))(x[:2], level)
    with pytest.raises(OptionError, match=r"scale\(Level"):
        guidance.classifier_free(c, u, lambda level: "high")(x, level)


@pytest.mark.parametrize(
    "bad", [[1.0, 2.0], torch.ones(2, 2), torch.tensor([1.0, torch.nan]), torch.tensor(torch.inf), True]
)
def test_a_scale_that_is_none(pair, bad):
    for build in (lambda s: guidance.classifier_free(*pair, s), lambda s: guidance.classifier(pair[0], len, s),
                  lambda s: guidance.posterior(pair[0], len, torch.ones(1, 2), s)):  # fmt: skip
        with pytest.raises(OptionError, match="scale"):
            build(bad)


@pytest.mark.parametrize("batched", [False, True])
def test_outside_its_interval_guidance_costs_half(pair, x, batched):
    c, u = pair
    whole = guidance.classifier_free(c, u, 3.0, batched=batched)
    inside = guidance.classifier_free(c, u, 3.0, batched=batched, interval=(0.5, 2.0))
    for s, guided in ((2.0, True), (1.0, True), (2.1, False), (0.5, False)):  # low < sigma / alpha <= high
        with counting() as count:
            out = inside(x, s)
        assert count.rows == (6 if guided else 3)
        torch.testing.assert_close(out, whole(x, s) if guided else c(x, s))
    levels = [4.0, 2.0, 1.0, 0.5, 0.0]
    assert sk.sample(inside, "euler", levels=levels, num_samples=2).nfe == 2 + 4


def test_an_interval_is_in_sigma_over_alpha_in_every_frame():
    c = sk.wrap(lambda x, t: x, "sample", sk.Flow())
    d = guidance.classifier_free(c, sk.wrap(lambda x, t: 0 * x, "sample", sk.Flow()), 2.0, interval=(0.5, 2.0))
    x = torch.ones(1, 2)
    assert d(x, 0.5).tolist() == [[2.0, 2.0]] and d(x, 0.8).tolist() == [[1.0, 1.0]]  # ratios 1 and 4
    assert guidance.classifier_free(c, c, 1.0, interval=(0, float("inf")))(x, 1.0).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("bad", [(2.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (0.0, float("nan")), (1.0,), 3.0, "ab"])
def test_an_interval_that_is_none(pair, bad):
    with pytest.raises(OptionError, match="interval"):
        guidance.classifier_free(*pair, 2.0, interval=bad)


def test_rescale_is_a_denoiser_around_denoisers(pair, x):
    free = guidance.classifier_free(*pair, 7.5)
    built_in = guidance.classifier_free(*pair, 7.5, rescale=0.7)
    for d, passes in ((guidance.rescale(free), 2), (guidance.rescale(guidance.clip(free, -99, 99), pair[0], 0.7), 3)):
        with counting() as count:
            out = d(x, 2.0)
        torch.testing.assert_close(out, built_in(x, 2.0))
        assert count.passes == passes and d.shape == SHAPE
    full = guidance.rescale(free, amount=1.0)(x, 2.0)
    torch.testing.assert_close(full.flatten(1).std(1), pair[0](x, 2.0).flatten(1).std(1))
    with pytest.raises(DenoiserError, match="conditional="):
        guidance.rescale(guidance.clip(free))
    with pytest.raises(OptionError, match=r"amount must be in \[0, 1\]"):
        guidance.rescale(free, amount=2.0)
    with pytest.raises(ScheduleError, match="differ"):
        guidance.rescale(free, sk.wrap(lambda x, t: x, "epsilon", sk.EDM()))


# ------------------------------------------------------------------------------------------------------------ CFG++


@pytest.mark.parametrize(
    ("schedule", "grid"),
    [(sk.VP(), "trailing"), (sk.EDM(), "karras"), (sk.Flow(), "flow"), (sk.VP(zero_terminal_snr=True), "flow")],
    ids=["vp", "edm", "flow", "zero-snr"],
)
def test_cfg_plus_plus_is_chung_et_als_step(schedule, grid):
    """x' = alpha' D_scale + s' epsilon_u, written out with the two predictions."""
    c = sk.wrap(lambda x, t: torch.tanh(2 * x) + 0.5, "sample", schedule, shape=(3,))
    u = sk.wrap(lambda x, t: torch.tanh(x), "sample", schedule, shape=(3,))
    levels, weight = sk.make_grid(grid, schedule, 6), 0.4
    start = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = start / levels[0].scale
    for s, t in levels.steps():
        d_c, d_u = c(x, s), u(x, s)
        x = t.alpha * (d_u + weight * (d_c - d_u)) + float(t) * (x - s.alpha * d_u) / float(s)
    d = guidance.cfg_plus_plus(c, u, levels, weight)
    for sampler in ("ddim", "euler"):
        result = sk.sample(d, sampler, grid=levels, x=start)
        torch.testing.assert_close(result.x, x * levels[-1].scale)
        assert result.nfe == 12


def test_cfg_plus_plus_refuses_what_it_is_not(pair):
    grid = sk.make_grid("trailing", sk.VP(), 5)
    with pytest.raises(OptionError, match="first-order"):
        sk.sample(guidance.cfg_plus_plus(*pair, grid), "dpm-solver-2", grid=grid, num_samples=1)
    with pytest.raises(OptionError, match="first-order"):
        sk.sample(guidance.cfg_plus_plus(*pair, grid), "ddim", steps=7, num_samples=1)
    with pytest.raises(ScheduleError, match="grid"):
        guidance.cfg_plus_plus(*pair, sk.make_grid("karras", sk.EDM(), 5))
    with pytest.raises(OptionError, match="Grid"):
        guidance.cfg_plus_plus(*pair, "trailing")


# ------------------------------------------------------------------------------------------------ gradients, sizes


def smooth(schedule=None):
    net = torch.nn.Linear(4, 4)
    return sk.wrap(lambda x, t: torch.tanh(net(x)), "sample", sk.EDM() if schedule is None else schedule, shape=(4,))


def test_guidance_by_gradients_works_inside_inference_mode():
    """Also with values, inputs and targets that were made there."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 4)

    def results():
        values, context = torch.full((1, 2), 0.3), torch.full((2, 4), 0.5)
        net = sk.wrap(lambda x, t, context: torch.tanh(layer(x)) * context, "sample", sk.EDM(), shape=(4,), context=context)
        by_values = guidance.posterior(net, lambda y: y[:, :2] * y[:, :2], values)
        by_classes = guidance.classifier(net, lambda x, level: -(x**2).sum(1), 0.1)
        return [sk.sample(d, "euler", steps=3, num_samples=2).x for d in (by_values, by_classes)]

    expected = results()
    with torch.inference_mode():
        inside = results()
    for a, b in zip(inside, expected):
        torch.testing.assert_close(a.clone(), b)


@pytest.mark.parametrize("build", [
    lambda d: guidance.posterior(d, lambda y: y[:, :2], torch.zeros(1, 2), scale=0.3),
    lambda d: guidance.classifier(d, lambda x, level: -(x**4).sum(1), 0.1),
])  # fmt: skip
def test_gradients_go_through_guidance_where_they_are_asked_for(build):
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 4).double()
    d = build(sk.wrap(lambda x, t: torch.tanh(net(x)), "sample", sk.EDM()))
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: d(x, 0.8), x)
    with torch.no_grad():
        assert not d(x, 0.8).requires_grad


def test_a_threshold_of_more_numbers_than_torch_sorts():
    """torch.quantile refuses more than 2^24 numbers a row; the same value comes from order statistics."""
    from solverkit.model.guidance.thresholds import row_quantile

    size = torch.rand(3, 999, generator=torch.Generator().manual_seed(0))
    for q in (0.001, 0.5, 0.9, 0.995, 1.0):
        torch.testing.assert_close(row_quantile(size, q, limit=100), torch.quantile(size, q, dim=1))
        torch.testing.assert_close(row_quantile(size, q), torch.quantile(size, q, dim=1), rtol=0, atol=0)
    size[1, 5] = torch.nan
    assert row_quantile(size, 0.5, limit=100).isnan().tolist() == [False, True, False]
    n = 2**24 + 2
    ramp = torch.arange(n - 1, -1, -1, dtype=torch.float32)[None] / n
    assert abs(float(row_quantile(ramp, 0.75)) - 0.75 * (n - 1) / n) < 1e-6


def test_reprs_are_one_line(pair):
    free = guidance.classifier_free(*pair, torch.ones(3), interval=(0.1, 2.0))
    for d in (
        *pair, free, guidance.rescale(free), guidance.clip(free), guidance.dynamic_threshold(free),
        guidance.posterior(pair[0], torch.abs, torch.zeros(1, 2)), guidance.classifier(pair[0], torch.abs),
        guidance.cfg_plus_plus(*pair, sk.make_grid("trailing", sk.VP(), 5)), sk.problems.mixture(dim=3),
        sk.wrap(lambda x, t: x, "epsilon", sk.VP(betas=[0.01] * 1000), mask=torch.ones(5, 5), text=["a b\nc"] * 9),
    ):  # fmt: skip
        text = repr(d)
        assert "\n" not in text and "object at 0x" not in text and len(text) < 300, text
    assert repr(pair[0]) == "Denoiser(Labelled, epsilon, DiscreteVP(), class_labels=1)"
