"""Where a network is and what it computes in, whatever it is wrapped in; one answer of it."""

from __future__ import annotations

import functools

import pytest
import torch

import solverkit as sk
from solverkit.errors import DenoiserError
from solverkit.model.placement import own_device, own_dtype

torch.set_num_threads(1)
BF16 = torch.bfloat16
FLOAT8 = torch.float8_e4m3fn


class Net(torch.nn.Module):
    """An epsilon network that keeps what it was given."""

    def __init__(self, dtype=BF16):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor([0.25]).to(dtype), requires_grad=False)
        self.seen = []

    def forward(self, x, t):
        self.seen.append((x.dtype, t.dtype))
        return self.gain.to(x.dtype) * x


class Holder:
    """An object with a network among other things."""

    def __init__(self, net):
        self.net, self.other = net, Net(torch.float64)

    def __call__(self, x, t):
        return self.ask(x, t)

    def ask(self, x, t):
        return self.net(x, t)


class Wrapper(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, t):
        return self.net(x, t)


class Reader:
    """Something that is called through one of its attributes."""

    def __init__(self, net):
        self.unet, self.vae = net, Net(torch.float64)


GLOBAL = Net()


def closure(net):
    def call(x, t):
        return net(x, t)

    return call


def nested(net):
    def call(x, t):
        return sum(layer(x, t) for layer in (net,))

    return call


def through(pipe):
    return lambda x, t: pipe.unet(x, t)


WRAPPED = {
    "module": lambda net: net,
    "wrapper": Wrapper,
    "lambda": lambda net: lambda x, t: net(x, t),
    "closure": closure,
    "comprehension": nested,
    "default": lambda net: lambda x, t, n=net: n(x, t),
    "partial": lambda net: functools.partial(lambda n, x, t: n(x, t), net),
    "forward": lambda net: net.forward,
    "object": Holder,
    "method": lambda net: Holder(net).ask,
    "attribute": lambda net: through(Reader(net)),
    "list": lambda net: lambda x, t, nets=(net,): nets[0](x, t),
    "decorated": lambda net: functools.wraps(net.forward)(lambda *a: net(*a)),
    "global": lambda net: lambda x, t: GLOBAL(x, t),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_the_dtype_is_found_behind_what_wraps_it(name):
    net = Net()
    GLOBAL.seen.clear()
    denoiser = sk.wrap(WRAPPED[name](net), "epsilon", sk.VP())
    assert denoiser.dtype is BF16 and denoiser.device == torch.device("cpu")
    answer = denoiser(torch.ones(2, 3), 1.0)
    assert (net.seen or GLOBAL.seen)[0] == (BF16, torch.float32) and answer.dtype == torch.float32


def test_a_device_is_found_where_the_dtype_is():
    net = Net().to("meta")
    assert own_device(lambda x, t: net(x, t)) == torch.device("meta")
    assert own_device(lambda x, t: x) is None and own_dtype(lambda x, t: x) is None
    assert sk.wrap(lambda x, t: x, "epsilon", sk.VP()).device == torch.device("cpu")
    assert sk.wrap(lambda x, t: x, "epsilon", sk.VP(), device="meta").device == torch.device("meta")


def test_two_modules_that_disagree_are_no_answer_and_dtype_is_one():
    a, b = Net(BF16), Net(torch.float64)
    both = lambda x, t: a(x, t) + b(x, t)  # noqa: E731
    assert sk.wrap(both, "epsilon", sk.VP()).dtype is None
    denoiser = sk.wrap(both, "epsilon", sk.VP(), dtype=torch.float16)
    denoiser(torch.ones(2, 3), 1.0)
    assert denoiser.dtype is torch.float16 and a.seen == [(torch.float16, torch.float32)]
    assert denoiser.with_inputs().dtype is torch.float16


@pytest.mark.parametrize("wrap", [lambda net: net, Wrapper, closure])
def test_float8_is_storage(wrap):
    net = Net(FLOAT8)
    sk.wrap(wrap(net), "epsilon", sk.VP())(torch.ones(2, 3), 1.0)
    assert net.seen == [(torch.float32, torch.float32)]
    net.norm = torch.nn.Parameter(torch.ones(1, dtype=BF16), requires_grad=False)
    assert sk.wrap(wrap(net), "epsilon", sk.VP()).dtype is BF16


@pytest.mark.parametrize("wrap", [lambda net: net, Wrapper, closure])
def test_a_networks_own_dtype_comes_before_its_parameters(wrap):
    class Cast(Net):
        dtype = torch.float16

    net = Cast(FLOAT8)
    net.first = torch.nn.Parameter(torch.ones(1), requires_grad=False)  # kept in float32, as norms are
    sk.wrap(wrap(net), "epsilon", sk.VP())(torch.ones(2, 3), 1.0)
    assert net.seen == [(torch.float16, torch.float32)]


def test_layerwise_casting_of_diffusers():
    plain = sk.load("mnist", labels=3)
    x, level = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0)), plain.schedule.at(1.0)
    expected = plain(x, level)
    plain.net.enable_layerwise_casting(storage_dtype=FLOAT8, compute_dtype=BF16)
    for net in (plain.net, Wrapper(plain.net), lambda x, t, **k: plain.net(x, t, **k)):
        stored = sk.wrap(net, plain.prediction, plain.schedule, class_labels=3) if net is plain.net else sk.wrap(
            lambda x, t, net=net: (net.net if isinstance(net, Wrapper) else net)(x, t, class_labels=torch.tensor([3, 3])),
            plain.prediction, plain.schedule,
        )  # fmt: skip
        assert stored.dtype is BF16
        with torch.no_grad():
            assert (stored(x, level) - expected).square().mean().sqrt() < 0.2


