"""Systems of components: exactness of a chain, the order of evaluations, spaces, options, and what is refused."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import pytest
import torch
from solverkit_plugins.predictor_corrector.langevin import langevin_step

import solverkit as sk
from solverkit.errors import DenoiserError, GridError, NonFiniteError, OptionError, TraceError, UnknownNameError
from solverkit.joint.clock import clock, ratio_at
from solverkit.joint.grids import joint_grids
from solverkit.joint.lockstep import drive, lockstep
from solverkit.registry.registry import resolve
from solverkit.targets.coupled_gaussian import coupled_gaussian

DOUBLE = {"dtype": torch.float64}


def system(sampler: str, steps: int, **options):
    """The exact system of 3 nodes with one feature, its grids and the sampler's plans."""
    joint, card = coupled_gaussian(3, 1), resolve(sampler)
    grids = joint_grids(joint, card, None, steps, "time-uniform", None, options)
    return joint, grids, lockstep(card, grids, dict.fromkeys(grids, options), joint.lead)


def coefficients(target, grids, i):
    x, adj = grids["x"][i], grids["adj"][i]
    return target.each(x.alpha, adj.alpha), target.each(float(x), float(adj)), target.each(x.scale, adj.scale)


def chain_moments(joint, grids, plans):
    """Mean and covariance of the end of a run, by its answers to each number of its start and of its draws alone."""
    target = joint.net.target
    sizes = {"x": 3, "adj": 3}
    alpha, s, _ = coefficients(target, grids, 0)
    mean, C = target.moments(alpha, s)
    starts = torch.cat([mean[None], mean + torch.linalg.cholesky(C).T])
    count = sum(plan.draws * sizes[name] for name, plan in plans.items())
    v = torch.cat([starts, mean.expand(count, -1)])
    row = iter(range(len(starts), len(v)))

    def unit(name):
        def draw(ordinal, s, t):
            flat = torch.zeros_like(v)
            for k in range(sizes[name]):
                flat[next(row), k + (3 if name == "adj" else 0)] = 1
            return target.states(flat)[name]

        return draw

    def ask(j, xs):
        return joint(xs, {name: plan.levels[j] for name, plan in plans.items()})

    out = target.flat(drive(plans, ask, target.states(v), {name: unit(name) for name in plans}))
    off = out[1:] - out[:1]
    return out[0], off.T @ off


def recursion(joint, grids, step):
    """The same by mean' = M mean + b, C' = M C M^T + Q, with (M, b, Q) of one step in own coordinates from step(...)."""
    target = joint.net.target
    alpha, s, k = coefficients(target, grids, 0)
    mean, C = target.moments(alpha, s)
    mean, C = mean * k, k[:, None] * C * k
    for i in range(len(grids["x"]) - 1):
        here, there = coefficients(target, grids, i), coefficients(target, grids, i + 1)
        K, b = target.gain(here[0], here[1])
        if float(there[1].max()) == 0:
            M, Q = K / here[2], torch.zeros_like(C)
            mean, C = M @ mean + b, M @ C @ M.T + Q
            continue
        A, c, Q = step(i, here, there, K, b)
        mean, C = A @ mean + c, A @ C @ A.T + torch.diag(Q)
    return mean / there[2], C / there[2][:, None] / there[2]


def score(here, K, b):
    """(S, c) of the own score S x + c of the system: (alpha D - x / k) / (s^2 k)."""
    alpha, s, k = here
    return torch.diag(1 / (s**2 * k)) @ (torch.diag(alpha) @ K - torch.eye(len(s), dtype=torch.float64)) / k, alpha * b / (
        s**2 * k
    )


def ddpm_step(i, here, there, K, b):
    """The posterior of a frozen prediction: x_t = (t/s) r x + alpha_t (1 - r^2) D + t sqrt(1 - r^2) z in each."""
    (_, s, k), (alpha_t, t, k_t) = here, there
    r = t / (s * alpha_t)
    A = torch.diag(k_t * t / s * r / k) + torch.diag(k_t * alpha_t * (1 - r**2)) @ K / k
    return A, k_t * alpha_t * (1 - r**2) * b, (k_t * t) ** 2 * (1 - r**2)


