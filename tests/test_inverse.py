"""Runs from data to noise: the levels and states of the two inverse classes, the way back, and a pipeline that edits."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from scheduler_loop import BETAS, loop, network, noise
from tiny_pipe import embeds, image, vae
from tiny_unets import unet

import solverkit as sk
from solverkit import SolverKitScheduler
from solverkit.errors import GridError, OptionError, ScheduleError, SolverKitError
from solverkit.grid.grid import Grid
from solverkit.proofs.device import IMITATED, SinglePrecisionDevice
from solverkit.steps import usable_orders

DDIM, DPM = diffusers.DDIMInverseScheduler, diffusers.DPMSolverMultistepInverseScheduler
SD = {**BETAS, "set_alpha_to_one": False, "steps_offset": 1}

DDIM_CASES: list[dict[str, Any]] = [
    {"timestep_spacing": spacing, **keys}
    for spacing in ("leading", "trailing")
    for keys in (
        {}, BETAS, SD, {**BETAS, "set_alpha_to_one": False}, {**BETAS, "prediction_type": "v_prediction"},
        {**BETAS, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}, {"num_train_timesteps": 400},
    )
]  # fmt: skip
DPM_CASES: list[dict[str, Any]] = [
    {"timestep_spacing": spacing, **keys}
    for spacing in ("linspace", "leading", "trailing")
    for keys in (
        {}, BETAS, {"solver_type": "heun"}, {"lower_order_final": False}, {"euler_at_final": True},
        {**BETAS, "prediction_type": "v_prediction"}, {**BETAS, "prediction_type": "sample"},
        {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1},
    )
] + [
    {**BETAS, "use_karras_sigmas": True}, {**BETAS, "use_exponential_sigmas": True}, {**BETAS, "use_beta_sigmas": True},
]  # fmt: skip
CASES = [(DDIM, keys) for keys in DDIM_CASES] + [(DPM, keys) for keys in DPM_CASES]


def pair(cls: Any, keys: dict[str, Any], **ours: Any) -> tuple[Any, SolverKitScheduler]:
    """A native inverse scheduler, and ours from its config."""
    native = cls(**({"clip_sample": False} if cls is DDIM else {}), **keys)
    return native, SolverKitScheduler.from_config(native.config, **ours)


def up(sampler: str = "ddim", **keys: Any) -> SolverKitScheduler:
    forward = diffusers.DDIMScheduler(**{"clip_sample": False, **SD, **keys})
    return SolverKitScheduler.from_config(forward.config, sampler=sampler, inverse=True)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


# -- the native classes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cls", "keys"), CASES)
def test_the_layout_is_that_of_the_class(cls, keys):
    native, ours = pair(cls, keys)
    for n in range(1, 61):
        native.set_timesteps(n)
        ours.set_timesteps(n)
        assert ours.timesteps.dtype == native.timesteps.dtype and torch.equal(ours.timesteps, native.timesteps), n
        assert ours.order == native.order == 1 and ours.init_noise_sigma == native.init_noise_sigma == 1.0
        if cls is DPM:
            assert torch.equal(ours.sigmas, native.sigmas), n
        assert (ours.sigmas.diff() >= 0).all() and len(ours.sigmas) > len(ours.timesteps)


@pytest.mark.parametrize(("cls", "keys"), CASES)
def test_each_state_is_that_of_the_class(cls, keys):
    """The class steps in float64: in float32 its own weights of a long first step cancel to 4e-5."""
    native, ours = pair(cls, keys)
    for n in (1, 2, 4, 5, 8, 10, 20, 50) if cls is DDIM else (1, 2, 5, 7, 10, 14, 15, 20):
        native.set_timesteps(n)
        ours.set_timesteps(n)
        if len(native.timesteps.unique()) < len(native.sigmas if cls is DPM else native.timesteps) - 1:
            continue  # the class leaves equal timesteps out, and its sigmas not: it runs out of them
        native.sigmas = native.sigmas.double() if cls is DPM else None
        x, nowhere = noise(), cls is DPM and native.sigmas[-1] == native.sigmas[-2]
        theirs = x.double()
        for t in native.timesteps:
            if nowhere and t == native.timesteps[-1] and n >= 15 and keys.get("solver_type") == "heun":
                assert torch.equal(ours.step(network(x, t), t, x).prev_sample, x)
                continue  # the class divides zero by the length of this step
            theirs = native.step(network(theirs, t), t, theirs).prev_sample
            x = ours.step(network(x, t), t, x).prev_sample
            assert x.dtype is torch.float32 and relative(x, theirs) < 2e-6, (n, int(t))


def test_the_network_of_ddim_is_told_the_level_where_the_step_ends():
    ours = up()
    ours.set_timesteps(5)
    assert ours.timesteps.tolist() == [1, 201, 401, 601, 801]
    table = (1 / ours.alphas_cumprod - 1).sqrt()
    assert torch.allclose(ours.sigmas, table[[0, 1, 201, 401, 601, 801]], rtol=1e-4)


def test_trailing_steps_start_where_the_last_one_ended():
    """DDIM's inverse class starts each step T // n below its end, here 142, though its ends are 143 apart now and then."""
    _, ours = pair(DDIM, {**BETAS, "timestep_spacing": "trailing"})
    ours.set_timesteps(7)
    table = (1 / ours.alphas_cumprod - 1).sqrt()
    assert torch.allclose(ours.sigmas[1:], table[ours.timesteps], rtol=1e-4)


