"""The bundled networks: what ships, what they draw, and that a sample does not depend on its batch."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

import solverkit as sk
from solverkit.bench.features import load_features
from solverkit.run.noise import sample_seeds

NETWORKS = Path(sk.__file__).parent / "networks"
NAMES = ["mnist", "mnist-flow"]


def needed(sampler, model):
    """Options without a default, for a model."""
    known = {"stats": model, "plan": "first-order", "choice": "first-order"}
    if "measurement" in sk.samplers()[sampler].required:
        operator = sk.inverse.random_projection(sk.load(model).shape, 5)
        known["measurement"] = sk.inverse.Measurement(operator, torch.ones(1, 5), 0.1)
    return {name: known[name] for name in sk.samplers()[sampler].required}


@pytest.mark.parametrize("name", NAMES)
def test_what_ships(name):
    folder = NETWORKS / name
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    assert weights.stat().st_size <= 8 * 2**20
    assert not [p for p in folder.rglob("*") if p.suffix in (".bin", ".pt", ".pkl", ".ckpt")]
    record = json.loads((folder / "training.json").read_text())
    card = (folder / "README.md").read_text()
    assert record["annealed"] and str(record["steps"]) in card and "samples.png" in card
    assert "Fréchet distance" in card and (folder / "samples.png").stat().st_size > 10_000


def test_ddpm_pipeline_opens_mnist():
    from diffusers import DDPMPipeline

    pipe = DDPMPipeline.from_pretrained(NETWORKS / "mnist")
    assert pipe.scheduler.config.beta_schedule == "linear" and pipe.unet.config.num_class_embeds == 11
    noise = torch.randn(2, 1, 28, 28)
    theirs = pipe.unet(noise, torch.tensor([500, 500]), class_labels=torch.tensor([3, 3])).sample
    ours = sk.load("mnist", labels=3).net(noise, torch.tensor([500.0, 500.0]), class_labels=torch.tensor([3, 3])).sample
    assert torch.allclose(theirs, ours, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_asked_for_digits_it_draws_them(name):
    labels = torch.arange(40) % 10
    x = sk.sample(sk.load(name, labels=labels), "dpmpp-2m", nfe=20, grid="flow", num_samples=40).x
    assert x.shape == (40, 1, 28, 28)
    drawn = load_features()(x.clamp(-1, 1)).argmax(1)
    assert (drawn == labels).float().mean() >= 0.85


# At sigma / alpha = 157 the network's own float32 rounding, which depends on the batch, is 1e-5; these need more than ten
# evaluations not to amplify it (dpm-solver-3 and ipndm to 1.9e-4, rk4 to 1.4e-4 at ten; 1e-5 to 3e-5 at twenty).
TWENTY = ("dpm-solver-3", "ipndm", "midpoint", "rk4")


# every third sampler on one network, the networks in turn; each on both with SOLVERKIT_PROOFS=full (all of them, cheaply:
# test_independence_on_mixture)
FULL = os.environ.get("SOLVERKIT_PROOFS") == "full"
PAIRS = [
    ("mnist-map" if sampler == "flow-map" else name, sampler)
    for i, sampler in enumerate(sk.samplers())
    for name in (NAMES if FULL else [NAMES[i // 3 % 2]] if i % 3 == 0 else [])
]


@pytest.mark.parametrize(("name", "sampler"), PAIRS)
def test_a_sample_does_not_depend_on_its_batch(name, sampler):
    denoiser = sk.load(name, labels=7)
    card = sk.samplers()[sampler]
    batch = 16 if card.traceable else 3
    run = {"nfe": 20 if sampler in TWENTY else 10} if card.traceable else {"steps": 2}
    run = {"steps": 1, "atol": 0.1, "rtol": 0.3} if "rtol" in card.options else run
    run |= {"n_steps": 1} if sampler == "ncsn" else {}  # its default takes five evaluations a step
    run = {"levels": [0.5, 0.0], "n_steps": 3} if sampler == "mala" else run  # a chain at one level
    run |= needed(sampler, name)
    together = sk.sample(denoiser, sampler, num_samples=batch, seed=5, **run).x
    for i in (batch - 1,) if card.required else (0, batch - 1):  # those search for a long time
        alone = sk.sample(denoiser, sampler, num_samples=1, seed=[sample_seeds(5, batch)[i]], **run).x
        assert (alone[0] - together[i]).abs().max() <= 5e-4  # rounding of float32 in another batch; a leak is far larger


def test_mixture_is_a_real_shape():
    target = sk.problems.mixture().target
    assert target.dim == 64 and target.modes == 10 and target.rank == 64
    assert ((target.eigenvalues.amax(1) / target.eigenvalues.amin(1)) >= 1e3).all()


@pytest.mark.parametrize("sampler", list(sk.samplers()))
def test_independence_on_mixture(sampler):
    target = sk.problems.mixture()
    card = sk.samplers()[sampler]
    batch = 64 if card.traceable else 4
    run = {"nfe": 12} if card.traceable else {"steps": 1}
    run |= {"n_steps": 1} if sampler == "ncsn" else {}
    run |= needed(sampler, "mixture")
    together = sk.sample(target, sampler, num_samples=batch, seed=5, dtype=torch.float64, **run).x
    for i in (batch - 1,) if card.required else (0, batch // 2, batch - 1):
        alone = sk.sample(target, sampler, num_samples=1, seed=[sample_seeds(5, batch)[i]], dtype=torch.float64, **run).x
        assert (alone[0] - together[i]).abs().max() <= 1e-10