def s4_step(joint, grids, exact):
    """Half the linear part, all of the saved score's, half the linear part; VP and VE written out."""
    vp, ve = (joint.components[name].schedule for name in ("x", "adj"))

    def step(i, here, there, K, b):
        u, v = (clock(vp, grids["x"][j].ratio) for j in (i, i + 1))
        m = (u + v) / 2
        halves = []
        for a, z in ((u, m), (m, v)):
            B = vp._integral(a) - vp._integral(z)
            spread = math.expm1(B) if exact else -math.expm1(-B)
            halves.append((math.exp(B / 2), spread, ratio_at(ve, a) ** 2 - ratio_at(ve, z) ** 2))
        beta = vp.beta_min + u * (vp.beta_max - vp.beta_min)
        span = math.log(ve.sigma_max / ve.sigma_min)
        power = joint.net.target.each(beta * (u - v), 2 * ratio_at(ve, u) ** 2 * span * (u - v))
        one, two = (joint.net.target.each(h[0], 1.0) for h in halves)
        var_one, var_two = (joint.net.target.each(h[1], h[2]) for h in halves)
        S, c = score(here, K, b)
        A = torch.diag(two) @ (torch.diag(one) + torch.diag(power) @ S)
        return A, two * power * c, two**2 * var_one + var_two

    return step


@pytest.mark.parametrize("sampler", ["ddpm", "s4:correct=False", "s4:correct=False,noise_of=forward"])
def test_mean_and_covariance_of_a_chain_are_those_of_the_recursion(sampler):
    """Relative to the largest entry along the chain, which is that of the start for VP."""
    joint, grids, plans = system(sampler, 7)
    mean, C = chain_moments(joint, grids, plans)
    step = ddpm_step if sampler == "ddpm" else s4_step(joint, grids, "forward" not in sampler)
    expected_mean, expected_C = recursion(joint, grids, step)
    assert float((mean - expected_mean).abs().max()) <= 1e-12 * max(1.0, float(mean.abs().max()))
    assert float((C - expected_C).abs().max()) <= 1e-12 * float(C.abs().max())


def test_all_components_are_corrected_at_the_same_old_states():
    """Jacobi order of `pc`: the adjacency's Langevin step uses the score at the old x, not at the corrected one."""
    joint, _, plans = system("pc:predictor=euler-maruyama", 4)
    seen, made = [], {"x": [], "adj": []}

    def ask(j, xs):
        seen.append({name: x.clone() for name, x in xs.items()})
        return joint(xs, {name: plan.levels[j] for name, plan in plans.items()})

    def drawn(name, shape):
        def draw(ordinal, s, t):
            z = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(made[name])))
            made[name].append(joint.components[name].space.project(z, None))
            return made[name][-1]

        return draw

    draws = {"x": drawn("x", (2, 3, 1)), "adj": drawn("adj", (2, 3, 3))}
    start = {name: 3 * draws[name](0, 0.0, 0.0) for name in plans}
    drive(plans, ask, start, draws)
    levels = {name: plan.levels[0] for name, plan in plans.items()}
    denoised = joint(start, levels)
    for name, s in levels.items():
        expected = langevin_step(start[name], denoised[name], made[name][1], float(s), s.alpha, 0.16)
        torch.testing.assert_close(seen[1][name], expected, rtol=1e-12, atol=1e-12)
    gauss_seidel = joint({**start, "x": seen[1]["x"]}, levels)
    assert float((gauss_seidel["adj"] - denoised["adj"]).abs().max()) > 1e-3