def test_a_denoised_prediction_is_at_the_level_of_the_latents():
    native, ours = pair(DDIM, {**BETAS, "timestep_spacing": "trailing"})
    native.set_timesteps(4)
    ours.set_timesteps(4)
    x = theirs = noise()
    for t in native.timesteps:
        step, own = native.step(network(theirs, t), t, theirs), ours.step(network(x, t), t, x)
        assert relative(own.pred_original_sample, step.pred_original_sample) < 1e-5
        theirs, x = step.prev_sample, own.prev_sample


def test_euler_is_ddim():
    ends = []
    for sampler in ("ddim", "euler"):
        scheduler = up(sampler)
        scheduler.set_timesteps(7)
        ends.append(loop(scheduler, noise()))
    assert relative(ends[0], ends[1]) < 1e-6


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "PNDMScheduler", "UniPCMultistepScheduler"])
def test_the_config_of_any_vp_class_can_be_inverted(name):
    """The latents are the network's own, as those of the inverse classes, whatever the writer of the config has."""
    config = getattr(diffusers, name)(**BETAS, steps_offset=1, timestep_spacing="leading").config
    ours = SolverKitScheduler.from_config(config, sampler="ddim", inverse=True)
    native = DDIM.from_config(config, clip_sample=False)
    assert ours.native().__class__ is DDIM and ours.init_noise_sigma == 1.0
    native.set_timesteps(10)
    ours.set_timesteps(10)
    x = theirs = noise()
    for t in native.timesteps:
        theirs = native.step(network(theirs, t), t, theirs).prev_sample
        x = ours.step(network(ours.scale_model_input(x, t), t), t, x).prev_sample
    assert torch.equal(ours.timesteps, native.timesteps) and relative(x, theirs) < 2e-6


# -- there and back ----------------------------------------------------------------------------------------------------


def smooth(table: np.ndarray, x: torch.Tensor, t: Any) -> torch.Tensor:
    """Epsilon of Gaussian data, and a smooth bend: float64."""
    product = float(np.interp(float(t), np.arange(len(table)), table))
    alpha, sigma = math.sqrt(product), math.sqrt(1 - product)
    return sigma * (x - 0.3 * alpha) / (0.25 * alpha**2 + sigma**2) + 0.2 * sigma * torch.sin(x)


def back_and_forth(sampler: str, native: Any, n: int) -> float:
    """What is missing after n steps to noise and n steps back, relative."""
    there = SolverKitScheduler.from_config(native.config, sampler=sampler, inverse=True)
    back = SolverKitScheduler.from_config(native.config, sampler=sampler)
    table = there.alphas_cumprod.double().numpy()
    start = x = 0.5 * noise().double() + 0.3
    for scheduler in (there, back):
        scheduler.set_timesteps(n)
        for t in scheduler.timesteps:
            x = scheduler.step(smooth(table, x, t), t, x).prev_sample
    assert there.sigmas[0] == back.sigmas[-1] and there.sigmas[-1] == back.sigmas[0]
    return relative(x, start)


