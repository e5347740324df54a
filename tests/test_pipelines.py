"""SolverKitScheduler in stock pipelines with tiny random networks, against the native schedulers on the same levels."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import os
import re
import types
from collections import Counter
from collections.abc import Iterable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from tiny_pipelines import PIPELINES, Tiny

import solverkit as sk
import solverkit.pipelines.scheduler
from solverkit import SolverKitScheduler
from solverkit.errors import SolverKitError
from solverkit.model.denoiser import fit_channels
from solverkit.proofs.driving import remembers
from solverkit.registry.registry import registry
from solverkit.run.noise import SampleNoise, sample_seeds
from solverkit.testing import option_sets

STEPS = 5
TRACEABLE = sorted(name for name, card in registry().cards["samplers"].items() if card.traceable)
SMALL = {"ncsn": {"n_steps": 1}, "lm-langevin": {"n_steps": 1, "probes": 0}}  # their defaults cost four and five a step
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "shift_terminal": None}
TRAILING = {"timestep_spacing": "trailing", "clip_sample": False, "thresholding": False, "set_alpha_to_one": True}

# our sampler, its options -> the native class by family
SAME = {
    "ddim": ({}, {"vp": "DDIMScheduler"}),
    "euler": (
        {},
        {
            "vp": "EulerDiscreteScheduler", "flow": "FlowMatchEulerDiscreteScheduler", "edm": "EDMEulerScheduler",
            "svd": "EulerDiscreteScheduler",
        },
    ),
    "heun": ({}, {"vp": "HeunDiscreteScheduler", "flow": "FlowMatchHeunDiscreteScheduler"}),
    "dpmpp-2m": (
        {},
        {
            "vp": "DPMSolverMultistepScheduler", "flow": "DPMSolverMultistepScheduler",
            "edm": "EDMDPMSolverMultistepScheduler",
        },
    ),
    "unipc": ({"order": 2}, {"vp": "UniPCMultistepScheduler", "flow": "UniPCMultistepScheduler"}),
}  # fmt: skip

# why a native class cannot run in a pipeline that ours runs in
NATIVE_FAILS = (
    "step\\(\\) got an unexpected keyword argument",  # the pipeline passes generator or eta
    "does not support custom (timestep or )?sigma",
    "set_timesteps\\(\\) got an unexpected keyword argument",  # CogView 4 passes timesteps and sigmas, HiDream mu
    "can't multiply sequence by non-int",  # UniPC shifts sigmas as an array, Z-Image passes a list
    "has no attribute 'scale_noise'",
    "has no attribute 'sigmas'",
    "must match the size of tensor b \\(3\\)",  # DPM++ keeps three channels of a learned variance
    "AssertionError: $",  # DPM++ refuses the mu that Flux always passes
    "tuple index out of range",  # DPM++ returns one value where two are read
)


def family(name: str) -> str:
    kind = PIPELINES[name]().pipe.scheduler.config
    if "sigma_data" in kind:
        return "arctan" if name == "stable-audio" else "edm"
    if "shift" in kind or kind.get("use_flow_sigmas"):
        return "flow"
    return "svd" if kind.get("timestep_type") == "continuous" else "vp"


def native_scheduler(tiny: Tiny, name: str, kind: str) -> Any:
    """A native scheduler of the wanted class for the pipeline's network, on trailing timesteps without clipping."""
    config = dict(tiny.pipe.scheduler.config)
    if kind == "svd":
        return copy.deepcopy(tiny.pipe.scheduler)
    cls = getattr(diffusers, name)
    overrides = dict({"flow": FLOW, "vp": TRAILING}.get(kind, {}))
    if kind == "flow":
        overrides["flow_shift"] = 1.0
        overrides["shift"] = 1.0
        overrides["use_dynamic_shifting"] = False
        overrides["use_karras_sigmas"] = False
    parameters = cls.__init__.__wrapped__.__code__.co_varnames if hasattr(cls.__init__, "__wrapped__") else ()
    defaults = config.get("_use_default_values", ())
    kept = {k: v for k, v in config.items() if k in parameters and k not in overrides and k not in defaults}
    for key in ("beta_start", "beta_end", "beta_schedule", "prediction_type", "num_train_timesteps"):
        if key in config and key in parameters and key not in overrides:
            kept[key] = config[key]
    kept.pop("solver_order", None)
    return cls(**kept, **{k: v for k, v in overrides.items() if k in parameters})


