"""What a pipeline does to the latents between two steps counts once, where it was done, and nowhere else."""

from __future__ import annotations

import copy
import pickle

import diffusers
import pytest
import torch
from scheduler_loop import make, noise

from solverkit import SolverKitScheduler

UNIPC = [
    ("unipc", {"order": order, "variant": variant, "released": released})
    for order in (2, 3) for variant in ("bh1", "bh2") for released in (False, True)
]  # fmt: skip
MULTISTEP = [
    *UNIPC, ("unipc", {"corrector": False}), ("dpmpp-2m", {}), ("dpmpp-2m", {"solver_type": "heun"}), ("dpmpp-3m", {}),
    ("dpmpp-3m", {"released": True}), ("deis", {"order": 2}), ("deis", {"order": 3, "variable": "log-rho"}), ("ipndm", {}),
    ("lms", {}), ("adams-bashforth", {}), ("lml", {}), ("lml-secant", {}), ("pndm", {}), ("dpmpp-singlestep", {}),
]  # fmt: skip
IDS = ["-".join([name, *map(str, options.values())]) for name, options in MULTISTEP]


def on(family, sampler, options):
    if family == "vp":
        return make(sampler, sampler_options=options)
    if family == "sigma":
        return make(sampler, sampler_options=options, native_class="EulerDiscreteScheduler")
    native = diffusers.FlowMatchEulerDiscreteScheduler() if family == "flow" else diffusers.EDMEulerScheduler()
    return SolverKitScheduler.from_config(native.config, sampler=sampler, sampler_options=options)


def constant(scheduler, output, edit, after, steps, dtype=torch.float32):
    """The end of a run of a network that always answers the same, with an edit after one step."""
    scheduler.set_timesteps(steps)
    x = torch.zeros(1, 1, 2, 2, dtype=dtype)
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(torch.full_like(x, output), t, x, return_dict=False)[0]
        if i == after:
            x = x + edit
    return x.double()


def starts(scheduler, steps, wanted):
    """The evaluation before the first step boundary at or behind `wanted`."""
    scheduler.set_timesteps(steps)
    boundary = scheduler._run.table.plan.boundary
    return next(i for i in range(wanted, len(boundary) - 1) if boundary[i + 1])


@pytest.mark.parametrize("after", [0, 2, 3])
@pytest.mark.parametrize("family", ["vp", "sigma", "flow"])
@pytest.mark.parametrize(("sampler", "options"), MULTISTEP, ids=IDS)
def test_an_edit_counts_once(sampler, options, family, after):
    """The denoised prediction of a constant output moves with the edit, and stays there: any exact step moves it once."""
    scheduler = on(family, sampler, options)
    after = starts(scheduler, 6, after)
    effect = constant(scheduler, 0.3, 1.0, after, 6) - constant(scheduler, 0.3, 0.0, after, 6)
    alpha = 1.0 if family != "vp" else float(scheduler.alphas_cumprod[int(scheduler.timesteps[after + 1])]) ** 0.5
    assert float((effect * alpha - 1).abs().max()) < 1e-4


@pytest.mark.parametrize("after", [1, 4])
@pytest.mark.parametrize(("sampler", "options"), MULTISTEP, ids=IDS)
def test_an_edit_on_edm_decays_as_the_flow_does(sampler, options, after):
    """F = 0: D = x d^2 / (s^2 + d^2), so that an edit at s arrives as d / sqrt(s^2 + d^2)."""
    scheduler = on("edm", sampler, options)
    after = starts(scheduler, 24, 2 * after)
    effect = constant(scheduler, 0.0, 1.0, after, 24)
    s, d = float(scheduler.sigmas[after + 1]), 0.5
    assert float(effect.mean()) == pytest.approx(d / (s * s + d * d) ** 0.5, rel=0.12)


def pointwise(x, t):
    t = float(t) / 1000
    return 0.9 * x * t + 0.3 * torch.sin(2 * x + t)


def run(scheduler, edit=None, at=3, steps=6, dtype=torch.float32, network=pointwise):
    """`edit` gets the scheduler and the latents before evaluation `at`, and returns both."""
    scheduler.set_timesteps(steps)
    x = (noise() * scheduler.init_noise_sigma).to(dtype)
    for i, t in enumerate(scheduler.timesteps):
        if i == at and edit is not None:
            scheduler, x = edit(scheduler, x)
        output = network(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(output, t, x, return_dict=False)[0]
    return x


@pytest.mark.parametrize("family", ["vp", "flow", "edm"])
@pytest.mark.parametrize(
    ("sampler", "options"),
    [case for case in MULTISTEP if case[0] != "lml-secant"],  # its secant is one of all pixels
)
def test_an_edit_of_a_half_leaves_the_other(sampler, options, family):
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4:] = 1.0
    left = run(on(family, sampler, options))
    edited = run(on(family, sampler, options), lambda s, x: (s, mask * noise(seed=5) + (1 - mask) * x))
    assert torch.equal(edited[..., :4], left[..., :4])
    assert (edited[..., 4:] != left[..., 4:]).float().mean() > 0.99


