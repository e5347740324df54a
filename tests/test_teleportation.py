"""The jump and the exponential integrator on Gaussians, where both are exact; what "auto" decides; in pipelines."""

from __future__ import annotations

import pytest
import torch
from tiny_pipelines import PIPELINES

import solverkit as sk
from solverkit import SolverKitScheduler
from solverkit.errors import GridError, OptionError, StatsError
from solverkit.problems import ExactDenoiser, gaussian, mixture
from solverkit.process.level import from_ratio

SCHEDULES = {
    "EDM": sk.EDM(),
    "VE": sk.VE(0.01, 100.0),
    "VP": sk.VP(),
    "continuous VP": sk.VP(continuous=True),
    "sub-VP": sk.SubVP(),
    "flow": sk.Flow(),
}


def exact(target):
    values, vectors = torch.linalg.eigh(target.target.covariance)
    return sk.GaussianStats(target.target.mean, vectors.T.flip(0), values.flip(0))


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_the_jump_is_the_exact_flow_of_a_gaussian(schedule):
    target = gaussian(dim=12, condition=1e4, schedule=schedule)
    stats = exact(target)
    most = 1.0 if schedule.frame else schedule.ratio_max
    nodes = (most, from_ratio(5.0, schedule.frame), from_ratio(0.1, schedule.frame), 0.0)
    levels = [schedule.at(s, snap=False) for s in nodes]
    x = torch.randn(5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for i, start in enumerate(levels[:-1]):
        for end in levels[i + 1 :]:
            wanted = target.transport(x * float(start), start, end)
            assert float((stats.transport(x * float(start), start, end) - wanted).abs().max()) < 1e-6
            plan = sk.Grid((start, end), schedule)
            got = sk.sample(target, "gaussian-exponential", x=x * float(start) * start.scale, grid=plan, stats=stats).x
            assert float((got / end.scale - wanted).abs().max()) < 1e-6


@pytest.mark.parametrize("schedule", [sk.EDM(), sk.Flow()])
def test_low_rank_with_a_complement_is_the_full_rank(schedule):
    """Four directions and a floor, whose full covariance has 12."""
    model = mixture(dim=12, modes=2, schedule=schedule)
    own = exact(model)
    full = sk.GaussianStats(own.mean, own.vectors, torch.cat([own.values[:4], torch.full((8,), 0.02)]))
    low = full.truncated(4)
    assert low.rank == 4 and low.floor == pytest.approx(0.02)
    for name, options in (("teleport", {"skip_to": 3.0}), ("gaussian-exponential", {})):
        run = {"nfe": 6, "num_samples": 4, "dtype": torch.float64, **options}
        a, b = (sk.sample(model, name, stats=s, **run).x for s in (full, low))
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    x = torch.randn(3, 12, dtype=torch.float64)
    s, t = schedule.at(from_ratio(10.0, schedule.frame)), schedule.at(from_ratio(1.0, schedule.frame))
    torch.testing.assert_close(full.transport(x, s, t), low.transport(x, s, t), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(full.denoised(x, t), low.denoised(x, t), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("schedule", [sk.EDM(), sk.Flow()])
def test_without_covariance_the_jump_is_one_ddim_step_to_the_mean(schedule):
    mean = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    stats = sk.GaussianStats(mean, torch.zeros(0, 3), torch.zeros(0))
    s, t = schedule.at(from_ratio(30.0, schedule.frame)), schedule.at(from_ratio(2.0, schedule.frame))

    class Mean(ExactDenoiser):
        def __call__(self, x, level):
            return mean.expand_as(x)

    x = torch.randn(4, 3, dtype=torch.float64)
    wanted = sk.sample(Mean(gaussian(dim=3).target, schedule), "ddim", x=x * s.scale, grid=sk.Grid((s, t), schedule)).x
    torch.testing.assert_close(stats.transport(x, s, t) * t.scale, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("schedule", [sk.EDM(), sk.VP(continuous=True), sk.Flow()])
@pytest.mark.parametrize("residual", ["score", "denoised"])
def test_without_covariance_the_integrator_is_dpm_solver(schedule, residual):
    model = mixture(dim=5, modes=3, schedule=schedule)
    nothing = "isotropic:variance=0"
    for order, base in ((1, "ddim"), (2, "dpmpp-2m:solver_type=heun"), (3, "dpmpp-3m")):
        name, _, rest = base.partition(":")
        options = dict(pair.split("=") for pair in rest.split(",") if pair)
        for lower in (True, False) if order > 1 else (True,):
            ending = {} if order == 1 else {"lower_order_final": lower}
            levels = [float(s) for s in sk.make_grid("karras", schedule, (9, 20, 40)[order - 1])]
            run = {"num_samples": 3, "dtype": torch.float64, "levels": levels}
            mine = sk.sample(
                model, "gaussian-exponential", stats=nothing, order=order, residual=residual, start=float("inf"),
                lower_order_final=lower, **run,
            ).x  # fmt: skip
            if order == 3 and lower:
                continue  # its step of order 2 before the last is the midpoint rule's in dpmpp-3m
            if order == 3:
                wanted = _exact_start(model, levels, run)
                torch.testing.assert_close(mine, wanted, rtol=1e-6, atol=1e-6)
            else:
                torch.testing.assert_close(mine, sk.sample(model, name, **run, **options, **ending).x, rtol=1e-9, atol=1e-9)


def _exact_start(model, levels, run):
    """dpmpp-3m whose second step is the exact one of order 2, not the midpoint rule's."""
    from solverkit_plugins.dpm_solver.multistep import third_differences

    from solverkit.steps import exact_step, phi, step_length, usable_orders

    def solver(model, x, grid, noise):
        history = []
        for order, (s, t) in zip(usable_orders(3, grid, False), grid.steps()):
            m0 = model(x, s)
            history = [(s, m0), *history[:2]]
            x = exact_step(x, m0, s, t)
            if order == 2:
                h, (previous, m1) = step_length(s, t), history[1]
                x = x + (t.alpha * h * phi(2, -h) * h / (s.lam - previous.lam)) * (m0 - m1)
            elif order == 3:
                h = step_length(s, t)
                d1, d2 = third_differences(history, h, False)
                x = x + (t.alpha * h * phi(2, -h)) * d1 + (t.alpha * h * phi(3, -h)) * d2
        return x

    return sk.sample(model, solver, **run).x


# --- where to jump


@pytest.fixture(scope="module")
def truth():
    target = mixture()
    x = sk.sample(target, "rk4", steps=64, grid="karras:ratio_min=2e-5", num_samples=64, dtype=torch.float64).x
    return target, x


def error(truth, sampler, **options):
    target, x = truth
    return float((sk.sample(target, sampler, num_samples=64, **options).x - x).square().mean().sqrt())


BOUNDS = {"dpmpp-2m": 0.6, "dpmpp-3m": 0.6, "unipc": 0.6, "heun": 0.2, "deis": 0.5, "ipndm": 0.6}


@pytest.mark.parametrize(("solver", "most"), BOUNDS.items())
def test_auto_beats_the_solver_on_its_own_best_grid(truth, solver, most):
    """The bounds of docs/teleportation.md, on fewer samples: in the mean over budgets."""
    ratios = []
    for nfe in (5, 8, 10):
        best = min(error(truth, solver, nfe=nfe, grid=grid) for grid in ("karras", "log-snr", "time-uniform"))
        ratios.append(error(truth, "teleport", nfe=nfe, grid="karras", stats="mixture", solver=solver) / best)
    assert sum(ratios) / 3 < most, ratios


def test_the_exponential_integrator_beats_the_solver_on_its_own_best_grid(truth):
    for nfe in (5, 8, 10):
        best = min(error(truth, "dpmpp-2m", nfe=nfe, grid=grid) for grid in ("karras", "log-snr", "time-uniform"))
        assert error(truth, "gaussian-exponential", nfe=nfe, stats="mixture") < 0.6 * best


def test_auto_depends_on_the_budget_and_may_decide_not_to_jump():
    from solverkit_plugins.teleportation.teleport import levels_after

    stats, schedule = sk.GaussianStats.load("mixture"), sk.EDM()

    def start(stats, n, solver="dpmpp-2m"):
        return levels_after(stats, sk.make_grid("karras", schedule, n), solver, "auto", "spend", "auto").grid[0]

    starts = [float(start(stats, n)) for n in (4, 10, 40)]
    assert starts[0] < 3 and starts[0] <= starts[1] <= starts[2] and starts[2] > starts[0], starts
    wrong = sk.GaussianStats(stats.mean, stats.vectors, 400 * stats.values)  # explains nothing: a jump would cost all
    assert float(start(wrong.measured(mixture(), samples=8), 12)) == 80.0


def test_auto_ends_higher_at_fewer_steps_and_where_the_grid_ends():
    from solverkit_plugins.teleportation.teleport import levels_after

    stats, schedule = sk.GaussianStats.load("mixture"), sk.EDM()

    def levels(n, **grid):
        return levels_after(stats, sk.make_grid("karras", schedule, n, **grid), "unipc", "auto", "spend", "auto").grid

    assert float(levels(5)[-2]) > 2 * float(levels(20)[-2]) > 0 and float(levels(5)[-1]) == 0
    above = levels(8, last="min", ratio_min=0.2)
    assert float(above[-1]) == pytest.approx(0.2) and float(above[0]) < 80


def test_a_solver_that_needs_statistics_gets_those_of_the_jump(truth):
    options = {"nfe": 6, "grid": "karras", "stats": "mixture", "skip_to": 3.0, "tail": "karras:rho=3"}
    inside = error(truth, "teleport", solver="gaussian-exponential:start=inf", **options)
    alone = error(truth, "gaussian-exponential", nfe=6, grid="karras", stats="mixture", start=3.0 / LEADING)
    assert inside == pytest.approx(alone, rel=1e-6)


LEADING = sk.GaussianStats.load("mixture").spread


def test_auto_asks_the_named_grid_for_its_ends_only(truth):
    """A grid that ends high hides nothing below it: on "flow" the last level above 0 is a tenth of the way down."""
    errors = {grid: error(truth, "teleport", nfe=10, grid=grid, stats="mixture") for grid in ("flow", "karras", "log-snr")}
    assert max(errors.values()) < 1.25 * min(errors.values()) and max(errors.values()) < 0.012, errors


def test_auto_is_at_most_what_the_gate_allows_worse_than_doing_nothing(truth):
    """Where it stays on the grid, it is the solver itself."""
    for grid in ("flow", "karras:rho=5"):
        laid = error(truth, "teleport", nfe=12, grid=grid, stats="mixture", solver="ipndm")
        assert laid <= 1.001 * error(truth, "ipndm", nfe=12, grid=grid)


def test_a_solver_of_even_steps_must_gain_more():
    from solverkit_plugins.teleportation.allocation import OWN, RELAID, UNEVEN, WORTH, chosen

    assert min(RELAID, WORTH) > UNEVEN and sk.samplers()["ipndm"].smooth_steps
    stats = sk.GaussianStats.load("mixture")
    layouts = [
        chosen(stats, "ipndm", sk.make_grid(grid, sk.EDM(), n), "spend", "auto").layout
        for grid, n in (("karras", 6), ("karras", 10), ("flow", 8), ("karras:rho=3", 14))
    ]
    assert set(layouts) <= {"given", *OWN} and set(layouts) & set(OWN), layouts


def test_towards_pure_noise_the_network_stays_as_it_was_recorded():
    """Its mean is its own there: a residual that vanished would look like an error of the first step from alpha = 0."""
    from solverkit_plugins.teleportation.surrogate import surrogate

    model = surrogate(sk.GaussianStats.load("mnist-flow"))
    assert torch.equal(model.at(model.u[-1] + 5), model.at(model.u[-1]))


def test_levels_that_compare_equal_are_planned_apart():
    """The told times of another request, at the same sigmas."""
    from solverkit_plugins.teleportation.allocation import chosen

    stats, schedule = sk.GaussianStats.load("mixture"), sk.EDM()
    ratios = [10.0, 5.0, 2.0, 1.0, 0.5, 0.2]
    for shift in (0.0, 7.0):
        grid = sk.Grid(tuple(sk.Level(r, 100 * i + shift) for i, r in enumerate(ratios)), schedule)
        kept = chosen(stats, "dpmpp-2m", grid, "keep", "auto").grid
        assert [s.time for s in kept] == [s.time for s in grid][-len(kept) :]


def test_the_search_is_planning_and_short():
    net = mixture()
    sk.sample(net, "teleport", nfe=6, num_samples=1, stats="mixture")  # what is kept between runs
    long = sk.sample(net, "teleport", nfe=40, num_samples=1, stats="mixture", solver="deis")
    assert 0 < long.seconds_plan < long.seconds and long.seconds_plan > 0.5 * long.seconds


def test_variances_that_statistics_got_wrong_are_seen_in_the_trajectories():
    """From a network at high noise small variances come out as 0; the error at low noise hangs on them."""
    from solverkit_plugins.teleportation.surrogate import surrogate

    target = gaussian(dim=12, condition=1e3)
    right = exact(target)
    cut = sk.GaussianStats(right.mean, right.vectors, torch.where(right.values > 0.05, right.values, 0.0))
    model = surrogate(cut.measured(target, samples=64))
    assert float((model.values / right.values).log().abs().max()) < 0.7
    grid = sk.make_grid("karras", target.schedule, 8)
    x = 80 * torch.randn(256, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    true = target.transport(x, grid[0], grid[-1])
    really = float((sk.sample(target, "dpmpp-2m", grid=grid, x=x).x - true).square().mean().sqrt())
    assert model.error(sk.trace("dpmpp-2m", grid), grid) == pytest.approx(really, rel=0.25)


def test_doubt_is_of_modes_that_lie_apart():
    from solverkit_plugins.teleportation.surrogate import surrogate

    one, many = gaussian(dim=16), mixture(dim=16, modes=5, seed=3)
    doubts = [surrogate(exact(t).measured(t, samples=32)).doubt / exact(t).variance**0.5 for t in (one, many)]
    assert doubts[0] < 1e-3 and doubts[1] > 0.03, doubts


def test_keep_drops_the_head_and_its_evaluations(truth):
    plan = sk.trace("teleport", sk.make_grid("karras", sk.EDM(), 20), stats="mixture", allocation="keep")
    assert plan.nfe < 18
    saved = error(truth, "teleport", steps=20, grid="karras", stats="mixture", allocation="keep")
    assert saved < 1.4 * error(truth, "dpmpp-2m", steps=20, grid="karras")
    quarter = sk.trace("teleport", sk.make_grid("karras", sk.EDM(), 20), stats="mixture", skip_to="25%", allocation="keep")
    assert quarter.nfe == 15 and float(quarter.levels[0]) == float(sk.make_grid("karras", sk.EDM(), 20)[5])


def test_controls_know_less(truth):
    options = {"nfe": 12, "grid": "karras", "stats": "mixture", "skip_to": 1.5}
    errors = [error(truth, "teleport", jump=jump, **options) for jump in ("gaussian", "isotropic", "noise")]
    assert errors[0] < 0.6 * errors[1] and errors[1] < 0.6 * errors[2], errors


def test_part_of_the_gain_is_where_the_steps_lie(truth):
    run = {"nfe": 6, "grid": "karras"}
    auto, none = (error(truth, "teleport", stats="mixture", skip_to=skip_to, **run) for skip_to in ("auto", "none"))
    assert auto < 0.7 * none and none < 0.9 * error(truth, "dpmpp-2m", **run)
    assert float(sk.trace("teleport", sk.make_grid("karras", sk.EDM(), 6), stats="mixture", skip_to="none").levels[0]) == 80


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"stats": "isotropic:variance=1"}, OptionError, "profile"),
        ({"stats": "mixture", "skip_to": "half"}, OptionError, "25%"),
        ({"stats": "mixture", "skip_to": -1.0}, OptionError, "above 0"),
        ({"stats": "mixture", "skip_to": 1e-5}, GridError, "no steps"),
        ({"stats": "mixture", "skip_to": 3.0, "rank": 99}, StatsError, "rank"),
        ({"stats": "mnist", "skip_to": 3.0}, StatsError, "shape"),
        ({}, StatsError, "solverkit stats"),
    ],
)
def test_what_teleport_refuses(options, kind, words):
    with pytest.raises(kind, match=words):
        sk.sample(mixture(), "teleport", nfe=6, num_samples=2, **options)


def test_a_large_latent_fits_in_a_hundred_megabytes():
    shape = (4, 128, 128)
    vectors = torch.linalg.qr(torch.randn(4 * 128 * 128, 256))[0].T.contiguous()
    stats = sk.GaussianStats(torch.zeros(shape), vectors, torch.linspace(9, 1, 256), 0.1)
    held = sum(v.numel() * v.element_size() for v in (stats.mean, stats.vectors, stats.values))
    assert held < 100e6
    schedule = sk.EDM()
    out = stats.transport(torch.randn(1, *shape) * 80, schedule.at(80.0), schedule.at(5.0))
    assert out.shape == (1, *shape) and torch.isfinite(out).all()


# --- in pipelines


@pytest.mark.parametrize(("name", "shape"), [("sd3", (1, 4, 8, 8)), ("sdxl", (1, 4, 8, 8))])
@pytest.mark.parametrize("sampler", ["teleport", "gaussian-exponential"])
def test_a_prepared_pipeline_starts_below_the_jump(name, shape, sampler):
    tiny = PIPELINES[name]()
    options = {"stats": "isotropic:variance=0.8", **({"skip_to": 4.0} if sampler == "teleport" else {})}
    scheduler = SolverKitScheduler.from_config(tiny.pipe.scheduler.config, sampler=sampler, sampler_options=options)
    tiny.pipe.scheduler = scheduler
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ready = scheduler.prepare(latents, 6)
    assert not torch.equal(ready, latents)
    inputs = {key: value for key, value in tiny.inputs.items() if key not in ("height", "width")}
    result = tiny.pipe(**{**tiny.inputs, **inputs}, num_inference_steps=6, latents=ready)
    assert torch.isfinite(torch.as_tensor(getattr(result, tiny.output))).all()
    assert float(scheduler._run.table.plan.levels[0]) < float(scheduler._run.table.plan.grid[0])
