"""SolverKitScheduler itself: state, threads, edits, noise, preludes, configs, saving and loading."""

from __future__ import annotations

import copy
import json
import math
import pickle
import subprocess
import sys
import threading

import diffusers
import pytest
import torch
from tiny_pipelines import PIPELINES
from torch.utils._python_dispatch import TorchDispatchMode

import solverkit as sk
from solverkit import SolverKitScheduler, restore_native
from solverkit.errors import BudgetError, GridError, OptionError, ScheduleError, SolverKitError, UnknownNameError
from solverkit.registry.registry import registry
from solverkit.testing import option_sets

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
TRACEABLE = sorted(name for name, card in registry().cards["samplers"].items() if card.traceable)


def network(x, t):
    t = float(t) / 1000
    return 0.9 * x * t + 0.3 * torch.sin(2 * x + t) + 0.1 * torch.roll(x, 1, -1) * (1 - t)


NEEDED = {name: option_sets(card)[0] for name, card in registry().cards["samplers"].items() if card.required}
SMALL = {"ncsn": {"n_steps": 1}, "lm-langevin": {"n_steps": 1, "probes": 0}, **NEEDED}  # their defaults cost more a step


def make(sampler="dpmpp-2m", **options):
    options = {"sampler_options": SMALL[sampler], **options} if sampler in SMALL else options
    clip = {"clip_sample": False} if options.get("native_class", "DDIM")[:4] == "DDIM" else {}
    return SolverKitScheduler(sampler=sampler, **{"timestep_spacing": "trailing", **BETAS, **clip, **options})


def noise(*shape, seed=0):
    return torch.randn(shape or (2, 4, 8, 8), generator=torch.Generator().manual_seed(seed))


def asked(scheduler, x, t):
    return network(scheduler.scale_model_input(x, t), t)


def loop(scheduler, x, timesteps=None, generator=None):
    for t in scheduler.timesteps if timesteps is None else timesteps:
        x = scheduler.step(asked(scheduler, x, t), t, x, generator=generator, return_dict=False)[0]
    return x


def run(scheduler, steps=6, x=None, seed=0):
    scheduler.set_timesteps(steps)
    return loop(scheduler, noise() if x is None else x, generator=torch.Generator().manual_seed(seed))


# --- state


@pytest.mark.parametrize("sampler", TRACEABLE)
def test_copies_and_pickles_go_on_bit_for_bit(sampler):
    scheduler, generator = make(sampler), torch.Generator().manual_seed(1)
    expected = loop_from(scheduler, noise(), generator, 0)
    for copied in (copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))):
        scheduler, generator = make(sampler), torch.Generator().manual_seed(1)
        scheduler.set_timesteps(6)
        x = noise()
        for t in scheduler.timesteps[:3]:
            x = scheduler.step(asked(scheduler, x, t), t, x, generator=generator, return_dict=False)[0]
        other = copied(scheduler)
        assert other._run.plan.nfe == scheduler._run.plan.nfe
        assert torch.equal(loop(other, x.clone(), scheduler.timesteps[3:], generator), expected)


def loop_from(scheduler, x, generator, start):
    scheduler.set_timesteps(6)
    return loop(scheduler, x, scheduler.timesteps[start:], generator)


@pytest.mark.parametrize("sampler", TRACEABLE)
def test_a_repeated_step_is_the_same_step(sampler):
    expected = run(make(sampler))
    scheduler, generator = make(sampler), torch.Generator().manual_seed(0)
    scheduler.set_timesteps(6)
    x = noise()
    for t in scheduler.timesteps:
        doubled = torch.cat([x, x])
        own = None if scheduler._run.native.stochastic else generator
        scheduler.step(asked(scheduler, doubled, t), t, doubled, generator=own)
        scheduler._step_index -= 1
        first = scheduler.step(asked(scheduler, x, t), t, x, generator=generator, return_dict=False)[0]
        scheduler._step_index -= 1
        again = scheduler.step(asked(scheduler, x, t), t, x, generator=generator, return_dict=False)[0]
        assert torch.equal(first, again)
        x = again
    if not scheduler._run.native.stochastic:
        assert torch.equal(x, expected)


