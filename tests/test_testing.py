"""The conformance kit must be able to fail: samplers that are wrong on purpose, and the check that catches each."""

from __future__ import annotations

import ast
import dataclasses
import math
import re
from pathlib import Path
from typing import Literal

import pytest
import torch

import solverkit as sk
from solverkit.registry.registry import Card, SamplerCard


def r_of(s, t):
    return t * s.alpha / (t.alpha * s)


def exact(x, m, s, t):
    return (t / s) * x + t.alpha * (1 - r_of(s, t)) * m


def forgets_the_step_ratio(model, x, grid, noise):
    previous = None
    for s, t in grid.steps():
        m = model(x, s)
        x = exact(x, m, s, t)
        if previous is not None and t > 0 and math.isfinite(s.lam):
            x = x + t.alpha * (1 - r_of(s, t)) / 2 * (m - previous)
        previous = m
    return x


def heun_off_by_a_percent(model, x, grid, noise):
    for s, t in grid.steps():
        d = (x - model(x, s)) / s
        y = x + (t - s) * d
        if t > 0:
            y = x + (t - s) * (0.49 * d + 0.51 * ((y - model(y, t)) / t))
        x = y
    return x


def doubled_noise(model, x, grid, noise):
    for s, t in grid.steps():
        m, r = model(x, s), r_of(s, t)
        x = (t / s * r) * x + t.alpha * (1 - r * r) * m
        if t > 0:
            x = x + 2 * t * math.sqrt(1 - r * r) * noise(s, t)
    return x


def one_draw_for_all_steps(model, x, grid, noise):
    z = noise(grid[0], grid[-1])
    for s, t in grid.steps():
        m, r = model(x, s), r_of(s, t)
        x = (t / s * r) * x + t.alpha * (1 - r * r) * m
        if t > 0:
            x = x + t * math.sqrt(1 - r * r) * z
    return x


def forgets_the_last_denoising(model, x, grid, noise):
    for s, t in grid.steps():
        m = model(x, s)
        x = exact(x, m, s, t) if t > 0 else x
    return x


def ignores_its_option(model, x, grid, noise, strength: float = 1.0):
    for s, t in grid.steps():
        x = exact(x, model(x, s), s, t)
    return x


def one_choice_is_dead(model, x, grid, noise, mode: Literal["a", "b", "c"] = "a"):
    for s, t in grid.steps():
        x = exact(x, model(x, s), s, t)
        if mode == "b":
            x = 1.01 * x
    return x


@sk.op
def centred(x):
    return x - 0.01 * x.mean(dim=0, keepdim=True)


def batch_statistics(model, x, grid, noise):
    for s, t in grid.steps():
        m = model(x, s)
        x = exact(centred(x), m, s, t)
    return x


@sk.op
def jitter(x):
    return x + 0.01 * torch.randn(x.shape)


def global_randomness(model, x, grid, noise):
    for s, t in grid.steps():
        m = model(x, s)
        x = exact(jitter(x), m, s, t)
    return x


def loses_edits(model, x, grid, noise):
    """Carries a copy of the state that no edit reaches; the evaluated one only feeds a slope."""
    hidden = sk.keep(x)
    for s, t in grid.steps():
        m = model(x, s)
        hidden = sk.keep(exact(hidden, m, s, t))
        x = 1.0 * hidden
    return x


def in_place(model, x, grid, noise):
    for s, t in grid.steps():
        m = model(x, s)
        m.mul_(1.0).add_(1e-3)
        x = exact(x, m, s, t)
    return x


def wastes_an_evaluation(model, x, grid, noise):
    for s, t in grid.steps():
        m = model(x, s)
        y = exact(x, m, s, t)
        if t > 0:
            model(y, t)
        x = y
    return x


def draws_from_one_place(model, x, grid, noise):
    """The same draws however the run is cut: parts repeat them."""
    for s, t in grid.steps():
        m, r = model(x, s), r_of(s, t)
        x = (t / s * r) * x + t.alpha * (1 - r * r) * m
        if t > 0:
            x = x + t * math.sqrt(1 - r * r) * noise(grid[0], grid[0])
    return x


