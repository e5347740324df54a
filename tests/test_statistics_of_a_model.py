"""Statistics and the network that they belong to: found, checked, refused; never changed; one set a class."""

from __future__ import annotations

import ast
import copy
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import solverkit as sk
from solverkit.errors import NonFiniteError, OptionError, StatsError
from solverkit.gaussian import match
from solverkit.model.counting import counting
from solverkit.problems import gaussian, mixture


def exact(target):
    values, vectors = torch.linalg.eigh(target.target.covariance)
    return sk.GaussianStats(target.target.mean.reshape(target.target.shape), vectors.T.flip(0), values.flip(0))


@pytest.fixture
def named(monkeypatch):
    """Fingerprints by an attribute of the denoiser."""
    monkeypatch.setattr(match, "fingerprint_of", lambda denoiser: {"fingerprint": denoiser.print})

    def make(name, **options):
        target = mixture(dim=6, modes=3, **options)
        target.print = name
        return target

    return make


# --- found


def test_statistics_bundled_with_a_model_are_found(tmp_path):
    target = mixture()
    with pytest.raises(StatsError, match="solverkit stats"):
        sk.sample(target, "teleport", nfe=6, num_samples=2)
    target = sk.load("mixture")
    for sampler in ("teleport", "gaussian-exponential"):
        found = sk.sample(target, sampler, nfe=6, num_samples=2)
        assert torch.equal(found.x, sk.sample(target, sampler, nfe=6, num_samples=2, stats="mixture").x)
    guided = sk.guidance.classifier_free(target, target, 1.0)
    assert sk.GaussianStats.of(guided) is sk.GaussianStats.load("mixture")
    assert sk.GaussianStats.of(sk.load("mnist", labels=3, guidance=2.0)) is sk.GaussianStats.load("mnist")
    small = mixture(dim=5, modes=2)
    small.source = str(tmp_path)
    exact(small).save(tmp_path)
    assert sk.GaussianStats.of(small).dim == 5


def test_without_a_model_statistics_must_be_named():
    for options in ({}, {"stats": None}):
        with pytest.raises(OptionError, match="stats"):
            sk.trace("teleport", sk.make_grid("karras", sk.EDM(), 6), **options)


def test_what_ran_is_reported():
    target = mixture()
    ran = sk.sample(target, "teleport", nfe=6, grid="karras", num_samples=2, stats="mixture")
    assert ran.reports["jump"] == pytest.approx(float(ran.levels[0])) and ran.reports["jump"] < 80
    assert ran.reports["last"] == pytest.approx(float(ran.levels[-1])) and isinstance(ran.reports["layout"], str)
    kept = sk.sample(target, "teleport", nfe=6, grid="karras", num_samples=2, stats="mixture", skip_to=3.0)
    assert kept.reports["layout"] == "karras" and kept.reports["jump"] == pytest.approx(3.0)
    steps = sk.sample(target, "gaussian-exponential", nfe=6, num_samples=2, stats="mixture", start=float("inf"))
    assert steps.reports["jump"] == 80 and steps.reports["layout"] == "given"


# --- checked


def test_statistics_of_this_network_cost_no_evaluation(named):
    target = named("a")
    stats = exact(target).measured(target, samples=4, steps=6)
    assert stats.provenance["fingerprint"] == "a"
    with counting() as count, warnings.catch_warnings():
        warnings.simplefilter("error")
        stats.require_match(target)
    assert count.rows == 0


def test_statistics_of_another_network_that_fit_are_warned_of(named):
    stats = exact(named("a")).with_provenance(fingerprint="b")
    with pytest.warns(UserWarning, match="another network"):
        stats.require_match(named("a"))


@pytest.mark.parametrize("scale", [0.25, 0.5, 2.0, 6.0])
def test_another_scale_is_refused_before_the_run(named, scale):
    """The mean alone would not tell: it is 0 in both."""
    target = named("a")
    centred = exact(target)
    target.target = type(target.target)(
        target.target.weights, target.target.means - centred.mean, target.target.basis, target.target.eigenvalues
    )
    stats = sk.GaussianStats(0 * centred.mean, centred.vectors, centred.values)
    stats.require_match(target)
    other = sk.GaussianStats(stats.mean, stats.vectors, scale**2 * stats.values)
    with pytest.raises(StatsError, match="data range"):
        sk.sample(target, "teleport", nfe=5, num_samples=2, stats=other, skip_to=3.0)


