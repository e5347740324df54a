"""What noise level a strength means: that of the native layout, for every sampler and pipelines' way of counting."""

from __future__ import annotations

import diffusers
import pytest
import torch
from scheduler_loop import BETAS, SMALL, TRACEABLE, loop, noise

from solverkit import SolverKitScheduler
from solverkit.pipelines.peers import PEERS

# They lay out levels of their own: a jump over the noisy ones, or back to them. A strength has no place there.
JUMPING = ("teleport", "gaussian-exponential", "repaint", "reflect", "restart")
STEADY = [name for name in TRACEABLE if name not in JUMPING]
STRENGTHS = [k / 50 for k in range(3, 41)]
CONFIGS = {
    "sd": ("DDIMScheduler", {**BETAS, "steps_offset": 1}),
    "trailing": ("DDIMScheduler", {**BETAS, "timestep_spacing": "trailing"}),
    "flow": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
}


def starts(scheduler, n):
    """The timestep where a run of each strength begins, as StableDiffusionImg2ImgPipeline.get_timesteps has it."""
    firsts = [max(n - min(int(n * k), n), 0) * scheduler.order for k in STRENGTHS]
    return [float(scheduler.timesteps[first]) for first in firsts]


def layout_of(sampler, config, family):
    """The class of the sampler's method, else the one that wrote the config."""
    peer = PEERS.get(sampler)
    if peer is None or (name := peer.class_for(family, config["_class_name"])) is None:
        return getattr(diffusers, config["_class_name"]).from_config(config)
    if name == config["_class_name"] or family == "vp":
        return getattr(diffusers, name).from_config(config, **peer.fixed)
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": config["shift"], **peer.fixed}
    shared = {"shift": config["shift"]} if name.startswith(("FlowMatch", "FlowMap")) else flow
    return getattr(diffusers, name)(**shared)


@pytest.mark.parametrize("n", [20, 50])
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("sampler", STEADY)
def test_a_strength_is_that_of_the_native_layout(sampler, config, n):
    writer, keys = CONFIGS[config]
    config = dict(getattr(diffusers, writer)(**keys).config, _class_name=writer)
    native = layout_of(sampler, config, "flow" if "shift" in keys else "vp")
    native.set_timesteps(n)
    ours = SolverKitScheduler.from_config(config, sampler=sampler, sampler_options=SMALL.get(sampler))
    ours.set_timesteps(n)
    pairs = list(zip(STRENGTHS, starts(native, n), starts(ours, n)))
    close = 25 + 1000 / n * keys.get("shift", 1.0)  # a step, and at the clean end of a shifted flow that is longer
    # stages on the way to a level below the next one; thirds in log-SNR of a step as long as three, far down near its end
    close *= 1 + (sampler in ("kdpm2-ancestral", "dpmpp-2s-ancestral", "seeds-3"))
    assert all(abs(a - b) <= close for _, a, b in pairs), [p for p in pairs if abs(p[1] - p[2]) > close]


@pytest.mark.parametrize("strength", [0.06, 0.75])
@pytest.mark.parametrize("sampler", STEADY)
def test_a_run_of_a_strength_ends(sampler, strength):
    ours = SolverKitScheduler.from_config(
        diffusers.DDIMScheduler(**BETAS, steps_offset=1, clip_sample=False).config, sampler=sampler,
        sampler_options=SMALL.get(sampler),
    )  # fmt: skip
    ours.set_timesteps(20)
    first = (20 - int(20 * strength)) * ours.order
    ours.set_begin_index(first)
    clean = noise(seed=2)
    x = ours.add_noise(clean, noise(), ours.timesteps[first : first + 1])
    x = loop(ours, x, ours.timesteps[first:], torch.Generator().manual_seed(0))
    assert torch.isfinite(x).all() and ours.step_index == len(ours.timesteps)
