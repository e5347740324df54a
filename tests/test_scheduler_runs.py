"""Runs of SolverKitScheduler: starts in the middle, edits, families of models, sigmas, dtypes and shapes."""

from __future__ import annotations

import copy
import math

import diffusers
import pytest
import torch
from scheduler_loop import BETAS, SMALL, TRACEABLE, asked, edm, flow, loop, make, network, noise, run

import solverkit as sk
from solverkit import SolverKitScheduler
from solverkit.errors import BudgetError, GridError, OptionError, SolverKitError, TraceError
from solverkit.registry.registry import registry


@pytest.mark.parametrize("sampler", TRACEABLE)
@pytest.mark.parametrize("steps", [1, 2, 3, 6, 7, 11])
def test_as_many_evaluations_as_timesteps_remain(sampler, steps):
    scheduler = make(sampler)
    grid = sk.make_grid("trailing", sk.VP("scaled_linear", 0.00085, 0.012), 1)
    if (least := sk.trace(sampler, grid, **SMALL.get(sampler, {})).nfe) > max(steps, 2):
        with pytest.raises(BudgetError, match=str(least)):
            scheduler.set_timesteps(steps)
        return
    scheduler.set_timesteps(steps)
    assert scheduler.nfe == len(scheduler.timesteps) == len(scheduler.sigmas) - 1
    assert scheduler.order in (1, 2)
    assert scheduler.nfe == steps if scheduler.order == 1 else scheduler.nfe in (2 * steps - 1, 2 * steps)
    plan = scheduler._run.table.plan
    for start in range(scheduler.nfe):
        scheduler.set_timesteps(steps)
        if not plan.boundary[start] and any(s > plan.levels[start] for s in plan.levels[start:]):
            scheduler.set_begin_index(start)  # inside a step that goes below its end: no step leads up again
            with pytest.raises(TraceError, match="in the middle"):
                scheduler.step(noise(), scheduler.timesteps[start], noise())
            continue
        scheduler.set_begin_index(start)
        x = loop(scheduler, noise(), scheduler.timesteps[start:], torch.Generator().manual_seed(0))
        assert scheduler.step_index == scheduler.nfe and torch.isfinite(x).all()
        with pytest.raises(SolverKitError, match="finished"):
            scheduler.step(x, 0, x)


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp-2m", "unipc", "heun", "deis"])
def test_a_start_in_the_middle_is_a_run_on_the_tail(sampler):
    scheduler = make(sampler)
    scheduler.set_timesteps(8)
    start = 3 * scheduler.order
    x = loop(scheduler, noise(), scheduler.timesteps[start:])
    grid = scheduler._run.table.plan.grid.tail(3)
    denoiser = sk.wrap(lambda y, t: network(y, t[0]), "epsilon", grid.schedule)
    expected = sk.sample(denoiser, sampler, x=noise(), grid=grid).x
    assert float((x - expected).norm() / expected.norm()) < 1e-5


def test_an_edit_between_steps_reaches_the_result_as_in_the_base_method():
    for sampler in TRACEABLE:
        scheduler = make(sampler)
        scheduler.set_timesteps(6)
        boundary = [j for j, first in enumerate(scheduler._run.table.plan.boundary) if first and j > 0]
        if not boundary or sampler in ("lm-langevin", "ncsn"):  # two runs differ by their draws as much as by an edit
            continue
        generator = torch.Generator().manual_seed(0)
        x = noise()
        for j, t in enumerate(scheduler.timesteps):
            if j == boundary[-1]:
                x = x + 1.0
                edited = x.clone()
            x = scheduler.step(asked(scheduler, x, t), t, x, generator=generator, return_dict=False)[0]
        fresh = make(sampler)  # the edited latents alone, with the same history of predictions for a one-step method
        fresh.set_timesteps(6)
        fresh.set_begin_index(boundary[-1])
        y = loop(fresh, edited, fresh.timesteps[boundary[-1] :], torch.Generator().manual_seed(0))
        assert float((x - y).norm()) < 0.5 * float((torch.ones_like(x)).norm()), sampler


