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
