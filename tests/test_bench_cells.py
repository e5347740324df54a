"""Cells: what they cost, what may go wrong in them, and anyone's model, sampler and peer."""

from __future__ import annotations

import contextlib
import re
import sys
import time
import types

import pytest
import torch

import solverkit as sk
from solverkit.bench.accounting import block_layers, watching
from solverkit.bench.caching import Cached, cached, made_rule
from solverkit.bench.named import function_in_file, split_sampler
from solverkit.bench.report import make_panels
from solverkit.bench.runner import run_suite
from solverkit.bench.suite import ModelEntry, Suite
from solverkit.errors import LoadError, OptionError, UnknownNameError
from solverkit.model.guidance.gradients import Classifier


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SOLVERKIT_CACHE", str(tmp_path / "cache"))


def small(**changes) -> Suite:
    fields = {"models": (ModelEntry("gaussian", 8, reference_steps=8),), "samplers": ("euler",), "nfe": (6,),
              "metrics": ("ode_error",)}  # fmt: skip
    return Suite(**{**fields, **changes})


def broken(kind):
    def sampler(model, x, grid, noise):
        for s, _ in grid.steps():
            x = model(x, s)
        if kind == "raises":
            raise RuntimeError("no luck")
        if kind == "nan":
            return x * float("nan")
        if kind == "shape":
            return x[:, :2]
        while True:
            with contextlib.suppress(Exception):
                time.sleep(0.01)

    return sampler


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("raises", "RuntimeError: no luck"), ("nan", "NaN"), ("shape", "expected"), ("hangs", "ran past --timeout, 0.3")],
)
def test_a_broken_sampler_is_a_failed_row_and_the_run_goes_on(kind, reason):
    suite = small(samplers=(kind, "euler"), given={kind: broken(kind)})
    first, second = run_suite(suite, timeout=0.3)
    assert first["status"].startswith("failed: ") and first["ode_error"] is None
    assert re.search(reason, first["status"])
    assert second["status"] == "ok"


def test_a_cell_says_what_it_cost():
    (row,) = run_suite(small(samplers=("heun",)))
    assert (row["nfe"], row["asked"], row["passes"], row["products"], row["blocks"]) == (5, 5, 5, 0, None)
    assert row["images_per_second"] == pytest.approx(8 / row["seconds_total"])
    assert row["seconds_metric"] > 0
    assert (row["device"], row["dtype"]) == ("cpu", "float32")


def test_products_with_the_jacobian_are_counted():
    denoiser = sk.problems.gaussian()
    guided = Classifier(denoiser, lambda y, level: -y.flatten(1).square().sum(1), scale=0.1)
    made = sk.sample(guided, "euler", nfe=4, num_samples=2)
    assert (made.products, made.nfe, made.asked) == (4, 4, 4)
    assert sk.sample(denoiser, "euler", nfe=4, num_samples=2).products == 0


class Blocks(torch.nn.Module):
    """Three blocks of which a cache skips some."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(4, 4)
        self.blocks = torch.nn.ModuleList(torch.nn.Sequential(torch.nn.Linear(4, 4)) for _ in range(4))
        self.skip = 0

    def forward(self, x, t):
        x = self.embed(x)
        for block in self.blocks[self.skip :]:
            x = x + 0.1 * block(x)
        return x


def test_block_work_is_what_was_run():
    net = Blocks()
    denoiser = sk.wrap(net, "sample", sk.VP(), shape=(4,))
    assert len(block_layers(net)) == 4
    print_before = sk.bench.reference.fingerprint(denoiser)
    with watching(denoiser) as work:
        sk.sample(denoiser, "euler", nfe=3, num_samples=2)
        assert sk.bench.reference.fingerprint(denoiser) == print_before  # a tuned plan must know its network
    assert (work.blocks.passes, work.blocks.share) == (3, 1.0)
    net.skip = 3
    with watching(denoiser) as work:
        sk.sample(denoiser, "euler", nfe=3, num_samples=2)
    assert work.blocks.share == 0.25
    with watching(sk.problems.gaussian()) as work:
        pass
    assert work.blocks.share is None


def test_blocks_skipped_by_a_cache_of_diffusers_did_no_work():
    diffusers = pytest.importorskip("diffusers")
    net = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=1, num_layers=4, sample_size=8, patch_size=2,
        num_embeds_ada_norm=10,
    ).eval()  # fmt: skip

    def share():
        wrapped = sk.wrap(
            lambda x, t: net(x, t.expand(len(x)).long(), class_labels=torch.zeros(len(x), dtype=torch.long)).sample,
            "epsilon", sk.VP(), shape=(1, 8, 8),
        )  # fmt: skip
        wrapped.inner = net
        with watching(wrapped) as work:
            sk.sample(wrapped, "euler", nfe=6, num_samples=2)
        return work.blocks.share

    assert share() == 1.0
    for block in net.transformer_blocks[2:]:  # as the hooks of diffusers do: forward is replaced
        block.forward = lambda hidden, *args, **kwargs: hidden
    assert share() == pytest.approx(0.5)


OWN = """
import torch, solverkit as sk
def mine(model, x, grid, noise, *, weight: float = 1.0):
    for s, t in grid.steps():
        x = x + weight * (t - s) * (x - model(x, s)) / s
    return x