def test_one_evaluation_asks_for_all_components_and_is_counted_once():
    joint = sk.load("coupled-gaussian")
    out = sk.sample(joint, "dpmpp-2m", nfe=8, num_samples=3)
    assert out.nfe == 8 and out.passes == 8
    assert set(out.x) == {"x", "adj"} and len(out.levels["x"]) == len(out.levels["adj"]) == 8
    for s, t in zip(out.levels["x"], out.levels["adj"]):
        u, v = (clock(joint.components[n].schedule, level.ratio) for n, level in (("x", s), ("adj", t)))
        assert u == pytest.approx(v, abs=1e-9)


def test_a_system_of_one_free_component_is_the_one_tensor_run():
    """Bit for bit: the same draws, the same plan, the same arithmetic."""
    one = sk.load("gaussian", dim=6, schedule=sk.VP(continuous=True))

    def net(xs, times):
        levels = [one.schedule.level(one.schedule.ratio(float(times["only"][0])))]
        return {"only": one(xs["only"] / levels[0].scale, levels[0])}

    joint = sk.wrap_joint(net, {"only": ("denoised", one.schedule, (6,))})
    for sampler in ("dpmpp-2m", "ddpm", "heun"):
        given = {"steps": 6, "num_samples": 3, "grid": "karras", **DOUBLE}
        torch.testing.assert_close(
            sk.sample(joint, sampler, **given).x["only"], sk.sample(one, sampler, **given).x, rtol=1e-9, atol=1e-9
        )


def test_inner_stages_at_different_times_are_refused_with_the_way_out():
    joint = sk.load("coupled-gaussian")
    with pytest.raises(TraceError, match=r"inner stages of 'dpmpp-2s'.*stages='time'.*dpmpp-2m"):
        sk.sample(joint, "dpmpp-2s", nfe=8, num_samples=2)
    out = sk.sample(joint, "dpmpp-2s", nfe=8, num_samples=2, stages="time")
    for s, t in zip(out.levels["x"], out.levels["adj"]):
        u, v = (clock(joint.components[n].schedule, level.ratio) for n, level in (("x", s), ("adj", t)))
        assert u == pytest.approx(v, abs=1e-6)
    with pytest.raises(TraceError, match="sets them itself"):
        sk.sample(joint, "heun", nfe=8, num_samples=2, s_churn=5.0, stages="time")
    with pytest.raises(OptionError, match="'time' or left out"):
        sk.sample(joint, "dpmpp-2s", nfe=8, num_samples=2, stages="lambda")


def test_an_option_may_be_one_a_component():
    joint = coupled_gaussian(3, 1)
    given = {"nfe": 6, "num_samples": 4, **DOUBLE}
    both = sk.sample(joint, "dpmpp-2m-sde", **given, eta=0.5).x
    same = sk.sample(joint, "dpmpp-2m-sde", **given, eta={"x": 0.5, "adj": 0.5}).x
    assert all(torch.equal(both[n], same[n]) for n in both)
    other = sk.sample(joint, "dpmpp-2m-sde", **given, eta={"adj": 0.5}).x
    assert not torch.equal(other["x"], both["x"])
    with pytest.raises(UnknownNameError, match="edges"):
        sk.sample(joint, "dpmpp-2m-sde", **given, eta={"edges": 0.5})
    with pytest.raises(TraceError, match="evaluates 'x' 9 times and 'adj' 12 times"):
        sk.sample(joint, "gdss-pc", steps=3, num_samples=2, n_steps={"x": 2, "adj": 3})


