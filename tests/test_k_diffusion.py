"""k-diffusion's released samplers as samplers of ours, and ours in its form. The files of tests/released are unchanged."""

from __future__ import annotations

import base64
import csv
import hashlib
import inspect
import itertools
from pathlib import Path

import pytest
import torch

import solverkit as sk
from solverkit.errors import DenoiserError, GridError, OptionError, UnknownNameError
from solverkit.foreign import released
from solverkit.foreign.draws import BrownianPath
from solverkit.problems import mixture
from solverkit.proofs.finding import CheckError
from solverkit.proofs.law import check_ends
from solverkit.proofs.order import check_order
from solverkit.proofs.runs import check_finite, check_independence, check_input_untouched, check_nfe
from solverkit.registry.registry import resolve
from solverkit.run.noise import Noise, SampleNoise

RELEASED = Path(__file__).parent / "released"
STEPS = 8
ONE, TWO = STEPS, 2 * STEPS - 1  # evaluations: one a step, or two but for the last
# every sampler that the package has: evaluations of 8 steps, and what is the same here, draw by draw
PUBLIC = {
    "sample_euler": (ONE, "euler"),
    "sample_euler_ancestral": (ONE, "euler-ancestral"),
    "sample_heun": (TWO, "heun"),
    "sample_dpm_2": (TWO, "kdpm2"),
    "sample_dpm_2_ancestral": (TWO, "kdpm2-ancestral"),
    "sample_lms": (ONE, "lms"),
    "sample_dpm_fast": (ONE, None),
    "sample_dpm_adaptive": (46, None),
    "sample_dpmpp_2s_ancestral": (TWO, "dpmpp-2s-ancestral"),
    "sample_dpmpp_sde": (TWO, "dpmpp-sde"),
    "sample_dpmpp_2m": (ONE, "dpmpp-2m:released=true"),
    "sample_dpmpp_2m_sde": (ONE, "dpmpp-2m-sde:released=true"),
    "sample_dpmpp_3m_sde": (ONE, "dpmpp-3m-sde:released=true,lower_order_final=false"),
}
TARGET = mixture(dim=4, modes=3, schedule=sk.EDM())
EXACT = {"grid": "karras", "steps": STEPS, "num_samples": 3, "seed": 1, "dtype": torch.float64}


def adapted(name):
    return sk.adapt_k_diffusion(released.k_diffusion_function(name))


def test_the_files_are_those_of_the_wheel():
    record = next(RELEASED.glob("*.dist-info")) / "RECORD"
    said = {row[0]: row[1] for row in csv.reader(record.read_text().splitlines())}
    for path in RELEASED.glob("k_diffusion/*.py"):
        digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
        assert said[f"k_diffusion/{path.name}"] == f"sha256={digest}", path


def test_every_public_sampler_is_here():
    assert set(released.k_diffusion_functions()) == set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_released_sampler_is_one_of_ours(name):
    nfe, same = PUBLIC[name]
    result = sk.sample(TARGET, adapted(name), **EXACT)
    assert result.nfe == nfe == len(result.levels)
    if same is not None:
        assert float((sk.sample(TARGET, same, **EXACT).x - result.x).abs().max()) < 1e-12
    if name != "sample_dpm_adaptive":  # one step length for the batch
        alone = sk.sample(TARGET, adapted(name), **{**EXACT, "num_samples": 1, "seed": [2**64 + 2]}).x
        assert float((alone[0] - result.x[2]).abs().max()) < 1e-12


def test_options_are_the_functions_own():
    card = resolve(adapted("dpmpp_sde"))
    assert (card.name, card.traceable, card.defaults) == ("sample_dpmpp_sde", False, {"eta": 1.0, "s_noise": 1.0, "r": 0.5})
    with pytest.raises(OptionError, match="no option 'etta'.*Did you mean 'eta'"):
        sk.sample(TARGET, adapted("dpmpp_sde"), steps=2, num_samples=1, etta=1.0)
    with pytest.raises(OptionError, match="eta='x' of 'sample_dpmpp_sde' must be float"):
        sk.sample(TARGET, adapted("dpmpp_sde"), steps=2, num_samples=1, eta="x")
    churned = [sk.sample(TARGET, adapted("euler"), **{**EXACT, "seed": seed}, s_churn=4.0).x for seed in (1, 1, 2)]
    assert torch.equal(churned[0], churned[1]) and not torch.equal(churned[0], churned[2])  # its randn_like is keyed
    ours = sk.sample(TARGET, adapted("dpmpp_2m_sde"), **EXACT, eta=0.0).x
    assert float((ours - sk.sample(TARGET, "dpmpp-2m:released=true", **EXACT).x).abs().max()) < 1e-12