def net():
    return sk.wrap(lambda x, t: 0 * x, "sample", sk.VP(), shape=(3,))
def nothing():
    return 3
"""


def test_models_and_samplers_of_a_file(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    suite = small(
        models=(ModelEntry("gaussian", 8, reference_steps=8), ModelEntry(f"{file}:net", 4, reference_steps=8)),
        samplers=("euler", f"{file}:mine", f"{file}:mine:weight=0.9"),
    )
    rows = list(run_suite(suite))
    assert [row["status"] for row in rows] == ["ok"] * 6
    assert rows[0]["ode_error"] == pytest.approx(rows[1]["ode_error"]) != rows[2]["ode_error"]
    assert rows[2]["options"] == {"weight": 0.9}
    with pytest.raises(OptionError, match="Did you mean 'mine'"):
        run_suite(small(samplers=(f"{file}:mime",)))
    with pytest.raises(OptionError, match="weihgt"):
        run_suite(small(samplers=(f"{file}:mine:weihgt=1",)))
    with pytest.raises(OptionError, match="made a int"):
        list(run_suite(small(models=(ModelEntry(f"{file}:nothing"),))))
    file.write_text("1 / 0")
    with pytest.raises(LoadError, match="ZeroDivisionError"):
        function_in_file(f"{file}:mine")
    with pytest.raises(LoadError, match="No such file"):
        function_in_file(f"{tmp_path}/missing.py:mine")


def test_a_function_that_cannot_be_traced_runs_and_is_told_apart():
    def clipped(model, x, grid, noise):
        for s, t in grid.steps():
            denoised = model(x, s).clamp(-5, 5)
            x = denoised + t / s * (x - denoised)
        return x

    def two(model, x, grid, noise):
        for s, t in grid.steps():
            x = model(model(x, s).clamp(-5, 5), s) + t * noise(s, t)
        return x

    suite = small(samplers=("clipped", "two", "euler"), given={"clipped": clipped, "two": two}, grid="karras")
    rows = list(run_suite(suite))
    assert [(row["status"], row["nfe"]) for row in rows] == [("ok", 6), ("ok", 6), ("ok", 6)]
    assert rows[0]["ode_error"] == pytest.approx(rows[2]["ode_error"], rel=1e-3)
    assert rows[1]["ode_error"] is None  # it drew


def test_names_and_their_options():
    assert split_sampler("unipc:order=2,corrector=false") == ("unipc", {"order": 2, "corrector": False})
    assert split_sampler("diffusers:DEISMultistepScheduler:solver_order=3") == (
        "diffusers:DEISMultistepScheduler", {"solver_order": 3},
    )  # fmt: skip
    assert split_sampler("a/b.py:f:x=1.5") == ("a/b.py:f", {"x": 1.5})


def test_settings_of_one_sampler_stand_side_by_side():
    names = ("unipc:order=1", "unipc:order=2", "diffusers:DEISMultistepScheduler:solver_order=1")
    rows = list(run_suite(small(samplers=names)))
    assert [row["options"] for row in rows] == [{"order": 1}, {"order": 2}, {"solver_order": 1}]
    assert [row["sampler"] for row in rows[:2]] == ["unipc", "unipc"]
    panel = make_panels(rows)[0]
    assert list(panel.points)[:2] == ["unipc (order=1)", "unipc (order=2)"]


def sample_euler(model, x, sigmas, extra_args=None, callback=None, disable=None, s_churn=0.0):
    for i in range(len(sigmas) - 1):
        x = x + s_churn * torch.randn_like(x)  # it draws, and keeps nothing of it
        d = (x - model(x, sigmas[i] * x.new_ones(len(x)))) / sigmas[i]
        x = x + d * (sigmas[i + 1] - sigmas[i])
    return x


def sample_twice(model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler=None):
    for i in range(len(sigmas) - 1):
        model(x, sigmas[i] * x.new_ones(len(x)))
        x = model(x, sigmas[i] * x.new_ones(len(x))) + sigmas[i + 1] * torch.randn_like(x)
    return x


def test_samplers_of_k_diffusion(monkeypatch):
    module = types.ModuleType("k_diffusion.sampling")
    module.sample_euler, module.sample_twice = sample_euler, sample_twice
    monkeypatch.setitem(sys.modules, "k_diffusion", types.ModuleType("k_diffusion"))
    monkeypatch.setitem(sys.modules, "k_diffusion.sampling", module)
    rows = list(run_suite(small(samplers=("euler", "k-diffusion:sample_euler", "k-diffusion:sample_twice"), grid="karras")))
    assert [row["nfe"] for row in rows] == [6, 6, 6]
    assert rows[1]["ode_error"] == pytest.approx(rows[0]["ode_error"], rel=1e-4)
    assert (rows[2]["status"], rows[2]["ode_error"]) == ("ok", None)  # it draws
    with pytest.raises(UnknownNameError, match="sample_euler"):
        run_suite(small(samplers=("k-diffusion:sample_eula",)))
    with pytest.raises(OptionError, match="s_churn"):
        run_suite(small(samplers=("k-diffusion:sample_euler:s_chrun=1",)))


# caching rules


def last(denoiser, nfe, sampler="euler", rule="none", num_samples=4, **more):
    return sk.sample(cached(denoiser, rule), sampler, nfe=nfe, num_samples=num_samples, **more)


def test_a_frozen_answer_and_a_first_order_solver_are_a_coarser_grid():
    denoiser = sk.problems.mixture(dim=4, modes=3)
    whole = sk.make_grid("karras", denoiser.schedule, 12)
    coarse = sk.Grid((*whole[:-1:3], whole[-1]), denoiser.schedule)
    frozen = last(denoiser, None, rule="frozen:every=3", grid=whole, dtype=torch.float64)
    plain = sk.sample(denoiser, "euler", num_samples=4, grid=coarse, dtype=torch.float64)
    assert (frozen.nfe, frozen.asked, plain.nfe) == (4, 12, 4)
    assert (frozen.x - plain.x).abs().max() < 1e-12
    other = last(denoiser, None, "dpmpp-2m", "frozen:every=3", grid=whole, dtype=torch.float64).x
    assert (other - sk.sample(denoiser, "dpmpp-2m", num_samples=4, grid=coarse, dtype=torch.float64).x).abs().max() > 1e-3


@pytest.mark.parametrize("rule", ["frozen:every=1", "easycache:threshold=0", "taylor:every=1,order=2"])
def test_a_rule_that_skips_nothing_changes_nothing(rule):
    denoiser = sk.problems.mixture(dim=4, modes=3)
    for sampler in ("heun", "dpmpp-2m", "ddpm"):
        plain, ruled = last(denoiser, 9, sampler), last(denoiser, 9, sampler, rule)
        assert torch.equal(plain.x, ruled.x) and plain.nfe == ruled.nfe == ruled.asked


def test_newtons_weights_gain_an_order_that_the_released_ones_lose():
    """The forecast of a smooth function of the number of the evaluation, from three answers N apart."""

    def error(h, released):
        rule = made_rule(f"taylor:every=4,order=2,released={str(released).lower()}")
        worst = 0.0
        for i in range(12):
            x = torch.tensor([[float(torch.sin(torch.tensor(1.0 + h * i, dtype=torch.float64)))]], dtype=torch.float64)
            due = rule.due(x)
            forecast = rule.forecast(x)
            if i >= 9 and not bool(due.any()):
                worst = max(worst, float((forecast - x).abs()))
            rule.learn(x, x if bool(due.any()) else forecast, due)
        return worst

    orders = {which: torch.log2(torch.tensor(error(0.02, which) / error(0.01, which))) for which in (False, True)}
    assert orders[False] > 2.8
    assert 1.8 < orders[True] < 2.2


def test_easycache_decides_for_each_sample_by_itself():
    denoiser = sk.problems.mixture(dim=4, modes=3)
    rule = "easycache:threshold=0.001"
    whole = last(denoiser, 20, rule=rule, num_samples=6)
    assert 3 <= whole.nfe < 20 == whole.asked
    parts = last(denoiser, 20, rule=rule, num_samples=6, batch_size=2)
    assert torch.allclose(whole.x, parts.x, atol=1e-5) and parts.nfe == whole.nfe


def test_a_new_run_remembers_nothing():
    denoiser = Cached(sk.problems.mixture(dim=4, modes=3), "frozen:every=4")
    first, again = (sk.sample(denoiser, "euler", nfe=6, num_samples=3, seed=seed) for seed in (0, 1))
    fresh = last(sk.problems.mixture(dim=4, modes=3), 6, rule="frozen:every=4", num_samples=3, seed=1)
    assert torch.equal(again.x, fresh.x) and not torch.equal(first.x, again.x)


def test_caches_are_variants_of_a_cell():
    rows = list(run_suite(small(nfe=(6, 12), caches=("none", "frozen:every=2"))))
    assert [(row["budget"], row["cache"], row["nfe"]) for row in rows] == [
        (6, "none", 6), (12, "none", 12), (6, "frozen:every=2", 3), (12, "frozen:every=2", 6),
    ]  # fmt: skip
    (panel,) = make_panels(rows)
    assert list(panel.points) == ["euler", "euler (frozen:every=2)"]
    with pytest.raises(UnknownNameError, match="Did you mean 'frozen'"):
        run_suite(small(caches=("frosen",)))
    with pytest.raises(OptionError, match="option"):
        run_suite(small(caches=("frozen:often=2",)))
