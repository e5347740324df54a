"""DDPM's kinds of variance against `DDPMScheduler`, step by step on the same draws; others drop what they do not use."""

from __future__ import annotations

import diffusers
import pytest
import torch
from scheduler_loop import BETAS, SMALL, TRACEABLE, noise

from solverkit import SolverKitScheduler
from solverkit.errors import SolverKitError
from solverkit.pipelines.peers import PEERS

KINDS = ["fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range"]  # fixed_large_log is NaN natively
LAYOUTS = [
    {"timestep_spacing": "leading"}, {"timestep_spacing": "trailing"}, {"timestep_spacing": "linspace"},
    {"timestep_spacing": "leading", "steps_offset": 1}, {"beta_schedule": "squaredcos_cap_v2"},
    {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    {"clip_sample": True, "clip_sample_range": 2.0}, {"thresholding": True, "sample_max_value": 1.5},
]  # fmt: skip


def network(x, t, kind):
    """Smooth in x and t; a variance in [-1, 1] as a fraction, or a small positive one."""
    t = float(t) / 1000
    mean = 0.9 * x * t + 0.3 * torch.sin(2 * x + t)
    if not kind.startswith("learned"):
        return mean
    spread = torch.cos(3 * x + t)
    return torch.cat([mean, spread if kind == "learned_range" else 0.01 + 0.005 * spread], 1)


def pair(kind, layout):
    native = diffusers.DDPMScheduler(**{**BETAS, "clip_sample": False, "variance_type": kind, **layout})
    return native, SolverKitScheduler.from_config({**native.config, "_class_name": "DDPMScheduler"}, sampler="ddpm")


def followed(native, ours, kind, steps, x, end="denoised"):
    """The largest relative difference of two runs on one stream of draws, each on its own states.

    DDPM (Ho et al. 2020, algorithm 2) ends at the mean, which is the denoised prediction. The native class draws once more
    where its last timestep is not 0; ours does with the large variance (`released`), not with a learned one.
    """
    native.set_timesteps(steps)
    ours.set_timesteps(steps)
    assert torch.equal(native.timesteps, ours.timesteps)
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    a = b = x
    worst = 0.0
    for t in native.timesteps:
        output = native.step(network(a, t, kind), t, a, generator=generators[0])
        a = output.pred_original_sample if t == native.timesteps[-1] and end == "denoised" else output.prev_sample
        b = ours.step(network(b, t, kind), t, b, generator=generators[1]).prev_sample
        assert torch.isfinite(a).all()
        worst = max(worst, float((a - b).norm() / a.norm()))
    return worst


@pytest.mark.parametrize("layout", LAYOUTS, ids=["-".join(map(str, layout.values())) for layout in LAYOUTS])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [5, 20])
def test_each_kind_of_variance_is_that_of_the_native_class(kind, layout, steps):
    native, ours = pair(kind, layout)
    end = "drawn" if kind == "fixed_large" else "denoised"
    assert followed(native, ours, kind, steps, noise(2, 3, 8, 8), end) < 1e-5


def test_the_whole_trained_run():
    native, ours = pair("learned_range", {"num_train_timesteps": 20})
    assert followed(native, ours, "learned_range", 20, noise(2, 3, 8, 8)) < 3e-5  # 1 - alphas_cumprod cancels in float32


@pytest.mark.parametrize("layout", LAYOUTS[:5], ids=["-".join(map(str, layout.values())) for layout in LAYOUTS[:5]])
def test_the_large_variance_ends_at_the_mean_where_it_is_not_the_released_one(layout):
    native, ours = pair("fixed_large", layout)
    ours = SolverKitScheduler.from_config(ours.config, sampler_options={"released": False})
    assert followed(native, ours, "fixed_large", 5, noise(2, 3, 8, 8)) < 1e-5


def test_the_logarithm_of_the_large_variance_is_the_large_one():
    """The native class takes the square root of the logarithm, which is NaN."""
    ends = []
    for kind in ("fixed_large_log", "fixed_large"):
        _, ours = pair(kind, {})
        ours.set_timesteps(5)
        generator, x = torch.Generator().manual_seed(3), noise(2, 3, 8, 8)
        for t in ours.timesteps:
            x = ours.step(network(x, t, kind), t, x, generator=generator).prev_sample
        ends.append(x)
    assert torch.equal(*ends) and torch.isfinite(ends[0]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_kinds_differ(kind):
    ends = []
    for variance_type in (kind, "fixed_small"):
        _, ours = pair(variance_type, {})
        ours.set_timesteps(10)
        generator, x = torch.Generator().manual_seed(3), noise(2, 3, 8, 8)
        for t in ours.timesteps:
            x = ours.step(network(x, t, kind), t, x, generator=generator).prev_sample
        ends.append(x)
    assert torch.equal(*ends) == (kind in ("fixed_small", "fixed_small_log"))


@pytest.mark.parametrize("kind", ["learned", "learned_range"])
@pytest.mark.parametrize("sampler", [name for name in TRACEABLE if not (name in PEERS and PEERS[name].learns)])
def test_samplers_of_another_kind_drop_the_variance(sampler, kind):
    ends = []
    for channels in ("learned_range", "none"):
        config = diffusers.DDPMScheduler(**BETAS, variance_type=kind, clip_sample=False).config
        scheduler = SolverKitScheduler.from_config(config, sampler=sampler, sampler_options=SMALL.get(sampler))
        scheduler.set_timesteps(4)
        generator, x = torch.Generator().manual_seed(3), noise(2, 3, 8, 8)
        for t in scheduler.timesteps:
            output = network(scheduler.scale_model_input(x, t), t, channels)
            x = scheduler.step(output, t, x, generator=generator, return_dict=False)[0]
        ends.append(x)
    assert torch.equal(*ends) and ends[0].shape == (2, 3, 8, 8)


@pytest.mark.parametrize("kind", ["learned", "learned_range"])
def test_given_noise_is_scaled_too(kind):
    native, ours = pair(kind, {})
    native.set_timesteps(5)
    ours.set_timesteps(5)
    x, t = noise(2, 3, 8, 8), ours.timesteps[0]
    output = network(x, t, kind)
    a = native.step(output, t, x, generator=torch.Generator().manual_seed(0)).prev_sample
    b = ours.step(output, t, x, variance_noise=noise(2, 3, 8, 8)).prev_sample
    assert float((a - b).norm() / a.norm()) < 1e-5


def test_an_answer_of_three_times_the_channels_is_refused():
    _, ours = pair("learned_range", {})
    ours.set_timesteps(5)
    with pytest.raises(SolverKitError, match="twice the channels"):
        ours.step(noise(2, 9, 8, 8), ours.timesteps[0], noise(2, 3, 8, 8))
