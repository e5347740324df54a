"""The probability flow and likelihoods on a device that has no float64, as Apple's MPS: none is ever made there."""

from __future__ import annotations

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

import solverkit as sk
from solverkit.flow_map import decode, encode
from solverkit.likelihood import dequantised, log_likelihood

MPS = torch.device("mps")


class There(torch.Tensor):
    """A tensor on the pretended device; its numbers are on the host."""


class Pretended(TorchFunctionMode):
    """Torch with a device of its own: it refuses float64 and to mix with the host, as MPS does."""

    made = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        with torch._C.DisableTorchFunctionSubclass():
            if func is torch.autograd.grad:
                return tree_map(self.put, func(*args, **kwargs))
            if func == torch.Tensor.device.__get__:
                return MPS if isinstance(args[0], There) else func(*args, **kwargs)
            tensors: list[torch.Tensor] = []
            tree_map(lambda a: tensors.append(a) if isinstance(a, torch.Tensor) else None, (args, kwargs))
            there = any(isinstance(t, There) for t in tensors)
            moved, args, kwargs = self.moved(args, kwargs)
            if there and moved is None and name not in ("__getitem__", "__setitem__"):
                assert all(isinstance(t, There) or t.ndim == 0 for t in tensors), f"{name} mixes devices"
            to_host = name == "cpu" or (moved is not None and moved.type == "cpu")
            out = func(*tree_map(self.take, args), **tree_map(self.take, kwargs))
            if to_host or not (there or (moved is not None and moved == MPS)):
                return out
            return tree_map(self.put, out)

    @staticmethod
    def moved(args, kwargs):
        """The device that a call names, and the call with the host in its place."""
        device = kwargs.get("device")
        if device is not None:
            kwargs = {**kwargs, "device": torch.device("cpu") if torch.device(device) == MPS else device}
            return torch.device(device), args, kwargs
        for i, a in enumerate(args):
            if isinstance(a, torch.device):
                return a, (*args[:i], torch.device("cpu"), *args[i + 1 :]), kwargs
        return None, args, kwargs

    @staticmethod
    def take(a):
        return a.as_subclass(torch.Tensor) if isinstance(a, There) else a

    def put(self, a):
        if not isinstance(a, torch.Tensor) or isinstance(a, There):
            return a
        if a.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")
        Pretended.made += 1
        return a.as_subclass(There)


def network(x, t):
    assert isinstance(x, There) and isinstance(t, There) and x.dtype == torch.float32
    return torch.tanh(x) * 0.9


DENOISER = sk.wrap(network, "epsilon", sk.VP(continuous=True), shape=(1, 2, 2))
EIGHT_BIT = torch.tensor([[0, 255, 3, 90], [17, 0, 200, 128]]).reshape(2, 1, 2, 2).float() / 127.5 - 1
QUICK = {"rtol": 1e-2, "atol": 1e-2}


def sampled(name, **options):
    def run(x):
        grid = sk.make_grid("karras", DENOISER.schedule, 1)
        return sk.samplers()[name].fn(DENOISER, x, grid, None, **options)

    return run


@pytest.mark.parametrize(
    "run",
    [
        lambda x: log_likelihood(DENOISER, x, divergence="exact", **QUICK),
        lambda x: log_likelihood(DENOISER, x, divergence="hutchinson", **QUICK),
        lambda x: log_likelihood(DENOISER, x, divergence="finite-difference", **QUICK),
        lambda x: log_likelihood(DENOISER, x, "elbo", draws=2),
        lambda x: log_likelihood(DENOISER, x, "vlb", draws=2),
        dequantised,
        lambda x: encode(DENOISER, x, None, **QUICK).x,
        lambda x: encode(DENOISER, x, 30).x,
        lambda x: decode(DENOISER, x, None, **QUICK, denoise=True).x,
        lambda x: decode(DENOISER, x, 30).x,
        sampled("rk45", **QUICK),
        sampled("rk45", norm="batch", **QUICK),
        sampled("dpm-solver-12"),
        sampled("dpm-solver-23"),
        sampled("dpm-solver-23", norm="batch"),
    ],
    ids=[
        "exact", "hutchinson", "finite-difference", "elbo", "vlb", "dequantised", "encode adaptive", "encode",
        "decode adaptive", "decode", "rk45", "rk45 batch", "dpm-solver-12", "dpm-solver-23", "dpm-solver-23 batch",
    ],
)  # fmt: skip
def test_no_float64_on_a_device_that_has_none(run):
    Pretended.made = 0
    with Pretended():
        x = EIGHT_BIT.to(MPS)
        assert x.device == MPS
        found = run(x)
        for made in found if isinstance(found, tuple) else (found,):
            if isinstance(made, torch.Tensor):
                assert torch.isfinite(made.cpu()).all()
        if isinstance(found, torch.Tensor):
            assert found.device == MPS and found.dtype == torch.float32
    assert Pretended.made > 3


def test_the_pretended_device_refuses():
    with Pretended():
        x = EIGHT_BIT.to(MPS)
        with pytest.raises(TypeError, match="float64"):
            x.double()
        with pytest.raises(AssertionError, match="mixes"):
            x + EIGHT_BIT