def spy(scheduler: Any, cloning: bool = False) -> list[tuple[torch.Tensor, float, torch.Tensor]]:
    """(sample, timestep, model output) of every call of step; a copy that a pipeline makes goes unseen.

    With `cloning` the scheduler gets a sample that nobody else writes to.
    """
    seen: list[tuple[torch.Tensor, float, torch.Tensor]] = []
    inner = type(scheduler).step

    @functools.wraps(inner)
    def step(self: Any, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if self is scheduler:
            seen.append((sample.clone(), float(timestep), model_output.clone()))
        return inner(self, model_output, timestep, sample.clone() if cloning else sample, *args, **kwargs)

    scheduler.step = types.MethodType(step, scheduler)
    return seen


def run(tiny: Tiny, scheduler: Any, steps: int = STEPS) -> torch.Tensor:
    tiny.pipe.scheduler = scheduler
    result = tiny.pipe(**tiny.inputs, num_inference_steps=steps, generator=torch.Generator().manual_seed(0))
    return torch.as_tensor(np.asarray(getattr(result, tiny.output), dtype=np.float64))


def on_levels_of(native: Any, ours: SolverKitScheduler, pipeline: str) -> None:
    """set_timesteps of ours lays out what the native one would, and what it tells the network."""
    inner = type(ours).set_timesteps

    @functools.wraps(inner)
    def set_timesteps(self: Any, num_inference_steps: int | None = None, device: Any = None, timesteps: Any = None,
                      sigmas: Any = None, mu: Any = None) -> None:  # fmt: skip
        if sigmas is None or (native.config.get("use_flow_sigmas") and pipeline.startswith("flux")):  # Flux drops its own
            native.set_timesteps(num_inference_steps or len(sigmas))
        else:
            native.set_timesteps(sigmas=sigmas)
        rows = slice(1, None, 2) if native.order == 2 else slice(1, None)
        told = torch.cat([native.timesteps[:1], native.timesteps[rows]])
        levels = getattr(native, "sigmas", None)
        if levels is not None:
            levels = torch.cat([levels[:1], levels[:-1][rows]]).double()
        inner(self, device=device, timesteps=told, sigmas=levels)

    ours.set_timesteps = types.MethodType(set_timesteps, ours)  # type: ignore[method-assign]


FAMILY = {name: family(name) for name in PIPELINES}
CASES = [(name, sampler) for name in PIPELINES for sampler, (_, classes) in SAME.items() if FAMILY[name] in classes]


@pytest.mark.parametrize(("name", "sampler"), CASES)
def test_latents_are_those_of_the_native_scheduler(name, sampler):
    kind = FAMILY[name]
    options, classes = SAME[sampler]
    tiny = PIPELINES[name]()
    native = native_scheduler(tiny, classes[kind], kind)
    own = {"sampler": sampler, "sampler_options": options, "native_class": classes[kind]}
    ours = SolverKitScheduler.from_config(native.config, **own)
    expected = spy(native, name in VIEWED)  # native Heun and UniPC keep the sample itself, which is overwritten there
    try:
        result = run(tiny, native)
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, AssertionError) as error:
        assert any(re.search(reason, f"{type(error).__name__}: {error}") for reason in NATIVE_FAILS), error
        assert torch.isfinite(run(PIPELINES[name](), ours)).all()
        return
    on_levels_of(native_scheduler(tiny, classes[kind], kind), ours, name)
    got = spy(ours)
    mine = run(PIPELINES[name](), ours)
    assert [t for _, t, _ in got] == [t for _, t, _ in expected]
    limit = 1e-5
    if sampler == "euler" and ours.config.get("rescale_betas_zero_snr"):
        # x / alpha does not exist at alpha = 0: ours keeps alpha x_0 + sigma eps. The native sigma starts at 4096.
        if name == "marigold":  # never calls scale_model_input: the native latents are in coordinates that it does not know
            return
        expected = [(x / math.hypot(1, s), t, out) for (x, t, out), s in zip(expected, native.sigmas.tolist())]
        limit = 1e-4  # the native step subtracts numbers near 4096 in float32
    errors = [float((a - b).norm() / b.norm()) for (a, _, _), (b, _, _) in zip(got, expected)]
    assert max(errors) <= limit, errors
    assert float((mine - result).norm() / result.norm()) <= 1e-4