def test_a_repeated_step_draws_nothing_new():
    scheduler, generator = make("euler-ancestral"), torch.Generator().manual_seed(0)
    scheduler.set_timesteps(6)
    scheduler.step(noise(seed=1), scheduler.timesteps[0], noise(), generator=generator)
    state = generator.get_state()
    scheduler._step_index -= 1
    scheduler.step(noise(seed=1), scheduler.timesteps[0], noise(), generator=generator)
    assert torch.equal(generator.get_state(), state)


def test_snapshots_of_the_dict_are_restored():
    scheduler = make("unipc")
    scheduler.set_timesteps(6)
    views, snapshots = [noise(seed=1), noise(seed=2)], None
    expected = [run(make("unipc"), x=view) for view in views]
    snapshots = [copy.deepcopy(scheduler.__dict__)] * 2
    for t in scheduler.timesteps:
        for i, view in enumerate(views):
            scheduler.__dict__.update(snapshots[i])
            views[i] = scheduler.step(network(view, t), t, view, return_dict=False)[0]
            snapshots[i] = copy.deepcopy(scheduler.__dict__)
    for got, wanted in zip(views, expected):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("sampler", TRACEABLE)
def test_nothing_aliases_the_tensors_of_the_pipeline(sampler):
    expected = run(make(sampler))
    scheduler, generator = make(sampler), torch.Generator().manual_seed(0)
    scheduler.set_timesteps(6)
    buffer, x = torch.zeros(2, 4, 8, 8), noise()
    for t in scheduler.timesteps:
        buffer.copy_(x)
        output = asked(scheduler, buffer, t)
        before = (buffer.clone(), output.clone())
        previous, denoised = scheduler.step(output, t, buffer, generator=generator, return_dict=False)
        assert torch.equal(buffer, before[0]) and torch.equal(output, before[1])
        x = previous.clone()
        for tensor in (buffer, output, previous, denoised):
            tensor.fill_(7.0)
    assert torch.equal(x, expected)


def test_the_plan_is_shared_by_copies_and_constants_move():
    scheduler = make("unipc")
    scheduler.set_timesteps(6)
    assert copy.deepcopy(scheduler)._run.native is scheduler._run.native


# --- threads


def test_two_threads_on_one_scheduler_are_refused():
    scheduler, x, errors = make("dpmpp-2m"), noise(), []
    scheduler.set_timesteps(6)
    scheduler.step(network(x, 1), scheduler.timesteps[0], x)

    def other():
        try:
            scheduler.step(network(x, 1), scheduler.timesteps[1], x)
        except SolverKitError as error:
            errors.append(str(error))
        scheduler.set_timesteps(4)
        scheduler.step(network(x, 1), scheduler.timesteps[0], x)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert len(errors) == 1 and "deepcopy" in errors[0]
    with pytest.raises(SolverKitError, match="another thread"):  # whose run was replaced meanwhile
        scheduler.step(network(x, 1), scheduler.timesteps[1], x)
    scheduler.set_timesteps(6)
    assert torch.equal(loop(scheduler, noise()), run(make("dpmpp-2m")))


def test_eight_threads_share_one_plan():
    first = make("unipc")
    first.set_timesteps(6)
    expected = [run(make("unipc"), x=noise(seed=i)) for i in range(8)]
    results = [None] * 8

    def work(i):
        mine = copy.deepcopy(first)
        assert mine._run.native is first._run.native
        for _ in range(5):
            results[i] = loop(mine, noise(seed=i))
            mine._step_index = None

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for got, wanted in zip(results, expected):
        assert torch.equal(got, wanted)


# --- starts, edits, orders


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
    for start in range(scheduler.nfe):
        scheduler.set_timesteps(steps)
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
    grid = scheduler._run.plan.grid.tail(3)
    denoiser = sk.wrap(lambda y, t: network(y, t[0]), "epsilon", grid.schedule)
    expected = sk.sample(denoiser, sampler, x=noise(), grid=grid).x
    assert float((x - expected).norm() / expected.norm()) < 1e-5


def test_an_edit_between_steps_reaches_the_result_as_in_the_base_method():
    for sampler in TRACEABLE:
        scheduler = make(sampler)
        scheduler.set_timesteps(6)
        boundary = [j for j, first in enumerate(scheduler._run.plan.boundary) if first and j > 0]
        if not boundary or sampler == "lm-langevin":  # two runs of it differ by their draws as much as by an edit
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