def copied(s, x):
    return s, x.clone()


def cast(s, x):
    return s, x.double().to(x.dtype)


def view_written_back(s, x):
    frames = torch.zeros(4, *x.shape[1:], dtype=x.dtype)
    frames[1:3] = x
    return s, frames[1:3]


def written_into_itself(s, x):
    x[:] = x.clone()
    return s, x


def masked_to_itself(s, x):
    return s, torch.where(x > 0, x, x.clone())


def strided(s, x):
    return s, x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("edit", [copied, cast, view_written_back, written_into_itself, masked_to_itself, strided])
@pytest.mark.parametrize(("sampler", "family"), [("unipc", "vp"), ("dpmpp-2m", "flow"), ("deis", "edm"), ("lms", "sigma")])
def test_equal_latents_change_nothing(sampler, family, edit, dtype):
    def network(x, t):
        return pointwise(x, t).to(dtype)

    plain = run(on(family, sampler, {}), dtype=dtype, network=network)
    assert torch.equal(run(on(family, sampler, {}), edit, dtype=dtype, network=network), plain)


def a_deepcopy(s):
    return copy.deepcopy(s)


def a_pickle(s):
    return pickle.loads(pickle.dumps(s))


@pytest.mark.parametrize("duplicate", [a_deepcopy, a_pickle])
@pytest.mark.parametrize("sampler", ["unipc", "dpmpp-2m", "dpmpp-3m", "lml"])
@pytest.mark.parametrize("family", ["vp", "flow"])
def test_an_edit_behind_a_copy_is_noticed(sampler, family, duplicate):
    edited = run(on(family, sampler, {}), lambda s, x: (s, x + 1))
    assert torch.equal(run(on(family, sampler, {}), lambda s, x: (duplicate(s), x + 1)), edited)
    plain = run(on(family, sampler, {}))
    assert torch.equal(run(on(family, sampler, {}), lambda s, x: (duplicate(s), x)), plain)
    assert torch.equal(run(on(family, sampler, {}), lambda s, x: (duplicate(s), x.clone())), plain)
    assert float((edited - plain).abs().max()) > 0.1


@pytest.mark.parametrize("duplicate", [a_deepcopy, a_pickle])
def test_a_copy_after_an_edit_in_place_remembers_that_it_was_changed(duplicate):
    """What counts as unchanged in the original does in its copy."""

    def in_place(s, x):
        return s, x.add_(1)

    def then_copied(s, x):
        x.add_(1)
        return duplicate(s), x

    assert torch.equal(run(make("unipc"), in_place), run(make("unipc"), then_copied))


@pytest.mark.parametrize("sampler", ["euler", "ddim", "heun", "dpm-solver-2", "rk4"])
def test_an_edit_in_place_is_any_edit_where_nothing_is_remembered(sampler):
    scheduler = make(sampler)
    scheduler.set_timesteps(8)
    at = next(i for i in range(3, 8) if scheduler._run.table.plan.boundary[i])
    apart = run(make(sampler), lambda s, x: (s, x + 1), at, 8)
    assert torch.equal(run(make(sampler), lambda s, x: (s, x.add_(1)), at, 8), apart)


@pytest.mark.parametrize("sampler", ["unipc", "dpmpp-2m", "deis", "lms"])
def test_an_edit_in_place_counts_as_none(sampler):
    """It cannot be compared with what was returned: the history stays, which a late multistep method sees as a slope."""
    apart = run(make(sampler), lambda s, x: (s, x + 1))
    inside = run(make(sampler), lambda s, x: (s, x.add_(1)))
    assert torch.isfinite(inside).all() and float((inside - run(make(sampler))).abs().mean()) > 0.1
    assert float((inside - apart).abs().mean()) < 3.0


@pytest.mark.parametrize("sampler", ["unipc", "dpmpp-2m", "dpmpp-3m", "ipndm"])
def test_an_edit_of_bfloat16_latents_counts_once(sampler):
    scheduler = on("flow", sampler, {})
    ends = [constant(scheduler, 0.3, edit, 2, 6, torch.bfloat16) for edit in (1.0, 0.0)]
    assert float((ends[0] - ends[1] - 1).abs().max()) < 0.02


@pytest.mark.parametrize("sampler", ["unipc", "dpmpp-3m"])
def test_an_edit_in_every_gap_counts_once_each(sampler):
    """Inpainting writes half of the latents after every step."""
    scheduler = on("flow", sampler, {})
    scheduler.set_timesteps(6)
    x = torch.zeros(1, 1, 2, 2)
    for t in scheduler.timesteps:
        x = scheduler.step(torch.zeros_like(x), t, x, return_dict=False)[0] + 1.0
    assert float((x - 6.0).abs().max()) < 1e-5