def test_ddim_leads_back_with_first_order():
    native = diffusers.DDIMScheduler(clip_sample=False, **SD)
    coarse, fine = (back_and_forth("ddim", native, n) for n in (40, 160))
    assert fine < 0.02 and 3.6 < coarse / fine < 5.0  # 4 is first order


def test_dpmpp_2m_leads_back_with_second_order():
    native = diffusers.DPMSolverMultistepScheduler(final_sigmas_type="sigma_min", **BETAS)
    coarse, fine = (back_and_forth("dpmpp-2m", native, n) for n in (40, 160))
    assert fine < 0.002 and coarse / fine > 14.0  # 16 is second order


# -- a run may be cut, copied, edited ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp-2m"])
def test_a_run_can_be_copied_and_pickled_in_the_middle(sampler):
    scheduler = up(sampler)
    scheduler.set_timesteps(8)
    x = loop(scheduler, noise(), scheduler.timesteps[:4])
    whole = loop(copy.deepcopy(scheduler), x, scheduler.timesteps[4:])
    assert torch.equal(loop(pickle.loads(pickle.dumps(scheduler)), x, scheduler.timesteps[4:]), whole)
    assert torch.equal(loop(scheduler, x, scheduler.timesteps[4:]), whole)


def test_a_run_can_start_inside():
    """DDIM has no history: a start at timestep 3 goes on as the whole run does. DPM++ starts as the native class."""
    scheduler = up()
    scheduler.set_timesteps(8)
    x = loop(scheduler, noise(), scheduler.timesteps[:3])
    whole = loop(scheduler, x, scheduler.timesteps[3:])
    scheduler.set_timesteps(8)
    scheduler.set_begin_index(3)
    assert torch.equal(loop(scheduler, x, scheduler.timesteps[3:]), whole)
    native, ours = pair(DPM, BETAS)
    native.set_timesteps(20)
    ours.set_timesteps(20)
    y = theirs = noise()
    for t in native.timesteps[6:]:
        theirs = native.step(network(theirs, t), t, theirs).prev_sample
        y = ours.step(network(y, t), t, y).prev_sample
    assert relative(y, theirs) < 1e-5


def test_latents_may_be_edited_between_steps():
    """What a step returned and what the next one sees need not be the same: the history is then forgotten."""
    for sampler in ("ddim", "dpmpp-2m"):
        scheduler = up(sampler)
        scheduler.set_timesteps(8)
        x = loop(scheduler, noise(), scheduler.timesteps[:4])
        fresh = copy.deepcopy(scheduler)
        fresh.set_timesteps(8)
        edited = x + 0.1
        t = scheduler.timesteps[4]
        once = scheduler.step(network(edited, t), t, edited).prev_sample
        assert torch.allclose(once, fresh.step(network(edited, t), t, edited).prev_sample, atol=1e-6)


def test_half_precision_keeps_its_dtype():
    scheduler = up("dpmpp-2m")
    scheduler.set_timesteps(6)
    x, wide = noise().half(), noise()
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t), t, x).prev_sample
    scheduler.set_timesteps(6)
    assert x.dtype is torch.float16 and relative(x.float(), loop(scheduler, wide)) < 5e-3


def test_a_device_without_float64_runs_from_the_least_noise_of_training():
    results = []
    for device in (torch.device("cpu"), IMITATED):
        with SinglePrecisionDevice():
            scheduler = up("dpmpp-2m")
            scheduler.set_timesteps(5, device=device)
            x = torch.linspace(-1, 1, 64).reshape(1, 4, 4, 4).to(device)
            for t in scheduler.timesteps:
                x = scheduler.step(0.1 * x, t, x, return_dict=False)[0]
            results.append(x.cpu())
            if device is IMITATED:
                scheduler = up(set_alpha_to_one=True)
                scheduler.set_timesteps(5, device=device)
                with pytest.raises(OptionError, match="set_alpha_to_one=False"):
                    scheduler.step(0.1 * x, scheduler.timesteps[0], x)
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)


