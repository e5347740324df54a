"""What the tests of the scheduler run: a network, a scheduler, and the loop of a pipeline."""

from __future__ import annotations

import diffusers
import torch

from solverkit import SolverKitScheduler
from solverkit.registry.registry import registry
from solverkit.testing import option_sets

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}

TRACEABLE = sorted(name for name, card in registry().cards["samplers"].items() if card.traceable)


def network(x, t):
    t = float(t) / 1000
    return 0.9 * x * t + 0.3 * torch.sin(2 * x + t) + 0.1 * torch.roll(x, 1, -1) * (1 - t)


CARDS = registry().cards["samplers"]
NEEDED = {name: option_sets(card)[0] for name, card in CARDS.items() if card.required and card.traceable}

SMALL = {"ncsn": {"n_steps": 1}, "lm-langevin": {"n_steps": 1, "probes": 0}, **NEEDED}  # their defaults cost more a step


def make(sampler="dpmpp-2m", **options):
    options = {"sampler_options": SMALL[sampler], **options} if sampler in SMALL else options
    options = {"native_class": "DDIMScheduler", **options}
    clip = {"clip_sample": False} if options["native_class"][:4] == "DDIM" else {}
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


def flow(sampler="dpmpp-2m", **options):
    config = diffusers.FlowMatchEulerDiscreteScheduler(**options).config
    return SolverKitScheduler.from_config(config, sampler=sampler, sampler_options=SMALL.get(sampler))


def edm(sampler="dpmpp-2m", **options):
    config = diffusers.EDMEulerScheduler(**options).config
    return SolverKitScheduler.from_config(config, sampler=sampler, sampler_options=SMALL.get(sampler))
