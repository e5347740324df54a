"""docs/coming-from.md, row by row: two sides that claim to be the same give the same levels or samples."""

from __future__ import annotations

import re
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

import solverkit as sk
from solverkit import guidance
from solverkit.foreign import released
from solverkit.foreign.schedulers import ScheduledRun
from solverkit.problems import mixture
from solverkit.registry.registry import resolve
from solverkit.run.noise import Noise, SampleNoise

PAGE = Path(__file__).parents[1] / "docs" / "coming-from.md"
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
VP = sk.VP("scaled_linear", 0.00085, 0.012)
EDM = sk.EDM(sigma_min=0.05, sigma_max=20.0)
TARGET = mixture(dim=4, modes=3, schedule=EDM)
EXACT = {"grid": "karras", "steps": 8, "num_samples": 3, "seed": 1, "dtype": torch.float64}
ROWS = {}


def row(theirs):
    def keep(test):
        ROWS[theirs] = test
        return test

    return keep


def same_levels(sigmas, grid, schedule=VP, n=10, rel=2e-4):
    ours = [float(s) for s in sk.make_grid(grid, schedule, n)]
    assert ours == pytest.approx([float(s) for s in sigmas], rel=rel, abs=1e-6)


def euler(**options):
    native = diffusers.EulerDiscreteScheduler(**SD, **options)
    native.set_timesteps(10)
    return native.sigmas


def same_run(cls, options, ours):
    grid = sk.make_grid("karras", EDM, 17)
    x = float(grid[0]) * torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise = [Noise(SampleNoise([1, 2], (4,), torch.float64)) for _ in range(2)]
    theirs = ScheduledRun(cls, grid, options)(TARGET, x, noise[0])
    card = resolve(ours)
    made = card.fn(lambda y, s: TARGET(y, s if isinstance(s, sk.Level) else grid.at(s)), x, grid, noise[1], **card.preset)
    assert float((theirs - made).abs().max()) < 2e-4 * float(made.abs().max())


def adapted(name, **options):
    return sk.sample(TARGET, sk.adapt_k_diffusion(released.k_diffusion_function(name)), **EXACT, **options).x


@row("use_karras_sigmas=True")
def _(here):
    same_levels(euler(use_karras_sigmas=True), here("grid"))


@row("use_exponential_sigmas=True")
def _(here):
    same_levels(euler(use_exponential_sigmas=True), here("grid"))


@row("use_beta_sigmas=True")
def _(here):
    same_levels(euler(use_beta_sigmas=True), here("grid"))


@row('timestep_spacing="trailing"')
def _(here):
    same_levels(euler(timestep_spacing="trailing"), here("grid"))


@row('timestep_spacing="leading", steps_offset=1')
def _(here):
    same_levels(euler(timestep_spacing="leading", steps_offset=1), here("grid"))


@row('timestep_spacing="linspace" of the Euler family')
def _(here):
    same_levels(euler(timestep_spacing="linspace"), here("grid"), rel=1e-3)  # its sigma is interpolated, not log sigma


@row("shift=3 of a flow, sigmas even from 1 to 1/n")
def _(here):
    native = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    native.set_timesteps(sigmas=np.linspace(1, 1 / 10, 10))
    same_levels(native.sigmas, here("grid"), sk.Flow())


@row("solver_order=3 of UniPC")
def _(here):
    same_run(diffusers.UniPCMultistepScheduler, {"solver_order": 3}, here())


@row('algorithm_type="sde-dpmsolver++"')
def _(here):
    same_run(diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}, here())


@row('solver_type="heun" of DPM++ 2M')
def _(here):
    same_run(diffusers.DPMSolverMultistepScheduler, {"solver_type": "heun"}, here())


@row("eta=0.5 of DDIM's step")
def _(here):
    native = diffusers.DDIMScheduler(**SD, timestep_spacing="trailing", clip_sample=False)
    native.set_timesteps(10)
    x, z = torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(0)).double()
    grid, target = sk.make_grid("trailing", VP, 10), mixture(dim=4, modes=3, schedule=VP)
    card = resolve(here())
    ours = card.fn(target, x / grid[0].scale, grid, lambda s, t: z, **card.preset)
    for t, level in zip(native.timesteps, grid):
        eps = (x / level.scale - target(x / level.scale, level)) / float(level)
        x = native.step(eps, t, x, eta=0.5, variance_noise=z).prev_sample
    assert float((x - ours).abs().max()) < 1e-4


@row("num_inference_steps=10 of Heun: 19 calls")
def _(here):
    native = diffusers.HeunDiscreteScheduler(**SD)
    native.set_timesteps(10)
    runs = [sk.sample(TARGET, "heun", num_samples=1, **how) for how in ({"steps": 10}, {"nfe": 19})]
    assert len(native.timesteps) == 19 == runs[0].nfe == runs[1].nfe


@row("strength=0.6 of 10 steps")
def _(here):
    native = diffusers.DDIMScheduler(**SD, timestep_spacing="trailing", clip_sample=False)
    native.set_timesteps(10)
    image, z = torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(0)).double()
    target, grid = mixture(dim=4, modes=3, schedule=VP), sk.make_grid("trailing", VP, 10).tail(4)
    start = max(10 - int(10 * 0.6), 0)
    x = first = native.add_noise(image, z, native.timesteps[start : start + 1])
    for t, level in zip(native.timesteps[start:], grid):
        eps = (x / level.scale - target(x / level.scale, level)) / float(level)
        x = native.step(eps, t, x).prev_sample
    assert float((sk.sample(target, "ddim", grid=grid, x=first).x - x).abs().max()) < 1e-4