def test_denoising_split_between_two_schedulers():
    whole = run(make("ddim"), 10)
    first, second = make("ddim"), make("ddim")
    for scheduler in (first, second):
        scheduler.set_timesteps(10)
    x = loop(first, noise(), first.timesteps[:6])
    assert torch.equal(loop(second, x, second.timesteps[6:]), whole)


def test_latents_of_another_shape_begin_anew():
    scheduler = make("unipc")
    scheduler.set_timesteps(6)
    x = loop(scheduler, noise(), scheduler.timesteps[:3])[:, :, :6]
    assert loop(scheduler, x, scheduler.timesteps[3:]).shape == (2, 4, 6, 8)


def test_a_batch_that_guidance_doubles_for_one_call_keeps_its_history():
    scheduler = make("unipc")
    scheduler.set_timesteps(6)
    x = loop(scheduler, noise(), scheduler.timesteps[:3])
    t, doubled = scheduler.timesteps[3], torch.cat([x, x])
    both = scheduler.step(network(doubled, t), t, doubled, return_dict=False)[0]
    scheduler._step_index -= 1
    alone = scheduler.step(network(x, t), t, x, return_dict=False)[0]
    assert torch.equal(both[:2], alone) and torch.equal(both[2:], alone)


def test_dynamic_shift_and_explicit_sigmas_are_the_native_ones():
    sigmas = [1.0, 0.75, 0.5, 0.25]
    for options in (
        {"shift": 3.0},
        {"use_dynamic_shifting": True},
        {"use_dynamic_shifting": True, "time_shift_type": "linear"},
        {"shift": 3.0, "shift_terminal": 0.1},
        {"use_dynamic_shifting": True, "shift_terminal": 0.02},
        {"use_karras_sigmas": True, "shift": 2.0},
        {"use_exponential_sigmas": True},
        {"invert_sigmas": True, "shift": 2.0},
    ):
        native = diffusers.FlowMatchEulerDiscreteScheduler(**options)
        ours = SolverKitScheduler.from_config(native.config, sampler="euler")
        native.set_timesteps(sigmas=sigmas, mu=0.8)
        ours.set_timesteps(sigmas=sigmas, mu=0.8)
        torch.testing.assert_close(ours.sigmas, native.sigmas, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours.timesteps, native.timesteps, rtol=1e-5, atol=1e-3)
        x = y = noise()
        for t, u in zip(ours.timesteps, native.timesteps):
            x, y = (s.step(network(z, r), r, z, return_dict=False)[0] for s, z, r in ((ours, x, t), (native, y, u)))
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_mu_without_dynamic_shift_is_ignored():
    plain = flow(shift=3.0)
    plain.set_timesteps(4)
    with_mu = flow(shift=3.0)
    with_mu.set_timesteps(4, mu=0.8)
    assert torch.equal(plain.sigmas, with_mu.sigmas)


@pytest.mark.parametrize(
    "given",
    [[1.0, 0.5, 0.25], [1.0, 0.5, 0.25, 0.0], torch.tensor([1.0, 0.5, 0.25]), (1.0, 0.5, 0.25)],
)
def test_sigmas_of_every_kind(given):
    scheduler = flow()
    scheduler.set_timesteps(sigmas=given)
    assert scheduler.sigmas.tolist() == [1.0, 0.5, 0.25, 0.0] and scheduler.timesteps.tolist() == [1000.0, 500.0, 250.0]


def test_timesteps_and_sigmas_together_are_told_and_run():
    scheduler = flow()
    scheduler.set_timesteps(timesteps=[990, 480, 240], sigmas=[1.0, 0.5, 0.25])
    assert scheduler.timesteps.tolist() == [990.0, 480.0, 240.0] and scheduler.sigmas.tolist() == [1.0, 0.5, 0.25, 0.0]