def test_constraints_are_one_a_component_and_their_answers_are_projected():
    joint = coupled_gaussian(4, 2)
    known = torch.zeros(1, 4, 4)
    known[0, 0, 1] = known[0, 1, 0] = 2.0
    held = torch.zeros(4, 4)
    held[0, 1] = held[1, 0] = 1
    out = sk.sample(joint, "dpmpp-2m", nfe=12, num_samples=5, constrain={"adj": sk.constraints.inpaint(known, held)})
    assert torch.equal(out.x["adj"][:, 0, 1], torch.full((5,), 2.0))
    assert torch.equal(out.x["adj"], out.x["adj"].mT)
    lopsided = sk.sample(joint, "euler", nfe=4, num_samples=2, constrain={"adj": lambda x, level, draw: x + 1}).x["adj"]
    assert torch.equal(lopsided, lopsided.mT) and float(lopsided.diagonal(dim1=1, dim2=2).abs().max()) == 0
    for wrong, error in (({"edge": lambda *a: a[0]}, UnknownNameError), (lambda x, level, draw: x, OptionError),
                         ({"adj": 3}, OptionError), ({"adj": lambda x, level, draw: x[:1]}, OptionError)):  # fmt: skip
        with pytest.raises(error):
            sk.sample(joint, "euler", nfe=3, num_samples=2, constrain=wrong)


def test_callbacks_and_trajectories_are_by_component_and_batches_do_not_matter():
    joint, seen = coupled_gaussian(3, 2), []
    given = {"nfe": 5, "num_samples": 4, "return_trajectory": True, **DOUBLE}
    whole = sk.sample(joint, "ddpm", **given, callback=seen.append)
    parts = sk.sample(joint, "ddpm", **given, batch_size=3)
    assert [e.index for e in seen] == list(range(5)) and set(seen[0].x) == set(seen[0].denoised) == {"x", "adj"}
    assert whole.trajectory["adj"].shape == (6, 4, 3, 3)
    for name in whole.x:
        torch.testing.assert_close(whole.trajectory[name], parts.trajectory[name], rtol=1e-12, atol=1e-12)


def test_draws_of_components_differ_and_belong_to_nodes():
    """Two components of one shape and schedule do not share their noise; a start has variance 1 in its space."""
    schedule = sk.VP(continuous=True)
    parts = {"a": ("denoised", schedule, (3, 3)), "b": ("denoised", schedule, (3, 3))}
    net = lambda xs, times: {n: 0 * x for n, x in xs.items()}  # noqa: E731
    joint = sk.wrap_joint(net, parts, project={"b": sk.joint.symmetric_hollow})
    start = sk.sample(joint, "euler", nfe=1, num_samples=4000, return_trajectory=True).trajectory
    a, b = start["a"][0], start["b"][0]
    assert not torch.equal(a[:, 0, 1], b[:, 0, 1])
    assert abs(float(torch.corrcoef(torch.stack([a[:, 0, 1], b[:, 0, 1]]))[0, 1])) < 0.06
    off = b[:, ~torch.eye(3, dtype=torch.bool)]
    assert float(off.std()) == pytest.approx(1, abs=0.03) and torch.equal(b, b.mT)


def test_a_projection_of_ones_own_is_checked_and_centred_states_stay_centred():
    schedule = sk.VP(continuous=True)

    def net(xs, times):
        return {"r": xs["r"] + 1}

    centre = sk.wrap_joint(net, {"r": ("denoised", schedule, (4, 3))}, project={"r": sk.joint.centred})
    own = sk.wrap_joint(net, {"r": ("denoised", schedule, (4, 3))}, project={"r": lambda x: x - x.mean(1, keepdim=True)})
    for joint in (centre, own):
        r = sk.sample(joint, "ddpm", nfe=4, num_samples=3, **DOUBLE).x["r"]
        assert float(r.mean(1).abs().max()) <= 1e-12
    mask = torch.tensor([1.0, 1, 1, 0])
    masked = sk.wrap_joint(lambda xs, times, mask: net(xs, times), {"r": ("denoised", schedule, (4, 3))},
                           project={"r": sk.joint.centred}, mask=mask)  # fmt: skip
    r = sk.sample(masked, "ddpm", nfe=4, num_samples=3, **DOUBLE).x["r"]
    assert float(r.sum(1).abs().max()) <= 1e-12 and float(r[:, 3].abs().max()) == 0
    for wrong in (lambda x: x / 2, lambda x: x.round(), lambda x: x[..., :1]):
        with pytest.raises(OptionError, match="project"):
            sk.wrap_joint(net, {"r": ("denoised", schedule, (4, 3))}, project={"r": wrong})