def guided(here):
    weak = sk.wrap(lambda x, t: 0.3 * x, "sample", EDM, shape=(4,))
    x, level = torch.randn(2, 4), EDM.at(1.0)
    conditional, unconditional = TARGET(x, level), weak(x, level)
    made = guidance.classifier_free(TARGET, weak, scale=7.5)(x, level)
    assert torch.allclose(made, unconditional + 7.5 * (conditional - unconditional), atol=1e-5)
    assert "classifier_free(conditional, unconditional, scale=7.5)" in here()


ROWS["guidance_scale=7.5"] = ROWS["cfg=7.5"] = guided


def seeds(here):
    together = sk.sample(TARGET, "ddpm", steps=4, num_samples=2, seed=[0, 1]).x
    assert torch.allclose(sk.sample(TARGET, "ddpm", steps=4, num_samples=1, seed=[1]).x[0], together[1], atol=1e-6)
    assert not torch.equal(sk.sample(TARGET, "ddpm", steps=4, num_samples=2, seed=7).x, together)


ROWS["generator=[g0, g1], one a sample"] = ROWS["seed"] = seeds


@row("get_sigmas_karras(n, 0.1, 10)")
def _(here):
    same_levels(released._alone().get_sigmas_karras(10, 0.1, 10), here("grid"), EDM)


@row("get_sigmas_exponential(n, 0.1, 10)")
def _(here):
    same_levels(released._alone().get_sigmas_exponential(10, 0.1, 10), here("grid"), EDM)


@row("sample_heun(..., s_churn=4)")
def _(here):
    x, z = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert "below the largest trained level" in here()
    grid, card = sk.make_grid("karras:ratio_max=10", EDM, 8), sk.samplers()["heun"]  # one draw for all: its places differ

    def model(y, s):
        return TARGET(y, s if isinstance(s, sk.Level) else grid.at(s))

    theirs = sk.adapt_k_diffusion(released.k_diffusion_function("heun"))
    ends = [fn(model, 20 * x, grid, lambda s, t: z, s_churn=4.0) for fn in (theirs, card.fn)]
    assert float((ends[0] - ends[1]).abs().max()) < 1e-10


@row("sample_euler_ancestral(..., eta=0.5, s_noise=1.1)")
def _(here):
    theirs = adapted("euler_ancestral", eta=0.5, s_noise=1.1)
    assert float((theirs - sk.sample(TARGET, here(), **EXACT).x).abs().max()) < 1e-12


@row("sample_lms(..., order=3)")
def _(here):
    assert float((adapted("lms", order=3) - sk.sample(TARGET, here(), **EXACT).x).abs().max()) < 1e-12


@row('callback({"x", "i", "sigma", "denoised"})')
def _(here):
    ours, theirs = [], []
    run = sk.sample(TARGET, "euler", **EXACT, callback=ours.append)
    sigmas = torch.tensor([float(level) for level in run.levels] + [0.0], dtype=torch.float64)
    released.k_diffusion_function("euler")(
        lambda x, sigma: TARGET(x, float(sigma[0])), ours[0].x, sigmas, callback=theirs.append, disable=True
    )
    for a, b in zip(ours, theirs, strict=True):
        assert a.index == b["i"] and float(a.level) == float(b["sigma"])
        assert torch.allclose(a.x, b["x"]) and torch.allclose(a.denoised, b["denoised"])


@row('extra_args={"cond": ...}')
def _(here):
    denoiser = sk.wrap(lambda x, t, cond: x * 0 + cond.view(-1, 1), "sample", EDM, shape=(4,))
    run = sk.sample(denoiser.with_inputs(cond=torch.tensor([3.0, 5.0])), "euler", steps=2, num_samples=2)
    assert run.x[:, 0].tolist() == pytest.approx([3.0, 5.0], abs=1e-4)


@row("denoise=0.5 of 6 steps")
def _(here):
    whole = sk.make_grid("karras", EDM, 12)
    assert int(6 / 0.5) == 12 and list(whole.tail(6)) == list(whole)[-7:]  # ComfyUI keeps the last steps + 1 levels


def rows_of_the_page():
    found = re.findall(r"^\| (.+?) \| (.+?) \|$", PAGE.read_text(encoding="utf-8"), flags=re.M)
    return {theirs.replace("`", ""): ours for theirs, ours in found if theirs.replace("`", "") in ROWS}


def option_tables():
    """The rows of the tables that are typed by hand: two columns."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:2] == "| " and line.count("|") == 3]
    return [line.split("|")[1].strip().replace("`", "") for line in lines if not line.endswith("| here |")]


def test_every_row_has_its_proof():
    assert sorted(option_tables()) == sorted(ROWS)


@pytest.mark.parametrize("theirs", ROWS)
def test_a_row(theirs):
    shown = rows_of_the_page()[theirs].replace("`", "")

    def here(what=""):
        return re.search(r'grid="([^"]+)"', shown)[1] if what == "grid" else shown

    ROWS[theirs](here)


def test_the_tables_of_names_are_the_aliases(monkeypatch):
    monkeypatch.syspath_prepend(str(PAGE.parents[1] / "benchmarks"))
    import table_aliases

    text = PAGE.read_text(encoding="utf-8")
    for name, made in table_aliases.TABLES.items():
        assert f"<!-- table: {name} -->\n{made(PAGE)}" in text, name
