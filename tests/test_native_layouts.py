"""grid=None: timesteps and sigmas of the native class to the last bit, for every class, its configs and n in 1 .. 60."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any

import diffusers
import pytest
import torch

from solverkit import SolverKitScheduler
from solverkit.errors import SolverKitError
from solverkit.files.diffusers_config import class_defaults
from solverkit.pipelines.convention import Convention
from solverkit.pipelines.peers import PEERS
from solverkit.registry.registry import registry
from solverkit.testing import option_sets

SCALED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
KNOWN = registry().cards["samplers"]

# what the classes let people choose about their levels: each value alone, beside the defaults
CHOICES: list[dict[str, Any]] = [
    {}, SCALED, {**SCALED, "timestep_spacing": "leading", "steps_offset": 1}, {**SCALED, "timestep_spacing": "trailing"},
    {**SCALED, "timestep_spacing": "linspace"}, {"beta_schedule": "squaredcos_cap_v2"},
    {**SCALED, "use_karras_sigmas": True},
    {**SCALED, "use_exponential_sigmas": True}, {**SCALED, "use_beta_sigmas": True}, {**SCALED, "use_lu_lambdas": True},
    {**SCALED, "final_sigmas_type": "sigma_min"}, {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True},
    {"interpolation_type": "log_linear"}, {"set_alpha_to_one": False, "steps_offset": 1}, {"num_train_timesteps": 400},
    {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1, "timestep_spacing": "trailing"},
    {**SCALED, "sigma_min": 0.1, "sigma_max": 10.0, "use_exponential_sigmas": True}, {"sigma_schedule": "exponential"},
    {"timestep_type": "continuous", "prediction_type": "v_prediction", "use_karras_sigmas": True, "sigma_min": 0.002,
     "sigma_max": 700.0, **SCALED},
    {"shift": 3.0}, {"shift": 3.0, "use_karras_sigmas": True}, {"shift": 2.0, "use_exponential_sigmas": True},
    {"shift": 2.0, "use_beta_sigmas": True}, {"shift": 3.0, "shift_terminal": 0.1}, {"shift": 2.0, "invert_sigmas": True},
    {"use_dynamic_shifting": True}, {"use_dynamic_shifting": True, "time_shift_type": "linear"},
    {**FLOW, "flow_shift": 3.0}, {**FLOW, "flow_shift": 5.0, "final_sigmas_type": "sigma_min"},
    {**FLOW, "use_dynamic_shifting": True}, {**FLOW, "use_karras_sigmas": True},
]  # fmt: skip


def readable() -> Iterator[str]:
    """The classes that the scheduler takes the place of from noise to data (the others: test_inverse.py)."""
    for name in sorted(dir(diffusers)):
        forward = name.endswith("Scheduler") and "Inverse" not in name
        if forward and not name.startswith(("Flax", "Karras")) and class_defaults(name):
            try:
                Convention.read(getattr(diffusers, name)().config, name)
            except (SolverKitError, TypeError):
                continue
            yield name


CLASSES = list(readable())
CASES = [
    (name, choice) for name in CLASSES for choice in CHOICES if set(choice) <= set(class_defaults(name) or ())
]  # fmt: skip


def own_sampler(name: str) -> str:
    """The sampler that this class is the native one of; any for the others."""
    return next((s for s, p in PEERS.items() if name in (*p.classes.values(), *p.same) and s in KNOWN), "euler")


def steps(case: int) -> list[int]:
    every = range(1, 61)
    return list(every) if os.environ.get("SOLVERKIT_PROOFS") == "full" else sorted({1, 50, *every[case % 30 :: 30]})


@pytest.mark.parametrize("case", range(len(CASES)), ids=[f"{n}-{'-'.join(map(str, c)) or 'default'}" for n, c in CASES])
def test_timesteps_and_sigmas_are_those_of_the_class(case):
    name, choice = CASES[case]
    native = getattr(diffusers, name)(**choice)
    config = {**native.config, "_class_name": name}
    try:
        ours = SolverKitScheduler.from_config(config, sampler=own_sampler(name), native_class=name)
    except SolverKitError as error:
        assert refused(choice), error
        return
    mu = {"mu": 0.7} if choice.get("use_dynamic_shifting") else {}
    for n in steps(case):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                native.set_timesteps(n, **mu)
                assert not native.timesteps.isnan().any()
        except Exception:  # of any kind: this class has no such layout, and ours says so
            with pytest.raises(SolverKitError):
                ours.set_timesteps(n, **mu)
            continue
        ours.set_timesteps(n, **mu)
        if "use_flow_sigmas" in choice and native.sigmas.max() > 1:  # Karras's sigma / alpha as if they were a flow's t
            assert ours.sigmas.max() <= 1
            continue
        assert ours.timesteps.dtype == native.timesteps.dtype and torch.equal(ours.timesteps, native.timesteps), n
        if hasattr(native, "sigmas"):
            assert torch.equal(ours.sigmas, native.sigmas), n
        if hasattr(native, "init_noise_sigma") and not choice.get("rescale_betas_zero_snr"):  # x / alpha does not exist
            assert type(ours.init_noise_sigma) is type(native.init_noise_sigma)
            assert float(ours.init_noise_sigma) == pytest.approx(float(native.init_noise_sigma), rel=1e-6)
        assert ours.order == getattr(native, "order", 1)


def refused(choice: dict[str, Any]) -> bool:
    """What no network can be: epsilon where alpha is 0."""
    return bool(choice.get("rescale_betas_zero_snr")) and choice.get("prediction_type") != "v_prediction"


def test_every_class_that_can_be_read_is_here():
    assert len(CLASSES) >= 20 and {"LMSDiscreteScheduler", "DPMSolverSDEScheduler", "PNDMScheduler"} <= set(CLASSES)


@pytest.mark.parametrize("config", [
    {"_class_name": "HeunDiscreteScheduler", **SCALED}, {"_class_name": "DDIMScheduler", **SCALED, "clip_sample": False},
    {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, {"_class_name": "EDMEulerScheduler"},
])  # fmt: skip
@pytest.mark.parametrize("sampler", sorted(name for name, card in KNOWN.items() if card.traceable))
def test_every_evaluation_is_told_the_time_of_its_level(sampler, config):
    """Native classes round it, by at most a step; a sampler with levels of its own is told theirs."""
    options = {"sampler_options": option_sets(KNOWN[sampler])[0]} if KNOWN[sampler].required else {}
    ours = SolverKitScheduler.from_config(config, sampler=sampler, **options)
    ours.set_timesteps(7)
    table = ours._run.table
    span = float(ours.timesteps[0])
    for level in table.plan.levels:
        exact = table.convention.schedule.time(level.ratio)
        assert abs(level.time - exact) <= 1.01e-3 * abs(span) + 1e-3, (level, exact)