def test_sigmas_that_were_edited_are_followed():
    scheduler = edm("euler", final_sigmas_type="zero")
    scheduler.set_timesteps(5)
    scheduler.sigmas[-1] = scheduler.sigmas[-2]
    x = noise() * 80
    for t in scheduler.timesteps:
        before = x
        x = scheduler.step(noise(seed=1), t, x, return_dict=False)[0]
    assert torch.equal(before, x) and scheduler.nfe == 5  # the last step has length zero
    other = edm("euler")
    other.set_timesteps(sigmas=scheduler.sigmas.tolist()[:-1])
    y = noise() * 80
    for t in other.timesteps[:-1]:
        y = other.step(noise(seed=1), t, y, return_dict=False)[0]
    torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("cls", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_predictions_of_one_gaussian_agree(prediction, cls):
    """The exact answer for N(0, 0.5^2) in any parametrisation leads to the same samples."""
    scheduler = make(native_class=cls, prediction_type=prediction)
    scheduler.set_timesteps(10)
    x = noise() * (math.sqrt(1 + float(scheduler.sigmas[0]) ** 2) if cls.startswith("Euler") else 1.0)
    for i, t in enumerate(scheduler.timesteps):
        s = float(scheduler.sigmas[i])
        alpha, sigma = 1 / math.hypot(1, s), s / math.hypot(1, s)
        own = scheduler.scale_model_input(x, t)
        denoised = own * alpha * 0.25 / (alpha**2 * 0.25 + sigma**2)
        epsilon = (own - alpha * denoised) / sigma
        output = {"epsilon": epsilon, "sample": denoised, "v_prediction": alpha * epsilon - sigma * denoised}[prediction]
        x = scheduler.step(output, t, x, return_dict=False)[0]
    first = float(torch.tensor(noise()[0, 0, 0, 0]))
    assert 0.4 < float(x[0, 0, 0, 0]) / first < 0.6
    torch.testing.assert_close(x / noise(), torch.full_like(x, float(x[0, 0, 0, 0]) / first), rtol=1e-4, atol=0)


def test_learned_variance_is_dropped_and_clipping_is_done():
    scheduler = make("dpmpp-2m")
    scheduler.set_timesteps(4)
    x, output = noise(), noise(seed=1)
    both = scheduler.step(torch.cat([output, output * 9], 1), scheduler.timesteps[0], x)
    scheduler._step_index -= 1
    assert torch.equal(both.prev_sample, scheduler.step(output, scheduler.timesteps[0], x).prev_sample)
    for options, most in (({"clip_sample": True}, 1.0), ({"thresholding": True, "sample_max_value": 1.5}, 1.0)):
        config = {**diffusers.DDPMScheduler(**BETAS).config, **options}
        scheduler = SolverKitScheduler.from_config(config)
        scheduler.set_timesteps(4)
        denoised = scheduler.step(output, scheduler.timesteps[0], x).pred_original_sample
        assert float(denoised.abs().max()) <= most


def test_tokens_of_their_own_time_stay():
    scheduler = flow("dpmpp-2m")
    scheduler.set_timesteps(4)
    x, velocity, t = noise(1, 6, 3), noise(1, 6, 3, seed=1), scheduler.timesteps[1]
    scheduler.step(-velocity, scheduler.timesteps[0], x, per_token_timesteps=torch.full((1, 6), 1000.0))
    tokens = torch.full((1, 6), float(t))
    tokens[:, 4:] = 0.0
    moved, denoised = scheduler.step(-velocity, t, x, per_token_timesteps=tokens, return_dict=False)
    assert torch.equal(moved[:, 4:], x[:, 4:]) and not torch.equal(moved[:, :4], x[:, :4])
    assert torch.equal(denoised[:, 4:], x[:, 4:])
    torch.testing.assert_close(denoised[:, :4], (x - float(t) / 1000 * velocity)[:, :4])
    with pytest.raises(OptionError, match="flow"):
        other = make()
        other.set_timesteps(4)
        other.step(velocity, other.timesteps[0], x, per_token_timesteps=tokens)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(2, 4), (2, 5, 3), (2, 4, 8, 8), (1, 4, 2, 8, 8)])
def test_dtypes_and_shapes(dtype, shape):
    scheduler = make("unipc")
    scheduler.set_timesteps(5)
    x = noise(*shape)
    for t in scheduler.timesteps:
        previous, denoised = scheduler.step(network(x, t).to(dtype), t, x, return_dict=False)
        assert previous.dtype == denoised.dtype == dtype and previous.shape == shape
        x = previous
    assert torch.isfinite(x).all()


