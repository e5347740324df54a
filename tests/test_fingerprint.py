"""Two networks that differ in anything have two fingerprints, and one network has one in every process."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import random
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
import torch

import solverkit as sk
from solverkit import guidance
from solverkit.errors import FingerprintError
from solverkit.model.fingerprint import fingerprint

torch.set_num_threads(1)


def of(net, **inputs):
    return fingerprint(sk.wrap(net, "sample", sk.Flow(), shape=(4,), **inputs))


def layer(seed):
    torch.manual_seed(seed)
    return torch.nn.Linear(4, 4)


class Net(torch.nn.Module):
    def __init__(self, seed=0, scale=1.0, kept=1.0, private=0):
        super().__init__()
        self.net, self.scale, self._private = layer(seed), scale, private
        self.register_buffer("kept", torch.tensor(kept), persistent=False)
        self.calls = self.asked = 0
        self.lock = threading.Lock()

    def forward(self, x, t):
        self.calls += 1
        self.asked += 1
        return self.net(x) * self.scale * self.kept + self._private


class Slotted:
    __slots__ = ("_w",)

    def __init__(self, w):
        self._w = w

    def __call__(self, x, t):
        return x * self._w


@dataclasses.dataclass
class Data:
    w: float = 1.0
    names: list = dataclasses.field(default_factory=list)

    def __call__(self, x, t):
        return x * self.w


class Kind(enum.Enum):
    A = 1
    B = 2


FACTOR = 1.0


def reads_a_global(x, t):
    return x * FACTOR


def named(scale):
    def call(x, t, *, gain=scale):
        return x * gain

    return call


def made(body):
    """A class of one name with another forward."""

    class Local(torch.nn.Module):
        def forward(self, x, t):
            return body(x) if body is not None else super().forward(x)

    return Local()


def hooked(factor):
    net = Net()
    net.register_forward_hook(lambda module, args, out: out * factor)
    return net


def patched(factor):
    net = Net()
    net.forward = lambda x, t: x * factor
    return net


def attribute(value):
    def call(x, t):
        return x * call.gain

    call.gain = value
    return call


def seeded(seed):
    return functools.partial(lambda r, x, t: x * r.random(), random.Random(seed))


PAIRS = {
    "parameter": (Net, 0, 1),
    "lambda": (lambda s: (lambda n: lambda x, t: n(x))(layer(s)), 0, 1),
    "closure": (lambda s: (lambda n: lambda x, t: next(n(x) for _ in "a"))(Net(s)), 0, 1),
    "partial": (lambda s: functools.partial(lambda n, x, t: n(x), layer(s)), 0, 1),
    "keyword of a partial": (lambda v: functools.partial(torch.mul, other=v), 2.0, 3.0),
    "bound method": (lambda s: Net(s).forward, 0, 1),
    "attribute": (lambda v: Net(scale=v), 1.0, -1.0),
    "private attribute": (lambda v: Net(private=v), 0, 1),
    "non-persistent buffer": (lambda v: Net(kept=v), 1.0, 2.0),
    "default": (lambda v: lambda x, t, gain=v: x * gain, 1.0, 2.0),
    "keyword default": (named, 1.0, 2.0),
    "code": (lambda f: f, lambda x, t: x + t[:, None], lambda x, t: x - t[:, None]),
    "constant": (lambda f: f, lambda x, t: x * 2.0, lambda x, t: x * 3.0),
    "name": (lambda f: f, lambda x, t: x.sin(), lambda x, t: x.cos()),
    "global of torch": (lambda f: f, lambda x, t: torch.sin(x), lambda x, t: torch.cos(x)),
    "slots": (Slotted, 1.0, 2.0),
    "dataclass": (Data, 1.0, 2.0),
    "list in an attribute": (lambda v: Data(names=v), ["a", "bc"], ["ab", "c"]),
    "numpy": (lambda v: (lambda a: lambda x, t: x * a[0])(np.array(v)), [1.0], [2.0]),
    "deque": (lambda v: lambda x, t, a=collections.deque(v): x * a[0], [1.0], [2.0]),
    "enum": (lambda v: lambda x, t: x * v.value, Kind.A, Kind.B),
    "forward of a local class": (made, lambda x: x * 2, lambda x: x * 3),
    "forward hook": (hooked, 1.0, 2.0),
    "forward of an instance": (patched, 1.0, 2.0),
    "attribute of a function": (attribute, 1.0, 2.0),
    "state out of sight": (seeded, 0, 1),
    "method of an object": (lambda v: Data(v).__call__, 1.0, 2.0),
    "decorated": (lambda v: functools.lru_cache(named(v)), 1.0, 2.0),
    "module in a list": (lambda s: (lambda n: lambda x, t: n[0](x))([layer(s)]), 0, 1),
    "dtype": (lambda d: lambda x, t: x.to(d).float(), torch.float16, torch.bfloat16),
}


@pytest.mark.parametrize("name", PAIRS)
def test_what_differs_is_told_apart_and_what_is_equal_is_not(name):
    build, a, b = PAIRS[name]
    assert of(build(a)) != of(build(b))
    assert of(build(a)) == of(build(a))


def test_globals_that_the_code_reads(monkeypatch):
    before = of(reads_a_global)
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 2.0)
    assert of(reads_a_global) != before
    other = types.ModuleType("somebodys_networks")
    through = eval("lambda x, t: other.net(x)", {"other": other})
    other.net = layer(0)
    first = of(through)
    other.net = layer(1)
    assert of(through) != first


def test_what_wraps_a_network_is_told_apart():
    net, x0 = Net(), {"prediction": "sample"}
    marks = {
        fingerprint(sk.wrap(net, schedule=s, **x0)) for s in (sk.Flow(), sk.Flow(shift=3.0), sk.Flow(data_at=1), sk.VP())
    }
    marks |= {of(net, label=1), of(net, label=2), of(net, label=1.0), of(net, label=torch.tensor(1)), of(net, mask=None)}
    marks |= {fingerprint(sk.wrap(net, p, sk.Flow())) for p in ("epsilon", "flow_prediction")}
    marks |= {fingerprint(sk.wrap(net, "sample", sk.Flow(), dtype=torch.bfloat16))}
    c = sk.wrap(net, "sample", sk.Flow(), label=1)
    u = c.with_inputs(label=2)
    marks |= {fingerprint(guidance.classifier_free(c, u, s)) for s in (1.0, 2.0, torch.ones(2))}
    marks |= {fingerprint(guidance.classifier_free(c, u, 2.0, interval=(0.1, 1.0))), fingerprint(guidance.clip(c))}
    marks |= {fingerprint(sk.problems.mixture(dim=4, seed=s)) for s in (0, 1)}
    assert len(marks) == 19
    assert of(net, a=1, b=2) == of(net, b=2, a=1)


def test_a_run_changes_nothing():
    """Counters, caches of schedules and of dtypes, training mode, views: the network is the same."""
    nets = [Net(), (lambda n: lambda x, t: n(x, t))(Net()), sk.problems.mixture(dim=4)]
    for net in nets:
        d = net if hasattr(net, "schedule") else sk.wrap(net, "sample", sk.VP(), shape=(4,))
        before = fingerprint(d)
        sk.sample(d, "heun", nfe=6, num_samples=3)
        assert fingerprint(d) == before == fingerprint(d.rows(0, 2, 3))
    net = Net()
    before = of(net)
    net.train()
    assert of(net.requires_grad_(False)) == before
    calls = 0

    def counted(x, t):
        nonlocal calls
        calls += 1
        return x * 0.5

    before = of(counted)
    counted(torch.ones(1), None)
    assert calls == 1 and of(counted) == before


class Compiled(torch.nn.Module):
    """As torch.compile wraps a module."""

    def __init__(self, module):
        super().__init__()
        self._orig_mod, self.compiler = module, (i for i in range(3))


def test_compiled_and_parallel_is_the_same_network():
    net = Net()
    assert of(Compiled(net)) == of(net) == of(torch.nn.DataParallel(net))


def test_cycles_and_shared_parts():
    a, b = Data(), Data()
    a.other, b.other = b, a
    assert of(a) == of(a) and of(a) != of(Data())
    one = layer(0)
    tied, copied, different = ({"a": one, "b": one}, {"a": layer(0), "b": layer(0)}, {"a": layer(0), "b": layer(1)})
    marks = [of(lambda x, t, nets=nets: nets["a"](nets["b"](x))) for nets in (tied, copied, different)]
    assert marks[0] == marks[1] != marks[2]


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (lambda: (i for i in range(3)), "generator"),
        (lambda: sys.__stdin__, "_io"),
        (lambda: torch.nn.Linear(2, 2, device="meta"), "meta"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(thing, words):
    held = thing()
    with pytest.raises(FingerprintError, match=words):
        of(lambda x, t: (x, held)[0])


def several():
    held = (Net(), Data(names=["a"]), named(2.0), reads_a_global, seeded(1), in_a_set, lambda x, t: x * Kind.B.value)
    return " ".join(of(net) for net in held)


def in_a_set(x, t):
    return x if t in {"a", "b", "c"} else t


def test_the_same_in_every_process(request):
    """Addresses and the order of sets differ from one process to the next."""
    script = (
        f"import sys; sys.path.insert(0, {str(request.path.parent)!r}); import test_fingerprint as t; print(t.several())"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env={"PYTHONHASHSEED": "7"})
    assert run.stdout.strip() == several() and len(set(several().split())) == 7