# --- no synchronisation


class NoSync(TorchDispatchMode):
    """Fails where a value would have to travel from the device."""

    FORBIDDEN = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "unique")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.FORBIDDEN or (name in ("_to_copy", "copy_") and _leaves(args, kwargs or {})):
            raise AssertionError(f"{func} needs a value of the device")
        return func(*args, **(kwargs or {}))


def _leaves(args, kwargs):
    return kwargs.get("device") is not None and torch.device(kwargs["device"]).type != args[0].device.type


@pytest.mark.parametrize("sampler", TRACEABLE)
def test_step_needs_no_value_of_the_device(sampler):
    with pytest.raises(AssertionError), NoSync():
        noise().sum().item()
    for scheduler in (make(sampler), flow(sampler), edm(sampler)):
        scheduler.set_timesteps(6)
        x = noise() * scheduler.init_noise_sigma
        timesteps = list(scheduler.timesteps)
        outputs = [noise(seed=i) for i in range(len(timesteps))]
        with NoSync():
            for t, output in zip(timesteps, outputs):
                scheduler.scale_model_input(x, t)
                x = scheduler.step(output, t, x, return_dict=False)[0]


# --- families


def flow(sampler="dpmpp-2m", **options):
    config = diffusers.FlowMatchEulerDiscreteScheduler(**options).config
    return SolverKitScheduler.from_config(config, sampler=sampler, sampler_options=SMALL.get(sampler))


def edm(sampler="dpmpp-2m", **options):
    config = diffusers.EDMEulerScheduler(**options).config
    return SolverKitScheduler.from_config(config, sampler=sampler, sampler_options=SMALL.get(sampler))


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


def test_mu_without_dynamic_shift_is_ignored_and_dynamic_without_mu_takes_the_static_shift():
    plain = flow(shift=3.0)
    plain.set_timesteps(4)
    with_mu = flow(shift=3.0)
    with_mu.set_timesteps(4, mu=0.8)
    dynamic = flow(shift=3.0, use_dynamic_shifting=True)
    dynamic.set_timesteps(4)
    assert torch.equal(plain.sigmas, with_mu.sigmas) and torch.equal(plain.sigmas, dynamic.sigmas)


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


# --- noise


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


# --- preludes


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


# --- configs


def shown_keys(config):
    return {key: value for key, value in config.items() if not key.startswith("_")}


def test_a_config_keeps_the_defaults_of_its_class():
    heun = SolverKitScheduler.from_config({"_class_name": "HeunDiscreteScheduler"})
    assert heun.config.beta_end == 0.012 and heun.init_noise_sigma > 1
    ddim = SolverKitScheduler.from_config({"_class_name": "DDIMScheduler"})
    assert ddim.config.beta_end == 0.02 and ddim.config.clip_sample and ddim.init_noise_sigma == 1
    sd3 = SolverKitScheduler.from_config(diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).config)
    assert sd3.config.native_class == "FlowMatchEulerDiscreteScheduler" and sd3.config.shift == 3.0


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_native_configs_come_back(name):
    native = PIPELINES[name]().pipe.scheduler
    ours = SolverKitScheduler.from_config(native.config, sampler="unipc", grid="karras")
    again = SolverKitScheduler.from_config(json.loads(ours.to_json_string()), sampler="heun")
    assert again.config.native_class == ours.config.native_class and again.config.sampler == "heun"
    assert again.config.grid == "karras" and again.config.sampler_options == {}
    for scheduler in (ours, again):
        for key, value in native.config.items():
            if not key.startswith("_"):
                assert scheduler.config[key] == value, key
    if ours.config.native_class == type(native).__name__ and not name.startswith("stable-audio"):
        for back in (type(native).from_config(dict(ours.config)), again.native()):
            assert type(back) is type(native)
            assert shown_keys({k: v for k, v in back.config.items() if k in native.config}) == shown_keys(native.config)