def test_inference_mode():
    expected = run(make("unipc"))
    with torch.inference_mode():
        scheduler = make("unipc")
        x = run(scheduler)
        scheduler.set_timesteps(6)
        y = loop(scheduler, noise(), scheduler.timesteps[:3])
        assert torch.equal(loop(copy.deepcopy(scheduler), y, scheduler.timesteps[3:]), expected)
        scheduler.set_timesteps(6)
        scheduler.sigmas[-1] = scheduler.sigmas[-2]
        assert not torch.equal(loop(scheduler, noise()), expected)
    assert torch.equal(x, expected)


@pytest.mark.parametrize("sampler", TRACEABLE)
@pytest.mark.parametrize("steps", [5, 8])
def test_sigmas_that_were_set_to_what_they_were_change_nothing(sampler, steps):
    for build in (make, flow, edm):
        a, b = build(sampler), build(sampler)
        for scheduler in (a, b):
            scheduler.set_timesteps(steps)
        b.sigmas = b.sigmas.clone()
        x, y = (run_on(s) for s in (a, b))
        assert b._run.table is a._run.table or b._run.table.sigmas.tolist() == a._run.table.sigmas.tolist()
        assert float((x - y).norm() / x.norm()) < 1e-3


def run_on(scheduler):
    generator = torch.Generator().manual_seed(0)
    return loop(scheduler, noise() * scheduler.init_noise_sigma, generator=generator)


def test_sigmas_must_fall():
    scheduler = edm("euler")
    scheduler.set_timesteps(5)
    scheduler.sigmas[2] = scheduler.sigmas[1]
    with pytest.raises(GridError, match="fall"):
        scheduler.step(noise(), scheduler.timesteps[0], noise())
    scheduler.set_timesteps(5)
    scheduler.sigmas[2] = 5.0
    x, z = noise(), noise(seed=1)
    torch.testing.assert_close(scheduler.add_noise(x, z, scheduler.timesteps[2:3]), x + 5.0 * z)


def test_cosmos_2_ends_at_the_smallest_sigma():
    native = diffusers.FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)
    native.register_to_config(sigma_max=80.0, sigma_min=0.002, sigma_data=1.0, final_sigmas_type="sigma_min")
    native.sigma_max, native.sigma_min = 80.0, 0.002
    ours = SolverKitScheduler.from_config(native.config, sampler="euler")
    ramp = torch.linspace(0, 1, 6, dtype=torch.float64)
    for scheduler in (native, ours):
        scheduler.set_timesteps(sigmas=ramp)
        scheduler.sigmas[-1] = scheduler.sigmas[-2]
    torch.testing.assert_close(ours.sigmas, native.sigmas, rtol=1e-5, atol=1e-6)
    x = y = noise() * 80
    for t, u in zip(ours.timesteps, native.timesteps):
        x, y = (s.step(network(z, 1), r, z, return_dict=False)[0] for s, z, r in ((ours, x, t), (native, y, u)))
    torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)


@sk.op
def rows(x):
    return x.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)


@sk.op
def scaled(x, n, before):
    return x * (n / before)


def keeps_norms(model, x, grid, noise):
    """Carries one number a sample from step to step."""
    before = None
    for s, t in grid.steps():
        denoised = model(x, s)
        n = rows(denoised)
        step = x + (t - s) * ((x - denoised) / s)
        x = step if before is None else 0.9 * step + 0.1 * scaled(step, n, before)
        before = n
    return x


def test_values_of_another_shape_are_kept_too(monkeypatch):
    from solverkit.registry import registry as plugins

    cards = {kind: dict(found) for kind, found in registry().cards.items()}
    cards["samplers"]["keeps-norms"] = plugins.SamplerCard("keeps-norms", keeps_norms, skip=4)
    changed = plugins.Registry(cards, registry().plugins, registry().failed)
    monkeypatch.setattr(plugins, "registry", lambda: changed)
    expected = run(make("keeps-norms"))
    scheduler = make("keeps-norms")
    scheduler.set_timesteps(6)
    x = noise()
    for t in scheduler.timesteps:
        doubled = torch.cat([x, x])
        both = scheduler.step(network(doubled, t), t, doubled, return_dict=False)[0]
        scheduler._step_index -= 1
        x = scheduler.step(network(x, t), t, x, return_dict=False)[0]
        assert torch.equal(both[:2], x)
    assert torch.equal(x, expected)
