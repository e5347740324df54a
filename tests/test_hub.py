"""Loading and saving: bundled models, diffusers folders, hub ids, and files that must not be trusted."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import diffusers
import huggingface_hub
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

import solverkit as sk
from solverkit.errors import DenoiserError, LoadError, OptionError, ScheduleError, UnknownNameError
from solverkit.files import hub
from solverkit.tuning.known import all_known

torch.set_num_threads(1)
diffusers.logging.set_verbosity_error()

WEIGHTS = "diffusion_pytorch_model.safetensors"
BIN = "diffusion_pytorch_model.bin"


def tiny(**options):
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8,), norm_num_groups=4,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), add_attention=False, **options,
    )  # fmt: skip


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """A pipeline folder as diffusers writes it."""
    folder = tmp_path_factory.mktemp("pipeline")
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    diffusers.DDPMPipeline(unet=tiny(), scheduler=scheduler).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "pipeline"))


@pytest.fixture
def x():
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def to_bin(folder, keep=False):
    state = load_file(folder / "unet" / WEIGHTS)
    torch.save(state, folder / "unet" / BIN)
    if not keep:
        (folder / "unet" / WEIGHTS).unlink()


# -------------------------------------------------------------------------------------------------------- folders


def test_pipeline_folder(folder, x):
    denoiser = sk.load(folder)
    assert denoiser.prediction == "v_prediction" and denoiser.shape == (1, 8, 8)
    assert denoiser.schedule == sk.VP("squaredcos_cap_v2")
    level = denoiser.schedule.at(1.0)
    v = diffusers.UNet2DModel.from_pretrained(folder / "unet")(x * level.scale, torch.tensor(level.time)).sample
    torch.testing.assert_close(denoiser(x, level), (x * level.scale - v) * level.scale, rtol=1e-4, atol=1e-5)
    assert sk.sample(denoiser, "heun", nfe=5, num_samples=2).x.shape == (2, 1, 8, 8)


def test_a_string_path_and_a_subfolder_are_the_same(folder, x):
    whole = sk.load(folder)
    for other in (sk.load(str(folder)), sk.load(folder / "unet"), sk.load(folder, subfolder="unet")):
        assert (other.schedule, other.prediction) == (whole.schedule, whole.prediction)
        torch.testing.assert_close(other(x, 1.0), whole(x, 1.0))


def test_model_folder_alone_needs_schedule_and_prediction(folder, tmp_path, x):
    alone = Path(shutil.copytree(folder / "unet", tmp_path / "alone" / "unet"))
    for given in ({}, {"schedule": sk.VP()}, {"prediction": "epsilon"}):
        with pytest.raises(LoadError, match="schedule= and prediction="):
            sk.load(alone, **given)
    denoiser = sk.load(alone, schedule=sk.EDM(), prediction="edm")
    assert denoiser.prediction == "edm" and denoiser(x, 1.0).shape == x.shape


def test_given_schedule_and_prediction_win(folder):
    denoiser = sk.load(folder, schedule=sk.Flow(), prediction="flow_prediction")
    assert denoiser.schedule == sk.Flow() and denoiser.prediction == "flow_prediction"
    assert sk.load(folder, prediction="sample").schedule == sk.VP("squaredcos_cap_v2")


def test_integer_time(folder):
    assert sk.load(folder, integer_time=True).schedule == sk.VP("squaredcos_cap_v2", integer_time=True)
    with pytest.raises(ScheduleError, match="integer_time"):
        sk.load(folder, integer_time=True, schedule=sk.Flow(), prediction="flow_prediction")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype(folder, dtype):
    assert next(sk.load(folder, dtype=dtype).net.parameters()).dtype == dtype


def test_device_that_does_not_exist(folder):
    with pytest.raises(OptionError, match="device='cuda:99'"):
        sk.load(folder, device="cuda:99")


def test_fixed_inputs_reach_the_network(folder):
    assert sk.load(folder, shape=(1, 16, 16)).shape == (1, 16, 16)
    with pytest.raises(OptionError, match="revision"):
        sk.load(folder, revision="main")
    with pytest.raises(DenoiserError, match="nonsense"):
        sk.load(folder, nonsense=1)(torch.zeros(1, 1, 8, 8), 1.0)


def test_bin_and_shards(folder, x):
    expected = sk.load(folder)(x, 1.0)
    state = load_file(folder / "unet" / WEIGHTS)
    to_bin(folder)
    torch.testing.assert_close(sk.load(folder)(x, 1.0), expected)
    (folder / "unet" / BIN).unlink()
    names, files = sorted(state), [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for file, part in zip(files, (names[::2], names[1::2])):
        save_file({name: state[name] for name in part}, folder / "unet" / file)
    index = {"weight_map": {name: files[i % 2] for i, name in enumerate(names)}}
    (folder / "unet" / (WEIGHTS + ".index.json")).write_text(json.dumps(index))
    torch.testing.assert_close(sk.load(folder)(x, 1.0), expected)
    (folder / "unet" / files[1]).unlink()
    with pytest.raises(LoadError, match="00002-of-00002"):
        sk.load(folder)


def test_an_index_cannot_point_elsewhere(folder):
    (folder / "unet" / WEIGHTS).rename(folder / "elsewhere.safetensors")
    index = {"weight_map": {"a": "../elsewhere.safetensors"}}
    (folder / "unet" / (WEIGHTS + ".index.json")).write_text(json.dumps(index))
    with pytest.raises(LoadError, match="beside it"):
        sk.load(folder)


def test_transformer_component(tmp_path, x):
    torch.manual_seed(0)
    net = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=1, out_channels=2, num_layers=1, sample_size=8,
        patch_size=2, num_embeds_ada_norm=4, norm_num_groups=1,
    )  # fmt: skip
    hub.save(sk.wrap(net, "epsilon", sk.VP()), tmp_path)
    denoiser = sk.load(tmp_path, labels=4)
    assert denoiser.shape == (1, 8, 8) and denoiser(x, 1.0).shape == x.shape  # its learned variance is dropped
    with pytest.raises(DenoiserError, match=r"0\.\.4"):
        sk.load(tmp_path, labels=5)


# ------------------------------------------------------------------------------------------- what cannot be loaded


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="Did you mean 'mnist'") as caught:
        sk.load("mnst")
    assert "mixture" in str(caught.value)
    for path in ("./nowhere", "a/b/c", Path("nowhere")):
        with pytest.raises(LoadError, match="model_index"):
            sk.load(path)
    for nothing in ("", None, 3):
        with pytest.raises(LoadError, match="load needs"):
            sk.load(nothing)


def test_folders_that_are_none(tmp_path, folder):
    with pytest.raises(LoadError, match="neither model_index"):
        sk.load(tmp_path)
    with pytest.raises(LoadError, match="subfolder 'vae'"):
        sk.load(folder, subfolder="vae")
    shutil.rmtree(folder / "unet")
    with pytest.raises(LoadError, match="neither a unet nor a transformer"):
        sk.load(folder)


def test_missing_weights(folder):
    (folder / "unet" / WEIGHTS).unlink()
    with pytest.raises(LoadError, match="has no weights"):
        sk.load(folder)


@pytest.mark.parametrize("content", [b"", b"not a file of tensors", None])
def test_corrupt_safetensors(folder, content):
    path = folder / "unet" / WEIGHTS
    path.write_bytes(path.read_bytes()[:1000] if content is None else content)
    with pytest.raises(LoadError, match="corrupt"):
        sk.load(folder)


@pytest.mark.parametrize("cut", [0, 100, 2000])
def test_corrupt_bin(folder, cut):
    to_bin(folder)
    path = folder / "unet" / BIN
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(LoadError, match="corrupt"):
        sk.load(folder)


def test_weights_of_another_network(folder):
    path = folder / "unet" / WEIGHTS
    state = load_file(path)
    first = sorted(state)[0]
    save_file({name: value for name, value in state.items() if name != first}, path)
    with pytest.raises(LoadError, match=f"lacks 1 of .* {first}"):
        sk.load(folder)
    save_file({**state, first: torch.zeros(99)}, path)
    with pytest.raises(LoadError, match=rf"{first} of shape \(99,\)"):
        sk.load(folder)
    save_file({**state, "extra": torch.zeros(1)}, path)
    with pytest.warns(UserWarning, match="extra"):
        sk.load(folder)


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", ["torch", "legacy", "pickle"])
def test_a_malicious_pickle_is_refused_and_not_executed(folder, tmp_path, write):
    to_bin(folder)
    marker, path = tmp_path / "executed", folder / "unet" / BIN
    state = {**torch.load(path, weights_only=True), "evil": Evil(marker)}
    if write == "pickle":
        path.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=write == "torch")
    with pytest.raises(LoadError, match="never unpickled"):
        sk.load(folder)
    assert not marker.exists()


def test_bin_that_is_no_state_dict(folder):
    to_bin(folder)
    torch.save([torch.zeros(1)], folder / "unet" / BIN)
    with pytest.raises(LoadError, match="no state dict"):
        sk.load(folder)


@pytest.mark.parametrize("name", ["MyUNet", "utils", "DDPMScheduler", "__version__", None, 3])
def test_classes_that_are_no_networks(folder, name):
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": name}))
    with pytest.raises(LoadError, match=r"sk\.wrap"):
        sk.load(folder)


def test_configs_that_cannot_be_read(folder):
    config, scheduler = folder / "unet" / "config.json", folder / "scheduler" / "scheduler_config.json"
    good = scheduler.read_text()
    scheduler.write_text(json.dumps({**json.loads(good), "_class_name": "SCMScheduler"}))
    with pytest.raises(ScheduleError, match="SCMScheduler"):
        sk.load(folder)
    for content in ("{", "[]"):
        scheduler.write_text(content)
        with pytest.raises(LoadError, match="scheduler_config"):
            sk.load(folder)
    scheduler.write_text(good)
    config.write_text(json.dumps({**json.loads(config.read_text()), "down_block_types": ["NoBlock"]}))
    with pytest.raises(LoadError, match="cannot be built"):
        sk.load(folder)


# --------------------------------------------------------------------------------------------------------- labels


@pytest.fixture
def labelled(tmp_path):
    return hub.save(sk.wrap(tiny(num_class_embeds=4), "epsilon", sk.VP()), tmp_path / "labelled")


def test_labels(labelled, x):
    spellings = (2, torch.tensor(2), torch.tensor([2, 2], dtype=torch.int32))
    outputs = [sk.load(labelled, labels=label)(x, 1.0) for label in spellings]
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(outputs[0], outputs[2])
    torch.testing.assert_close(sk.load(labelled, class_labels=2)(x, 1.0), outputs[0])
    assert not torch.allclose(sk.load(labelled, labels=1)(x, 1.0), outputs[0])


@pytest.mark.parametrize(
    "labels",
    [4, -1, True, 1.0, "3", [1, 2], torch.tensor([0, 4]), torch.tensor([0.0]), torch.zeros(2, 2, dtype=torch.long)],
)
def test_wrong_labels(labelled, labels):
    with pytest.raises(DenoiserError, match=r"0\.\.3"):
        sk.load(labelled, labels=labels)


def test_labels_missing_superfluous_or_twice(labelled, folder):
    with pytest.raises(DenoiserError, match="class-conditional: pass labels="):
        sk.load(labelled)
    with pytest.raises(DenoiserError, match="no classes"):
        sk.load(folder, labels=1)
    with pytest.raises(OptionError, match="give one"):
        sk.load(labelled, labels=1, class_labels=1)


# ------------------------------------------------------------------------------------------------------------ hub


@pytest.fixture
def fake_hub(monkeypatch, tmp_path):
    """snapshot_download that copies the matching files of a local folder; .calls holds what was asked for."""

    class Hub:
        def __init__(self):
            self.calls, self.repo, self.error = [], None, None

        def download(self, repo_id, *, revision=None, token=None, allow_patterns=None):
            self.calls.append((repo_id, revision, token))
            if self.error is not None:
                raise self.error
            files = [str(p.relative_to(self.repo)) for p in self.repo.rglob("*") if p.is_file()]
            for name in filter_repo_objects(files, allow_patterns=allow_patterns):
                (tmp_path / "cache" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.repo / name, tmp_path / "cache" / name)
            return str(tmp_path / "cache")

        def files(self):
            cache = tmp_path / "cache"
            return sorted(str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file())

    fake = Hub()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.download)
    return fake


PIPELINE = ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json"]


def test_hub_id(fake_hub, folder, x):
    fake_hub.repo = folder
    (folder / "vae").mkdir()
    unwanted = ("diffusion_pytorch_model.fp16.safetensors", BIN)
    for name in (f"vae/{WEIGHTS}", "vae/config.json", "run.py", *(f"unet/{name}" for name in unwanted)):
        (folder / name).write_bytes(b"x" * 10)
    denoiser = sk.load("org/name", revision="v1", token="secret")
    torch.testing.assert_close(denoiser(x, 1.0), sk.load(folder)(x, 1.0))
    assert fake_hub.calls == [("org/name", "v1", "secret")]
    assert fake_hub.files() == [*PIPELINE, f"unet/{WEIGHTS}"]


def test_hub_id_brings_the_plan_beside_the_network(fake_hub, folder):
    fake_hub.repo = folder
    fitted = sk.load_plans("mnist")
    replace(fitted, schedule=repr(sk.load(folder).schedule), fingerprint=None).save(folder / "plan.safetensors")
    denoiser = sk.load("org/name")
    assert "plan.safetensors" in fake_hub.files()
    assert [known.path.name for known in all_known(denoiser, None)] == ["plan.safetensors"]


def test_hub_falls_back_to_bin(fake_hub, folder, x):
    fake_hub.repo = folder
    expected = sk.load(folder)(x, 1.0)
    to_bin(folder)
    torch.testing.assert_close(sk.load("org/name.x")(x, 1.0), expected)
    assert len(fake_hub.calls) == 2 and fake_hub.files() == [*PIPELINE, f"unet/{BIN}"]


def test_hub_subfolder_brings_its_scheduler(fake_hub, folder, tmp_path):
    fake_hub.repo = folder
    assert sk.load("org/name", subfolder="unet").prediction == "v_prediction"
    deep = Path(shutil.copytree(folder, tmp_path / "deep" / "a" / "b")).parent.parent
    shutil.rmtree(tmp_path / "cache")
    fake_hub.repo = deep
    assert sk.load("org/name", subfolder="a/b").prediction == "v_prediction"
    assert sk.load("org/name", subfolder="a/b/unet").prediction == "v_prediction"


def test_hub_errors_are_passed_on(fake_hub):
    fake_hub.error = ConnectionError("no route to the hub")
    with pytest.raises(LoadError, match="no route to the hub"):
        sk.load("org/name")


def test_a_folder_comes_before_the_hub(fake_hub, folder, tmp_path, monkeypatch):
    Path(shutil.copytree(folder, tmp_path / "org" / "name"))
    monkeypatch.chdir(tmp_path)
    sk.load("org/name")
    assert fake_hub.calls == []


# ----------------------------------------------------------------------------------------------------------- save


@pytest.mark.parametrize(
    ("prediction", "schedule"),
    [
        ("epsilon", sk.VP("scaled_linear", 0.00085, 0.012)),
        ("v_prediction", sk.VP("cosine", zero_terminal_snr=True)),
        ("epsilon", sk.VP(integer_time=True)),
        ("flow_prediction", sk.Flow(shift=3.0, time_scale=1000.0)),
        ("edm", sk.EDM()),
        ("score", sk.VE()),
    ],
)
def test_save_and_load(tmp_path, x, prediction, schedule):
    denoiser = sk.wrap(tiny(), prediction, schedule)
    loaded = sk.load(hub.save(denoiser, tmp_path / "new" / "folder"))
    assert loaded.prediction == prediction and loaded.schedule.ratio_max == denoiser.schedule.ratio_max
    assert loaded.schedule.integer_time == schedule.integer_time
    torch.testing.assert_close(loaded(x, 0.5), denoiser(x, 0.5))


def test_save_without_a_scheduler_that_diffusers_has(tmp_path, x):
    denoiser = sk.wrap(tiny(), "score", sk.SubVP())
    folder = hub.save(denoiser, tmp_path)
    assert not (folder / "scheduler").exists()
    with pytest.raises(LoadError, match="schedule="):
        sk.load(folder)
    torch.testing.assert_close(sk.load(folder, schedule=sk.SubVP(), prediction="score")(x, 0.5), denoiser(x, 0.5))


def test_saved_folders_are_diffusers_pipelines(tmp_path):
    hub.save(sk.wrap(tiny(), "epsilon", sk.VP()), tmp_path)
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path)
    assert isinstance(pipeline.scheduler, diffusers.DDPMScheduler)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline(num_inference_steps=2, output_type="np").images.shape == (1, 8, 8, 1)


def test_what_cannot_be_saved(tmp_path):
    gaussian = sk.load("gaussian")
    for denoiser in (sk.wrap(lambda x, t: x, "epsilon", sk.VP()), gaussian, sk.guidance.clip(gaussian)):
        with pytest.raises(LoadError, match="diffusers networks"):
            hub.save(denoiser, tmp_path / "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(LoadError, match="cannot write"):
        hub.save(sk.wrap(tiny(), "epsilon", sk.VP()), tmp_path / "file")


# -------------------------------------------------------------------------------------------------------- bundled


@pytest.mark.parametrize("name", ["mnist", "mnist-flow"])
def test_bundled_networks(name):
    null, three = sk.load(name), sk.load(name, labels=3)
    assert null.inputs["class_labels"] == 10 and null.shape == (1, 28, 28)
    x = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    guided = sk.load(name, labels=3, guidance=2.0)
    torch.testing.assert_close(guided(x, 0.5), 2 * three(x, 0.5) - null(x, 0.5), rtol=1e-4, atol=1e-4)
    assert sk.sample(guided, "euler", steps=2, num_samples=2).nfe == 4
    assert sk.sample(null, "euler", steps=2, num_samples=2).nfe == 2
    for options in ({"labels": 11}, {"labels": "three"}):
        with pytest.raises(DenoiserError, match=r"0\.\.10"):
            sk.load(name, **options)
    for options in ({"guidance": 2.0}, {"subfolder": "unet"}, {"lables": 3}):
        with pytest.raises(OptionError):
            sk.load(name, **options)


@pytest.mark.parametrize("name", ["mnist", "mnist-flow"])
def test_diffusers_opens_the_bundled_folders(name):
    pipeline = diffusers.DDPMPipeline.from_pretrained(hub.NETWORKS / name)
    theirs = pipeline.unet.state_dict()
    ours = sk.load(name).net.state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[key], ours[key]) for key in ours)


def test_exact_targets_by_name():
    assert sk.load("gaussian", dim=3).shape == (3,)
    assert sk.load("mixture", schedule=sk.Flow()).schedule == sk.Flow()
    assert {"mnist", "mnist-flow", "gaussian", "mixture"} <= set(sk.models())


def test_listing_models_imports_no_diffusers():
    code = "import sys, solverkit as sk; sk.models(); sk.load('gaussian'); assert 'diffusers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