def forgets_where_it_is(model, x, grid, noise):
    """A rule for the number of steps left that takes a tail for a whole run."""
    n = len(grid) - 1
    for s, t in grid.steps():
        x = exact(x, model(x, s), s, t)
        x = (1 + 1e-6 / n) * x
    return x


def third_order_whatever_the_steps_are(model, x, grid, noise):
    history = []
    for s, t in grid.steps():
        m = model(x, s)
        history = [(s, m), *history[:1]]
        x = exact(x, m, s, t)
        if len(history) == 2 and t > 0 and math.isfinite(history[1][0].lam):
            previous, m1 = history[1]
            x = x + t.alpha * (1 - r_of(s, t)) * (t.lam - s.lam) / (s.lam - previous.lam) * (m - m1)
    return x


@sk.op
def in_double(x):
    return x.double().to(x.dtype)


def needs_double(model, x, grid, noise):
    for s, t in grid.steps():
        m = model(x, s)
        x = in_double(exact(x, m, s, t))
    return x


CASES = [
    (forgets_the_step_ratio, {"order": 2}, "order"),
    (heun_off_by_a_percent, {"order": 2}, "order"),
    (doubled_noise, {}, "law"),
    (one_draw_for_all_steps, {}, "law"),
    (forgets_the_last_denoising, {"order": 1}, "ends"),
    (ignores_its_option, {"order": 1}, "options"),
    (one_choice_is_dead, {}, "options"),
    (batch_statistics, {}, "independence"),
    (global_randomness, {}, "input_untouched"),
    (loses_edits, {"order": 1}, "edits"),
    (in_place, {"traceable": False}, "input_untouched"),
    (wastes_an_evaluation, {"order": 1}, "nfe"),
    (draws_from_one_place, {}, "parts"),
    (forgets_where_it_is, {}, "parts"),
    (third_order_whatever_the_steps_are, {}, "growth"),
    (needs_double, {"order": 1}, "device"),
]


@pytest.mark.parametrize(("sampler", "fields", "caught_by"), CASES, ids=lambda c: getattr(c, "__name__", None))
def test_a_broken_sampler_is_caught(sampler, fields, caught_by):
    card = SamplerCard(sampler.__name__, sampler, skip=4, **fields)
    failed = {result.name: result for result in sk.testing.check_sampler(card) if not result.passed}
    assert caught_by in failed, failed
    assert all(result.cause for result in failed.values() if not result.detail.startswith("could not run"))


def test_a_right_sampler_passes():
    def euler(model, x, grid, noise):
        for s, t in grid.steps():
            x = exact(x, model(x, s), s, t)
        return x

    results = sk.testing.check_sampler(SamplerCard("euler-again", euler, skip=4, order=1))
    assert [r.name for r in results if not r.passed] == []
    assert len(results) == len(sk.testing.CHECKS)


def test_whatever_a_sampler_raises_is_a_failed_check():
    def broken(model, x, grid, noise):
        raise KeyError("nothing")

    results = sk.testing.check_sampler(SamplerCard("broken", broken, skip=4, order=1))
    assert not results[0].passed and "KeyError" in results[0].detail
    assert sum("KeyError" in r.detail for r in results) == 1  # one cause, once; what could not run is short
    assert all(r.detail == "could not run: see order" for r in results[1:] if not r.passed)


def test_one_cause_comes_first():
    def broken_on_flow(model, x, grid, noise):
        for s, t in grid.steps():
            x = exact(x, model(x, s), s, t)
        if grid.frame == 1 and t == 0:
            raise KeyError("no such thing")
        return x

    results = sk.testing.check_sampler(SamplerCard("broken", broken_on_flow, skip=4, order=2))
    assert [r.name for r in results if not r.passed][:2] == ["spellings", "order"]  # the order is wrong as well
    assert results[0].detail.startswith("KeyError: 'no such thing' (on Flow) [test_testing.py:")
    assert "declared order 2" in next(r.detail for r in results if r.name == "order")


def failed(sampler, **fields):
    results = sk.testing.check_sampler(SamplerCard(sampler.__name__, sampler, skip=4, **fields))
    return {r.name: r.detail for r in results if not r.passed}