def test_the_check_is_made_once_and_in_no_run(named):
    target = named("a")
    stats = exact(target).with_provenance(fingerprint="b")
    before = sk.sample(target, "teleport", nfe=5, num_samples=3, stats=exact(named("a")), skip_to=3.0).nfe
    with pytest.warns(UserWarning):
        ran = sk.sample(target, "teleport", nfe=5, num_samples=3, stats=stats, skip_to=3.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = sk.sample(target, "teleport", nfe=5, num_samples=3, stats=stats, skip_to=3.0)
    assert before == ran.nfe == again.nfe == 5


@pytest.mark.parametrize("name", ["mixture", "mnist", "mnist-flow"])
def test_bundled_statistics_fit_their_networks_and_no_other_range(name):
    stats, net = sk.GaussianStats.load(name), sk.load(name)
    stats.require_match(net)
    halved = sk.GaussianStats((stats.mean + 1) / 2, stats.vectors, stats.values / 4, stats.floor / 4)
    with pytest.raises(StatsError, match="data range"):
        halved.require_match(net)


# --- made of what makes no statistics


def test_an_eigenvalue_at_its_clip_is_refused():
    """A network that hands its input on: its variance would be 1e6 times the level's."""
    net = sk.wrap(lambda x, t: x, "denoised", sk.VE(0.01, 50.0), shape=(6,))
    with pytest.raises(StatsError, match="infinite variance"):
        sk.GaussianStats.from_network(net, rank=4)


def test_the_rank_is_at_most_the_dimension():
    stats = sk.GaussianStats.from_network(gaussian(dim=4))
    assert stats.rank == 4 and stats.provenance["rank"] == 4


def test_a_floor_of_zero_is_said():
    net = sk.wrap(lambda x, t: 0 * x + torch.arange(40.0), "denoised", sk.VE(0.01, 50.0), shape=(40,))
    with pytest.warns(UserWarning, match="floor is 0"):
        assert sk.GaussianStats.from_network(net, rank=2).floor == 0


@pytest.mark.parametrize("make", [
    lambda net: sk.GaussianStats.from_network(net, rank=2), lambda net: exact(gaussian(dim=4)).measured(net, samples=4),
])  # fmt: skip
def test_nan_is_found_at_the_first_evaluation_that_has_it(make):
    calls = []

    def net(x, t):
        calls.append(len(x))
        return x / (1 + t.view(-1, 1) ** 2) * (torch.nan if len(calls) > 3 else 1)

    with pytest.raises(NonFiniteError, match="s = "):
        make(sk.wrap(net, "denoised", sk.VE(0.01, 50.0), shape=(4,)))
    assert len(calls) == 4


def test_a_dataset_is_never_written(tmp_path):
    file = tmp_path / "x.npy"
    np.save(file, np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32))
    before = file.read_bytes()
    file.chmod(0o444)
    assert sk.GaussianStats.from_data(file).rank == 4 and file.read_bytes() == before


# --- never changed


def test_statistics_are_not_changed_by_what_is_made_of_them():
    target = gaussian(dim=4)
    given = {"source": "here"}
    stats = sk.GaussianStats(torch.zeros(4), torch.eye(4), torch.ones(4), 0.0, None, given)
    given["source"] = "elsewhere"
    more = stats.with_provenance(model="m")
    exact(target).measured(target, samples=2, steps=3)
    assert dict(stats.provenance) == {"source": "here"} and more.provenance["model"] == "m"
    with pytest.raises(TypeError):
        stats.provenance["source"] = "changed"
    for twin in (pickle.loads(pickle.dumps(more)), copy.deepcopy(more)):
        assert twin.provenance == more.provenance and torch.equal(twin.values, more.values)


def test_one_line_of_repr():
    stats = exact(gaussian(dim=4))
    sets = sk.ClassStats({"cat": stats, 3: stats})
    for thing in (stats, sk.GaussianStats.load("mnist"), sk.GaussianStats.isotropic(), sets):
        assert "\n" not in repr(thing) and len(repr(thing)) < 160
    assert "rank=4" in repr(stats) and "'cat', 3" in repr(sets)


# --- precision