tiny = functools.lru_cache(maxsize=None)(lambda name: PIPELINES[name]())
native_config = functools.lru_cache(maxsize=None)(lambda name: PIPELINES[name]().pipe.scheduler.config)
PASSES = {  # guidance by several calls instead of a larger batch
    "flux": 2, "flux-img2img": 2, "qwen-image": 2, "chroma": 2, "lumina-2": 2, "cogview-4": 2, "wan": 2, "cosmos": 2,
    "hunyuan-video-1.5": 2, "kandinsky-5": 2, "ltx-2": 3,
}  # fmt: skip
EDITED = ("sd-inpaint",)  # the pipeline edits the latents between steps
COPIED = ("ltx-2",)  # a copy of the scheduler drives other latents between its steps
VIEWED = ("kandinsky-5",)  # the sample is a view of a tensor into which the result is written
MIDDLE = ("sd-img2img", "sdxl-img2img", "sd3-img2img", "flux-img2img")  # the run starts in the middle


class Replay:
    """A denoiser that gives the network's recorded answers one after the other, to whatever states the sampler asks at.

    A pipeline's network knows one time, and the answer to a second level is what a flow map would have answered.
    """

    maps = True

    def __init__(self, scheduler: SolverKitScheduler, outputs: list[torch.Tensor], denoised: bool) -> None:
        self.convention, self.outputs, self.denoised = scheduler._run.table.convention, outputs, denoised
        self.schedule, self.states = self.convention.schedule, []

    def __call__(self, x: torch.Tensor, level: Any, to: Any = None) -> torch.Tensor:
        output, latents = self.outputs[len(self.states)].double(), x * self.convention.scale(level)
        self.states.append(latents)
        w_x, w_out = self.convention.weights(level)
        return output if self.denoised else w_x * latents + w_out * output


def pipeline_kind(name: str) -> tuple[str, str, int]:
    """What a run meets there: the process, who else touches the latents, and the calls of the network a step."""
    roles = {"edited": EDITED, "middle": MIDDLE, "twice": ("cosmos",), "copied": COPIED, "viewed": VIEWED}
    role = next((role for role, names in roles.items() if name in names), "plain")
    return FAMILY[name], role, PASSES.get(name, 1)


@functools.cache
def sampler_kind(name: str) -> tuple[bool, bool, bool, bool]:
    """Stages inside a step, a history, draws, knowledge of the model."""
    card = registry().cards["samplers"][name]
    options = SMALL.get(name) or option_sets(card)[0]
    plan = sk.trace(name, sk.make_grid("karras", sk.EDM(), 5), **options)
    return plan.nfe > sum(plan.boundary), remembers(card, options), plan.draws > 0, bool(card.required)


