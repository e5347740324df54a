"""auto: the plan that is known for a network, else the winner of a trial; what ran is always said."""

from __future__ import annotations

import json
import warnings
from concurrent.futures import ThreadPoolExecutor

import diffusers
import numpy as np
import pytest
import torch

import solverkit as sk
from solverkit import SolverKitScheduler, guidance, hub
from solverkit.errors import FingerprintError, GridError, LoadError, OptionError
from solverkit.files import artefact
from solverkit.files.network import said_from
from solverkit.model.fingerprint import fingerprint, fingerprints
from solverkit.tuning.auto import NOISES
from solverkit.tuning.plans import Budget, TunedPlans
from solverkit.tuning.search import family
from solverkit.tuning.trajectories import converge

MIXED = sk.problems.mixture(dim=4, modes=3, seed=2)


class Classes(torch.nn.Module):
    """Each class a mixture in 4 dimensions, of which the exact denoiser is known; it counts what it is asked."""

    def __init__(self):
        super().__init__()
        self.width = torch.nn.Parameter(torch.tensor(1.0), requires_grad=False)
        self.calls = 0

    def forward(self, x, sigma, class_labels):
        self.calls += len(x)
        mean = (torch.arange(4.0) - 1.5) * (1 + 0.1 * class_labels[:, None])
        v = sigma[:, None] ** 2 + 0.2
        logit = (x * mean).sum(1, keepdim=True) / v  # modes at +mean and -mean
        posterior = torch.tanh(logit) * mean
        return self.width * (posterior + 0.2 / v * (x - posterior))


def classes(label=0, shape=(4,), net=None):
    return sk.wrap(Classes() if net is None else net, "denoised", sk.EDM(), shape=shape, class_labels=label)


def ran(denoiser, nfe=5, num_samples=3, **options):
    return sk.sample(denoiser, "auto", nfe=nfe, num_samples=num_samples, **options)


