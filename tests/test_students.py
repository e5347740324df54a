"""Few-step students and flow maps: laws in closed form, parity with diffusers' classes, several models, and refusals."""

from __future__ import annotations

import math

import diffusers
import pytest
import torch

import solverkit as sk
from solverkit import SolverKitScheduler
from solverkit.errors import DenoiserError, GridError, OptionError, ScheduleError, SolverKitError, UnknownNameError
from solverkit.proofs.driving import in_one_run
from solverkit.targets.exact import ExactDenoiser
from solverkit.targets.gaussian_mixture import GaussianMixture

SCHEDULES = [sk.EDM(), sk.VP(continuous=True), sk.Flow()]


def diagonal(schedule, variances=(1.0, 0.3, 0.01), mean=(0.5, -0.2, 1.0)):
    n = len(variances)
    means, eigenvalues, basis = torch.tensor([mean]), torch.tensor([variances]), torch.eye(n)[None]
    return ExactDenoiser(GaussianMixture(torch.ones(1), means.double(), basis.double(), eigenvalues.double()), schedule)


class Consistency:
    """The perfect consistency function of a Gaussian: wherever it is asked, where the flow ends."""

    def __init__(self, target):
        self.exact, self.target, self.schedule = target, target.target, target.schedule

    def __call__(self, x, level):
        return self.exact(x, level, to=0.0)