def test_levels_are_the_leads_or_given_for_each():
    joint = sk.load("coupled-gaussian")
    led = sk.sample(joint, "euler", levels=[5.0, 1.0, 0.2, 0.0], num_samples=2)
    assert [round(float(s), 6) for s in led.levels["x"]] == [5.0, 1.0, 0.2]
    own = {"x": [5.0, 1.0, 0.0], "adj": [3.0, 0.1, 0.0]}
    assert [float(s) for s in sk.sample(joint, "dpmpp-2m", levels=own, num_samples=2).levels["adj"]] == [3.0, 0.1]
    for wrong in ({"x": [5.0, 0.0]}, {"x": [5.0, 1.0, 0.0], "adj": [3.0, 0.0]}):
        with pytest.raises(GridError):
            sk.sample(joint, "euler", levels=wrong, num_samples=2)
    few = coupled_gaussian(3, 1, schedule_adj=sk.VP(num_train_timesteps=8, beta_end=0.5, integer_time=True))
    with pytest.raises(GridError, match="fewer levels of 'adj'"):
        sk.sample(few, "euler", steps=30, num_samples=2)


def test_what_no_system_can_have_is_refused():
    joint = sk.load("coupled-gaussian")
    x = joint.net.target.sample(2)
    refused = [
        ({"num_samples": 2, "shape": (2, 3)}, OptionError, "no shape="), ({}, OptionError, "exactly one"),
        ({"num_samples": 0}, OptionError, "positive integer"), ({"x": {"x": x["x"]}}, OptionError, "for"),
        ({"x": {**x, "adj": x["adj"][:, :2]}}, OptionError, r"x\['adj'\]"),
        ({"x": {**x, "adj": x["adj"][:1]}}, OptionError, "as many samples"),
        ({"x": {**x, "adj": x["adj"] + 1}}, OptionError, "does not lie in its space"),
        ({"num_samples": 2, "dtype": torch.float16}, OptionError, "float32 or torch.float64"),
        ({"num_samples": 2, "prior": torch.sin}, OptionError, "no prior="),
        ({"num_samples": 2, "models": {"weak": joint}}, OptionError, "no models="),
        ({"num_samples": 2, "batch_size": 0}, OptionError, "batch_size"),
        ({"num_samples": 2, "etta": 1}, OptionError, "no option 'etta'"),
    ]  # fmt: skip
    for given, error, words in refused:
        with pytest.raises(error, match=words):
            sk.sample(joint, "euler", nfe=3, **given)
    for sampler, error in (("rk45", OptionError), ("auto", OptionError), ("ancestral", OptionError)):
        with pytest.raises(error):
            sk.sample(joint, sampler, nfe=3, num_samples=2)


def test_what_cannot_be_wrapped_is_refused():
    vp = sk.VP(continuous=True)

    def net(xs, times):
        return xs

    for components, more, error in (
        ({}, {}, OptionError), ({"a": ("denoised", vp)}, {}, OptionError),
        ({"a": ("nothing", vp, (3,))}, {}, UnknownNameError), ({"a": ("denoised", "vp", (3,))}, {}, OptionError),
        ({"a": ("denoised", vp, ())}, {}, OptionError), ({"a": ("denoised", vp, (3,))}, {"lead": "b"}, UnknownNameError),
        ({"a": ("denoised", vp, (3,))}, {"project": {"b": sk.joint.nodes}}, UnknownNameError),
        ({"a": ("denoised", vp, (3, 4))}, {"project": {"a": sk.joint.symmetric_hollow}}, OptionError),
        ({"a": ("denoised", vp, (3,))}, {"project": {"a": 3}}, OptionError),
        ({"a": ("denoised", vp, (3,))}, {"project": {"a": sk.joint.nodes}, "mask": torch.ones(1, 4)}, OptionError),
        ({"a": ("denoised", vp, (3,))}, {"mask": torch.full((1, 3), 0.5)}, OptionError),
        ({"a": ("denoised", vp, (3,))}, {"mask": torch.zeros(1, 3)}, OptionError),
    ):  # fmt: skip
        with pytest.raises(error):
            sk.wrap_joint(net, components, **more)
    with pytest.raises(DenoiserError):
        sk.wrap_joint(3, {"a": ("denoised", vp, (3,))})
    joint = sk.load("coupled-gaussian")
    for keys in (torch.tensor([0, 0, 1, 2]), torch.tensor([0.0, 1.0])):
        with pytest.raises(OptionError, match="permutation"):
            joint.with_nodes(keys=keys)