def by_hand(denoiser, budgets=(5,), scale=0.0):
    """First-order plans of a network on levels of their own; `scale` spoils them."""
    grid = sk.make_grid("karras", denoiser.schedule, 1)
    made = {}
    for n in budgets:
        levels = family(n, float(grid[0]), 0.2, 1.1, grid.frame)
        weights = np.zeros((n, n + 1))
        for i, (s, t) in enumerate(zip(levels, (*levels[1:], 0.0))):
            weights[i, 0], weights[i, 1 + i] = t / s, 1 - t / s + scale
        made[n] = Budget(levels, weights)
    return TunedPlans(repr(denoiser.schedule), grid.frame, float(grid[0]), fingerprint(denoiser), made)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SOLVERKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def quiet():
    """No trial is announced."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# -------------------------------------------------------------------------------------------------------------- trials


def test_a_trial_is_announced_counted_and_kept(cache):
    denoiser = classes()
    with pytest.warns(UserWarning, match=f"{NOISES} noises, about 184 evaluations"):
        first = ran(denoiser, 6)
    said = first.reports["auto"]
    assert "the best of 20 in a trial on 8 noises; kept in" in said and str(cache / "trials") in said
    assert denoiser.net.calls == first.reports["trial_rows"] + 3 * first.nfe
    assert first.seconds_plan > first.seconds_model  # the trial is planning
    sampler, grid = first.reports["plan"].split(" on ")
    assert said.startswith(f"{sampler} on {grid},")
    torch.testing.assert_close(first.x, sk.sample(denoiser, sampler, nfe=6, grid=grid, num_samples=3).x, atol=1e-4, rtol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = ran(classes(), 6)  # another object, the same network
    assert torch.equal(first.x, again.x) and again.reports["trial_rows"] == 0
    assert "one of before" in again.reports["auto"]


def test_the_winner_is_good_on_noises_that_it_was_not_chosen_on():
    exact = sk.sample(MIXED, "rk4", steps=256, grid="karras", num_samples=256, seed=9, dtype=torch.float64).x

    def rms(sampler, **options):
        x = sk.sample(MIXED, sampler, nfe=6, num_samples=256, seed=9, dtype=torch.float64, **options).x
        return float((x - exact).square().mean().sqrt())

    with pytest.warns(UserWarning, match="no plan"):
        chosen = rms("auto")
    grids = ("karras", "karras:rho=3", "karras:rho=5", "log-snr", "flow", "flow:shift=3")
    others = sorted(rms(sampler, grid=grid) for sampler in ("dpmpp-2m", "ipndm", "unipc", "deis") for grid in grids)
    assert chosen <= 1.3 * others[0] and chosen < 0.8 * others[len(others) // 2]


def test_a_trial_belongs_to_the_network_and_its_guidance_not_to_a_class(cache):
    net = Classes()
    with pytest.warns(UserWarning, match="no plan"):
        ran(classes(0, net=net))
    assert ran(classes(1, net=net)).reports["trial_rows"] == 0
    assert fingerprints(classes(0))[1] == fingerprints(classes(1))[1] != fingerprints(MIXED)[1]
    assert fingerprints(classes(0))[0] != fingerprints(classes(1))[0] == fingerprint(classes(1))
    guided = guidance.classifier_free(classes(0, net=net), classes(1, net=net), 3.0)
    with pytest.warns(UserWarning, match="no plan"):
        assert ran(guided).reports["trial_rows"] > 0
    assert len(list((cache / "trials").glob("*.safetensors"))) == 2


def test_one_input_a_sample_and_a_shape_that_only_the_run_knows():
    with pytest.warns(UserWarning, match="no plan"):
        assert ran(classes(torch.tensor([0, 1, 2]))).reports["trial_rows"] > 0
    with pytest.warns(UserWarning, match="no plan"):
        result = sk.sample(classes(shape=None), "auto", nfe=4, shape=(2, 4))
    assert result.x.shape == (2, 4) and result.reports["trial_rows"] > 0
    with pytest.warns(UserWarning, match="no plan"):
        sk.sample(classes(), "auto", nfe=7, x=80 * torch.ones(1, 4))


def test_a_network_without_a_fingerprint_is_tried_in_every_run(cache):
    net = Classes()
    net.hidden = (i for i in range(3))  # nobody can read what is left in it
    for _ in range(2):
        before = net.calls
        with pytest.warns(UserWarning, match="no fingerprint"):
            result = ran(classes(net=net), batch_size=2)
        assert net.calls - before == result.reports["trial_rows"] + 3 * result.nfe  # once, whatever the batches
        assert "not kept, since the network has no fingerprint" in result.reports["auto"]
    assert not cache.exists() and sk.known_plan(classes(net=net)) is None


def test_a_cache_that_cannot_be_written_is_said(cache):
    cache.write_text("a file in the place of the folder")
    with pytest.warns(UserWarning, match="no plan"):
        assert "not kept: the cache" in ran(classes()).reports["auto"]
    with pytest.raises(LoadError, match="cannot be written"):
        by_hand(classes()).remember()


def test_where_no_trial_can_be_made_the_usual_solver_runs_and_it_is_said():
    class OnlyThree(Classes):
        def forward(self, x, sigma, class_labels):
            if len(x) != 3:
                raise RuntimeError("compiled for three")
            return super().forward(x, sigma, class_labels)

    denoiser = classes(net=OnlyThree())
    with pytest.warns(UserWarning, match="no plan"):
        result = ran(denoiser)
    assert result.reports["auto"].startswith("dpmpp-2m on karras; no trial could be made: ")
    assert "compiled for three" in result.reports["auto"]
    usual = sk.sample(denoiser, "dpmpp-2m", nfe=5, num_samples=3).x
    torch.testing.assert_close(result.x, usual, atol=1e-4, rtol=0)
    by_hand(denoiser, (4,)).remember()
    with pytest.warns(UserWarning, match="no plan"):
        result = ran(denoiser)
    assert result.nfe == 4 and "the next lower budget; no trial" in result.reports["auto"]


# --------------------------------------------------------------------------------------------------------- known plans


def test_a_remembered_plan_is_found_by_the_network(quiet, cache):
    denoiser = classes()
    plans = by_hand(denoiser, (5, 8))
    path = plans.remember()
    assert path == cache / "plans" / f"{fingerprint(denoiser)}.safetensors"
    known = sk.known_plan(classes())
    assert known.path == path and known.own and sorted(known.plans.budgets) == [5, 8]
    result = ran(denoiser, 8)
    assert torch.equal(result.x, sk.sample(denoiser, "tuned", plan=plans, nfe=8, num_samples=3).x)
    assert result.reports == {"auto": f"the plan for 8 evaluations of {path}", "plan": "tuned for 8 evaluations",
                              "trial_rows": 0.0}  # fmt: skip
    assert sk.known_plan(classes(1)) is None  # another class


def test_what_is_remembered_later_is_added(cache):
    denoiser = classes()
    by_hand(denoiser, (5, 6)).remember()
    later = by_hand(denoiser, (6, 7), scale=1e-3)
    later.remember()
    plans = sk.known_plan(denoiser).plans
    assert sorted(plans.budgets) == [5, 6, 7] and np.array_equal(plans.budgets[6].weights, later.budgets[6].weights)
    nameless = TunedPlans(later.schedule, later.frame, later.start, None, later.budgets)
    with pytest.raises(FingerprintError, match="plan=FILE"):
        nameless.remember()


def test_what_is_remembered_at_once_is_all_kept(cache):
    denoiser = classes()
    plans = [by_hand(denoiser, (n,)) for n in range(4, 16)]
    with ThreadPoolExecutor(len(plans)) as pool:
        list(pool.map(TunedPlans.remember, plans))
    assert sorted(sk.known_plan(denoiser).plans.budgets) == list(range(4, 16))


def test_a_plan_beside_a_folder_and_the_fingerprint_does_not_change(quiet, tmp_path):
    net = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8,), norm_num_groups=4,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), add_attention=False,
    )  # fmt: skip
    folder = hub.save(sk.wrap(net, "epsilon", sk.VP(), shape=(1, 8, 8)), tmp_path / "model")
    before = fingerprint(sk.load(folder))
    plans = by_hand(sk.load(folder), (3,))
    plans.save(folder / "plan.safetensors")
    denoiser = sk.load(folder)
    assert fingerprint(denoiser) == before
    result = ran(denoiser, 3)
    assert result.reports["auto"] == f"the plan for 3 evaluations of {folder / 'plan.safetensors'}"
    assert torch.equal(result.x, sk.sample(denoiser, f"tuned:{folder}", nfe=3, num_samples=3).x)


def test_what_the_user_remembered_comes_before_what_lies_beside_the_network(quiet, tmp_path):
    denoiser = said_from(str(tmp_path), classes())
    by_hand(denoiser, (3, 4)).save(beside := tmp_path / "plan.safetensors")
    own = by_hand(denoiser, (4,), scale=1e-3).remember()
    assert ran(denoiser, 4).reports["auto"].endswith(str(own))
    assert ran(denoiser, 3).reports["auto"].endswith(str(beside))  # which alone has it


def test_a_plan_that_is_bundled_with_a_network(quiet, monkeypatch, tmp_path):
    monkeypatch.setattr(artefact, "NETWORKS", tmp_path)
    (tmp_path / "mixture").mkdir()
    before = sk.load("mixture")
    by_hand(before, (4,)).save(path := tmp_path / "mixture" / "plan.safetensors")
    assert ran(sk.load("mixture"), 4).reports["auto"] == f"the plan for 4 evaluations of {path}"
    named = sk.sample(before, "tuned:mixture", nfe=4, num_samples=2).x
    assert torch.equal(named, sk.sample(before, "tuned", plan=path, nfe=4, num_samples=2).x)


def test_the_plan_of_another_class_takes_part_in_the_trial(tmp_path):
    net = Classes()
    with pytest.warns(UserWarning, match="no plan"):  # kept, and made anew once there is a plan
        ran(said_from(str(tmp_path), classes(1, net=net)), 3)
    sk.tune(classes(0, net=net), [3], samples=32, validation=32, out=tmp_path / "plan.safetensors")
    other = said_from(str(tmp_path), classes(1, net=net))
    assert sk.known_plan(other) is None
    with pytest.warns(UserWarning, match="no plan for 3"):
        result = ran(other, 3)
    path = tmp_path / "plan.safetensors"
    assert result.reports["auto"].startswith(f"the plan for 3 evaluations of {path}, the best of ")
    with pytest.warns(UserWarning, match="another network"):
        assert torch.equal(result.x, sk.sample(other, "tuned", plan=path, nfe=3, num_samples=3).x)
    assert ran(other, 3).reports["trial_rows"] == 0


@pytest.mark.parametrize(("scale", "kept"), [(0.0, False), (None, True)])
def test_a_budget_between_is_decided_by_a_trial(scale, kept):
    denoiser = classes()
    if kept:
        sk.tune(denoiser, [5], samples=32, validation=32).remember()
    else:
        by_hand(denoiser, (5,), scale).remember()
    with pytest.warns(UserWarning, match="no plan for 6"):
        result = ran(denoiser, 6)
    assert result.nfe == (5 if kept else 6)
    assert ("the plan for 5 evaluations of" in result.reports["auto"]) == kept


def test_a_budget_below_the_least_is_tried():
    denoiser = classes()
    by_hand(denoiser, (5, 8)).remember()
    with pytest.warns(UserWarning, match="no plan for 4"):
        result = ran(denoiser, 4)
    assert result.nfe == 4 and "best of 20" in result.reports["auto"]


def test_files_that_cannot_be_used_are_left_out(tmp_path):
    denoiser = said_from(str(tmp_path), classes())
    (tmp_path / "plan.safetensors").write_bytes(b"torn")
    with pytest.warns(UserWarning) as said:
        assert "best of 20" in ran(denoiser, 4).reports["auto"]
    assert any("left out" in str(w.message) for w in said)
    by_hand(MIXED, (4,)).save(tmp_path / "plan.safetensors")
    flow = said_from(str(tmp_path), sk.wrap(Classes(), "denoised", sk.Flow(), shape=(4,), class_labels=0))
    with pytest.warns(UserWarning, match="no plan") as said:  # of another schedule
        assert "best of 20" in ran(flow, 4).reports["auto"]
    assert not any("left out" in str(w.message) for w in said)
    for kept in (tmp_path / "cache" / "trials").glob("*.safetensors"):
        kept.write_bytes(b"torn")
    with pytest.warns(UserWarning, match="no plan"):
        assert ran(flow, 4).reports["trial_rows"] > 0


# ------------------------------------------------------------------------------------------------------- where it runs


def test_parts_of_a_run_and_edits():
    denoiser = classes()
    by_hand(denoiser, (3,)).remember()
    for levels in ([40.0, 9.0, 1.0, 0.0], [80.0, 9.0, 1.0, 0.5]):
        with pytest.raises(GridError, match="the plan (begins|ends) at"):
            sk.sample(denoiser, "auto", num_samples=2, levels=levels)
    mask, known = torch.tensor([1, 0, 1, 0]), torch.ones(2, 4)
    constrained = ran(denoiser, 3, 2, constrain=sk.constraints.inpaint(known, mask))
    assert torch.equal(constrained.x[:, mask.bool()], known[:, mask.bool()]) and constrained.nfe == 3


def test_without_a_network_it_says_what_to_do():
    with pytest.raises(OptionError, match="show auto --model"):
        sk.trace("auto", sk.make_grid("karras", sk.EDM(), 5))
    with pytest.raises(OptionError, match="tuned:FILE"):
        SolverKitScheduler(sampler="auto")
    with pytest.raises(OptionError, match="name that sampler in its place"):
        ran(classes(), choice="unipc")


def test_on_the_command_line(cli, cache):
    code, out, err = cli("sample", "gaussian", "-s", "auto", "--nfe", "4", "-k", "2", "-o", "x.safetensors")
    assert code == 0 and "auto: " in err and "best of" in err and "trial_rows: " in err and "auto" not in out
    code, out, _ = cli("sample", "gaussian", "-s", "auto", "-n", "4", "-k", "2", "-o", "x.safetensors", "--json")
    assert json.loads(out)["reports"]["trial_rows"] == 0
    code, out, err = cli("show", "auto", "--model", "gaussian", "--nfe", "4")
    assert code == 0 and "D3" in out and "auto: " in err
    code, out, _ = cli("bench", "-m", "gaussian", "-s", "auto,euler", "-n", "4", "-k", "4", "--json")
    rows = {row["sampler"]: row for row in json.loads(out)}
    assert code == 0 and rows["auto"]["ode_error"] < rows["euler"]["ode_error"] and rows["auto"]["reports"]["auto"]
    assert cli("show", "auto")[0] == 2


@pytest.mark.parametrize("name, untuned, grid", [("mnist", "unipc", "trailing"), ("mnist-flow", "deis", "flow:shift=2")])
def test_a_bundled_network_runs_its_plan_and_is_nearer_to_the_converged_solution(name, untuned, grid):
    network = sk.load(name)
    exact = converge(network, 6, 4242, 64, keep=1).own_end
    errors = []
    for sampler, options in (("auto", {}), (untuned, {"grid": grid})):
        run = sk.sample(network, sampler, nfe=6, num_samples=6, seed=4242, **options)
        errors.append(float((run.x - exact).flatten(1).square().mean(1).sqrt().median()))
        if sampler == "auto":
            assert run.nfe == 6 and run.reports["auto"].startswith("the plan for 6 evaluations")
    assert errors[0] < 0.8 * errors[1], errors


def test_the_mixture_runs_its_plan():
    run = sk.sample(sk.load("mixture"), "auto", nfe=10, num_samples=2)
    assert run.nfe == 10 and run.reports["trial_rows"] == 0 and run.reports["plan"] == "tuned for 10 evaluations"