def chosen_pairs(fewest_of_a_sampler: int = 3, fewest_of_a_pipeline: int = 4) -> list[tuple[str, str]]:
    """Pairs in which every kind of pipeline meets every kind of sampler; always the ones that were used least."""
    pipelines = {name: pipeline_kind(name) for name in PIPELINES}
    samplers = {name: sampler_kind(name) for name in TRACEABLE}
    pairs: dict[tuple[str, str], None] = {}
    used: Counter[str] = Counter()

    def pair(names: Iterable[str], among: Iterable[str]) -> None:
        free = [(p, s) for p in names for s in among if (p, s) not in pairs]
        p, s = min(free, key=lambda ps: (used["pipeline " + ps[0]] + used["sampler " + ps[1]], ps))
        pairs[p, s] = None
        used.update(["pipeline " + p, "sampler " + s])

    for kind in dict.fromkeys(pipelines.values()):
        for other in dict.fromkeys(samplers.values()):
            pair([p for p, k in pipelines.items() if k == kind], [s for s, k in samplers.items() if k == other])
    for s in samplers:
        while used["sampler " + s] < fewest_of_a_sampler:
            pair(pipelines, [s])
    for p in pipelines:
        while used["pipeline " + p] < fewest_of_a_pipeline:
            pair([p], samplers)
    return list(pairs)


ALL = [(name, sampler) for name in PIPELINES for sampler in TRACEABLE]
CHOSEN = chosen_pairs()


def test_every_kind_of_pipeline_meets_every_kind_of_sampler():
    met = {(pipeline_kind(p), sampler_kind(s)) for p, s in CHOSEN}
    assert met == {(pipeline_kind(p), sampler_kind(s)) for p, s in ALL}
    assert min(Counter(s for _, s in CHOSEN).values()) >= 3 and set(TRACEABLE) == {s for _, s in CHOSEN}
    assert min(Counter(p for p, _ in CHOSEN).values()) >= 4 and set(PIPELINES) == {p for p, _ in CHOSEN}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.function is test_every_sampler_runs_and_is_sk_sample:
        full = metafunc.config.getoption("--all-pairs") or os.environ.get("SOLVERKIT_PROOFS") == "full"
        metafunc.parametrize(("name", "sampler"), ALL if full else CHOSEN)