def test_autocast_and_inference_mode_leave_the_closed_form_alone():
    stats, schedule = exact(gaussian(dim=12)), sk.EDM()
    a, b, x = schedule.at(50.0), schedule.at(1.0), 50 * torch.randn(4, 12)
    wanted = [stats.transport(x, a, b), stats.denoised(x, b), stats.coordinates(x)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = [stats.transport(x, a, b), stats.denoised(x, b), stats.coordinates(x)]
    for one, other in zip(got, wanted):
        assert torch.equal(one, other)
    fresh = exact(gaussian(dim=12))
    with torch.inference_mode():
        fresh.transport(x, a, b)
    y = x.clone().requires_grad_()
    fresh.transport(y, a, b).sum().backward()
    assert y.grad is not None


class Single(torch.Tensor):
    """A tensor of a device that knows no float64."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        out = super().__torch_function__(func, types, args, kwargs or {})
        if isinstance(out, torch.Tensor) and out.dtype == torch.float64:
            raise TypeError(f"{func} makes float64 on a device that knows none")
        return out


def test_no_float64_where_the_device_knows_none():
    stats, schedule = exact(gaussian(dim=12)), sk.EDM()
    a, b = schedule.at(50.0), schedule.at(1.0)
    x = (50 * torch.randn(4, 12)).as_subclass(Single)
    for out in (stats.transport(x, a, b), stats.denoised(x, b)):
        assert isinstance(out, Single) and out.dtype == torch.float32

    def drawn(*place):
        return torch.randn(4, 12).as_subclass(Single)

    grid = sk.make_grid("karras", schedule, 5)
    for name, options in (
        ("teleport", {"skip_to": 3.0}), ("gaussian-exponential", {}), ("lml", {"momentum": 1e-5}), ("lml-secant", {}),
        ("lm-langevin", {"metric": "gaussian"}), ("lm-langevin", {}), ("lm-langevin", {"pooled": True}),
    ):  # fmt: skip
        informed = "stats" in sk.samplers()[name].options
        plan = sk.trace(name, grid, **options, **({"stats": stats} if informed else {}))
        y, state = sk.begin(plan, x, drawn)
        for level in plan.levels:
            y, state = sk.advance(plan, state, y, y / (1 + float(level) ** 2), drawn)
        assert isinstance(y, Single) and bool(torch.isfinite(y).all())


# --- one set a class


@pytest.mark.parametrize(("inputs", "name"), [
    ({"class_labels": "cat"}, None), ({"label": "cat"}, None), ({"y": "cat"}, None), ({"breed": "cat"}, None),
    ({"breed": "cat", "size": 3}, "breed"), ({"y": ["cat", "cat"]}, None),
])  # fmt: skip
def test_labels_are_words_under_any_name(inputs, name):
    sets = sk.ClassStats({"cat": exact(gaussian(dim=4)), "dog": exact(gaussian(dim=4, seed=1))}, name)
    net = sk.wrap(lambda x, t, **kw: x, "denoised", sk.EDM(), shape=(4,)).with_inputs(**inputs)
    assert sets.of(net) is sets.sets["cat"]
    assert sets.of(sk.guidance.classifier_free(net, net, 2.0)) is sets.sets["cat"]


def test_labels_of_all_kinds_are_files(tmp_path):
    stats = exact(gaussian(dim=3))
    labels = [3, -1, "cat", "7", "a/b c", ".hidden", "Ärger"]
    read = sk.ClassStats.load(sk.ClassStats(dict.fromkeys(labels, stats)).save(tmp_path / "sets"))
    assert set(read.sets) == set(labels)
    exact(gaussian(dim=3)).save(tmp_path / "sets")  # the statistics of all classes lie beside them
    assert set(sk.ClassStats.load(tmp_path / "sets").sets) == set(labels)
    old = tmp_path / "old"
    old.mkdir()
    stats.save(old / "5.safetensors")  # as they were written before
    assert list(sk.ClassStats.load(old).sets) == [5]


def test_the_files_of_the_room_import_one_another_in_one_direction():
    order = ["gaussian", "match", "profile", "data", "network", "files", "stats", "class_stats"]
    room = Path(sk.__file__).parent / "gaussian"
    assert sorted(order) == sorted(file.stem for file in room.glob("*.py") if file.stem != "__init__")
    for i, name in enumerate(order):
        nodes = [n for n in ast.walk(ast.parse((room / f"{name}.py").read_text())) if isinstance(n, ast.ImportFrom)]
        siblings = {n.module for n in nodes if n.level == 1 and n.module}
        siblings |= {alias.name for n in nodes if n.level == 1 and not n.module for alias in n.names}
        assert siblings <= set(order[:i]), (name, siblings)