def test_global_randomness_is_left_alone():
    before = torch.get_rng_state()
    sk.sample(TARGET, adapted("euler_ancestral"), steps=2, num_samples=2)
    sk.sample(TARGET, adapted("heun"), steps=4, num_samples=2, s_churn=1.0)
    assert torch.equal(torch.get_rng_state(), before)


def test_flow_models():
    flow = mixture(dim=4, modes=3, schedule=sk.Flow())
    run = {"num_samples": 2, "dtype": torch.float64}
    levels = [0.9, 0.7, 0.4, 0.1, 0.0]
    theirs = sk.sample(flow, adapted("dpmpp_2m"), levels=levels, **run).x
    ours = sk.sample(flow, "dpmpp-2m:released=true", levels=levels, **run).x
    assert float((theirs - ours).abs().max()) < 1e-12
    whole = sk.sample(flow, adapted("heun"), steps=4, **run)  # the first step, from alpha = 0, is Euler's
    assert whole.nfe == 6
    first = sk.sample(flow, "euler", levels=[1.0, 0.75], **run).x
    rest = sk.sample(flow, adapted("heun"), levels=[0.75, 0.5, 0.25, 0.0], x=first).x
    assert float((whole.x - rest).abs().max()) < 1e-12
    assert sk.sample(flow, adapted("heun"), steps=1, **run).nfe == 1


def test_the_kit_checks_an_adapted_function():
    card = resolve(sk.adapt_k_diffusion(released.k_diffusion_function("dpmpp_2m"), order=2))
    for check in (check_order, check_nfe, check_independence, check_finite, check_ends, check_input_untouched):
        check(card, {})
    with pytest.raises(CheckError, match="sample 0 differs by"):
        check_independence(resolve(adapted("dpm_adaptive")), {})


def test_a_function_of_anyone():
    def halfway(model, x, sigmas, extra_args=None, strength=0.5):
        for s, t in itertools.pairwise(sigmas):
            denoised = model(x, s * x.new_ones(len(x)))
            x = denoised + t * ((x - denoised) / s + strength * torch.randn(x.shape))
        return x

    sampler = sk.adapt_k_diffusion(halfway, "mine", reference="me")
    card = resolve(sampler)
    assert (card.name, card.reference, card.defaults) == ("mine", "me", {"strength": 0.5})
    first, again = (sk.sample(TARGET, sampler, steps=3, num_samples=2) for _ in range(2))
    assert first.nfe == 3 and torch.equal(first.x, again.x)

    def rows(model, x, sigmas):  # rows at levels of their own
        return model(x, torch.stack([sigmas[0], sigmas[1]]))

    assert sk.sample(TARGET, sk.adapt_k_diffusion(rows), steps=2, num_samples=2).nfe == 1
    for wrong, said in ((3, "got int"), (lambda x: x, r"got \(x\)"), (lambda model, x, sigma_min: x, "sigma_max")):
        with pytest.raises(OptionError, match=said):
            sk.adapt_k_diffusion(wrong)
    with pytest.raises(OptionError, match="returned NoneType"):
        sk.sample(TARGET, sk.adapt_k_diffusion(lambda model, x, sigmas: None), steps=2, num_samples=1)


def test_one_step_to_zero_of_the_stochastic_multistep_samplers_fails_as_released():
    for name in ("dpmpp_2m_sde", "dpmpp_3m_sde"):
        with pytest.raises(UnboundLocalError):
            sk.sample(TARGET, adapted(name), steps=1, num_samples=1)


def test_increments_of_one_path():
    noise = Noise(SampleNoise([1, 2], (3,), torch.float64))
    path = BrownianPath(noise)
    whole, first, middle = path(4.0, 1.0), path(4.0, 3.0), path(3.0, 2.0)  # bridges inside what is known
    last, above = path(2.0, 1.0), path(9.0, 4.0)
    assert float((3**0.5 * whole - first - middle - last).abs().max()) < 1e-12
    assert torch.equal(path(1.0, 4.0), -whole) and torch.equal(path(9.0, 4.0), above)
    many = BrownianPath(Noise(SampleNoise(list(range(400)), (50,), torch.float64)))
    pair = torch.stack([many(4.0, 1.0), many(4.0, 3.0), many(2.0, 1.0)]).flatten(1)
    correlation = pair @ pair.T / pair.shape[1]
    wanted = torch.tensor([[1, 3**-0.5, 3**-0.5], [3**-0.5, 1, 0], [3**-0.5, 0, 1]]).double()
    assert float((correlation - wanted).abs().max()) < 0.03


# ours in their form


def model(x, sigma, **extra):
    return TARGET(x, float(sigma[0]))