@pytest.mark.parametrize(("frame", "name"), [(sk.EDM(), "EDM"), (sk.VP(continuous=True), "VP"), (sk.Flow(), "Flow")])
def test_the_process_is_named(frame, name):
    def broken_on_one(model, x, grid, noise):
        for s, t in grid.steps():
            m = model(x, s)
            x = exact(x, 1.1 * m if type(grid.schedule) is type(frame) else m, s, t)
        return x

    details = failed(broken_on_one, order=1)
    for check in ("order", "ends"):
        assert details[check].startswith(f"{name}: "), details


def test_a_wasted_evaluation_is_remarked():
    assert "6 of 13 evaluations are wasted: nothing uses the answer of evaluation 1" in failed(wastes_an_evaluation)["nfe"]


def test_a_call_round_the_counter_shows_the_figure_that_differs():
    def twice(model, x, grid, noise):
        for s, t in grid.steps():
            m = model(x, s)
            if isinstance(x, torch.Tensor):
                model.denoiser(x, s)
            x = exact(x, m, s, t)
        return x

    from solverkit.proofs.runs import check_nfe

    with pytest.raises(AssertionError, match="EDM: the run asked 7 .* the network made 14 a sample: 7 went round"):
        check_nfe(SamplerCard("twice", twice, skip=4), {})


@sk.op
def length(x):
    return x.flatten(1).norm(dim=1)


@pytest.mark.parametrize(
    "decides",
    [lambda x: x.norm() > 3, lambda x: float(torch.linalg.vector_norm(x)) > 3, lambda x: length(x).max() > 3],
    ids=["method", "function", "op"],
)
def test_a_branch_on_a_norm_is_advised_to_be_pull_only(decides):
    def careful(model, x, grid, noise):
        for s, t in grid.steps():
            m = model(x, s)
            x = exact(x, m if decides(x) else 1.0 * m, s, t)
        return x

    details = failed(careful)
    told = next(d for d in details.values() if not d.startswith("could not run"))
    assert "traceable=False" in told and "@sk.op" not in told and "branches on the value" in told
    assert failed(careful, traceable=False) == {}


def test_a_norm_that_weighs_is_still_an_op():
    def weighs(model, x, grid, noise):
        for s, t in grid.steps():
            x = exact(x, model(x, s), s, t) * x.norm()
        return x

    assert "@sk.op" in next(iter(failed(weighs).values()))


def test_every_proof_says_what_usually_causes_its_failure():
    """A bare assert would have no cause; `at_most`, `at_least`, `holds` and `CheckError` ask for one."""
    core = Path(sk.__file__).parent
    for path in [*(core / "proofs").glob("*.py"), core / "bench" / "metric_proofs.py"]:
        bare = [node.lineno for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)]
        assert bare == [], path


def test_a_result_has_the_figure_the_limit_and_the_cause():
    card = SamplerCard("off", heun_off_by_a_percent, skip=4, order=2)
    result = next(r for r in sk.testing.check_sampler(card) if r.name == "order")
    assert not result.passed and result.figure < result.limit == 1.75 and result.bound == "at least"
    assert f"measured {result.figure:.2f}" in result.detail and "coefficient" in result.cause


DOCS = (Path(__file__).parents[1] / "docs" / "writing-a-sampler.md").read_text()


def test_the_checks_have_the_names_of_the_documentation():
    names = [sk.testing.check_name(check) for check in sk.testing.CHECKS]
    section = DOCS.split("## Proving it")[1]
    assert re.findall(r"^\| `(\w+)` \|", section, re.M) == names
    from solverkit.commands.checks import check

    assert re.findall(r"\w+", check.__doc__.split(":")[1]) == names
    assert [r.name for r in sk.testing.check_sampler("euler")] == names


def test_every_field_of_a_card_is_documented():
    told = set(re.findall(r"^ {8}(\w+):", f"{Card.__doc__}{SamplerCard.__doc__}", re.M))
    assert {f.name for f in dataclasses.fields(SamplerCard)} <= told
    section = DOCS.split("## Making it a plugin")[1].split("## Proving it")[0]
    rows = re.findall(r"^\| `(\w+)` \|", section, re.M)
    assert {f.name for f in dataclasses.fields(SamplerCard)} - {"name", "fn", "plugin", "skip"} <= set(rows)