def test_flow_flags_of_multistep_classes_are_kept_but_not_shown():
    """Pipelines that see use_flow_sigmas drop their own sigmas; X.from_config needs it."""
    config = diffusers.UniPCMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
    ).config
    ours = SolverKitScheduler.from_config(config)
    assert ours.config["use_flow_sigmas"] is True and ours.config.use_flow_sigmas is False
    assert diffusers.UniPCMultistepScheduler.from_config(ours.config).config.use_flow_sigmas is True
    assert copy.deepcopy(ours).config.use_flow_sigmas is False
    ours.set_timesteps(4)
    assert ours.timesteps[0] == 1000.0


def test_changed_attributes_of_a_config_are_seen():
    scheduler = SolverKitScheduler(timestep_spacing="trailing", **BETAS)
    scheduler.config.timestep_spacing = "leading"  # pipelines do this; the item stays
    scheduler.set_timesteps(10)
    assert scheduler.timesteps.tolist() == [900 - 100 * i for i in range(10)]
    scheduler.register_to_config(steps_offset=1)
    scheduler.set_timesteps(10)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: make("dpmpp2m"), UnknownNameError, "dpmpp-2m"),
        (lambda: make("dpm-solver-12"), OptionError, "pull-only"),
        (lambda: make("unipc", sampler_options={"ordr": 2}), OptionError, "order"),
        (lambda: make("unipc", grid="karas"), UnknownNameError, "karras"),
        (lambda: make(beta_schedule="zigzag"), ScheduleError, "zigzag"),
        (lambda: make(native_class="DDIM"), ScheduleError, "DDIM"),
        (lambda: SolverKitScheduler.from_config({"a": 1}), ScheduleError, "_class_name"),
        (lambda: SolverKitScheduler.from_config("folder"), OptionError, "from_pretrained"),
        (lambda: SolverKitScheduler.from_config(make().config, samplr="heun"), OptionError, "sampler"),
        (lambda: SolverKitScheduler.from_config({"_class_name": "SCMScheduler"}), ScheduleError, "SCMScheduler"),
        (lambda: make(rescale_betas_zero_snr=True), ScheduleError, "v_prediction"),
        (lambda: make().step(noise(), 0, noise()), SolverKitError, "set_timesteps"),
        (lambda: make().nfe, SolverKitError, "set_timesteps"),
        (lambda: make().set_timesteps(), GridError, "num_inference_steps"),
        (lambda: flow().set_timesteps(sigmas=[14.6, 3.0]), GridError, "another kind"),
        (lambda: flow().set_timesteps(sigmas=[0.2, 0.6]), GridError, "fall"),
        (lambda: make().set_timesteps(timesteps=[900, "x"]), GridError, "timesteps"),
        (lambda: flow().set_timesteps(timesteps=[900.0], sigmas=[0.9, 0.4]), GridError, "length"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(build, error, words):
    with pytest.raises(error, match=words):
        build()


def test_a_config_that_asks_for_an_unknown_layout_is_refused():
    scheduler = SolverKitScheduler.from_config(diffusers.EulerDiscreteScheduler().config, use_beta_sigmas=True)
    with pytest.raises(ScheduleError, match="use_beta_sigmas"):
        scheduler.set_timesteps(5)
    scheduler = SolverKitScheduler.from_config(scheduler.config, grid="karras")
    scheduler.set_timesteps(5)


def test_unknown_timesteps_take_the_nearest():
    scheduler = make()
    scheduler.set_timesteps(10)
    assert scheduler.index_for_timestep(0) == 9 and scheduler.index_for_timestep(torch.tensor(880)) == 1
    scheduler.step(noise(), 1, noise())
    assert scheduler.step_index == 10
    fresh = make(native_class="EulerDiscreteScheduler")
    assert torch.isfinite(fresh.scale_model_input(noise(), 0.0)).all()
    assert len(fresh) == len(fresh.timesteps) == len(fresh.sigmas) - 1 == 1000
    heun = make("heun")
    heun.set_timesteps(6)
    assert heun.index_for_timestep(float(heun.timesteps[2])) == 2


# --- saving and loading


def test_saving_and_loading(tmp_path):
    pipe = PIPELINES["ddpm"]().pipe
    expected = dict(pipe.scheduler.config)
    pipe.scheduler = SolverKitScheduler.from_config(pipe.scheduler.config, sampler="unipc", sampler_options={"order": 2})
    pipe.save_pretrained(tmp_path / "ours")
    index = json.loads((tmp_path / "ours" / "model_index.json").read_text())
    assert index["scheduler"] == ["solverkit", "SolverKitScheduler"]
    code = (
        "import sys, solverkit; assert 'diffusers' not in sys.modules\n"
        "from diffusers import DDPMPipeline\n"
        f"pipe = DDPMPipeline.from_pretrained({str(tmp_path / 'ours')!r})\n"
        "assert pipe.scheduler.config.sampler == 'unipc' and pipe.scheduler.config.sampler_options == {'order': 2}\n"
        "pipe.set_progress_bar_config(disable=True)\n"
        "pipe(num_inference_steps=3, output_type='np')\n"
        "print(type(pipe.scheduler).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "SolverKitScheduler", done.stderr
    again = SolverKitScheduler.from_pretrained(tmp_path / "ours", subfolder="scheduler")
    assert again.config.sampler == "unipc"
    assert restore_native(pipe) is pipe and type(pipe.scheduler) is diffusers.DDPMScheduler
    assert shown_keys(pipe.scheduler.config) == shown_keys(expected)
    pipe.save_pretrained(tmp_path / "native")
    native = SolverKitScheduler.from_pretrained(tmp_path / "native", subfolder="scheduler", sampler="heun")
    assert native.config.native_class == "DDPMScheduler" and native.config.sampler == "heun"


# --- what pipelines and users also do


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
        assert b._run.idle == 0 and float((x - y).norm() / x.norm()) < 1e-3


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


def test_flow_shift_and_shift_are_one_thing():
    def sigmas(scheduler):
        scheduler.set_timesteps(4)
        return scheduler.sigmas

    wanted = sigmas(flow(shift=5.0))
    video = diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)
    for scheduler in (
        SolverKitScheduler.from_config(diffusers.FlowMatchEulerDiscreteScheduler().config, flow_shift=5.0),
        SolverKitScheduler.from_config(video.config, shift=5.0),
        SolverKitScheduler.from_config(video.config, flow_shift=5.0),
        SolverKitScheduler(native_class="UniPCMultistepScheduler", prediction_type="flow_prediction", shift=5.0),
    ):
        assert torch.equal(sigmas(scheduler), wanted)
    with pytest.raises(OptionError, match="flow_shift"):
        SolverKitScheduler.from_config(video.config, shift=5.0, flow_shift=4.0)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("DDIMInverseScheduler", "from data to noise"),
        ("DPMSolverMultistepInverseScheduler", "from data to noise"),
        ("LCMScheduler", "distilled"),
        ("TCDScheduler", "distilled"),
        ("FlowMatchLCMScheduler", "distilled"),
        ("RePaintScheduler", "resamples"),
        ("ScoreSdeVeScheduler", "step"),
    ],
)
def test_classes_that_do_something_else_are_refused(name, words):
    with pytest.raises(ScheduleError, match=words):
        SolverKitScheduler.from_config({"_class_name": name})
    with pytest.raises(ScheduleError, match="cannot tell" if "FlowMatch" not in name else "."):
        SolverKitScheduler.from_config(getattr(diffusers, name)().config)