def grid_of(schedule, ratios):
    return sk.Grid.from_ratios(schedule, [*ratios, 0.0])


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["EDM", "VP", "Flow"])
@pytest.mark.parametrize("ratios", [(5.0,), (5.0, 2.0), (5.0, 2.0, 0.7, 0.1)])
def test_the_law_after_n_levels_of_an_exact_denoiser(schedule, ratios):
    """In x / alpha: V' = K^2 V + s'^2 with K = S / (S + s^2), and K_n^2 V_n at the end."""
    target = diagonal(schedule)
    S = target.target.eigenvalues[0]
    V = S + ratios[0] ** 2
    for s, t in zip(ratios, (*ratios[1:], 0.0)):
        V = (S / (S + s**2)) ** 2 * V + t**2
    mean, spread = in_one_run([sk.trace("renoise", grid_of(schedule, ratios))], target)
    assert torch.allclose(spread.square(), V, rtol=1e-12, atol=0)
    assert torch.allclose(mean, target.target.means[0], rtol=0, atol=1e-12)
    assert bool((V < S).all())


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["EDM", "VP", "Flow"])
@pytest.mark.parametrize("ratios", [(50.0,), (50.0, 2.0), (50.0, 2.0, 0.7, 0.1)])
@pytest.mark.parametrize("name", ["renoise", "tcd", "renoise:fresh=0.5", "flow-map:kind=sde", "flow-map"])
def test_a_perfect_student_keeps_the_variance_at_every_number_of_steps(schedule, ratios, name):
    target = diagonal(schedule)
    student = target if name.startswith("flow-map") else Consistency(target)
    mean, spread = in_one_run([sk.trace(name, grid_of(schedule, ratios))], student)
    if name in ("renoise", "flow-map:kind=sde", "flow-map"):
        assert torch.allclose(spread.square(), target.target.eigenvalues[0], rtol=1e-10, atol=0)
    assert torch.allclose(mean, target.target.means[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("n", [1, 3, 8])
def test_the_map_of_a_gaussian_is_exact_in_any_number_of_steps(n):
    """From s = 1 of the flow: psi = (1 - t) mu + x sqrt((1 - t)^2 S + t^2)."""
    target, x = diagonal(sk.Flow()), torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grid = sk.make_grid("flow", sk.Flow(), n)
    out = sk.sample(target, "flow-map", x=x, grid=grid).x
    wanted = target.target.means[0] + x * target.target.eigenvalues[0].sqrt()
    assert float((out - wanted).abs().max()) < 1e-12
    half = target(x, 1.0, to=0.5)
    u = x - half  # the average velocity: g = x - s u at s = 1
    psi = x - 0.5 * u
    assert torch.allclose(psi, 0.5 * target.target.means[0] + x * (0.25 * target.target.eigenvalues[0] + 0.25).sqrt())


def average_velocity(target, told):
    """The exact u of a Gaussian as a network that is told two times."""

    def net(x, time, second):
        s = float(time[0]) / 1000
        t = float(second[0]) / 1000 if told == "t,r" else s - float(second[0]) / 1000
        schedule = target.schedule
        return (x - target._map(x, schedule.at(s), schedule.at(max(t, 0.0)))) / s

    return net


@pytest.mark.parametrize("told", ["t,h", "t,r"])
def test_a_wrapped_map_serves_map_samplers_and_ordinary_solvers(told):
    target = diagonal(sk.Flow(time_scale=1000.0))
    model = sk.wrap_map(average_velocity(target, told), told, target.schedule, shape=(3,))
    for sampler, steps in (("flow-map", 2), ("heun", 6), ("renoise", 2)):
        given = {"steps": steps, "num_samples": 3, "dtype": torch.float64}
        ours, exact = sk.sample(model, sampler, **given), sk.sample(target, sampler, **given)
        assert float((ours.x - exact.x).abs().max()) < 1e-9, sampler
        assert ours.nfe == exact.nfe


def test_what_a_plan_says_of_its_evaluations():
    def both(model, x, grid, noise):
        for s, t in grid.steps():
            d = model(x, s) + 0.5 * model(x, s, of="weak") + 0.25 * model(x, s, to=t)
            x = sk.steps.exact_step(x, d, s, t)
        return x

    grid = sk.make_grid("karras", sk.EDM(), 3)
    plan = sk.trace(both, grid)
    assert plan.nfe == 9 and plan.nfe_of == {"model": 6, "weak": 3}
    assert [row.of for row in plan.table()[:3]] == [None, "weak", None]
    assert [row.to for row in plan.table()[:3]] == [None, None, grid[1]]
    strong, weak = diagonal(sk.EDM()), diagonal(sk.EDM(), mean=(0.0, 0.0, 0.0))
    run = sk.sample(strong, both, grid=grid, num_samples=2, models={"weak": weak}, constrain=lambda x, level, draw: x)
    assert run.nfe_of == {"model": 6.0, "weak": 3.0} and run.nfe == 9
    plain = sk.trace("heun", grid)
    assert plain.to == plain.of == () and plain.nfe_of == {"model": plain.nfe}


def test_a_second_model_on_another_schedule_is_asked_at_the_same_noise():
    def weak_only(model, x, grid, noise):
        for s, t in grid.steps():
            x = sk.steps.exact_step(x, model(x, s, of="weak"), s, t)
        return x

    vp, edm = diagonal(sk.VP(continuous=True)), diagonal(sk.EDM())
    levels = [5.0, 1.0, 0.0]
    x = torch.ones(1, 3, dtype=torch.float64)
    one = sk.sample(edm, weak_only, levels=levels, x=x, models={"weak": vp}).x
    other = sk.sample(edm, "euler", levels=levels, x=x).x
    assert float((one - other).abs().max()) < 1e-12


SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def network(x, t):
    return torch.sin(2 * x + float(t) / 500) * 0.8


def steps_of(scheduler, steps, generator, **step):
    scheduler.set_timesteps(steps)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * scheduler.init_noise_sigma if hasattr(
        scheduler, "init_noise_sigma") else torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    states = []
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t), t, x, **({"generator": generator} if generator else {}), **step).prev_sample
        states.append(x)
    return states, scheduler.timesteps


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
@pytest.mark.parametrize(
    ("native", "options", "step"),
    [
        (diffusers.LCMScheduler(**SD, set_alpha_to_one=False), {}, {}),
        (diffusers.TCDScheduler(**SD), {"gamma": 0.3}, {"eta": 0.3}),
        (diffusers.TCDScheduler(**SD), {"gamma": 1.0}, {"eta": 1.0}),
        (diffusers.TCDScheduler(**SD), {"gamma": 0.0}, {"eta": 0.0}),
        (diffusers.FlowMatchLCMScheduler(shift=3.0), {}, {}),
        (diffusers.FlowMapEulerDiscreteScheduler(shift=5.0), {}, None),
    ],
)
def test_parity_with_the_classes_of_students_step_by_step(native, options, step, steps):
    config = {**native.config, "_class_name": type(native).__name__}
    ours = SolverKitScheduler.from_config(config, sampler_options=options)
    generated = step is not None
    theirs, their_times = steps_of(native, steps, torch.Generator().manual_seed(1) if generated else None, **(step or {}))
    own, own_times = steps_of(ours, steps, torch.Generator().manual_seed(1) if generated else None)
    assert torch.allclose(own_times.double(), their_times.double())
    for a, b in zip(own, theirs):
        assert float((a - b).norm() / b.norm()) < 2e-5


def test_the_tcd_of_diffusers_ends_with_the_noise_of_timestep_0():
    """An exact epsilon of data 0: its output has standard deviation sigma_0, ours at the end of the table none."""
    native = diffusers.TCDScheduler(**SD)
    native.set_timesteps(2)
    x = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    for t in native.timesteps:
        sigma = (1 - native.alphas_cumprod[int(t)]).sqrt()
        x = native.step(x / sigma, t, x, eta=0.3, generator=torch.Generator().manual_seed(int(t))).prev_sample
    assert float(x.std()) == pytest.approx(math.sqrt(0.00085), rel=0.05)
    zero = sk.wrap(lambda x, t: torch.zeros_like(x), "sample", sk.VP("scaled_linear", 0.00085, 0.012))
    assert float(sk.sample(zero, "tcd", steps=2, grid="tcd", shape=(1, 1, 8, 8)).x.abs().max()) == 0