def test_noise_is_added_at_the_level_of_the_latents():
    """As the native class with add_noise has it: what a step at that timestep expects."""
    native, ours = pair(DPM, BETAS)
    native.set_timesteps(10)
    ours.set_timesteps(10)
    t = native.timesteps[[2, 5]]
    x, z = noise(), noise(seed=1)
    assert torch.allclose(ours.add_noise(x, z, t), native.add_noise(x, z, t), atol=1e-6)


# -- configs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cls", "sampler"), [(DDIM, "ddim"), (DPM, "dpmpp-2m")])
def test_a_config_of_an_inverse_class_is_its_forward_class_turned_round(cls, sampler, tmp_path):
    native, ours = pair(cls, BETAS)
    for config in (native.config, {**native.config, "_class_name": cls.__name__}):
        ours = SolverKitScheduler.from_config(config)
        assert (ours.config.sampler, ours.config.inverse) == (sampler, True)
        assert ours.config.native_class == cls.__name__.replace("Inverse", "")
    assert type(ours.native()) is cls and dict(ours.native().config)["beta_end"] == BETAS["beta_end"]
    ours.save_pretrained(tmp_path)
    loaded = SolverKitScheduler.from_pretrained(tmp_path)
    assert loaded.config.inverse and loaded.config.sampler == sampler
    forward = SolverKitScheduler.from_config(ours.config, inverse=False)
    forward.set_timesteps(5)
    assert not forward.config.inverse and (forward.timesteps.diff() < 0).all()
    assert type(forward.native()).__name__ == ours.config.native_class


def test_the_way_is_a_key_and_a_native_class_that_takes_the_config_over_has_its_own():
    inverse = up("dpmpp-2m")
    assert SolverKitScheduler.from_config(inverse.config).config.inverse
    assert SolverKitScheduler.from_config(inverse.config, sampler="ddim").config.inverse
    taken = diffusers.DDIMScheduler.from_config(inverse.config)
    assert not SolverKitScheduler.from_config({**taken.config, "_class_name": "DDIMScheduler"}).config.inverse
    built = SolverKitScheduler(sampler="ddim", native_class="DDIMInverseScheduler", clip_sample=False, **BETAS)
    assert built.config.inverse and not SolverKitScheduler().config.inverse


def test_options_of_the_sampler_reach_the_class():
    config = diffusers.DPMSolverMultistepScheduler(**BETAS).config
    ours = SolverKitScheduler.from_config(config, sampler="dpmpp-2m", inverse=True, sampler_options={"solver_type": "heun"})
    native = DPM(solver_type="heun", **BETAS)
    native.set_timesteps(20)
    ours.set_timesteps(20)
    x = theirs = noise()
    for t in native.timesteps:
        theirs = native.step(network(theirs, t), t, theirs).prev_sample
        x = ours.step(network(x, t), t, x).prev_sample
    assert relative(x, theirs) < 1e-5