@pytest.mark.parametrize("name", ["FlowMatchHeunDiscreteScheduler", "KDPM2DiscreteScheduler", "CogVideoXDDIMScheduler"])
def test_a_class_is_told_by_its_keys(name):
    assert SolverKitScheduler.from_config(getattr(diffusers, name)().config).config.native_class == name


def test_threads_cannot_move_the_start_of_another_run():
    scheduler, errors = make(), []
    scheduler.set_timesteps(6)

    def other():
        for change in (lambda: scheduler.set_begin_index(3), lambda: setattr(scheduler, "_step_index", 3)):
            try:
                change()
            except SolverKitError as error:
                errors.append(str(error))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert len(errors) == 2 and torch.equal(loop(scheduler, noise()), run(make()))


def test_config_values_are_json_and_our_own():
    import numpy as np

    scheduler = make(trained_betas=np.linspace(1e-4, 0.02, 50), beta_schedule=None)
    assert len(scheduler.timesteps) == len(scheduler.sigmas) - 1 == 50
    copy.deepcopy(scheduler).set_timesteps(5)
    json.loads(scheduler.to_json_string())
    options = {"order": np.int64(1)}
    first = SolverKitScheduler.from_config(make().config, sampler="unipc", sampler_options=options)
    options["order"] = 3
    assert first.config.sampler_options == {"order": 1} and type(first.config.sampler_options["order"]) is int
    first.set_timesteps(6)
    x = loop(first, noise())
    first.config.sampler_options["order"] = 3  # seen by the next run
    first.set_timesteps(6)
    assert not torch.equal(loop(first, noise()), x)
    assert SolverKitScheduler.from_config(first.config, sampler_options={}).config.sampler_options == {}
    with pytest.raises(OptionError, match="JSON"):
        SolverKitScheduler.from_config(make().config, sampler_options={"order": object()})