SIGMAS = torch.tensor([float(s) for s in sk.make_grid("karras", sk.EDM(), STEPS)], dtype=torch.float64)
X = SIGMAS[0] * torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", [name for name, (_, same) in PUBLIC.items() if same])
def test_ours_in_their_form(name):
    theirs, ours = released.k_diffusion_function(name), sk.as_k_diffusion(PUBLIC[name][1])
    seen = [], []
    noise = [BrownianPath(Noise(SampleNoise([1, 2, 3], (4,), torch.float64))) for _ in seen]
    ends = [
        fn(model, X, SIGMAS, callback=calls.append, disable=True,
           **({"noise_sampler": draw} if released.takes(theirs, "noise_sampler") else {}))
        for fn, calls, draw in zip((theirs, ours), seen, noise)
    ]  # fmt: skip
    assert float((ends[0] - ends[1]).abs().max()) < 1e-12
    assert len(seen[0]) == len(seen[1]) == STEPS
    for a, b in zip(*seen):
        assert a.keys() == b.keys() and a["i"] == b["i"] and a["sigma"] == b["sigma"]
        assert all(torch.allclose(a[key], b[key], rtol=1e-10, atol=1e-10) for key in ("x", "denoised", "sigma_hat"))


def test_a_function_of_their_form_hands_on_what_it_gets():
    got = []

    def conditioned(x, sigma, **extra):
        got.append((x.dtype, sigma.dtype, tuple(sigma.shape), extra))
        return TARGET(x.double(), float(sigma[0])).to(x.dtype)

    fn = sk.as_k_diffusion("euler-ancestral")
    assert list(inspect.signature(fn).parameters)[:7] == [
        "model", "x", "sigmas", "extra_args", "callback", "disable", "noise_sampler"
    ]  # fmt: skip
    half = fn(conditioned, X.half(), SIGMAS[2:].half(), extra_args={"cond": 1, "seed": 7}, eta=0.5)
    assert half.dtype == torch.float16
    assert got[0] == (torch.float16, torch.float16, (3,), {"cond": 1, "seed": 7})
    runs = [fn(model, X, SIGMAS, extra_args={"seed": [4, 5, 6]}) for _ in range(2)]
    assert torch.equal(*runs)
    torch.manual_seed(0)
    first = fn(model, X, SIGMAS)
    torch.manual_seed(0)
    assert torch.equal(first, fn(model, X, SIGMAS)) and not torch.equal(first, fn(model, X, SIGMAS))
    flow = mixture(dim=4, modes=3, schedule=sk.Flow())
    levels = torch.tensor([1.0, 0.6, 0.3, 0.0], dtype=torch.float64)
    x = torch.randn(2, 4, dtype=torch.float64)
    theirs = sk.as_k_diffusion("heun", flow=True)(lambda x, sigma: flow(x, flow.schedule.at(float(sigma[0]))), x, levels)
    assert float((theirs - sk.sample(flow, "heun", levels=levels.tolist(), x=x).x).abs().max()) < 1e-12


def test_every_sampler_runs_in_their_form_or_says_why_not():
    refused = {}
    for name in sk.samplers():
        try:
            x = sk.as_k_diffusion(name)(model, X, SIGMAS, extra_args={"seed": 1}, callback=lambda info: info["denoised"])
            assert bool(torch.isfinite(x).all()) and x.shape == X.shape, name
        except (OptionError, DenoiserError) as error:
            refused[name] = str(error)
    assert set(refused) == {
        "auto", "daps", "dpm-solver-v3", "dps", "flow-map", "gaussian-exponential", "red-diff", "teleport", "tuned"
    }  # fmt: skip
    assert "pass measurement=, or use sk.sample" in refused["dps"] and "flow map" in refused["flow-map"]


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"sigmas": torch.tensor([1.0])}, GridError, "two or more falling numbers"),
        ({"sigmas": torch.tensor([1.0, 2.0])}, GridError, "must fall"),
        ({"sigmas": torch.tensor([1.0, torch.nan])}, GridError, "two or more falling numbers"),
        ({"x": "noise"}, OptionError, "x must be a batch of states"),
        ({"model": None}, OptionError, "model must be a function"),
        ({"eta": 0.5}, OptionError, "'euler' takes no options|'euler' has no option 'eta'"),
    ],
)
def test_wrong_calls_of_their_form(given, error, said):
    with pytest.raises(error, match=said):
        sk.as_k_diffusion("euler")(**{"model": model, "x": X, "sigmas": SIGMAS, **given})


def test_names_and_installations_that_do_not_exist(monkeypatch):
    with pytest.raises(UnknownNameError, match="Did you mean 'sample_euler'"):
        released.k_diffusion_function("sample_eulr")
    with pytest.raises(UnknownNameError, match="unknown sampler 'eulr'"):
        sk.as_k_diffusion("eulr")
    monkeypatch.setattr(released, "PACKAGE", "no_such_package")
    released._alone.cache_clear()
    with pytest.raises(OptionError, match="pip install --no-deps k-diffusion"):
        released.k_diffusion_functions()
    released._alone.cache_clear()