@pytest.mark.parametrize(
    ("keys", "error", "words"),
    [
        ({"sampler": "dpmpp-2m-sde"}, OptionError, "dpmpp-2m-sde.*ddim, euler, dpmpp-2m"),
        ({"sampler": "heun"}, OptionError, "not known to be right"),
        ({"sampler": "ddim", "sampler_options": {"eta": 0.5}}, OptionError, "draws noise"),
        ({"sampler": "ddim", "grid": "karras"}, OptionError, "leave grid out"),
        ({"sampler": "ddim", "clip_sample": True}, OptionError, "clip_sample=False"),
        ({"sampler": "ddim", "thresholding": True}, OptionError, "thresholding=False"),
        ({"sampler": "ddim", "inverse": "yes"}, OptionError, "inverse must be True"),
        (
            {"sampler": "dpmpp-2m", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
            ScheduleError,
            "no key",
        ),
    ],
)
def test_what_cannot_be_inverted_is_refused(keys, error, words):
    config = diffusers.DDIMScheduler(**{"clip_sample": False, **SD}).config
    with pytest.raises(error, match=words):
        SolverKitScheduler.from_config(config, **{"inverse": True, **keys})


@pytest.mark.parametrize(
    "native", [diffusers.FlowMatchEulerDiscreteScheduler(), diffusers.EDMEulerScheduler(), DPM(
        use_flow_sigmas=True, prediction_type="flow_prediction"
    )],
)  # fmt: skip
def test_other_processes_are_refused(native):
    with pytest.raises(ScheduleError, match="VP networks"):
        SolverKitScheduler.from_config(native.config, sampler="dpmpp-2m", inverse=True)


def test_what_a_run_cannot_do_is_refused():
    scheduler = up()
    for given in ({"timesteps": [1, 500, 900]}, {"sigmas": [0.1, 1.0, 2.0]}):
        with pytest.raises(GridError, match="num_inference_steps alone"):
            scheduler.set_timesteps(**given)
    scheduler.set_timesteps(5)
    with pytest.raises(OptionError, match="eta"):
        scheduler.step(noise(), scheduler.timesteps[0], noise(), eta=1.0)
    scheduler.set_timesteps(5)
    scheduler.sigmas[2] *= 1.1
    with pytest.raises(GridError, match="cannot be changed"):
        scheduler.step(noise(), scheduler.timesteps[0], noise())
    with pytest.raises(SolverKitError, match="num_inference_steps"):
        up().step(noise(), 0, noise())
    at_data = up(prediction_type="sample", set_alpha_to_one=True, steps_offset=0)
    with pytest.raises(GridError, match="set_alpha_to_one=False"):
        at_data.set_timesteps(5)


# -- rising grids ------------------------------------------------------------------------------------------------------


def test_a_rising_grid_is_asked_for():
    levels = tuple(sk.VE().level(s) for s in (0.1, 0.5, 2.0, 8.0))
    with pytest.raises(GridError, match="must fall"):
        Grid(levels, sk.VE())
    grid = Grid(levels, sk.VE(), rising=True)
    assert [float(s) for s in grid.tail(1)] == [0.5, 2.0, 8.0] and grid.tail(1).rising
    assert float(grid.at(1.0)) == 1.0
    with pytest.raises(GridError, match="must rise"):
        Grid(levels[::-1], sk.VE(), rising=True)
    with pytest.raises(GridError, match="above 0"):
        Grid((sk.VE().level(0.0), *levels), sk.VE(), rising=True)


def test_orders_look_at_the_length_of_a_step_in_either_direction():
    """A step of 3 after one of 1 is too long for second order; downwards the same steps shrink."""
    levels = tuple(sk.VE().level(math.exp(lam)) for lam in (0.0, 1.0, 4.0, 7.0))
    assert usable_orders(2, Grid(levels, sk.VE(), rising=True), lower_order_final=False) == [1, 1, 2]
    assert usable_orders(2, Grid(levels[::-1], sk.VE()), lower_order_final=False) == [1, 2, 2]


# -- a pipeline --------------------------------------------------------------------------------------------------------


def diffedit(scheduler: Any, inverse: Any) -> dict[str, torch.Tensor]:
    """Invert an image, then paint its right half."""
    absent = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    pipe = diffusers.StableDiffusionDiffEditPipeline(
        vae=vae(), unet=unet(), scheduler=scheduler, inverse_scheduler=inverse, requires_safety_checker=False, **absent
    )
    pipe.set_progress_bar_config(disable=True)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4:] = 1
    common = {**embeds(), "num_inference_steps": 5, "guidance_scale": 2.0, "inpaint_strength": 0.8}
    latents = pipe.invert(image=image(), generator=torch.Generator().manual_seed(0), **common).latents
    edited = pipe(mask_image=mask, image_latents=latents, output_type="latent", **common).images
    return {"latents": latents, "edited": edited}


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp-2m"])
def test_diffedit_inverts_and_paints(sampler):
    forward, cls = diffusers.DDIMScheduler(clip_sample=False, **SD), {"ddim": DDIM, "dpmpp-2m": DPM}[sampler]
    native = diffusers.DPMSolverMultistepScheduler.from_config(forward.config) if cls is DPM else forward
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = diffedit(native, cls.from_config(native.config))
        ours = diffedit(
            SolverKitScheduler.from_config(native.config, sampler=sampler),
            SolverKitScheduler.from_config(native.config, sampler=sampler, inverse=True),
        )
    assert ours["latents"].shape == theirs["latents"].shape == (1, 4, 4, 8, 8)
    for name, state in theirs.items():
        assert relative(ours[name], state) < 1e-4, name