def test_a_module_that_is_cast_after_it_was_wrapped():
    net = Net(torch.float32)
    denoiser = sk.wrap(net, "epsilon", sk.VP())
    assert denoiser.dtype is torch.float32
    net.half()
    assert denoiser.dtype is torch.float16


def test_a_network_that_is_replaced_after_it_was_wrapped():
    net, pipe = Net(BF16), Reader(Net(BF16))
    by_name, by_attribute = (sk.wrap(f, "epsilon", sk.VP()) for f in (lambda x, t: net(x, t), through(pipe)))
    assert by_name.dtype is by_attribute.dtype is BF16
    net = pipe.unet = Net(torch.float16)
    assert by_name.dtype is by_attribute.dtype is torch.float16


@pytest.mark.parametrize("bad", [FLOAT8, torch.int64, "bf16", torch.complex64])
def test_a_dtype_that_nothing_computes_in(bad):
    with pytest.raises(DenoiserError, match="16 bits"):
        sk.wrap(Net(), "epsilon", sk.VP(), dtype=bad)
    with pytest.raises(DenoiserError, match="device='nowhere'"):
        sk.wrap(Net(), "epsilon", sk.VP(), device="nowhere")


def test_the_error_about_the_times_dtype_says_what_to_do():
    class Timed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Linear(1, 3, dtype=BF16)

        def forward(self, x, t):
            return x + self.embed(t[:, None])

    net = Timed()
    with pytest.raises(
        DenoiserError, match=r"time in torch\.float32.*sk\.wrap\(lambda x, t, \*\*k: net\(x, t\.to\(x\.dtype\)"
    ):
        sk.wrap(net, "epsilon", sk.VP())(torch.ones(2, 3), 1.0)
    sk.wrap(lambda x, t: net(x, t.to(x.dtype)), "epsilon", sk.VP())(torch.ones(2, 3), 1.0)
    hidden = sk.wrap(lambda x, t: {"net": torch.ones(3, 3, dtype=BF16)}["net"] @ x.T, "epsilon", sk.VP())
    with pytest.raises(DenoiserError, match=r"as the state.*dtype=torch\.bfloat16"):
        hidden(torch.ones(3, 3), 1.0)


# ---------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    "answer",
    [lambda y: (y, y), lambda y: [y, None, y.clone()], lambda y: (torch.cat([y, y], 1), torch.cat([y, y], 1)),
     lambda y: type("Output", (), {"sample": (y, y)})],
)  # fmt: skip
def test_two_states_of_one_shape_are_refused(answer):
    with pytest.raises(DenoiserError, match=r"answered 2 tensors.*\[0\]"):
        sk.wrap(lambda x, t: answer(x), "epsilon", sk.VP())(torch.ones(2, 3, 4), 1.0)


@pytest.mark.parametrize(
    "answer", [lambda y: (y, None), lambda y: (y, y[:1]), lambda y: (torch.cat([y, y], 1),), lambda y: (y, {"x": y})]
)
def test_one_state_in_a_tuple_is_taken(answer):
    x = torch.ones(2, 3, 4)
    torch.testing.assert_close(sk.wrap(lambda x, t: answer(2 * x), "sample", sk.EDM())(x, 1.0), 2 * x)


def test_an_empty_tuple_is_no_answer():
    with pytest.raises(DenoiserError, match="expected a tensor"):
        sk.wrap(lambda x, t: (), "epsilon", sk.VP())(torch.ones(2, 3), 1.0)
