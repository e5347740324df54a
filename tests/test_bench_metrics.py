"""What a figure says: metrics that see what they claim to see, intervals that cover, floors, ties."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch

import solverkit as sk
from solverkit.bench import inception, metrics, sets
from solverkit.bench.measured import bootstrap, of_samples, of_set, ratio_interval
from solverkit.bench.metrics import Real, Run
from solverkit.bench.panel import make_panels
from solverkit.bench.points import make_point, tied
from solverkit.bench.reference import Reference
from solverkit.bench.report import make_table
from solverkit.bench.runner import run_suite
from solverkit.bench.suite import ModelEntry, Suite
from solverkit.errors import OptionError


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SOLVERKIT_CACHE", str(tmp_path / "cache"))


def run_of(x, denoiser=None, truth=None, real=None, deterministic=True) -> Run:
    denoiser = denoiser or sk.problems.mixture(dim=4, modes=3)
    reference = Reference(x if truth is None else truth, 0.0)
    return Run("m", denoiser, x, deterministic, lambda: reference, real or (lambda n, part: None))


def test_an_interval_covers_the_truth_as_often_as_it_says():
    chance, covered = np.random.default_rng(1), 0
    for _ in range(200):
        values = np.abs(chance.normal(size=64))
        low, high = bootstrap(values, "rms")
        covered += low <= 1.0 <= high
    assert 0.88 < covered / 200 < 0.99


def test_the_interval_of_a_distance_covers_its_spread():
    chance, target = torch.Generator().manual_seed(0), torch.zeros(200, 2)
    drawn = [torch.randn(200, 2, generator=chance) for _ in range(60)]
    distances = [sets.energy(x, target) for x in drawn]
    measured = of_set(lambda rows: sets.energy(rows, target), drawn[0])
    half = (measured.interval[1] - measured.interval[0]) / 2
    assert 0.6 < half / (1.96 * float(np.std(distances))) < 1.6


def test_samples_that_share_their_noise_are_compared_one_with_one():
    chance = np.random.default_rng(0)
    hard = np.exp(chance.normal(size=64))
    a, b = hard, 1.05 * hard  # always five per cent worse
    low, high = ratio_interval(a, b, "rms")
    assert low == pytest.approx(1.05) == high
    assert bootstrap(a, "rms")[1] > bootstrap(b, "rms")[0]  # although the intervals overlap


def test_flips_are_samples_that_end_in_another_mode():
    denoiser = sk.problems.mixture(dim=4, modes=3)
    means = denoiser.target.means
    truth = means[[0, 1, 2, 0]].float()
    x = means[[0, 1, 0, 0]].float()
    run = run_of(x, denoiser, truth)
    assert metrics.ode_flips(run).value == 0.25
    assert metrics.ode_median(run).value == 0.0 < metrics.ode_error(run).value
    assert metrics.ode_flips(run_of(x, denoiser, truth, deterministic=False)) is None
    assert metrics.ode_flips(run_of(torch.zeros(2, 8), sk.problems.gaussian())) is None


def test_digits_flip_too():
    x = sk.sample(sk.load("mnist-flow", labels=torch.tensor([3, 8])), "unipc", nfe=6, num_samples=2).x
    run = Run("mnist-flow", sk.load("mnist-flow"), x, True, lambda: Reference(x.flip(0), 0.0))
    assert metrics.ode_flips(run).value == 1.0


def test_densities_and_modes_have_the_floor_of_real_samples():
    denoiser = sk.problems.mixture(dim=4, modes=3)
    right, wrong = denoiser.target.sample(400, seed=5), denoiser.target.sample(400, seed=5) + 1.0
    assert metrics.nll(run_of(right, denoiser)).value == pytest.approx(metrics.nll(run_of(right, denoiser)).floor, abs=0.1)
    assert metrics.nll(run_of(wrong, denoiser)).value > metrics.nll(run_of(right, denoiser)).floor + 0.2
    one = denoiser.target.means[:1].expand(400, -1).float()
    weight = float(denoiser.target.weights[0])
    assert metrics.mode_weights(run_of(one, denoiser)).value == pytest.approx(1 - weight)
    assert metrics.mode_kl(run_of(one, denoiser)).value == pytest.approx(-np.log(weight))
    assert metrics.mode_weights(run_of(right, denoiser)).value < 0.1


@pytest.mark.parametrize("name", ["kid", "sliced-wasserstein", "energy", "precision", "recall"])
def test_distances_of_sets_are_near_the_floor_for_real_samples_and_far_for_others(name):
    denoiser = sk.problems.mixture(dim=4, modes=3)
    card = sk.metrics()[name]

    def real(n, part):
        return Real(denoiser.target.sample(n, seed=part), "the target")

    right, wrong = denoiser.target.sample(300, seed=9), torch.zeros(300, 4)
    same, other = (card.fn(run_of(x, denoiser, real=real)) for x in (right, wrong))
    assert abs(same.value - same.floor) < 0.5 * abs(other.value - same.floor)
    assert same.interval[0] <= same.value <= same.interval[1] and same.against == "the target"
    assert card.fn(run_of(torch.zeros(300, 4), denoiser)) is None  # nothing to compare with


def test_kid_and_energy_are_what_their_formulas_say():
    x, y = torch.tensor([[0.0], [2.0]]).double(), torch.tensor([[1.0], [3.0]]).double()
    assert sets.energy(x, y) == pytest.approx(2 * (1 + 3 + 1 + 1) / 4 - 2 - 2)
    k = lambda a, b: (a * b + 1) ** 3  # noqa: E731
    assert sets.kid(x, y) == pytest.approx(k(0, 2) + k(1, 3) - (k(0, 1) + k(0, 3) + k(2, 1) + k(2, 3)) / 2)
    assert sets.sliced_wasserstein(x, y) == pytest.approx(1.0)


class Extractor(torch.nn.Module):
    """What torch-fidelity makes, without its weights: the mean colour of an image and its upper half."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        assert x.dtype == torch.uint8 and x.shape[1] == 3
        x = x.float() / 255
        return (torch.stack([x.mean((1, 2, 3)), x[:, :, :2].mean((1, 2, 3))], 1),)


