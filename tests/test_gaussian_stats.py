"""Gaussian statistics from data, from samples, from the network alone; files; what is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import solverkit as sk
from solverkit.cli import app
from solverkit.errors import LoadError, OptionError, StatsError
from solverkit.problems import gaussian, mixture


def exact(target):
    values, vectors = torch.linalg.eigh(target.target.covariance)
    return sk.GaussianStats(target.target.mean.reshape(target.target.shape), vectors.T.flip(0), values.flip(0))


def agreement(found, wanted, k):
    """Worst relative error of k eigenvalues, and the overlap of the leading subspaces."""
    error = ((found.values[:k] - wanted.values[:k]) / wanted.values[:k]).abs().max()
    return float(error), float((found.vectors[:k].double() @ wanted.vectors[:k].double().T).square().sum() / k)


def covariance(stats):
    U = stats.vectors.double()
    return U.T @ torch.diag(stats.values - stats.floor) @ U + stats.floor * torch.eye(stats.dim, dtype=torch.float64)


@pytest.mark.parametrize("form", ["tensor", "array", "npy", "npz", "folder", "iterator"])
def test_from_data_is_the_sample_covariance(form, tmp_path):
    x = torch.randn(700, 2, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2.0, 3.0]) + 5
    data = x
    if form in ("array", "npy", "npz"):
        data = x.numpy()
    if form == "npy":
        np.save(tmp_path / "x.npy", data)
        data = tmp_path / "x.npy"
    if form == "npz":
        np.savez(tmp_path / "x.npz", x=data, y=np.zeros(3))
        data = str(tmp_path / "x.npz")
    if form == "folder":
        for i, sample in enumerate(x):
            np.save(tmp_path / f"{i:04d}.npy", sample.numpy())
        data = tmp_path
    if form == "iterator":
        data = iter(x.split(100))
    stats = sk.GaussianStats.from_data(data)
    torch.testing.assert_close(stats.mean, x.double().mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(covariance(stats), torch.cov(x.double().flatten(1).T), rtol=1e-4, atol=1e-4)
    low = sk.GaussianStats.from_data(x, rank=2)
    assert low.rank == 2 and low.variance == pytest.approx(stats.variance) and 0 < low.floor < float(low.values[1])
    assert low.explained == pytest.approx(float(stats.values[:2].sum() / stats.values.sum()))


def test_pictures_and_bytes_are_read_in_minus_one_to_one(tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    wanted = torch.from_numpy(pixels).permute(0, 3, 1, 2).double().mean(0) / 127.5 - 1
    for data in (tmp_path, torch.from_numpy(pixels).permute(0, 3, 1, 2)):
        torch.testing.assert_close(sk.GaussianStats.from_data(data).mean, wanted, rtol=1e-5, atol=1e-6)


def test_a_sketch_finds_the_leading_directions_in_bounded_memory():
    """Above 16384 dimensions: 3 x 80 x 80, where a covariance would take 2.9 GB."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(19_200, 12, generator=generator))[0]
    scales = 10 * 0.8 ** torch.arange(12)
    noise = torch.randn(600, 12, generator=generator)
    x = ((noise * scales) @ basis.T + 0.01 * torch.randn(600, 19_200, generator=generator) + 0.3).reshape(600, 3, 80, 80)
    values = torch.linalg.svdvals((x - x.mean(0)).flatten(1).double())[:12] ** 2 / 599
    for data, limit in ((x, 1e-3), (iter(x.split(64)), 0.05)):  # read twice, or once
        stats = sk.GaussianStats.from_data(data, rank=8)
        assert float(((stats.values - values[:8]) / values[:8]).abs().max()) < limit
        assert float((stats.vectors @ basis[:, :8]).square().sum()) / 8 > 0.99
        assert stats.variance == pytest.approx(float((x - x.mean(0)).square().sum() / 599 / 19_200), rel=1e-3)


ALONE = [gaussian(dim=64), gaussian(dim=64, schedule=sk.Flow()), mixture(), mixture(schedule=sk.VP())]


@pytest.mark.parametrize("target", ALONE)
def test_a_network_alone_tells_its_gaussian(target):
    stats = sk.GaussianStats.from_network(target, rank=24)
    error, overlap = agreement(stats, exact(target), 16)
    assert error <= 0.04 and overlap >= 0.99, (error, overlap)
    assert 0 < stats.provenance["evaluations"] < 3000 and 0.5 < stats.provenance["explained"] <= 1
    torch.testing.assert_close(stats.mean, target.target.mean, rtol=0, atol=0.02)


def test_samples_of_the_network_tell_its_gaussian():
    target = gaussian(dim=16)
    stats = sk.GaussianStats.from_samples(target, rank=8, num_samples=2000, nfe=20)
    error, overlap = agreement(stats, exact(target), 4)
    assert error < 0.25 and overlap > 0.8 and stats.provenance["evaluations"] == 2000 * 20