def test_the_tables_of_students():
    vp = sk.VP("scaled_linear", 0.00085, 0.012)
    times = {name: [round(level.time) for level in sk.make_grid(name, vp, n)][:-1]
             for name, n in (("lcm", 4), ("dmd2", 4), ("sid-lsg", 2), ("hyper-sd", 1))}
    native = diffusers.LCMScheduler(**SD)
    native.set_timesteps(4)
    assert times["lcm"] == native.timesteps.tolist()
    assert times["dmd2"] == [999, 749, 499, 249] and times["sid-lsg"] == [625, 312] and times["hyper-sd"] == [800]
    assert sk.make_grid("sid-lsg", vp, 1)[0].ratio == pytest.approx(2.502, abs=1e-3)
    assert sk.make_grid("sid", sk.EDM(), 1)[0] == 2.5
    assert sk.make_grid("scm", sk.EDM(sigma_max=1e4), 2)[1].ratio == pytest.approx(0.5 * math.tan(1.3))


def test_a_start_of_pure_noise_has_the_deviation_sigma():
    vp = sk.VP("scaled_linear", 0.00085, 0.012)
    seen = []
    net = sk.wrap(lambda x, t: seen.append(x.std()) or torch.zeros_like(x), "sample", vp)
    for pure in (True, False):
        sk.sample(net, "renoise", steps=1, grid="sid-lsg", shape=(1, 1, 64, 64), pure=pure)
    sigma = vp.alpha_sigma(vp.ratio(625.0))[1]
    assert float(seen[0] / seen[1]) == pytest.approx(sigma, rel=1e-5) and sigma == pytest.approx(0.929, abs=1e-3)


def test_bad_input():
    ordinary = sk.wrap(lambda x, t: x, "sample", sk.Flow(), shape=(3,))
    with pytest.raises(DenoiserError, match="wrap_map"):
        sk.sample(ordinary, "flow-map", steps=1, num_samples=1)
    two = sk.wrap(lambda x, t, h: x, "flow_prediction", sk.Flow(), shape=(3,))
    with pytest.raises(DenoiserError, match="wrap_map"):
        sk.sample(two, "euler", steps=1, num_samples=1)
    with pytest.raises(UnknownNameError, match="t,h"):
        sk.wrap_map(lambda x, t, h: x, "h,t", sk.Flow())
    with pytest.raises(DenoiserError, match="noise to data"):
        sk.wrap_map(lambda x, t, h: x, "t,h", sk.Flow())(torch.ones(1, 3), 0.5, to=0.7)
    with pytest.raises(ScheduleError, match="1000"):
        sk.make_grid("lcm", sk.EDM(), 4)
    with pytest.raises(ScheduleError, match="has 100"):
        sk.make_grid("dmd2", sk.VP(num_train_timesteps=100), 4)
    with pytest.raises(GridError, match="SiD"):
        sk.make_grid("sid", sk.EDM(), 2)
    with pytest.raises(DenoiserError, match="shape"):
        sk.with_models(ordinary, weak=sk.wrap(lambda x, t: x, "sample", sk.Flow(), shape=(4,)))
    with pytest.raises(OptionError, match="own denoiser"):
        sk.with_models(ordinary, model=ordinary)

    def asks(model, x, grid, noise):
        for s, t in grid.steps():
            x = sk.steps.exact_step(x, model(x, s, of="weak"), s, t)
        return x

    with pytest.raises(DenoiserError, match="models="):
        sk.sample(ordinary, asks, steps=1, num_samples=1)
    with pytest.raises(UnknownNameError, match="weak"):
        sk.sample(ordinary, asks, steps=1, num_samples=1, models={"week": ordinary})
    wrong = sk.wrap(lambda x, t: x[:, :2], "sample", sk.Flow())
    with pytest.raises(DenoiserError, match="shape"):
        sk.sample(ordinary, asks, steps=1, num_samples=1, models={"weak": wrong})
    with pytest.raises(OptionError, match="fresh"):
        sk.sample(ordinary, "renoise", steps=1, num_samples=1, fresh=1.5)
    with pytest.raises(SolverKitError, match="native_class"):
        SolverKitScheduler.from_config(dict(diffusers.TCDScheduler().config))


def test_the_bundled_students_draw_the_digits_that_they_are_asked_for():
    from solverkit.bench.features import load_features

    labels = torch.arange(10).repeat(2)
    classify = load_features()
    for name, sampler, grid in (("mnist-consistency", "renoise", "lcm"), ("mnist-map", "flow-map", "flow")):
        for nfe in (1, 2):
            x = sk.sample(sk.load(name, labels=labels), sampler, nfe=nfe, grid=grid, num_samples=20, batch_size=7).x
            assert float((classify(x).argmax(1) == labels).double().mean()) >= 0.8