def test_layouts_that_the_native_config_describes():
    cosine = {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1, "timestep_spacing": "trailing"}
    native = diffusers.DPMSolverMultistepScheduler(**cosine)
    ours = SolverKitScheduler.from_config(native.config)
    for n in (5, 10):
        native.set_timesteps(n)
        ours.set_timesteps(n)
        assert abs(int(native.timesteps[0]) - int(ours.timesteps[0])) <= 1
    for spacing in ("linspace", "leading", "trailing"):
        scheduler = SolverKitScheduler(
            native_class="EulerDiscreteScheduler", timestep_spacing=spacing, **BETAS
        )
        config = {**scheduler.config, "final_sigmas_type": "sigma_min"}
        scheduler = SolverKitScheduler.from_config(config)
        for n in (1, 5):
            scheduler.set_timesteps(n)
            assert scheduler.nfe == n and float(scheduler.sigmas[-1]) == pytest.approx(0.0292, abs=1e-3)
    bounded = diffusers.EulerDiscreteScheduler(use_exponential_sigmas=True, sigma_min=0.1, sigma_max=10.0, **BETAS)
    karras = diffusers.FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True, shift=1.0)
    for native in (bounded, karras):
        ours = SolverKitScheduler.from_config(native.config)
        for scheduler in (native, ours):
            scheduler.set_timesteps(5)
        torch.testing.assert_close(ours.sigmas, native.sigmas, rtol=1e-3, atol=1e-3)
    one = flow(shift_terminal=0.1)
    one.set_timesteps(1)
    assert one.sigmas.tolist() == [1.0, 0.0]


def test_a_detour_through_a_native_class():
    ours = SolverKitScheduler.from_config(diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).config, sampler="heun")
    config = {**ours.config, "use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 5.0}
    native = diffusers.UniPCMultistepScheduler.from_config(config)
    native.register_to_config(_class_name="UniPCMultistepScheduler")
    back = SolverKitScheduler.from_config(native.config)
    assert back.config.native_class == "UniPCMultistepScheduler" and back.config.sampler == "heun"


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: make().set_timesteps(timesteps=[1500, 500]), GridError, "999"),
        (lambda: make().set_timesteps(timesteps=[500, -3]), GridError, "-3"),
        (lambda: flow().set_timesteps(timesteps=[1500.0]), GridError, "1000"),
        (lambda: make().set_timesteps(sigmas=[1000.0, 1.0]), GridError, "14.6"),
        (lambda: SolverKitScheduler(timestep_spacing="tralling"), OptionError, "tralling"),
        (lambda: begun(9), OptionError, "0 to 5"),
        (lambda: begun(-1), OptionError, "0 to 5"),
    ],
)
def test_what_also_cannot_be_done_is_said(build, error, words):
    with pytest.raises(error, match=words):
        build()


def begun(index):
    scheduler = make()
    scheduler.set_timesteps(6)
    scheduler.set_begin_index(index)


def test_steps_at_timesteps_that_are_no_loop():
    """Generic tests of schedulers step at 0, then at 1."""
    scheduler, x = make(timestep_spacing="leading"), noise()
    scheduler.set_timesteps(10)
    a, b = scheduler.step(x, 0, x).prev_sample, scheduler.step(x, 1, x).prev_sample
    assert a.shape == b.shape == x.shape
    assert scheduler.add_noise(x, x, [10, 20]).shape == x.shape


def test_other_default_devices_do_not_matter():
    with torch.device("meta"):
        scheduler = make()
        scheduler.set_timesteps(5, device="cpu")
    assert scheduler.sigmas.device.type == "cpu" and scheduler.alphas_cumprod.device.type == "cpu"