def test_files_keep_everything(tmp_path):
    target = mixture(dim=6, modes=3)
    stats = exact(target).measured(target, samples=4, steps=6).with_provenance(source="test")
    read = sk.GaussianStats.load(stats.save(tmp_path / "s.safetensors"))
    assert read.provenance == stats.provenance and read.floor == stats.floor
    for name in ("mean", "vectors", "values"):
        assert torch.equal(getattr(read, name), getattr(stats, name))
    torch.testing.assert_close(read.profile.residual, stats.profile.residual, rtol=1e-2, atol=1e-3)
    assert sk.GaussianStats.load(tmp_path / "s.safetensors") is read  # a plan that is traced again shares its tensors
    stats.save(tmp_path)
    assert sk.GaussianStats.load(tmp_path).rank == 6
    assert sk.GaussianStats.load("isotropic:variance=0.5,mean=1").floor == 0.5
    for name, rank in (("mixture", 64), ("mnist", 256), ("mnist-flow", 256)):
        bundled = sk.GaussianStats.load(name)
        assert bundled.rank == rank and bundled.profile is not None and tuple(bundled.mean.shape) == sk.load(name).shape


def test_the_hub_gets_one_file(monkeypatch, tmp_path):
    import huggingface_hub

    sent = {}

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo, exist_ok, private):
            sent["repo"] = repo

        def upload_file(self, path_or_fileobj, path_in_repo, repo_id):
            shutil.copy(path_or_fileobj, tmp_path / path_in_repo)
            return f"https://hub/{repo_id}"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert exact(gaussian(dim=4)).push_to_hub("me/stats") == "https://hub/me/stats" and sent["repo"] == "me/stats"
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, name: str(tmp_path / name))
    assert sk.GaussianStats.load("me/stats").rank == 4


def test_each_class_has_its_own():
    net = sk.load("mnist", labels=3)
    target = gaussian(dim=4)
    sets = sk.ClassStats({3: exact(target), 7: exact(gaussian(dim=4, seed=1))})
    assert sets.of(net) is sets.sets[3] and sets.of(sk.load("mnist", labels=7, guidance=2.0)) is sets.sets[7]
    for denoiser, words in ((target, "no class_labels"), (sk.load("mnist", labels=5), "no statistics of class 5")):
        with pytest.raises(StatsError, match=words):
            sets.of(denoiser)
    with pytest.raises(StatsError, match="apart"):
        sets.of(net.with_inputs(class_labels=torch.tensor([3, 7])))


def test_class_statistics_are_files(tmp_path):
    made = sk.ClassStats.made(lambda k: gaussian(dim=4, seed=k), [2, 5], exact)
    read = sk.ClassStats.load(made.save(tmp_path / "sets"))
    assert sorted(read.sets) == [2, 5] and torch.equal(read.sets[5].values, made.sets[5].values)
    with pytest.raises(LoadError):
        sk.ClassStats.load(tmp_path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: sk.GaussianStats(torch.zeros(4), torch.zeros(2, 3), torch.ones(2)), "needs vectors"),
        (lambda: sk.GaussianStats(torch.zeros(4), torch.eye(4), torch.ones(3)), "needs vectors"),
        (lambda: sk.GaussianStats(torch.full((4,), torch.nan), torch.eye(4), torch.ones(4)), "NaN"),
        (lambda: sk.GaussianStats(torch.zeros(4), torch.eye(4), -torch.ones(4)), "at least 0"),
        (lambda: sk.GaussianStats(torch.zeros(4), 2 * torch.eye(4), torch.ones(4)), "orthonormal"),
        (lambda: sk.GaussianStats.from_data(torch.full((8, 4), torch.nan)), "NaN"),
        (lambda: sk.GaussianStats.from_data(torch.zeros(1, 4)), "two samples"),
        (lambda: sk.GaussianStats.from_data(torch.zeros(5, 4), rank=9), "rank"),
        (lambda: sk.GaussianStats.from_data(iter([torch.zeros(3, 4), torch.zeros(3, 5)])), "one shape"),
        (lambda: exact(gaussian(dim=4)).truncated(5), "rank"),
        (lambda: exact(gaussian(dim=4)).measured(gaussian(dim=5)), "shape"),
        (lambda: sk.GaussianStats.from_network(gaussian(dim=4), rank=0), "rank"),
    ],
)
def test_what_makes_no_gaussian_is_refused(make, words):
    with pytest.raises(StatsError, match=words):
        make()


def test_another_data_range_is_refused():
    stats = sk.GaussianStats.load("mnist")
    halved = sk.GaussianStats((stats.mean + 1) / 2, stats.vectors, stats.values / 4, stats.floor / 4)  # [0, 1]
    with pytest.raises(StatsError, match="data range"):
        halved.measured(sk.load("mnist"), samples=4, steps=8)
    with pytest.raises(StatsError, match="data range"):
        sk.sample(sk.load("mnist"), "teleport", nfe=5, num_samples=2, stats=halved, skip_to=10.0)


def test_what_cannot_be_read(tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    for source, error in (("nothing", LoadError), (tmp_path, LoadError), (tmp_path / "broken.safetensors", LoadError),
                          ("isotropic:size=3", OptionError), (3, LoadError)):  # fmt: skip
        with pytest.raises(error):
            sk.GaussianStats.load(source)
    with pytest.raises(LoadError):
        sk.GaussianStats.from_data(tmp_path / "empty.txt")


def test_the_command_writes_what_load_reads(tmp_path):
    out = tmp_path / "m.safetensors"
    options = ["--out", str(out), "--rank", "8", "--profile-samples", "4", "--json"]
    result = CliRunner().invoke(app, ["stats", "mixture", *options])
    assert result.exit_code == 0, result.output
    stats = sk.GaussianStats.load(out)
    assert stats.rank == 8 and stats.profile is not None and '"evaluations"' in result.output