def test_fid_loads_the_published_networks_and_measures_in_their_features(monkeypatch):
    asked = []
    module = types.ModuleType("torch_fidelity.utils")
    module.create_feature_extractor = lambda name, layers, **more: asked.append((name, *layers)) or Extractor()
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, "torch_fidelity.utils", module)
    inception.load_extractor.cache_clear()
    chance = torch.Generator().manual_seed(0)
    images = [torch.randn(64, 1, 4, 4, generator=chance).clamp(-1, 1) for _ in range(3)]
    run = run_of(images[0], real=lambda n, part: Real(images[part + 1], "data"))
    for metric, network in ((inception.fid, inception.FID), (inception.fd_dinov2, inception.DINOV2)):
        measured = metric(run)
        assert asked[-1] == network
        assert measured.value < 0.1 and measured.floor < 0.1
        assert metric(run_of(images[0] * 0 + 1, real=run.real)).value > 0.1
    inception.load_extractor.cache_clear()


def test_fid_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    inception.load_extractor.cache_clear()
    images = torch.zeros(4, 1, 4, 4)
    with pytest.raises(OptionError, match=r"solverkit\[fid\]"):
        inception.fid(run_of(images, real=lambda n, part: Real(images, "data")))


def small(**changes) -> Suite:
    fields = {"models": (ModelEntry("gaussian", 32, reference_steps=8),), "samplers": ("euler", "dpmpp-2m"), "nfe": (6,)}
    return Suite(**{**fields, **changes})


def test_seeds_are_pooled():
    rows = list(run_suite(small(seeds=(0, 1, 2), samplers=("euler",), metrics=("ode_error",))))
    assert [row["seed"] for row in rows] == [0, 1, 2]
    (panel,) = make_panels(rows)
    point = panel.points["euler"][6]
    assert len(point.rows) == 3 and len(point.values) == 96
    assert point.value == pytest.approx(np.sqrt(np.mean([row["ode_error"] ** 2 for row in rows])), rel=1e-3)
    one = make_point(rows[:1], "ode_error")
    assert point.interval[1] - point.interval[0] < one.interval[1] - one.interval[0]
    assert "3 seeds" in panel.title


def test_a_table_crowns_nobody_in_a_tie():
    samplers = ("dpmpp-2m", "diffusers:DPMSolverMultistepScheduler", "euler")
    rows = list(run_suite(small(samplers=samplers, metrics=("ode_error",))))
    (panel,) = make_panels(rows)
    assert panel.leading(6) == {"dpmpp-2m", "diffusers:DPMSolverMultistep†"}
    assert tied("ode_error", panel.points["dpmpp-2m"][6], panel.points["dpmpp-2m"][6])
    text = [cell for column in make_table(panel).columns for cell in map(str, column.cells)]
    assert sum("≈" in cell for cell in text) == 2


def test_a_sampler_that_draws_noise_gets_a_number_where_nobody_asked_for_one():
    rows = list(run_suite(small(samplers=("euler", "ddpm"))))
    assert rows[0]["ode_error"] > 0 and "energy" not in rows[0]
    assert rows[1]["ode_error"] is None and rows[1]["energy"] is not None
    assert rows[1]["against"]["energy"] == "the target"
    (panel,) = make_panels(rows, "ode_error")
    assert any("ddpm" in text for text in panel.warnings)


def test_real_samples_come_from_a_file(tmp_path):
    data = torch.randn(300, 8)
    np.save(tmp_path / "x.npy", data.numpy())
    entry = ModelEntry("gaussian", 128, data=str(tmp_path / "x.npy"))
    (row,) = run_suite(small(models=(entry,), samplers=("ddpm",), metrics=("energy",)))
    assert row["against"] == {"energy": "x.npy"} and row["energy"] is not None and "energy" in row["floors"]
    entry = ModelEntry("gaussian", 301, data=str(tmp_path / "x.npy"))
    (row,) = run_suite(small(models=(entry,), metrics=("energy",), samplers=("ddpm",)))
    assert "holds 300 samples" in row["status"]


def test_too_few_samples_give_no_figure():
    (row,) = run_suite(small(models=(ModelEntry("gaussian", 99),), samplers=("ddpm",), metrics=("kid",)))
    assert (row["status"], row["kid"]) == ("ok", None)


def test_of_samples_keeps_what_each_contributes():
    made = of_samples(torch.tensor([3.0, 4.0]), "rms")
    assert made.value == pytest.approx(np.sqrt(12.5)) and made.values == (3.0, 4.0)
    assert of_samples(torch.tensor([3.0]), "mean").interval is None
