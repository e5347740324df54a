"""Names from elsewhere mean exactly what they mean there, or are refused with what to write."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch

import solverkit as sk
from solverkit.errors import OptionError
from solverkit.foreign import released
from solverkit.foreign.schedulers import ScheduledRun
from solverkit.problems import mixture
from solverkit.registry.aliases import GRIDS, SAMPLERS, canonical
from solverkit.registry.registry import registry, resolve
from solverkit.run.noise import Noise, SampleNoise

TARGET = mixture(dim=4, modes=3, schedule=sk.EDM())
EXACT = {"grid": "karras", "num_samples": 3, "seed": 1, "dtype": torch.float64}
KNOWN = [name for name, alias in SAMPLERS.items() if alias.means]
FUNCTIONS = [name for name in KNOWN if SAMPLERS[name].of.startswith("k-diffusion")]
CLASSES = [name for name in KNOWN if SAMPLERS[name].of == "diffusers"]


def test_every_alias_is_data_that_holds():
    for kind, table in (("samplers", SAMPLERS), ("grids", GRIDS)):
        for name, alias in table.items():
            assert name not in registry().cards[kind], name
            assert bool(alias.means) != bool(alias.instead), name
            if alias.means:
                assert canonical(kind, name) == alias.means
                (resolve if kind == "samplers" else sk.make_grid)(name, *([] if kind == "samplers" else [sk.VP(), 4]))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("steps", [8, 20])  # some rules act below 15 steps alone
def test_names_of_k_diffusion_are_its_functions(name, steps):
    theirs = sk.adapt_k_diffusion(released.k_diffusion_function(name))
    ours = sk.sample(TARGET, name, steps=steps, **EXACT)
    assert float((sk.sample(TARGET, theirs, steps=steps, **EXACT).x - ours.x).abs().max()) < 1e-12


def test_names_of_comfyui():
    def res_multistep(model, x, sigmas):
        """Second order in log-SNR with exact weights, first where there is no past or no noise is left."""
        old = previous = None
        for s, t in itertools.pairwise(sigmas):
            denoised = model(x, s * x.new_ones(len(x)))
            if old is None or t == 0:
                x = denoised + t / s * (x - denoised)
            else:
                h, c = (s / t).log(), -((previous / s).log() / (s / t).log())
                phi_1 = -torch.expm1(-h) / h
                phi_2 = (1 - phi_1) / h
                x = t / s * x + h * ((phi_1 - phi_2 / c) * denoised + phi_2 / c * old)
            old, previous = denoised, s
        return x

    def lcm(model, x, sigmas, noise_sampler=None):
        for s, t in itertools.pairwise(sigmas):
            x = model(x, s * x.new_ones(len(x)))
            if t > 0:
                x = x + t * noise_sampler(s, t)
        return x

    for steps in (8, 20):
        for name, theirs in (("res_multistep", res_multistep), ("lcm", lcm)):
            ours, other = (sk.sample(TARGET, s, steps=steps, **EXACT).x for s in (name, sk.adapt_k_diffusion(theirs)))
            assert float((other - ours).abs().max()) < 1e-12
    heun = sk.adapt_k_diffusion(released.k_diffusion_function("dpmpp_2m_sde"))
    theirs = sk.sample(TARGET, heun, steps=8, **EXACT, solver_type="heun").x
    for name in ("dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu"):
        assert float((sk.sample(TARGET, name, steps=8, **EXACT).x - theirs).abs().max()) < 1e-12
    for name in ("dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"):
        assert SAMPLERS[f"{name}_gpu"].means == SAMPLERS[name].means


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("steps", [8, 20])
def test_names_of_classes_are_the_classes(name, steps):
    import diffusers

    flow = name.startswith("Flow")
    schedule = sk.Flow() if flow else sk.EDM(sigma_min=0.05, sigma_max=20.0)
    target = mixture(dim=4, modes=3, schedule=schedule)
    grid = sk.make_grid("flow" if flow else "karras", schedule, steps)
    more = {}
    if name.startswith("DEIS"):  # it ends at its lowest trained level, where the driver's table has one entry more
        grid, more = sk.Grid((*grid.levels[:-1], schedule.level(1e-6)), schedule), {"lower_order_final": False}
    x = float(grid[0]) * torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    stage = name == "DPMSolverSDEScheduler"  # its draws are keyed by a stage in float32: leave them out
    noise = [
        (lambda s, t: torch.zeros_like(x)) if stage else Noise(SampleNoise([1, 2], (4,), torch.float64)) for _ in range(2)
    ]
    theirs = ScheduledRun(getattr(diffusers, name), grid, more)(target, x, noise[0])
    card = resolve(name)
    options = {**card.preset, **more}
    ours = card.fn(lambda y, s: target(y, s if isinstance(s, sk.Level) else grid.at(s)), x, grid, noise[1], **options)
    assert float((theirs - ours).abs().max()) < 3e-4 * float(ours.abs().max())  # tables in float32


def test_options_behind_a_name_from_elsewhere():
    assert canonical("samplers", "dpmpp_2m:released=false") == "dpmpp-2m:released=false"
    assert canonical("samplers", "dpmpp_2m_sde:eta=0.5") == "dpmpp-2m-sde:eta=0.5,released=true"
    assert canonical("samplers", "euler") == "euler" and canonical("models", "dpmpp_2m") == "dpmpp_2m"
    assert canonical("grids", "exponential:last=min") == "log-snr:last=min"
    with pytest.raises(OptionError, match="has no option 'eta'"):
        resolve("dpmpp_2m:eta=1")


@pytest.mark.parametrize(("name", "said"), [
    ("uni_pc", "write unipc:order=3,variant=bh1,released=true"), ("dpm_adaptive", "norm=batch is its rule"),
    ("euler_cfg_pp", "guidance is a denoiser here"), ("PNDMScheduler", "start=plms"),
])  # fmt: skip
def test_names_that_mean_nothing_here(name, said):
    with pytest.raises(OptionError, match=said):
        resolve(name)
    with pytest.raises(OptionError, match=said):
        sk.sample(TARGET, name, steps=2, num_samples=1)


def test_grids_by_their_names_elsewhere():
    vp = sk.VP("scaled_linear", 0.00085, 0.012)
    sigmas = np.array([vp.ratio(t) for t in range(1000)])

    def sigma_of(t):  # k-diffusion and ComfyUI interpolate log sigma
        return math.exp(np.interp(t, np.arange(1000), np.log(sigmas)))

    n = 12
    theirs = {
        "exponential": [*np.exp(np.linspace(math.log(sigmas[-1]), math.log(sigmas[0]), n)), 0],
        "normal": [*(sigma_of(t) for t in np.linspace(999, 0, n)), 0],
        "sgm_uniform": [*(sigma_of(t) for t in np.linspace(999, 0, n + 1)[:-1]), 0],
        "simple": [*(sigmas[-(1 + int(i * 1000 / n))] for i in range(n)), 0],
        "kl_optimal": [*np.tan([i / (n - 1) * math.atan(sigmas[0]) + (1 - i / (n - 1)) * math.atan(sigmas[-1])
                                for i in range(n)]), 0],
    }  # fmt: skip
    for name, wanted in theirs.items():
        assert [float(s) for s in sk.make_grid(name, vp, n)] == pytest.approx([float(s) for s in wanted], rel=1e-9), name
    karras = released._alone().get_sigmas_karras(n, float(sigmas[0]), float(sigmas[-1]))
    assert [float(s) for s in sk.make_grid("karras", vp, n)] == pytest.approx(karras.tolist(), rel=1e-5)
    with pytest.raises(OptionError, match="write leading:steps_offset=1"):
        sk.make_grid("ddim_uniform", vp, n)


def test_aliases_from_the_command_line(cli):
    code, out, _ = cli("samplers", "--aliases", "--json")
    shown = {row["name"]: row for row in json.loads(out)}
    assert code == 0 and shown["dpmpp_2m"]["means"] == "dpmpp-2m:released=true" and shown["uni_pc"]["instead"]
    assert "sgm-uniform" in cli("grids", "--aliases")[1]
    code, _, err = cli("show", "uni_pc", "--nfe", "4")
    assert code == 2 and "write unipc:order=3,variant=bh1" in err
    assert "dpmpp-2m" in cli("show", "dpmpp_2m", "--nfe", "4")[1] or cli("show", "dpmpp_2m", "--nfe", "4")[0] == 0
    assert cli("check", "simple")[0] == 0
    assert cli("check", "kl_optimal")[0] == 0 and cli("check", "sgm_uniform")[0] == 0


def test_a_scheduler_by_a_name_from_elsewhere():
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    for name, same in (("dpm_2", "kdpm2"), ("res_multistep", "dpmpp-2m:released=true,solver_type=heun")):
        ours, theirs = (sk.SolverKitScheduler(sampler=sampler, **betas) for sampler in (name, same))
        for scheduler in (ours, theirs):
            scheduler.set_timesteps(6)
        assert torch.equal(ours.sigmas, theirs.sigmas) and ours.nfe == theirs.nfe
