"""Noise of SolverKitScheduler: generators, eta, add_noise; and preludes, which jump before the first step."""

from __future__ import annotations

import math

import diffusers
import pytest
import torch
from scheduler_loop import BETAS, edm, flow, loop, make, network, noise, run

import solverkit as sk
from solverkit import SolverKitScheduler
from solverkit.errors import OptionError, SolverKitError
from solverkit.registry.registry import registry


def test_eta_of_a_pipeline_is_for_samplers_of_that_kind_only():
    quiet, loud = make("ddim"), make("ddim")
    for scheduler in (quiet, loud):
        scheduler.set_timesteps(5)
    x, y = noise(), noise()
    generator = torch.Generator().manual_seed(0)
    for t in quiet.timesteps:
        x = quiet.step(network(x, t), t, x, eta=0.0, return_dict=False)[0]
        y = loud.step(network(y, t), t, y, eta=1.0, generator=generator, return_dict=False)[0]
    configured = run(make("ddim", sampler_options={"eta": 1.0}), 5)
    assert torch.equal(y, configured) and not torch.equal(x, y)
    ancestral = make("euler-ancestral")
    ancestral.set_timesteps(5)
    z = noise()
    generator = torch.Generator().manual_seed(0)
    for t in ancestral.timesteps:
        z = ancestral.step(network(z, t), t, z, eta=0.0, generator=generator, return_dict=False)[0]
    torch.testing.assert_close(z, configured)


def test_generators_one_a_sample_and_given_noise():
    scheduler = make("ddpm")
    generators = [torch.Generator().manual_seed(i) for i in (3, 4)]
    scheduler.set_timesteps(5)
    batch = loop(scheduler, noise(), generator=generators)
    for i in (0, 1):
        scheduler.set_timesteps(5)
        alone = loop(scheduler, noise()[i : i + 1], generator=[torch.Generator().manual_seed(3 + i)])
        torch.testing.assert_close(batch[i : i + 1], alone)
    scheduler.set_timesteps(5)
    t, x = scheduler.timesteps[0], noise()
    a = scheduler.step(x, t, x, variance_noise=noise(seed=5)).prev_sample
    scheduler._step_index = 0
    scheduler.set_timesteps(5)
    b = scheduler.step(x, t, x, variance_noise=noise(seed=6)).prev_sample
    ratio = (a - b) / (noise(seed=5) - noise(seed=6))
    torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio.median())), rtol=1e-3, atol=0)


@pytest.mark.parametrize("cls", ["DDIMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"])
def test_add_noise_is_right_before_and_after_set_timesteps(cls):
    native = getattr(diffusers, cls)(timestep_spacing="trailing", **BETAS)
    ours = SolverKitScheduler.from_config(native.config)
    x, z = noise(), noise(seed=1)
    t = torch.tensor([10, 900])
    table = native.alphas_cumprod[t].reshape(-1, 1, 1, 1)
    expected = table.sqrt() * x + (1 - table).sqrt() * z
    if cls != "DDIMScheduler":
        expected = expected / table.sqrt()
    for _ in range(2):
        torch.testing.assert_close(ours.add_noise(x, z, t), expected, rtol=1e-4, atol=1e-4)
        ours.set_timesteps(10)
    run_step = ours.timesteps[2]
    ours.set_begin_index(2)
    scale = ours.sigmas[2]
    level = ours.add_noise(x, z, run_step.repeat(2))
    own = level / math.hypot(1, scale) if cls != "DDIMScheduler" else level
    torch.testing.assert_close(own, (x + scale * z) / math.hypot(1, scale), rtol=1e-4, atol=1e-4)


def test_noise_of_flow_and_velocity():
    scheduler = flow(shift=3.0)
    x, z = noise(), noise(seed=1)
    for _ in range(2):
        torch.testing.assert_close(scheduler.scale_noise(x, torch.tensor([250.0]), z), 0.75 * x + 0.25 * z)
        scheduler.set_timesteps(4)
    t = scheduler.timesteps[1:2]
    s = float(scheduler.sigmas[1])
    torch.testing.assert_close(scheduler.scale_noise(x, t, z), (1 - s) * x + s * z)
    torch.testing.assert_close(scheduler.get_velocity(x, z, t), z - x)
    with pytest.raises(OptionError, match="noise"):
        scheduler.scale_noise(x, t)
    vp = make()
    a = vp.alphas_cumprod[500]
    torch.testing.assert_close(
        vp.get_velocity(x, z, torch.tensor([500, 500])), a.sqrt() * z - (1 - a).sqrt() * x, rtol=1e-4, atol=1e-4
    )
    with pytest.raises(OptionError, match="velocity"):
        edm().get_velocity(x, z, torch.tensor([0.1]))


@sk.op
def shifted(x, amount):
    return x + amount


def with_prelude(model, x, grid, noise, amount: float = 0.5):
    """Adds a constant before the first evaluation where the run starts above sigma / alpha = 5, then DDIM."""
    if grid[0].ratio > 5:
        x = shifted(x, amount)
    for s, t in grid.steps():
        x = x + (t - s) * ((x - model(x, s)) / s)
    return x


@pytest.fixture
def prelude(monkeypatch):
    from solverkit.registry import registry as plugins

    card = plugins.SamplerCard("with-prelude", with_prelude, skip=4)
    cards = {kind: dict(found) for kind, found in registry().cards.items()}
    cards["samplers"]["with-prelude"] = card
    changed = plugins.Registry(cards, registry().plugins, registry().failed)
    monkeypatch.setattr(plugins, "registry", lambda: changed)
    return "with-prelude"


def test_a_prelude_is_applied_once_and_never_stored(prelude):
    scheduler, base = make(prelude), make("ddim")
    scheduler.set_timesteps(6)
    base.set_timesteps(6)
    x = noise()
    expected = loop(base, x + 0.5 / math.hypot(1, float(base.sigmas[0])))
    for t in scheduler.timesteps:
        doubled = scheduler.scale_model_input(torch.cat([x, x]), t)  # as pipelines do under guidance
        x = scheduler.step(network(doubled, t)[:2], t, x, return_dict=False)[0]
    torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-5)


def test_a_prelude_in_a_pipeline_that_never_scales_its_input(prelude):
    scheduler, x = make(prelude), noise()
    scheduler.set_timesteps(6)
    with pytest.raises(SolverKitError, match="prepare"):
        scheduler.step(x, scheduler.timesteps[0], x)
    ready = scheduler.prepare(x, 6)
    scheduler.set_timesteps(6)
    for t in scheduler.timesteps:
        ready = scheduler.step(network(scheduler.scale_model_input(ready, t), t), t, ready, return_dict=False)[0]
    scheduler.set_timesteps(6)
    torch.testing.assert_close(ready, loop(scheduler, x))
    scheduler.prepare(x, 6)
    with pytest.raises(SolverKitError, match="prepare"):
        scheduler.set_timesteps(7)
    scheduler.set_timesteps(7)


def test_a_tail_below_the_prelude_is_the_base_solver(prelude):
    scheduler, base = make(prelude), make("ddim")
    for s in (scheduler, base):
        s.set_timesteps(6)
    assert float(scheduler.sigmas[4]) < 5
    x, y = noise(), noise()
    for t in scheduler.timesteps[4:]:
        x, y = (s.step(network(z, t), t, z, return_dict=False)[0] for s, z in ((scheduler, x), (base, y)))
    torch.testing.assert_close(x, y)
