"""The scheduler_config.json of Stable Diffusion 1.5 with each sampler: the run of the native class made from that file."""

from __future__ import annotations

import warnings

import diffusers
import pytest
import torch
from native_scheduler import network, start
from test_scheduler_loading import SD15

from solverkit import SolverKitScheduler

# (sampler, native class, keys beside those of the file)
CASES = [
    ("unipc", "UniPCMultistepScheduler", {}), ("unipc", "UniPCMultistepScheduler", {"solver_order": 3}),
    ("unipc", "UniPCMultistepScheduler", {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}),
    ("dpmpp-2m", "DPMSolverMultistepScheduler", {}),
    ("dpmpp-2m", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    ("dpmpp-2m", "DPMSolverMultistepScheduler", {"solver_type": "heun"}),
    ("dpmpp-2m", "DPMSolverMultistepScheduler", {"timestep_spacing": "trailing", "euler_at_final": True}),
    ("dpmpp-2m-sde", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    ("dpmpp-2m-sde", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
    ("deis", "DEISMultistepScheduler", {}), ("deis", "DEISMultistepScheduler", {"solver_order": 1}),
    ("euler", "EulerDiscreteScheduler", {}), ("euler", "EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    ("euler", "EulerDiscreteScheduler", {"timestep_spacing": "leading"}), ("heun", "HeunDiscreteScheduler", {}),
    ("heun", "HeunDiscreteScheduler", {"use_karras_sigmas": True}), ("lms", "LMSDiscreteScheduler", {}),
    ("lms", "LMSDiscreteScheduler", {"use_karras_sigmas": True}), ("kdpm2", "KDPM2DiscreteScheduler", {}),
    ("kdpm2", "KDPM2DiscreteScheduler", {"timestep_spacing": "leading"}), ("pndm", "PNDMScheduler", {}),
    ("ddim", "DDIMScheduler", {}), ("ddim", "DDIMScheduler", {"timestep_spacing": "trailing"}),
    ("euler-ancestral", "EulerAncestralDiscreteScheduler", {}), ("ddpm", "DDPMScheduler", {}),
    ("dpmpp-3m", "DPMSolverMultistepScheduler", {"solver_order": 3}),
    ("dpmpp-singlestep", "DPMSolverSinglestepScheduler", {}),
]  # fmt: skip
IDS = ["-".join([sampler, *map(str, keys.values())]) for sampler, _, keys in CASES]


def both(sampler, name, keys):
    own = {k: v for k, v in keys.items() if k in ("use_karras_sigmas", "timestep_spacing", "final_sigmas_type")}
    method = {k: v for k, v in keys.items() if k not in own and (k, sampler) != ("solver_order", "dpmpp-3m")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        native = getattr(diffusers, name).from_config(dict(SD15), **keys)
    options = {"released": True} if sampler == "dpmpp-3m" else None  # its own second difference is the right one
    return native, SolverKitScheduler.from_config(dict(SD15), sampler=sampler, sampler_options=options, **own, **method)


def states(scheduler, n):
    """The latents that a network would see, alpha x_0 + sigma eps, at each evaluation, and the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler.set_timesteps(n)
    generator, seen = torch.Generator().manual_seed(0), []
    x = start() * float(scheduler.init_noise_sigma)
    for t in scheduler.timesteps:
        shown = scheduler.scale_model_input(x, t)
        seen.append(shown)
        options = {"generator": generator} if "generator" in scheduler.step.__code__.co_varnames else {}
        x = scheduler.step(network(shown, t), t, x, **options).prev_sample
    return [*seen, x]


@pytest.mark.parametrize("n", [5, 20])
@pytest.mark.parametrize(("sampler", "name", "keys"), CASES, ids=IDS)
def test_the_run_is_that_of_the_native_class(sampler, name, keys, n):
    native, ours = both(sampler, name, keys)
    a, b = states(native, n), states(ours, n)
    assert torch.equal(native.timesteps, ours.timesteps) and len(a) == len(b)
    if hasattr(native, "sigmas"):
        assert torch.equal(native.sigmas, ours.sigmas)
    errors = [float((x - y).norm() / y.norm()) for x, y in zip(b, a)]
    assert max(errors[:-1]) < 2e-5, errors
    assert errors[-1] < 1e-4, errors
