"""Released code through the kit: what it proves, what it fails, and why."""

from __future__ import annotations

import json

import diffusers
import pytest
import torch

import solverkit as sk
from solverkit.errors import OptionError, UnknownNameError
from solverkit.foreign import named, proofs
from solverkit.foreign.claims import CLAIMS
from solverkit.foreign.named import foreign
from solverkit.foreign.schedulers import ScheduledRun
from solverkit.proofs.finding import CheckError
from solverkit.registry.registry import resolve
from solverkit.run.noise import Noise, SampleNoise
from solverkit.testing import check_foreign

# what ours is the same, step by step, on the same levels: the driver adds nothing of its own
SAME = {
    "DDIMScheduler": "ddim",
    "DPMSolverMultistepScheduler": "dpmpp-2m:released=true",
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler-ancestral",
    "HeunDiscreteScheduler": "heun",
    "KDPM2DiscreteScheduler": "kdpm2",
    "KDPM2AncestralDiscreteScheduler": "kdpm2-ancestral",
    "LMSDiscreteScheduler": "lms",
    "UniPCMultistepScheduler": "unipc:order=2,variant=bh2,released=true",
    "DEISMultistepScheduler": "deis:order=2,variable=log-rho,released=true,lower_order_final=false",
    "FlowMatchEulerDiscreteScheduler": "euler",
}


@pytest.mark.parametrize("name", SAME)
def test_a_class_on_given_levels_is_our_sampler_on_them(name):
    flow = name.startswith("Flow")
    schedule = sk.Flow() if flow else sk.EDM(sigma_min=0.05, sigma_max=20.0)
    target = sk.problems.mixture(dim=4, modes=3, schedule=schedule)
    ends_low = name.startswith("DEIS")
    grid = sk.make_grid("flow" if flow else "karras", schedule, 17, last="min" if ends_low else "zero")
    x = float(grid[0]) * torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise = [Noise(SampleNoise([1, 2], (4,), torch.float64)) for _ in range(2)]
    theirs = ScheduledRun(getattr(diffusers, name), grid, {})(target, x, noise[0])
    card = resolve(SAME[name])
    ours = card.fn(lambda y, s: target(y, s if isinstance(s, sk.Level) else grid.at(s)), x, grid, noise[1], **card.preset)
    assert float((theirs - ours).abs().max()) < 2e-4 * float(ours.abs().max())  # tables in float32


def failed(name, check):
    with pytest.raises(CheckError) as error:
        getattr(proofs, f"check_{check}")(foreign(name))
    return error.value


def test_what_released_code_fails():
    third = failed("k-diffusion:dpmpp_3m_sde", "order")
    assert third.figure == pytest.approx(2.08, abs=0.05) and "half the second derivative" in third.cause
    assert failed("diffusers:DPMSolverMultistep:solver_order=3", "order").figure == pytest.approx(2.10, abs=0.05)
    lost = failed("diffusers:UniPCMultistep", "edits")
    assert lost.figure > 0.99 and "begins again from the state before" in lost.cause
    assert failed("diffusers:HeunDiscrete", "nfe").figure == 19
    assert "two evaluations" in failed("diffusers:KDPM2Discrete", "nfe").cause
    assert failed("k-diffusion:euler_ancestral", "independence").figure > 1
    assert "UnboundLocalError" in str(failed("k-diffusion:dpmpp_2m_sde", "finite"))
    assert "one norm of the whole batch" in failed("k-diffusion:dpm_adaptive", "independence").cause


def test_what_released_code_proves():
    for name in ("k-diffusion:dpmpp_2m", "diffusers:FlowMatchEulerDiscrete"):
        results = check_foreign(name)
        assert [r.name for r in results] == ["order", "law", "nfe", "independence", "edits", "finite"]
        assert all(r.passed for r in results), results
    assert "0.0% (80 steps)" in proofs.check_edits(foreign("k-diffusion:heun"))  # the first of two evaluations a step
    assert "2.9% (120 steps)" in proofs.check_law(foreign("diffusers:DDPM"))


def test_checks_that_would_find_a_wrong_one(monkeypatch):
    def wrong(model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler=None):
        for i in range(len(sigmas) - 1):
            s, t = sigmas[i], sigmas[i + 1]
            denoised = model(0.999 * x, s * x.new_ones(len(x)))  # not the state itself: an edit in place is lost
            if callback is not None:
                callback({"x": x, "i": i, "sigma": s, "sigma_hat": s, "denoised": denoised})
            model(x, s * x.new_ones(len(x)))  # nothing uses it
            x = denoised + t / s * (x - denoised)
            x = x + 0.3 * t * noise_sampler(s, t)
        return x

    monkeypatch.setattr(named, "k_diffusion_function", lambda name: wrong)
    monkeypatch.setitem(CLAIMS, "k-diffusion:wrong", CLAIMS["k-diffusion:sample_heun"])
    assert failed("k-diffusion:wrong", "law").figure > 0.1
    assert "do not reach the result" in str(failed("k-diffusion:wrong", "nfe"))
    assert failed("k-diffusion:wrong", "order").figure < 1
    assert failed("k-diffusion:wrong", "edits").figure > 0.9


def test_check_from_the_command_line(cli):
    code, out, _ = cli("check", "diffusers:DDIM", "--json")
    assert code == 0 and [r["passed"] for r in json.loads(out)] == [True] * 6
    code, out, _ = cli("check", "k-diffusion:dpm_adaptive")
    assert code == 1 and "because the error that accepts a step" in out


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("diffusers:UniPCMultistp", UnknownNameError, "Did you mean 'UniPCMultistepScheduler'"),
        ("diffusers:UniPCMultistep:solver_ordr=2", OptionError, "Did you mean 'solver_order'"),
        ("diffusers:UniPCMultistep:solver_order=x", OptionError, "refuses"),
        ("diffusers:UniPCMultistep:3", OptionError, "NAME=VALUE"),
        ("diffusers:LCM", OptionError, "distilled"),
        ("diffusers:EDMEuler", OptionError, "no trained_betas"),
        ("diffusers:DDIMInverse", OptionError, "from data to noise"),
        ("diffusers:PNDM", OptionError, "say skip_prk_steps=true"),
        ("diffusers:CogVideoXDPM", OptionError, "more than an output"),
        ("k-diffusion:eulr", UnknownNameError, "Did you mean 'sample_euler'"),
        ("k-diffusion:euler:eta=1", OptionError, "no option 'eta'"),
        ("k-diffusion:", UnknownNameError, "unknown sampler of k-diffusion ''"),
    ],
)
def test_names_that_cannot_be_checked(name, error, said):
    with pytest.raises(error, match=said):
        foreign(name)


def test_wrong_words_on_the_command_line(cli):
    assert cli("check", "diffusers:DDIM", "--kind", "grid")[::2] == (
        2, "Error: diffusers:DDIM is a sampler of another library, and no grid; leave out --kind.\n"
    )  # fmt: skip
