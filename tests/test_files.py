"""Files that are no files, pickles that run code, pipelines in memory, arrays: what `load` and readers do with them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import warnings
from pathlib import Path

import diffusers
import numpy as np
import pytest
import tiny_pipelines
import torch
from safetensors.torch import load_file, save_file

import solverkit as sk
from solverkit.bench.store import read
from solverkit.bench.suite_file import load_suite
from solverkit.errors import BenchError, DenoiserError, LoadError, OptionError, ScheduleError
from solverkit.files import diffusers_network, hub
from solverkit.files.arrays import read_array, to_units
from solverkit.files.regular_file import require_file

STEM = "diffusion_pytorch_model"
DEEP = "[" * 100_000 + "]" * 100_000


def tiny(**options):
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8,), norm_num_groups=4,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), add_attention=False, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("original")
    hub.save(sk.wrap(tiny(), "v_prediction", sk.VP("cosine")), path)
    return path


@pytest.fixture
def folder(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "pipeline"))


@pytest.fixture
def x():
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def pipe():
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    return diffusers.DDPMPipeline(unet=tiny(), scheduler=scheduler)


# ------------------------------------------------------------------------------------------- what is no regular file


@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
def test_a_config_that_is_nested_deep(folder, name):
    (folder / name).write_text(DEEP)
    with pytest.raises(LoadError, match="nested too deep"):
        sk.load(folder)


def test_an_index_that_is_nested_deep(folder):
    (folder / "unet" / f"{STEM}.safetensors").unlink()
    (folder / "unet" / f"{STEM}.safetensors.index.json").write_text('{"weight_map": ' + DEEP + "}")
    with pytest.raises(LoadError, match="nested too deep"):
        sk.load(folder)


def fifo(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def listening(path):
    home = os.getcwd()
    os.chdir(path.parent)  # a socket's path may have 107 characters
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(home)


@pytest.mark.parametrize("make", [fifo, device, listening, Path.mkdir])
@pytest.mark.parametrize("name", ["unet/config.json", f"unet/{STEM}.safetensors", "model_index.json"])
def test_a_pipe_a_device_or_a_folder_in_the_place_of_a_file_is_never_opened(folder, name, make):
    (folder / name).unlink()
    make(folder / name)
    with pytest.raises(LoadError):  # and at once: to open the pipe would wait for a writer
        sk.load(folder)


def test_a_pipe_among_the_shards(folder):
    (folder / "unet" / f"{STEM}.safetensors").unlink()
    os.mkfifo(folder / "unet" / "part.safetensors")
    (folder / "unet" / f"{STEM}.safetensors.index.json").write_text('{"weight_map": {"a": "part.safetensors"}}')
    with pytest.raises(LoadError, match="a pipe"):
        sk.load(folder)


def test_a_config_of_gigabytes_is_not_read(folder):
    with (folder / "unet" / "config.json").open("r+b") as file:
        file.truncate(2**33)  # a hole: no disk is used
    with pytest.raises(LoadError, match="at most"):
        sk.load(folder)


@pytest.mark.parametrize("key", ["num_train_timesteps", "beta_start"])
@pytest.mark.parametrize("value", [10**12, 10**400, -1, float("nan")])
def test_numbers_that_would_take_the_memory_or_overflow(folder, key, value):
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "beta_schedule": "linear", key: value}))
    with pytest.raises((ScheduleError, LoadError)):
        sk.load(folder)


@pytest.mark.parametrize("size", ["eight", [8], [8, 8, 8], -8, 8.5, {}])
def test_a_sample_size_that_is_none_leaves_the_shape_to_the_caller(folder, size):
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sample_size": size}))
    assert sk.load(folder).shape is None
    assert sk.load(folder, shape=(1, 8, 8)).shape == (1, 8, 8)


def test_require_file(tmp_path):
    (tmp_path / "file").write_text("12345")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert require_file(tmp_path / "link", 5) == tmp_path / "link"
    with pytest.raises(LoadError, match="5 bytes"):
        require_file(tmp_path / "file", 4)
    with pytest.raises(LoadError, match="a folder"):
        require_file(tmp_path)
    with pytest.raises(LoadError, match="cannot be read"):
        require_file(Path("a\0b"))


def test_suites_and_rows_that_are_nested_deep_or_no_files(tmp_path):
    (tmp_path / "deep.toml").write_text("nfe = " + DEEP)
    with pytest.raises(BenchError, match="nested"):
        load_suite(tmp_path / "deep.toml")
    (tmp_path / "rows.jsonl").write_text('{"model": ' + DEEP + "}\n")
    with pytest.raises(BenchError, match="no result rows"):
        read(tmp_path / "rows.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    for path in (tmp_path / "pipe.jsonl", tmp_path):
        with pytest.raises(BenchError, match="cannot"):
            read(path)


# ------------------------------------------------------------------------------------------------------------ pickles


@pytest.mark.parametrize("version", ["2.4.1", "2.5.1+cu124", "2.6.0.dev20241112"])
def test_a_pickle_is_refused_by_a_torch_whose_unpickler_runs_code(folder, version, monkeypatch):
    weights = folder / "unet" / f"{STEM}.safetensors"
    torch.save(load_file(weights), folder / "unet" / f"{STEM}.bin")
    weights.unlink()
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("it was opened"))
    with pytest.raises(LoadError, match=r"CVE-2025-32434.*safetensors"):
        sk.load(folder)


@pytest.mark.parametrize("version", ["2.6.0", "2.10.0+cpu"])
def test_a_pickle_is_read_by_later_ones(folder, x, version, monkeypatch):
    expected = sk.load(folder)(x, 1.0)
    weights = folder / "unet" / f"{STEM}.safetensors"
    torch.save(load_file(weights), folder / "unet" / f"{STEM}.bin")
    weights.unlink()
    monkeypatch.setattr(diffusers_network.torch, "__version__", version)
    torch.testing.assert_close(sk.load(folder)(x, 1.0), expected)


# ---------------------------------------------------------------------------------------------- devices and options


@pytest.mark.parametrize("device", ["cuda:99", "warp", "meta", torch.device("cuda", 99)])
@pytest.mark.parametrize("name", ["mnist", "folder", "gaussian", "org/name"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_loaded(folder, name, device, monkeypatch):
    for module, function in ((hub, "open_folder"), (hub, "_download")):
        monkeypatch.setattr(module, function, lambda *args, **kwargs: pytest.fail("something was loaded"))
    with pytest.raises(OptionError, match="device="):
        sk.load(folder if name == "folder" else name, device=device)


@pytest.mark.parametrize("name", ["generator", "seed", "nfe", "num_inference_steps", "guidance_scale", "torch_dtype"])
def test_options_of_the_run_or_of_other_libraries_are_sent_where_they_belong(folder, name):
    for source in ("mnist", folder):
        with pytest.raises(OptionError, match=r"sk\.sample|classifier_free|dtype="):
            sk.load(source, **{name: 1})


def test_inputs_that_the_network_does_not_take(folder):
    for name, meant in (("label", "labels"), ("class_label", "class_labels"), ("time_shape", None)):
        with pytest.raises(DenoiserError, match=f"no input '{name}'" + (f".*mean '{meant}'" if meant else "")):
            sk.load(folder, **{name: 1})


def test_a_denoiser_says_where_its_network_is_from(folder):
    assert sk.load(folder).source == str(folder)
    assert sk.load(folder / "unet").source == str(folder / "unet")
    assert sk.load("mnist").source == "mnist"
    guided = sk.load("mnist", labels=3, guidance=2.0)
    assert guided.conditional.source == guided.unconditional.source == "mnist"


# -------------------------------------------------------------------------------------------------------- pipelines


def test_a_pipeline_in_memory(pipe, x):
    denoiser = sk.load(pipe)
    assert (denoiser.net, denoiser.prediction, denoiser.shape) == (pipe.unet, "v_prediction", (1, 8, 8))
    assert denoiser.schedule == sk.VP("squaredcos_cap_v2")
    level = denoiser.schedule.at(1.0)
    v = pipe.unet(x * level.scale, torch.tensor(level.time)).sample
    torch.testing.assert_close(denoiser(x, level), (x * level.scale - v) * level.scale, rtol=1e-4, atol=1e-5)
    assert sk.load(pipe, integer_time=True).schedule.integer_time
    assert sk.load(pipe, schedule=sk.Flow(), prediction="flow_prediction").schedule == sk.Flow()


def test_a_pipeline_whose_scheduler_was_replaced(pipe):
    pipe.scheduler = sk.SolverKitScheduler.from_config(pipe.scheduler.config, sampler="unipc")
    denoiser = sk.load(pipe)
    assert (denoiser.prediction, denoiser.schedule) == ("v_prediction", sk.VP("squaredcos_cap_v2"))


@pytest.mark.parametrize("kind", ["sd3", "pixart", "sd"])
def test_pipelines_whose_networks_take_text(kind):
    tiny_one = {
        "sd3": lambda: tiny_pipelines.stable_diffusion_3(diffusers.StableDiffusion3Pipeline),
        "pixart": tiny_pipelines.pixart,
        "sd": lambda: tiny_pipelines.stable_diffusion(diffusers.StableDiffusionPipeline),
    }[kind]()
    pipe, heard = tiny_one.pipe, []
    net = pipe.unet if kind == "sd" else pipe.transformer
    net.register_forward_pre_hook(lambda _, args, kwargs: heard.append(kwargs.get("timestep", args[-1])), with_kwargs=True)
    text = torch.randn(1, 4, net.config.get("cross_attention_dim") or net.config.joint_attention_dim)
    inputs = {
        "sd": {"encoder_hidden_states": text},
        "sd3": {
            "encoder_hidden_states": text,
            "pooled_projections": torch.randn(1, net.config.get("pooled_projection_dim", 1)),
        },
        "pixart": {
            "encoder_hidden_states": torch.randn(1, 4, net.config.get("caption_channels", 1) or 1),
            "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
        },
    }[kind]  # fmt: skip
    denoiser = sk.load(pipe, **inputs)
    level = denoiser.schedule.at(0.5)
    assert denoiser(torch.randn(1, *denoiser.shape), level).shape == (1, *denoiser.shape)
    assert float(heard[0]) == pytest.approx(level.time)


def test_a_network_that_is_told_the_time_in_an_unknown_way_is_refused(pipe):
    pipe.unet = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=1)
    with pytest.raises(LoadError, match=r"AutoencoderKL.*sk\.wrap"):
        sk.load(pipe)


def test_a_class_conditional_pipeline(pipe, x):
    pipe.unet = tiny(num_class_embeds=4)
    with pytest.raises(DenoiserError, match="pass labels="):
        sk.load(pipe)
    two = sk.load(pipe, labels=2)(x, 1.0)
    torch.testing.assert_close(sk.load(pipe, class_labels=torch.tensor([2, 2]))(x, 1.0), two)


def test_a_pipeline_is_neither_moved_nor_fetched(pipe):
    for option, value in (("dtype", torch.float64), ("device", "cpu"), ("revision", "main"), ("subfolder", "unet")):
        with pytest.raises(OptionError, match=rf"{option}=.*DDPMPipeline"):
            sk.load(pipe, **{option: value})
    assert pipe.unet.dtype == torch.float32


def test_objects_that_are_no_pipelines(pipe):
    with pytest.raises(LoadError, match=r"UNet2DModel.*sk\.wrap"):
        sk.load(pipe.unet)
    with pytest.raises(LoadError, match="load needs"):
        sk.load(object())
    pipe.unet = None
    with pytest.raises(LoadError, match="neither a unet nor a transformer"):
        sk.load(pipe)


# ----------------------------------------------------------------------------------------------------------- arrays


def test_arrays_of_every_kind(tmp_path):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", train_x=values, test=values[:1])
    save_file({"x": torch.from_numpy(values), "y": torch.zeros(1)}, tmp_path / "a.safetensors")
    for path in tmp_path.iterdir():
        assert torch.equal(read_array(path), torch.from_numpy(values))
    assert read_array(tmp_path / "a.npz", "test").shape == (1, 3)
    assert read_array(tmp_path / "a.npz", prefer=("test", "train_x")).shape == (1, 3)
    np.save(tmp_path / "big.npy", values.astype(">f4"))
    assert torch.equal(read_array(tmp_path / "big.npy"), torch.from_numpy(values))
    np.save(tmp_path / "none.npy", values[:0])
    assert read_array(tmp_path / "none.npy").shape == (0, 3)
    assert to_units(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]
    assert to_units(torch.tensor([0.5])).tolist() == [0.5]


def test_a_file_of_data_is_never_opened_for_writing(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 3)))
    before = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of memory that it may not write to
        x = read_array(path)
    x += 1
    assert x.sum() == 6 and path.read_bytes() == before


def test_arrays_that_cannot_be_read(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    np.savez(tmp_path / "several.npz", a=np.zeros(2), b=np.zeros(2))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 100)
    (tmp_path / "empty.npy").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.npy")
    for name, message in (
        ("objects.npy", "no numbers"), ("broken.npz", "corrupt"), ("broken.safetensors", "corrupt"),
        ("empty.npy", "corrupt"),
        ("pipe.npy", "a pipe"), ("missing.npy", "No such file"), ("data.csv", "are read from"), ("several.npz", "a, b"),
    ):  # fmt: skip
        with pytest.raises(LoadError, match=message):
            read_array(tmp_path / name)
    with pytest.raises(LoadError, match="no 'c'"):
        read_array(tmp_path / "several.npz", "c")
