"""The one model interface: prediction types, schedules, shapes, dtypes, inputs, and networks that refuse."""

from __future__ import annotations

import functools
import math
import threading

import pytest
import torch

import solverkit as sk
from solverkit.errors import DenoiserError, NonFiniteError, SolverKitError, UnknownNameError
from solverkit.grid.grid import Grid

torch.set_num_threads(1)

RATIOS = (20.0, 6.0, 2.0, 0.7, 0.2, 0.05, 0.0)
MEANS = torch.tensor([[1.5, -0.5, 0.3], [-1.0, 0.4, 0.2]], dtype=torch.float64)
PREDICTIONS = ("epsilon", "sample", "denoised", "v_prediction", "flow_prediction", "score")
SCHEDULES = {
    "linear": sk.VP(),
    "cosine": sk.VP("cosine"),
    "zero-snr": sk.VP(zero_terminal_snr=True),
    "continuous": sk.VP(continuous=True),
    "sub-vp": sk.SubVP(),
    "ve": sk.VE(),
    "ve-log": sk.VE(told="log"),
    "ve-index": sk.VE(told="index"),
    "edm": sk.EDM(),
    "flow": sk.Flow(),
    "flow-1000": sk.Flow(time_scale=1000.0),
}


def exact(y, r):
    """E[x_0 | x_0 + r eps = y] of two Gaussians of variance 0.04."""
    v = 0.04 + r * r
    weights = torch.softmax(-((y[:, None] - MEANS.to(y)) ** 2).sum(2) / (2 * v), dim=1)
    return (weights @ MEANS.to(y)) * (r * r / v) + y * (0.04 / v)


def network(prediction, schedule):
    """The exact denoiser as a network of the given kind: x in the model's own coordinates, time as it is told."""

    def net(x, time):
        assert time.shape == (len(x),)
        r = schedule.ratio(float(time[0]))
        alpha, sigma = schedule.alpha_sigma(r)
        d = exact(x / alpha, r)
        eps = (x - alpha * d) / sigma
        return {
            "epsilon": eps, "sample": d, "denoised": d, "v_prediction": alpha * eps - sigma * d,
            "flow_prediction": eps - d, "score": -eps / sigma,
        }[prediction]  # fmt: skip

    return net