def test_every_sampler_runs_and_is_sk_sample(name, sampler, monkeypatch):
    pipeline = tiny(name)
    config = native_config(name)
    options = SMALL.get(sampler) or option_sets(registry().cards["samplers"][sampler])[0]
    unclipped = {"clip_sample": False, "thresholding": False}  # and a variance that sk.sample has too
    unclipped |= {"variance_type": "fixed_small"} if config.get("variance_type") else {}
    scheduler = SolverKitScheduler.from_config(config, sampler=sampler, sampler_options=options, **unclipped)
    made: Counter[Any] = Counter()

    def draw(shape: Any, generator: Any, device: Any, dtype: Any) -> torch.Tensor:
        """What sk.sample draws at that place of the run."""
        plan = scheduler._run.table.plan
        places = [i.payload for segment in plan.segments for i in segment.instructions if i.kind == "draw"]
        made[shape] += 1
        return SampleNoise(sample_seeds(0, shape[0]), shape[1:], dtype)(*places[(made[shape] - 1) % len(places)])

    monkeypatch.setattr(solverkit.pipelines.scheduler, "randn_tensor", draw)
    seen = spy(scheduler)
    network = getattr(pipeline.pipe, "unet", None) or getattr(pipeline.pipe, "transformer", None) or pipeline.pipe.bert
    calls: list[int] = []
    hook = network.register_forward_hook(lambda *_: calls.append(1))
    asks = "scale_model_input" in inspect.getsource(type(pipeline.pipe).__call__)
    try:
        card = registry().cards["samplers"][sampler]
        if "stats" in card.required and not card.restarts and not asks and name not in MIDDLE:
            with pytest.raises(SolverKitError, match="prepare"):  # a jump that the pipeline's network would not see
                run(pipeline, scheduler, 6)
            return
        assert torch.isfinite(run(pipeline, scheduler, 6)).all()
    finally:
        hook.remove()
    if name == "cosmos":  # steps twice: once to read the denoised prediction, and again with the guided one
        seen = seen[1::2]
    start = scheduler._run.stepper.start
    assert len(seen) == scheduler.nfe - start and len(calls) == PASSES.get(name, 1) * len(seen)
    if name in EDITED or name in MIDDLE:
        return
    table = scheduler._run.table  # a class that repeats its last level ends with steps that change nothing
    outputs = [fit_channels(output, x, name).double() for x, _, output in seen][: table.plan.nfe]
    latents = [x.double() for x, _, _ in seen][: table.plan.nfe]
    replay, grid, options = Replay(scheduler, outputs, name == "cosmos"), table.plan.grid, dict(table.options)
    if table.lead:  # filled with first-order steps, nothing for sk.sample
        assert sampler in ("rk4", "dpm-solver-3", "dpmpp-3s", "pndm", "seeds-3", "reflect", "restart")
        return
    # a slope at the end of a long step, (x - D) / t, amplifies rounding, and so do weights that nearly cancel
    limit = 1e-4 if sampler in ("rk4", "kdpm2-ancestral", "deis") else 1e-5
    if grid[0].alpha < 1e-3 and sampler.startswith(("dpm-s", "lms")):
        # epsilon, and sigma / alpha, near alpha = 0 (1e-6 where the layouts of Wan and HiDream start, 3e-4 of Sana):
        limit = min(0.05, limit * max(abs(w) for segment in table.plan.segments for _, w in segment.x))
    scale = scheduler._run.table.convention.scale(grid[0])
    sk.sample(replay, sampler, x=latents[0] / scale * grid[0].scale, grid=grid, seed=0, **options)
    assert len(replay.states) == len(latents)
    jumped = int(scheduler._run.stepper.prelude)  # the pipeline holds the latents from before the jump until the first step
    for k, (mine, x) in list(enumerate(zip(replay.states, latents)))[jumped:]:
        largest = max(float(v.norm()) for v in latents[max(k - 4, 0) : k + 1])  # what the sum for x was made of
        assert float((mine - x).norm()) <= limit * largest, (k, float((mine - x).norm()), largest)

    made.clear()
    scheduler._step_index = 0  # rewound, once more in float64, where rounding does not hide anything
    x = latents[0]
    for k, (mine, t, output) in enumerate(zip(replay.states, scheduler.timesteps, outputs)):
        assert k < jumped or float((mine - x).norm()) <= 1e-9 * float(x.norm())
        x = scheduler.step(output, t, x, return_dict=False, pred_original_sample=output if name == "cosmos" else None)[0]


@pytest.mark.parametrize("sampler", ["euler", "dpmpp-2m", "unipc"])
def test_sdxl_base_and_refiner_share_a_run(sampler):
    options, classes = SAME[sampler]
    results, counts = [], []
    for own in (False, True):
        base, refiner = tiny("sdxl"), tiny("sdxl-img2img")
        native = native_scheduler(base, classes["vp"], "vp")
        arguments = {"sampler": sampler, "sampler_options": options, "native_class": classes["vp"]}
        scheduler = SolverKitScheduler.from_config(native.config, **arguments) if own else native
        base.pipe.scheduler, refiner.pipe.scheduler = scheduler, copy.deepcopy(scheduler)
        seen = [spy(base.pipe.scheduler), spy(refiner.pipe.scheduler)]
        generator = torch.Generator().manual_seed(0)
        latents = base.pipe(**base.inputs, num_inference_steps=10, denoising_end=0.6, generator=generator).images
        inputs = {**refiner.inputs, "image": latents, "denoising_start": 0.6}
        results.append(refiner.pipe(**inputs, num_inference_steps=10, generator=generator).images)
        counts.append([len(steps) for steps in seen])
    assert counts[0] == counts[1] == [6, 4]
    assert float((results[0] - results[1]).norm() / results[0].norm()) < 1e-4
