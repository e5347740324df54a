"""Layouts that need something: a dynamic shift without mu, beta sigmas without scipy, an SDE of distilled networks."""

from __future__ import annotations

import importlib

import diffusers
import pytest
import torch
from diffusers.utils import dummy_torch_and_scipy_objects
from scheduler_loop import BETAS, noise, run
from test_native_layouts import CLASSES, own_sampler

from solverkit import SolverKitScheduler
from solverkit.errors import SolverKitError
from solverkit.files.diffusers_config import class_defaults

WITH_BETA = [name for name in CLASSES if "use_beta_sigmas" in (class_defaults(name) or {})]
DYNAMIC = [name for name in CLASSES if "use_dynamic_shifting" in (class_defaults(name) or {})]
STOCHASTIC = [name for name in CLASSES if "stochastic_sampling" in (class_defaults(name) or {})]


def of(name, sampler=None, **keys):
    if "use_flow_sigmas" in class_defaults(name) and keys.get("use_dynamic_shifting"):
        keys = {**keys, "use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    native = getattr(diffusers, name)(**keys)
    config = {**native.config, "_class_name": name}
    return native, SolverKitScheduler.from_config(config, sampler=sampler or own_sampler(name), layout_class=name)


@pytest.mark.parametrize("sampler", ["euler", "unipc", "heun", "euler-ancestral"])
@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_sampling_is_refused_with_its_reason(name, sampler):
    config = {**getattr(diffusers, name)(stochastic_sampling=True).config, "_class_name": name}
    with pytest.raises(SolverKitError, match=r"stochastic_sampling=True.*fresh noise.*stochastic_sampling=False"):
        SolverKitScheduler.from_config(config, sampler=sampler)
    SolverKitScheduler.from_config(config, sampler=sampler, stochastic_sampling=False).set_timesteps(4)
    plain = {**config, "stochastic_sampling": False}
    with pytest.raises(SolverKitError, match="stochastic_sampling=True"):
        SolverKitScheduler.from_config(plain, sampler=sampler, stochastic_sampling=True)


@pytest.mark.parametrize("sampler", ["euler", "unipc", "dpmpp-2m", "heun", "rk4"])
@pytest.mark.parametrize("name", DYNAMIC)
def test_a_dynamic_shift_without_mu_is_refused(name, sampler):
    _, ours = of(name, sampler, use_dynamic_shifting=True)
    for arguments in ({"num_inference_steps": 4}, {"sigmas": [1.0, 0.7, 0.3]}, {"num_inference_steps": 4, "mu": None}):
        with pytest.raises(SolverKitError, match=r"use_dynamic_shifting=True, and set_timesteps got no mu.*Pass mu="):
            ours.set_timesteps(**arguments)
    assert ours.nfe is None
    ours.set_timesteps(4, mu=0.7)
    assert torch.isfinite(ours.timesteps).all() and ours.nfe >= 4
    shifted = SolverKitScheduler.from_config(ours.config, use_dynamic_shifting=False, shift=3.0)
    shifted.set_timesteps(4)


@pytest.mark.parametrize("n", [7])
@pytest.mark.parametrize("name", WITH_BETA)
def test_beta_sigmas_are_those_of_the_class(name, n):
    keys = BETAS if "beta_schedule" in class_defaults(name) else {}
    native, ours = of(name, use_beta_sigmas=True, **keys)
    native.set_timesteps(n)
    ours.set_timesteps(n)
    assert torch.equal(ours.timesteps, native.timesteps) and torch.equal(ours.sigmas, native.sigmas)
    plain, other = of(name, **keys)[1], noise(1, 1, 2, 2)
    plain.set_timesteps(n)
    assert not torch.equal(plain.sigmas, ours.sigmas)
    assert torch.isfinite(run(ours, n, other * float(ours.init_noise_sigma))).all()


@pytest.mark.parametrize("name", WITH_BETA)
def test_beta_sigmas_without_scipy_say_so(name, monkeypatch):
    keys = BETAS if "beta_schedule" in class_defaults(name) else {}
    _, ours = of(name, use_beta_sigmas=True, **keys)
    if name == "LMSDiscreteScheduler":  # it is not there at all without scipy; Euler has its levels
        monkeypatch.setattr(diffusers, name, dummy_torch_and_scipy_objects.LMSDiscreteScheduler)
    asked = diffusers.EulerDiscreteScheduler if name == "LMSDiscreteScheduler" else getattr(diffusers, name)
    monkeypatch.setattr(importlib.import_module(asked.__module__), "is_scipy_available", lambda: False)
    with pytest.raises(SolverKitError, match="(?i)scipy"):
        ours.set_timesteps(5)
    ours = SolverKitScheduler.from_config(ours.config, use_beta_sigmas=False)
    ours.set_timesteps(5)


@pytest.mark.parametrize(
    "pair", [("use_karras_sigmas", "use_beta_sigmas"), ("use_karras_sigmas", "use_exponential_sigmas")]
)
def test_two_layouts_at_once_are_refused_as_natively(pair):
    keys = dict.fromkeys(pair, True)
    with pytest.raises(ValueError, match="Only one of"):
        diffusers.EulerDiscreteScheduler(**keys)
    config = {**diffusers.EulerDiscreteScheduler(**BETAS).config, "_class_name": "EulerDiscreteScheduler"}
    with pytest.raises(SolverKitError, match="Only one of"):
        SolverKitScheduler.from_config(config, sampler="euler", **keys).set_timesteps(4)


def test_there_are_classes_of_each_kind():
    assert len(WITH_BETA) >= 8 and len(DYNAMIC) >= 3 and "FlowMatchEulerDiscreteScheduler" in STOCHASTIC
