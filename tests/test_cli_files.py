"""What commands write: where they say so before the work, pictures of every kind of model, and what stands in them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from solverkit.commands import destination
from solverkit.run.picture import PANELS, write_picture


def no_network(monkeypatch):
    """Whoever loads a model before it looked where its results go fails."""
    import solverkit.files.hub as hub

    def load(*arguments, **options):
        raise AssertionError("a model was loaded before the destination was looked at")

    monkeypatch.setattr(hub, "load", load)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("x.gif", ".png, .jpg, .jpeg, .webp, .safetensors"),
        ("x.pdf", "'.pdf'"),
        ("folder", "it is a folder"),
        ("folder.png", "it is a folder"),
        ("taken/x.png", "Not a directory"),
        (f"{'x' * 300}.png", "too long"),
    ],
)
def test_sample_says_before_the_work_where_it_cannot_write(cli, tmp_path, monkeypatch, out, message):
    no_network(monkeypatch)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "taken").write_text("a file")
    code, _, err = cli("sample", "gaussian", "-o", out)
    assert code == 2
    assert message in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "folder.png", "taken"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("sample", "gaussian", "-o", "deep/er/x.png"),
        ("stats", "gaussian", "-o", "deep/s.safetensors"),
        ("stats", "gaussian", "-o", "folder"),
        ("bench", "-m", "gaussian", "-o", "runs"),
        ("new-plugin", "mine", "-o", "here"),
    ],
)
def test_no_right_to_write_is_said_before_the_work(cli, tmp_path, monkeypatch, arguments):
    def refuse(**where):
        raise PermissionError(13, "Permission denied")

    no_network(monkeypatch)
    monkeypatch.setattr(destination.tempfile, "mkstemp", refuse)
    code, _, err = cli(*arguments)
    assert code == 2
    assert "Permission denied" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bench", "-m", "gaussian", "-o", "file"), "expected a folder"),
        (("bench", "-m", "gaussian", "-o", "run"), "results.jsonl: it is a folder"),
        (("stats", "gaussian", "-o", "s.txt"), ".safetensors"),
        (("report", "file", "-o", "r.gif"), ".svg"),
        (("likelihood", "gaussian", "--data", "pipe.npy"), "a pipe"),
    ],
)
def test_other_commands_look_first_too(cli, tmp_path, monkeypatch, arguments, message):
    import os

    no_network(monkeypatch)
    (tmp_path / "file").write_text("a file")
    (tmp_path / "run" / "results.jsonl").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe.npy")
    code, _, err = cli(*arguments)
    assert code == 2
    assert message in err


@pytest.mark.parametrize(("suffix", "kind"), [("png", "PNG"), ("jpg", "JPEG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_a_picture_is_what_its_name_says(cli, tmp_path, suffix, kind):
    code, out, _ = cli("sample", "mixture", "--nfe", "2", "-k", "3", "-o", f"deep/x.{suffix}")
    assert code == 0
    assert out.splitlines()[1:] == [f"deep/x.{suffix}", "deep/x.safetensors"]
    with Image.open(tmp_path / "deep" / f"x.{suffix}") as picture:
        assert picture.format == kind


def test_names_without_a_picture(cli, tmp_path):
    cli("sample", "gaussian", "--nfe", "2", "-o", "x.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
    cli("sample", "gaussian", "--nfe", "2", "-o", "plain")
    assert {p.name for p in tmp_path.iterdir()} >= {"plain.png", "plain.safetensors"}


def test_an_image_is_shown_pixel_by_pixel(tmp_path):
    x = torch.tensor([-1.0, 1.0, 0.0, 1.0, -1.0, 5.0]).reshape(1, 1, 2, 3)
    assert write_picture(x, "caption", tmp_path / "x.png")
    pixels = np.asarray(Image.open(tmp_path / "x.png").convert("L"))
    size = 640 // 7  # 3 pixels and two gaps of two
    middles = pixels[2 * size + size // 2 :: size, 2 * size + size // 2 + (640 - 7 * size) // 2 :: size][:2, :3]
    assert middles.tolist() == [[0, 255, 127], [255, 0, 255]]


def grey(path):
    return np.asarray(Image.open(path).convert("L")).astype(float)


def test_a_vector_of_64_is_a_tile_of_8_by_8(tmp_path):
    x = torch.zeros(1, 64)
    x[0, :8] = 1.0  # the first row of the tile
    assert write_picture(x, "", tmp_path / "x.png")
    sheet = grey(tmp_path / "x.png")
    size = 640 // 12
    rows = sheet[2 * size + size // 2 :: size, 320][:8]
    assert rows.tolist() == [255] + 7 * [0]


@pytest.mark.parametrize(
    "shape", [(40, 2), (40, 1), (5, 8), (3, 2, 50), (2, 4, 8, 8), (2, 12, 12), (2, 3, 8, 8), (PANELS + 5, 9)]
)
def test_every_kind_of_samples_has_a_picture_with_a_caption(tmp_path, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert write_picture(x, "unipc, NFE 8, seed 0", tmp_path / "x.png")
    assert write_picture(x, "unipc, NFE 9, seed 0", tmp_path / "y.png")
    one, other = grey(tmp_path / "x.png"), grey(tmp_path / "y.png")
    assert one.shape == other.shape
    changed = np.argwhere(one != other)
    assert len(changed)  # the caption is in the picture
    assert changed.min(0)[0] > len(one) - 40  # below the samples
    assert one[: len(one) - 40].std() > 0


def test_videos_have_no_picture_and_nan_does_no_harm(tmp_path):
    assert not write_picture(torch.zeros(1, 3, 2, 8, 8), "", tmp_path / "x.png")
    assert write_picture(torch.full((1, 64), torch.nan), "", tmp_path / "x.png")
    assert write_picture(torch.full((1, 1, 8, 8), torch.nan), "", tmp_path / "x.png")


def test_the_caption_names_model_sampler_budget_and_seed():
    from solverkit.commands.sample import _caption
    from solverkit.registry.registry import resolve

    said = _caption("mnist", resolve("unipc:order=2"), {"order": 2}, None, 8.0, 3, 7, None)
    assert said == "mnist, unipc, order=2, NFE 8, seed 3, label 7"


def test_samples_do_not_depend_on_the_batch_and_json_says_what_ran(cli, tmp_path):
    from safetensors.torch import load_file

    found = []
    for name, batch in (("a", ()), ("b", ("--batch", "2"))):
        arguments = ("--sampler", "euler-ancestral", "--nfe", "3", "-k", "5", "--seed", "4", "-o", f"{name}.safetensors")
        code, out, _ = cli("sample", "mixture", *arguments, *batch, "--json")
        assert code == 0
        found.append(load_file(tmp_path / f"{name}.safetensors")["x"])
        said = json.loads(out)
        assert (said["seed"], said["num_samples"], said["nfe"]) == (4, 5, 3.0)
    torch.testing.assert_close(*found)


def test_a_full_disk_is_one_message(cli, monkeypatch):
    import safetensors.torch

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    code, out, err = cli("sample", "gaussian", "--nfe", "2")
    assert code == 1
    assert "No space left" in err
    assert "Traceback" not in out + err


def test_files_that_hold_no_samples_are_refused(cli, tmp_path):
    np.save(tmp_path / "flat.npy", np.zeros(8))
    np.save(tmp_path / "other.npy", np.zeros((2, 9)))
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 8)), b=np.zeros((2, 8)))
    for name in ("junk.npy", "junk.npz", "junk.safetensors"):
        (tmp_path / name).write_bytes(b"PK junk")
        code, _, err = cli("likelihood", "gaussian", "--data", name)
        assert (code, "cannot read" in err) == (1, True)
    for arguments in (("flat.npy",), ("other.npy",), ("two.npz", "--key", "c"), ("junk.txt",)):
        (tmp_path / "junk.txt").write_text("")
        assert cli("likelihood", "gaussian", "--data", *arguments)[0] == 2


def test_likelihoods_do_not_depend_on_the_batch_and_8_bit_data_have_bits(cli, tmp_path):
    k = np.random.default_rng(0).integers(0, 256, (3, 64)).astype(np.uint8)
    np.save(tmp_path / "k.npy", k)
    np.save(tmp_path / "x.npy", k.astype(np.float32) / 127.5 - 1)
    arguments = ("likelihood", "mixture", "--method", "elbo", "--draws", "4", "--json")
    whole = json.loads(cli(*arguments, "--data", "k.npy")[1])
    parts = json.loads(cli(*arguments, "--data", "k.npy", "--batch", "2")[1])
    other = json.loads(cli(*arguments, "--data", "k.npy", "--seed", "1")[1])
    assert whole["nats"] == pytest.approx(parts["nats"], rel=1e-6)
    assert whole["nats"] != other["nats"]
    assert whole["bits/dim"][0] == pytest.approx(-whole["nats"][0] / 64 / np.log(2) + 7)  # 128 bins in a unit
    assert "bits/dim" not in json.loads(cli(*arguments, "--data", "x.npy")[1])