def test_a_network_that_answers_wrongly_is_told_so():
    vp = sk.VP(continuous=True)
    parts = {"a": ("denoised", vp, (3,)), "b": ("epsilon", vp, (2,))}
    for answer, error, words in (
        (lambda xs, times: {"a": xs["a"]}, DenoiserError, "one answer for each"),
        (lambda xs, times: xs["a"], DenoiserError, "one answer for each"),
        (lambda xs, times: (xs["a"], xs["b"][:, :1]), DenoiserError, "'b'"),
        (lambda xs, times: xs["c"], DenoiserError, "called as net"),
        (lambda xs, times: {n: x * torch.nan for n, x in xs.items()}, NonFiniteError, "'a', 'b'"),
    ):
        with pytest.raises(error, match=words):
            sk.sample(sk.wrap_joint(answer, parts), "euler", nfe=3, num_samples=2)

    def one_bad(xs, times):
        return {n: torch.where(torch.arange(len(x))[:, None] == 1, torch.nan, 0 * x) for n, x in xs.items()}

    out = sk.sample(sk.wrap_joint(one_bad, parts), "euler", nfe=3, num_samples=3, on_nonfinite="mark")
    assert out.nonfinite == (1,) and bool(out.x["a"][1].isnan().all()) and bool(out.x["b"][[0, 2]].isfinite().all())


def test_released_langevin_norms_are_of_the_batch_and_the_defaults_a_samples_own():
    joint = sk.load("coupled-gaussian")
    for released in (False, True):
        given = {"nfe": 24, "grid": "score-sde", "released": released, **DOUBLE}
        alone = sk.sample(joint, "s4", seed=[1], num_samples=1, **given).x["adj"]
        together = sk.sample(joint, "s4", num_samples=3, **given).x["adj"][1:2]
        assert torch.allclose(alone, together, atol=1e-9) is not released
    with pytest.raises(OptionError, match="released=True"):
        sk.sample(sk.load("gaussian", schedule=sk.Flow()), "s4", nfe=4, num_samples=2, released=True)
    with pytest.raises(OptionError, match="at least 20"):
        sk.sample(joint, "s4", nfe=8, num_samples=2, released=True)
    with pytest.raises(OptionError, match="snr > 0"):
        sk.sample(joint, "s4", nfe=4, num_samples=2, snr=0.0)


def test_s4_is_of_weak_order_one_whatever_its_noise(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    from s4_order import one_dimension

    for sampler in ("s4:correct=False,noise_of=forward", "s4:correct=False"):
        errors = [one_dimension(sampler, 0.3, n) for n in (80, 160)]
        assert 0.9 < float(torch.log2(torch.tensor(errors[0] / errors[1]))) < 1.2
    assert one_dimension("s4:correct=False,noise_of=forward", 0.02, 20) < one_dimension("gdss-pc:n_steps=0", 0.02, 20) / 4
    assert one_dimension("s4:correct=False", 1.0, 20) > 4 * one_dimension("gdss-pc:n_steps=0", 1.0, 20)


def test_the_plans_of_a_system_can_be_pickled():
    _, _, plans = system("unipc", 5)
    again = pickle.loads(pickle.dumps(plans))
    assert again["adj"].segments == plans["adj"].segments