def run(denoiser, schedule, dtype=torch.float64):
    """Heun through the same ratios, in the sigma frame whatever the schedule's own frame is."""
    grid = Grid.from_ratios(schedule, RATIOS, frame=0)
    y = RATIOS[0] * torch.randn(16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return sk.sample(denoiser, "heun", grid=grid, x=y * grid[0].scale, dtype=dtype).x


@functools.cache
def reference():
    denoiser = sk.wrap(lambda x, t: exact(x, float(t[0])), "denoised", sk.EDM())
    return run(denoiser, sk.EDM())


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_one_network_in_every_spelling_gives_the_same_samples(prediction, name):
    schedule = SCHEDULES[name]
    denoiser = sk.wrap(network(prediction, schedule), prediction, schedule)
    expected = reference()
    torch.testing.assert_close(run(denoiser, schedule), expected, rtol=1e-7, atol=1e-8)
    error = (run(denoiser, schedule, torch.float32).double() - expected).norm() / expected.norm()
    assert error < 1e-5


def test_raw_edm_network():
    def net(x, c_noise):
        sigma = math.exp(4 * float(c_noise[0]))
        y = x * math.hypot(sigma, 0.5)
        c_skip, c_out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / math.hypot(sigma, 0.5)
        return (exact(y, sigma) - c_skip * y) / c_out

    denoiser = sk.wrap(net, "edm", sk.EDM())
    torch.testing.assert_close(run(denoiser, denoiser.schedule), reference(), rtol=1e-7, atol=1e-8)


def test_flow_frame_agrees_in_the_limit():
    """The schedule's own frame is another discretisation of the same ODE: the two meet as the grid is refined."""
    flow, edm = sk.Flow(), sk.EDM()
    ratios = torch.logspace(math.log10(20), math.log10(0.05), 80, dtype=torch.float64).tolist()
    y = 20.0 * torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out = []
    for schedule in (flow, edm):
        grid = Grid.from_ratios(schedule, [*ratios, 0.0])
        denoiser = sk.wrap(network("epsilon", schedule), "epsilon", schedule)
        out.append(sk.sample(denoiser, "heun", grid=grid, x=y * schedule.alpha_sigma(20.0)[0]).x)
    torch.testing.assert_close(out[0], out[1], rtol=0, atol=2e-3)


def test_autoencoder_is_tweedie():
    """r(x) = E[x_0 | x] at sigma gives the score there, and the denoised prediction of every level."""
    denoiser = sk.wrap(lambda x: 0.5 * x, "autoencoder", sigma=1.0)
    x = torch.randn(4, 3)
    torch.testing.assert_close(denoiser(x, 1.0), 0.5 * x)
    torch.testing.assert_close(denoiser(x, 0.5), x - 0.25 * 0.5 * x)


def test_epsilon_at_pure_noise_is_refused_and_v_is_not():
    schedule = sk.VP(zero_terminal_snr=True)
    x, level = torch.randn(2, 3), schedule.level(math.inf)
    for prediction in ("epsilon", "score"):
        with pytest.raises(DenoiserError, match="alpha = 0"):
            sk.wrap(lambda x, t: x, prediction, schedule)(x, level)
    torch.testing.assert_close(sk.wrap(lambda x, t: -x, "v_prediction", schedule)(x, level), x)


# ----------------------------------------------------------------------------------------------- shapes and dtypes


class Gain(torch.nn.Module):
    """out = gain x: an epsilon network of any shape."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(0.25, dtype=dtype))
        self.seen = set()

    def forward(self, x, t):
        self.seen.add((x.dtype, t.dtype))
        return self.gain * x


@pytest.mark.parametrize("shape", [(3,), (5, 4), (2, 4, 4), (2, 3, 4, 4)])
def test_vectors_tokens_images_and_video(shape):
    denoiser = sk.wrap(Gain(), "epsilon", sk.VP(), shape=shape)
    result = sk.sample(denoiser, "heun", steps=4, num_samples=2)
    assert result.x.shape == (2, *shape) and result.nfe == 7
    alone = sk.sample(denoiser, "heun", steps=4, num_samples=1).x
    torch.testing.assert_close(result.x[:1], alone)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_network_runs_in_its_own_dtype_and_the_state_does_not(dtype):
    net = Gain(dtype)
    result = sk.sample(sk.wrap(net, "epsilon", sk.VP(), shape=(3,)), "heun", steps=5, num_samples=4)
    time = torch.float64 if dtype == torch.float64 else torch.float32  # 999 is no bfloat16 number
    assert net.seen == {(dtype, time)} and result.x.dtype == torch.float32
    full = sk.sample(sk.wrap(Gain(), "epsilon", sk.VP(), shape=(3,)), "heun", steps=5, num_samples=4).x
    assert (result.x - full).norm() / full.norm() < {torch.float16: 1e-2, torch.bfloat16: 5e-2}.get(dtype, 1e-5)


@pytest.mark.parametrize(("shape", "axis"), [((2, 4, 4), 1), ((2, 3, 4, 4), 1), ((5, 4), -1)])
def test_learned_variance_is_dropped(shape, axis):
    denoiser = sk.wrap(lambda x, t: torch.cat([0.25 * x, 100 + x], dim=axis), "epsilon", sk.VP(), shape=shape)
    plain = sk.wrap(lambda x, t: 0.25 * x, "epsilon", sk.VP(), shape=shape)
    out = [sk.sample(d, "euler", steps=3, num_samples=2).x for d in (denoiser, plain)]
    torch.testing.assert_close(*out)


@pytest.mark.parametrize(
    "answer", [lambda y: y, lambda y: (y,), lambda y: [y, None], lambda y: type("Output", (), {"sample": y})]
)
def test_what_networks_return(answer):
    x = torch.randn(2, 3)
    torch.testing.assert_close(sk.wrap(lambda x, t: answer(2 * x), "sample", sk.EDM())(x, 1.0), 2 * x)


# ---------------------------------------------------------------------------------------------------------- inputs


class Table(torch.nn.Module):
    """A network whose time is looked up in a table."""

    def __init__(self, n=1000):
        super().__init__()
        self.table = torch.nn.Embedding(n, 3)
        self.times = []

    def forward(self, x, t):
        self.times.append(int(t[0]) if not t.is_floating_point() else float(t[0]))
        return x + 0.01 * self.table(t)


def test_a_time_table_works_with_integers_and_says_so_without():
    net = Table()
    result = sk.sample(sk.wrap(net, "epsilon", sk.VP(integer_time=True), shape=(3,)), "heun", steps=6, num_samples=2)
    assert torch.isfinite(result.x).all() and all(isinstance(t, int) and 0 <= t <= 999 for t in net.times)
    with pytest.raises(DenoiserError, match="integer_time=True"):
        sk.sample(sk.wrap(net, "epsilon", sk.VP(), shape=(3,)), "heun", steps=6, num_samples=2)


class Labelled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.class_embedding = torch.nn.Embedding(4, 3)
        self.labels = []

    def forward(self, x, t, class_labels):
        self.labels.append(class_labels)
        return x + self.class_embedding(class_labels)


@pytest.mark.parametrize("label", [2, torch.tensor(2), torch.tensor([2, 2, 2])])
def test_scalar_labels_are_repeated(label):
    net = Labelled()
    sk.wrap(net, "epsilon", sk.VP(), class_labels=label)(torch.randn(3, 3), 1.0)
    assert net.labels[0].tolist() == [2, 2, 2] and net.labels[0].dtype == torch.long


def test_other_inputs_pass_through_and_can_be_replaced():
    seen = {}

    def net(x, t, mask=None, flag=None, scale=1.0):
        seen.update(mask=mask, flag=flag, scale=scale)
        return x

    mask = torch.ones(7, 2)
    denoiser = sk.wrap(net, "epsilon", sk.VP(), mask=mask, flag=True, scale=0.5)
    denoiser(torch.randn(2, 3), 1.0)
    assert seen["mask"] is mask and seen["flag"] is True and seen["scale"] == 0.5
    denoiser.with_inputs(flag=False)(torch.randn(2, 3), 1.0)
    assert seen["flag"] is False and denoiser.inputs["flag"] is True


def test_wrapping_puts_a_network_to_sleep():
    net = torch.nn.Module.train(Gain())
    sk.wrap(net, "epsilon", sk.VP())
    assert not net.training and net.gain.requires_grad  # frozen by torch.no_grad while sampling, not for good


# ---------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (lambda x, t: x[:, :1], r"\(2, 1\).*\(2, 3\)"),
        (lambda x, t: x.repeat(1, 3), "twice the channels"),
        (lambda x, t: x.sum(), "expected the same shape"),
        (lambda x, t: None, "NoneType"),
        (lambda x, t: {"x": x}, "dict"),
        (lambda x: x, "refused x of shape"),
        (lambda x, t, context: x, "context"),
        (torch.nn.Linear(5, 5), "refused x of shape"),
    ],
)
def test_networks_that_do_not_fit(net, words):
    with pytest.raises(DenoiserError, match=words):
        sk.sample(sk.wrap(net, "epsilon", sk.VP(), shape=(3,)), "euler", steps=2, num_samples=2)


@pytest.mark.parametrize("x", [[1.0, 2.0], 1.0, torch.tensor(1.0)])
def test_x_that_is_no_batch(x):
    with pytest.raises(DenoiserError, match=r"shape \(B, \.\.\.\)"):
        sk.wrap(lambda x, t: x, "epsilon", sk.VP())(x, 1.0)


def test_labels_of_another_batch_and_out_of_range():
    with pytest.raises(DenoiserError, match=r"class_labels.*5 rows for 2 samples"):
        sk.wrap(Labelled(), "epsilon", sk.VP(), class_labels=torch.arange(5) % 4)(torch.randn(2, 3), 1.0)
    with pytest.raises(DenoiserError, match=r"0\.\.3"):
        sk.wrap(Labelled(), "epsilon", sk.VP(), class_labels=9)(torch.randn(2, 3), 1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_names_the_evaluation_and_the_sample(bad):
    calls = []

    def net(x, t):
        calls.append(1)
        out = torch.zeros_like(x)
        if len(calls) == 3:
            out[1] = bad
        return out

    with pytest.raises(NonFiniteError, match=r"evaluation 2 .* 1 of 4 samples \(first: 1\)"):
        sk.sample(sk.wrap(net, "epsilon", sk.VP(), shape=(3,)), "euler", steps=5, num_samples=4)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("noise", sk.VP()), UnknownNameError, "epsilon"),
        (("epsilom", sk.VP()), UnknownNameError, "Did you mean 'epsilon'"),
        (("epsilon",), DenoiserError, "schedule is missing"),
        (("epsilon", "vp"), DenoiserError, "sk.Schedule"),
        (("edm", sk.VP()), DenoiserError, "EDM"),
        (("autoencoder",), DenoiserError, "sigma="),
    ],
)
def test_wrong_wrapping(arguments, error, words):
    with pytest.raises(error, match=words) as caught:
        sk.wrap(lambda x, t: x, *arguments)
    assert isinstance(caught.value, SolverKitError)


# -------------------------------------------------------------------------------------------------------- counting


def test_two_threads_that_share_a_denoiser_count_their_own():
    barrier = threading.Barrier(2)

    def net(x, t):
        barrier.wait(timeout=10)  # the two runs take turns, evaluation by evaluation
        return 0.1 * x

    denoiser = sk.wrap(net, "epsilon", sk.VP(), shape=(3,))
    results = {}

    def work(name, sampler, steps, n):
        results[name] = sk.sample(denoiser, sampler, steps=steps, num_samples=n)

    threads = [threading.Thread(target=work, args=a) for a in (("a", "euler", 7, 2), ("b", "heun", 4, 5))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (results["a"].nfe, results["b"].nfe) == (7, 7)
    assert denoiser.calls == 14


def test_counts_are_rows_not_calls():
    denoiser = sk.wrap(lambda x, t: 0.1 * x, "epsilon", sk.VP(), shape=(3,))
    assert sk.sample(denoiser, "heun", nfe=9, num_samples=5).nfe == 9 and denoiser.calls == 9


def test_a_net_that_is_none():
    with pytest.raises(DenoiserError, match="callable"):
        sk.wrap(None, "epsilon", sk.VP())


@pytest.mark.parametrize("sigma", [0, -1.0, math.nan, "x", None])
def test_an_autoencoder_needs_its_level(sigma):
    with pytest.raises(DenoiserError, match="sigma="):
        sk.wrap(lambda x: x, "autoencoder", sigma=sigma)
