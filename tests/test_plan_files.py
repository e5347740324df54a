"""Files of fitted plans: their spellings, the hub, bad ones, and plans in a stock pipeline."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import re
import shutil
from dataclasses import replace

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import solverkit as sk
from solverkit import SolverKitScheduler
from solverkit.bench.runner import check_suite, run_suite
from solverkit.bench.suite_file import load_suite
from solverkit.errors import BudgetError, GridError, LoadError, OptionError
from solverkit.files.network import NETWORKS
from solverkit.model.fingerprint import fingerprint
from solverkit.tuning.plans import Budget, TunedPlans
from solverkit.tuning.rows import Rows
from solverkit.tuning.search import family

TARGET = sk.load("gaussian")
FIGURES = {"noises": 64, "rms": 0.0123, "median": 0.0045, "untuned": "deis on flow", "untuned_rms": 0.05,
           "untuned_median": 0.04, "ratio_rms": 0.246, "ratio_median": 0.11, "interval": [0.2, 0.31]}  # fmt: skip
FACTS = {"samples": 96, "validation": 64, "seed": 1000, "reference_evaluations": 512, "fast": True}


def plans_of(denoiser, budgets=(3, 5)):
    grid = sk.make_grid("flow" if denoiser.schedule.frame else "karras", denoiser.schedule, 1)
    made = {}
    for n in budgets:
        levels = family(n, float(grid[0]), 0.3, 1.0, grid.frame)
        rows = Rows(levels, tuple((0.01 * i, -0.02, *([0.03] * i)) for i in range(n)))
        made[n] = Budget(levels, rows.matrix(), None, None, FIGURES)
    return TunedPlans(
        repr(denoiser.schedule), grid.frame, float(grid[0]), fingerprint(denoiser), made, FACTS
    )  # fmt: skip


@pytest.fixture(scope="module")
def plans():
    return plans_of(TARGET)


@pytest.fixture
def path(plans, tmp_path):
    plans.save(path := tmp_path / "plan.safetensors")
    return path


@pytest.fixture
def expected(plans):
    return sk.sample(TARGET, "tuned", plan=plans, nfe=5, num_samples=3).x


# ----------------------------------------------------------------------------------------------------------- spellings


def test_a_file_or_its_folder_behind_the_name(path, expected):
    for place in (path, path.parent):
        assert torch.equal(sk.sample(TARGET, f"tuned:{place}", nfe=5, num_samples=3).x, expected)
        assert torch.equal(sk.sample(TARGET, "tuned", plan=place, nfe=5, num_samples=3).x, expected)


def test_a_value_without_a_name_is_the_first_option():
    grid = sk.make_grid("log-snr", sk.EDM(), 20)
    assert sk.trace("unipc:3", grid).table() == sk.trace("unipc", grid, order=3).table()
    assert sk.trace("unipc:3", grid).table() != sk.trace("unipc:2", grid).table()
    assert sk.trace("unipc:2,variant=bh1", grid).table() == sk.trace("unipc", grid, order=2, variant="bh1").table()
    assert sk.make_grid("flow:3", sk.Flow(), 4) == sk.make_grid("flow", sk.Flow(), 4, shift=3)
    assert sk.trace("pc:heun", grid).table() == sk.trace("pc", grid, predictor="heun").table()


@pytest.mark.parametrize(
    ("sampler", "words"),
    [
        ("unipc:fast", "'fast' is read as order=, the first option, and of 'unipc' must be int"),
        ("euler:3", "'euler' takes no options, got 3"),
        ("unipc:order", "'order' is an option of 'unipc' and needs a value"),
        ("unipc:variant=bh1,3", "'3' has no name"),
        ("unipc:3,order=2", "which is given too"),
        ("unipc:=3", "NAME=VALUE"),
        ("tuned:", "needs the option 'plan'"),
    ],
)
def test_a_value_that_fits_nothing(sampler, words):
    with pytest.raises(OptionError, match=re.escape(words)):
        sk.sample(TARGET, sampler, nfe=4, num_samples=2)


def test_in_a_suite_and_on_the_command_line(cli, path, expected):
    from safetensors.torch import load_file

    code, _, err = cli("sample", "gaussian", "-s", f"tuned:{path}", "-n", "5", "-k", "3", "-o", "x.safetensors")
    assert code == 0 and "plan: tuned for 5 evaluations" in err
    assert torch.equal(load_file("x.safetensors")["x"], expected)
    code, out, _ = cli("show", f"tuned:{path}", "--schedule", "edm", "-n", "4")
    assert code == 0 and "D2" in out and "D3" not in out
    suite = path.parent / "suite.toml"
    suite.write_text(
        f'name = "s"\nnfe = [5]\nsamplers = ["tuned:{path}"]\n[models.gaussian]\nnum_samples = 4\nreference_steps = 8\n'
    )
    loaded = load_suite(suite)
    check_suite(loaded, list(loaded.cells()))
    (row,) = run_suite(loaded)
    assert row["status"] == "ok" and row["nfe"] == 5 and row["reports"]["plan"] == "tuned for 5 evaluations"
    assert cli("bench", "-m", "gaussian", "-s", f"tuned:{path},euler", "-n", "5", "-k", "2")[0] == 0


# ------------------------------------------------------------------------------------------------------------- the hub


class Hub:
    """HfApi and hf_hub_download on a folder."""

    def __init__(self, folder):
        self.folder, self.token, self.private, self.asked = folder, None, None, []

    def __call__(self, token=None):
        self.token = token
        return self

    def create_repo(self, repo, exist_ok, private):
        assert exist_ok
        self.private = private

    def file_exists(self, repo_id, filename):
        return (self.folder / filename).exists()

    def upload_file(self, path_or_fileobj, path_in_repo, repo_id):
        if isinstance(path_or_fileobj, bytes):
            (self.folder / path_in_repo).write_bytes(path_or_fileobj)
        else:
            shutil.copy(path_or_fileobj, self.folder / path_in_repo)
        return f"https://hub/{repo_id}/{path_in_repo}"

    def download(self, repo, name):
        self.asked.append((repo, name))
        return str(self.folder / name)


@pytest.fixture
def remote(monkeypatch, tmp_path):
    (tmp_path / "hub").mkdir()
    remote = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", remote)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", remote.download)
    return remote


def test_to_the_hub_and_back(remote, plans, expected):
    address = plans.push_to_hub("me/plans", private=True, token="secret")
    assert address == "https://hub/me/plans/plan.safetensors" and (remote.token, remote.private) == ("secret", True)
    assert (remote.folder / "README.md").read_text() == plans.card()
    for sampler, options in (("tuned", {"plan": "me/plans"}), ("tuned:plan=me/plans", {}), ("tuned:me/plans", {})):
        assert torch.equal(sk.sample(TARGET, sampler, nfe=5, num_samples=3, **options).x, expected)
    assert set(remote.asked) == {("me/plans", "plan.safetensors")}


def test_a_pipeline_takes_it_from_the_hub(remote, digits):
    digits.push_to_hub("me/plans")
    scheduler = SolverKitScheduler.from_pretrained(NETWORKS / "mnist" / "scheduler", sampler="tuned:me/plans")
    scheduler.set_timesteps(6)
    assert scheduler.nfe == 4


def test_a_page_that_is_there_is_not_replaced(remote, plans):
    (remote.folder / "README.md").write_text("# my network")
    plans.push_to_hub("me/network")
    assert (remote.folder / "README.md").read_text() == "# my network"
    assert sk.load_plans(remote.folder).fingerprint == plans.fingerprint


def test_the_card_says_all_that_is_needed(plans):
    card = plans.card()
    for words in (
        repr(TARGET.schedule), plans.fingerprint, "0.0500 (0.0400)", "0.0123 (0.0045)", "0.25 [0.20, 0.31]",
        "| 0.11 | 64 |", "deis on flow",
        "solverkit tune MODEL --nfe 3,5 --samples 96 --validation 64 --seed 1000 --fast --out plan.safetensors",
        "reference_evaluations=512", 'sampler="tuned:USER/REPOSITORY"',
    ):  # fmt: skip
        assert words in card, words
    assert card.startswith("---\nlibrary_name: solverkit\n")
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.S)
    compile(code, "card", "exec")
    lost = TunedPlans(plans.schedule, 0, 80.0, None, {4: Budget((), None, "deis", "flow", {**FIGURES, "interval": [1, 2]})})
    assert "`deis` on flow" in lost.card() and "`none`" in lost.card()


def test_the_card_of_plans_that_were_tuned():
    made = sk.tune(TARGET, [3], samples=8, validation=8, fast=True, reference_evaluations=256)
    figures = made.budgets[3].figures
    assert f"{figures['rms']:.4f} ({figures['median']:.4f})" in made.card() and "--samples 8" in made.card()


def test_the_card_says_which_class_and_guidance(plans):
    card = replace(plans, facts={**plans.facts, "options": {"labels": 3, "guidance": 2.0}}).card()
    assert "--label 3 --guidance 2.0 --out" in card and "sk.load('MODEL', labels=3, guidance=2.0)" in card


def test_offline(monkeypatch):
    def offline(*arguments, **options):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(LoadError, match="cannot download plan.safetensors of 'me/plans'.*no connection.*local file"):
        sk.sample(TARGET, "tuned:me/plans", nfe=5, num_samples=2)

    class Api(Hub):
        def create_repo(self, repo, exist_ok, private):
            offline()

    monkeypatch.setattr(huggingface_hub, "HfApi", Api(None))
    with pytest.raises(LoadError, match="cannot upload to 'me/plans'.*no connection"):
        plans_of(TARGET).push_to_hub("me/plans")


# ----------------------------------------------------------------------------------------------------------- bad files


def rewritten(path, change):
    """The file with other tensors, its metadata as it was."""
    with safe_open(str(path), framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(change(tensors), str(path), metadata)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {k: v for k, v in t.items() if k != "5.weights"}, "no whole plan.*5.weights"),
        (lambda t: {**t, "5.levels": t["5.levels"][:4].clone()}, "no whole plan.*NFE 5 has levels"),
        (lambda t: {**t, "3.weights": t["3.weights"] * float("nan")}, "no whole plan.*not finite"),
    ],
)
def test_a_file_of_which_a_part_is_missing_or_wrong(path, change, words):
    rewritten(path, change)
    with pytest.raises(LoadError, match=words):
        sk.sample(TARGET, f"tuned:{path}", nfe=5, num_samples=2)


def test_what_is_no_plan(path, tmp_path, cli):
    (empty := tmp_path / "empty").mkdir()
    os.mkfifo(pipe := tmp_path / "pipe")
    path.write_bytes(path.read_bytes()[:-40])
    save_file({"x": torch.zeros(1)}, str(tensors := tmp_path / "x.safetensors"))
    for place, words in (
        (empty, "has no plan.safetensors"), (pipe, "cannot be read as a plan"), (path, "cannot be read as a plan"),
        (tensors, "holds tensors but no plan"), (8, "expected a name, file, folder or hub id, got 8"),
        (tmp_path / "missing.safetensors", "no plan to read"), ("a/missing.safetensors", "no plan to read"),
        ("word", "no plan to read at 'word'.*solverkit tune"),
    ):  # fmt: skip
        with pytest.raises(LoadError, match=words):
            sk.sample(TARGET, "tuned", plan=place, nfe=5, num_samples=2)
    code, _, err = cli("sample", "gaussian", "-s", f"tuned:{tensors}", "-n", "5", "-k", "2")
    assert code in (1, 2) and "no plan" in err and "Traceback" not in err


def test_a_budget_below_its_least_and_a_run_in_parts(path):
    with pytest.raises(BudgetError, match=r"\[3, 5\], and none of at most 2"):
        sk.sample(TARGET, f"tuned:{path}", nfe=2, num_samples=2)
    untuned = TunedPlans(repr(TARGET.schedule), 0, 80.0, None, {3: Budget((), None, "euler", "karras")})
    for plan in (path, untuned):  # an untuned sampler in the place of weights begins and ends like a plan
        for levels, words in (([40.0, 9.0, 1.0, 0.0], "begins at"), ([80.0, 9.0, 1.0, 0.5], "ends at 0")):
            with pytest.raises(GridError, match=words):
                sk.sample(TARGET, "tuned", plan=plan, num_samples=2, levels=levels)


def test_a_place_that_cannot_be_written(plans, path, tmp_path, monkeypatch):
    before = path.read_bytes()
    for place in (tmp_path, path / "plan.safetensors", tmp_path / "none" / "plan.safetensors", "/proc/plan.safetensors"):
        with pytest.raises(LoadError, match="cannot be written to"):
            plans.save(place)

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(LoadError, match="No space left"):
        plans_of(TARGET, (4,)).save(path)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["plan.safetensors"]


# --------------------------------------------------------------------------------------------------- in a stock pipeline


@pytest.fixture(scope="module")
def digits():
    return plans_of(sk.load("mnist"), (4,))


@pytest.fixture(scope="module")
def pipe():
    """diffusers' own pipeline on the bundled network, which is told that there is no class."""
    from diffusers import DDIMPipeline

    pipe = DDIMPipeline.from_pretrained(NETWORKS / "mnist")
    forward = pipe.unet.forward
    pipe.unet.forward = lambda x, t, **more: forward(x, t, class_labels=torch.full((len(x),), 10), **more)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_in_a_stock_pipeline_it_is_sk_sample(pipe, digits, tmp_path):
    digits.save(path := tmp_path / "plan.safetensors")
    native = pipe.scheduler
    pipe.scheduler = SolverKitScheduler.from_config(native.config, sampler=f"tuned:{path}", clip_sample=False)
    seen, step = [], pipe.scheduler.step
    pipe.scheduler.step = lambda *given, **options: seen.append(step(*given, **options)) or seen[-1]
    images = pipe(batch_size=2, num_inference_steps=4, generator=torch.Generator().manual_seed(3), output_type="np").images
    pipe.scheduler = native
    x = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(3))
    exact = sk.sample(sk.load("mnist"), f"tuned:{path}", nfe=4, x=x).x
    assert len(seen) == 4 and float(exact.std()) > 0.1
    assert float((seen[-1].prev_sample - exact).norm()) <= 1e-5 * float(exact.norm())
    assert np.abs(images[..., 0] - (exact[:, 0] / 2 + 0.5).clamp(0, 1).numpy()).max() <= 1e-4


def test_a_config_names_a_file(pipe, digits):
    made = {"sampler": "tuned", "clip_sample": False}
    with pytest.raises(OptionError, match="JSON value"):  # a config is JSON: a file is named there
        SolverKitScheduler.from_config(pipe.scheduler.config, sampler_options={"plan": digits}, **made)


def test_a_run_goes_on_in_a_copy(pipe, digits, tmp_path):
    digits.save(path := tmp_path / "plan.safetensors")
    scheduler = SolverKitScheduler.from_config(pipe.scheduler.config, sampler=f"tuned:{path}", clip_sample=False)

    def run(between):
        own = between(scheduler)
        own.set_timesteps(4)
        x = torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            for t in own.timesteps:
                x = own.step(pipe.unet(x, t).sample, t, x).prev_sample
                own = between(own)
        return x

    whole = run(lambda scheduler: scheduler)
    path.unlink()  # the run has its plan
    scheduler.set_timesteps(4)
    assert torch.equal(run(copy.deepcopy), whole)
    assert torch.equal(run(lambda scheduler: pickle.loads(pickle.dumps(scheduler))), whole)
