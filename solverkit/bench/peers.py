"""Other libraries' samplers on our denoisers: same network, same starting noise, same budget, counted the same way.

A scheduler class works in one of three coordinates: VP's (the DPM family, UniPC, DDIM), sigma's (Euler, Heun: their
`scale_model_input` divides by sqrt(1 + sigma^2)), or flow's. A model of ours meets it there:

* discrete VP: the scheduler gets the model's own betas, prediction type epsilon;
* VE, EDM and continuous VP: it gets betas whose sigma / alpha are 1000 levels, even in log, over the model's range. In VP
  coordinates that is the same process, so nothing is approximated except what the scheduler reads off its table;
* flow: `use_flow_sigmas`, prediction type flow_prediction, or a FlowMatch class.

The denoiser is asked at the scheduler's own sigma. That is the kinder choice: pipelines tell the network the timestep
that the scheduler rounded.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import torch

from ..errors import BenchError, BudgetError, OptionError, nearest
from ..foreign.k_diffusion import adapt_k_diffusion
from ..foreign.named import scheduler_class
from ..foreign.released import k_diffusion_version
from ..grid.named import make_grid, parse_grid
from ..model.counting import counting, record
from ..model.denoiser import require_finite
from ..process.level import FLOW_FRAME, Level
from ..process.schedule import Schedule
from ..process.variance_preserving import DiscreteVP
from ..run.noise import PRIOR, SampleNoise, sample_seeds
from . import k_diffusion
from .named import K_DIFFUSION, PEER

TABLE = 1000
SPACINGS = ("trailing", "leading", "linspace")
SIGMA_GRIDS = {"karras": ("use_karras_sigmas",), "log-snr": ("use_lu_lambdas", "use_exponential_sigmas")}


class PeerResult(NamedTuple):
    """What a peer made; x in the model's own coordinates, nfe counted.

    `seconds` is wall time from the call to the answer; `seconds_plan` the part before the first evaluation, building the
    scheduler and setting its timesteps; `passes` how often the network was called; `asked` the rows that were asked for.
    """

    x: torch.Tensor
    nfe: float
    seconds: float
    seconds_model: float
    deterministic: bool
    seconds_plan: float = 0.0
    passes: int = 0
    asked: int = 0


def peer_class(name: str) -> Any:
    """The scheduler class behind "diffusers:ClassName", with or without "Scheduler" at its end.

    Raises:
        UnknownNameError: diffusers has no such scheduler.
    """
    return scheduler_class(name.removeprefix(PEER))


def peer_digest(name: str) -> str:
    """What tells this version of a peer apart: the version of its library, its source, and how it is driven here."""
    from .digest import module_digest

    if name.startswith(K_DIFFUSION):
        function = k_diffusion.k_function(name)
        return f"{k_diffusion_version()} {module_digest(function.__module__)} {module_digest(adapt_k_diffusion.__module__)}"
    cls = peer_class(name)
    return f"{version(cls.__module__.partition('.')[0])} {module_digest(cls.__module__)} {module_digest(__name__)}"


def check_peer(name: str, options: Mapping[str, Any]) -> None:
    """Raises UnknownNameError or OptionError where the class, or an option of its config, does not exist."""
    if name.startswith(K_DIFFUSION):
        return k_diffusion.check_options(name, options)
    known = config_keys(peer_class(name))
    for key in options:
        if key not in known:
            raise OptionError(f"{name} has no option {key!r}.{nearest(key, known)} Its options: {', '.join(known)}.")


def config_keys(cls: Any) -> dict[str, Any]:
    """Config keys of a scheduler class and their defaults."""
    parameters = inspect.signature(cls.__init__).parameters
    return {name: p.default for name, p in parameters.items() if name not in ("self", "args", "kwargs")}


def default_peer_grid(name: str, schedule: Schedule) -> str:
    """What a peer runs on where nobody chose: trailing (where all classes agree), flow, or Karras for VE."""
    if name.startswith(K_DIFFUSION):
        return k_diffusion.default_grid(schedule)
    if schedule.frame == FLOW_FRAME:
        return "flow"
    offered = _offered(peer_class(name))
    wanted = "trailing" if isinstance(schedule, DiscreteVP) else "karras"
    return wanted if wanted in offered else next(iter(offered), "own")


def _offered(cls: Any) -> dict[str, dict[str, Any]]:
    """Grid name -> config, for the grids that a class of the sigma frame has; "own" where it has no choice."""
    keys = config_keys(cls)
    offered: dict[str, dict[str, Any]] = {}
    for grid, flags in SIGMA_GRIDS.items():
        if flag := next((flag for flag in flags if flag in keys), None):
            offered[grid] = {flag: True}
    if "timestep_spacing" in keys:
        offered.update({spacing: {"timestep_spacing": spacing} for spacing in SPACINGS})
    return offered or {"own": {}}


def build_peer(name: str, schedule: Schedule, grid: str, options: Mapping[str, Any]) -> Any:
    """The scheduler, configured for a model's schedule, before `set_timesteps`.

    Raises:
        BenchError: the class cannot run such a model, or not on that grid.
        UnknownNameError, OptionError: no such class or option.
    """
    check_peer(name, options)
    cls = peer_class(name)
    config = {**_process(cls, name, schedule, grid), **_spacing(cls, name, schedule, grid), **options}
    known = config_keys(cls)
    scheduler = cls(**{key: value for key, value in config.items() if key in known})
    if not isinstance(schedule, DiscreteVP) and schedule.frame != FLOW_FRAME:
        # float32 betas lose the smallest sigmas of a VE range: give the table in float64
        scheduler.alphas_cumprod = torch.from_numpy(1 / (1 + np.exp(2 * _log_ratios(schedule))))
    return scheduler


def _shift(grid: str, schedule: Schedule) -> float:
    """The shift that "flow:shift=3" asks for, or the schedule's own."""
    own = float(getattr(schedule, "shift", 1.0))
    return float(parse_grid(grid)[1].get("shift", own)) if grid.startswith("flow:") else own


def _process(cls: Any, name: str, schedule: Schedule, grid: str) -> dict[str, Any]:
    keys = config_keys(cls)
    if schedule.frame == FLOW_FRAME:
        if isinstance(schedule, DiscreteVP):
            raise BenchError(f"{name}: peers are not driven on zero-terminal-SNR models.")
        if "use_flow_sigmas" not in keys and "FlowMatch" not in name:
            raise BenchError(f"{name} knows no flow models (it has no use_flow_sigmas).")
        shift = _shift(grid, schedule)
        return {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift, "shift": shift}
    if "FlowMatch" in name:
        raise BenchError(f"{name} runs flow models only, and this one is on {type(schedule).__name__}.")
    if isinstance(schedule, DiscreteVP):
        betas: Any = schedule._beta_array()
    else:
        abar = 1 / (1 + np.exp(2 * _log_ratios(schedule)))
        betas = 1 - abar / np.concatenate([[1.0], abar[:-1]])
    return {
        "num_train_timesteps": len(betas),
        "trained_betas": [float(b) for b in betas],
        "prediction_type": "epsilon",
        "clip_sample": False,
    }


def _log_ratios(schedule: Schedule) -> np.ndarray:
    return np.linspace(math.log(schedule.ratio_min), math.log(schedule.ratio_max), TABLE)


def _spacing(cls: Any, name: str, schedule: Schedule, grid: str) -> dict[str, Any]:
    if schedule.frame == FLOW_FRAME:
        if not _is_flow(grid) and not _takes_sigmas(cls):
            raise BenchError(f"{name} runs flow models on its own 'flow' grid only, not on {grid!r}.")
        return {}
    offered = _offered(cls)
    if grid not in offered:
        raise BenchError(f"{name} has no grid {grid!r}; it has {', '.join(offered)}.")
    return offered[grid]


def _is_flow(grid: str) -> bool:
    return grid == "flow" or grid.startswith("flow:")


def _takes_sigmas(cls: Any) -> bool:
    return "sigmas" in inspect.signature(cls.set_timesteps).parameters


def set_budget(scheduler: Any, nfe: int, schedule: Schedule, grid: str) -> None:
    """The largest number of steps whose evaluations (one for each of its timesteps) fit into `nfe`.

    Raises:
        BudgetError: even one step needs more.
    """
    for n in range(nfe, 0, -1):
        if schedule.frame == FLOW_FRAME and not _is_flow(grid):
            scheduler.set_timesteps(sigmas=np.array([float(s) for s in make_grid(grid, schedule, n)][:-1]))
        else:
            scheduler.set_timesteps(n)
        if len(scheduler.timesteps) <= nfe:
            return
    raise BudgetError(f"{type(scheduler).__name__} needs {len(scheduler.timesteps)} evaluations at least, got nfe={nfe}.")


def peer_levels(scheduler: Any, schedule: Schedule) -> list[Level]:
    """The level of each evaluation: the scheduler's own sigma, or that of its timestep where it keeps no sigmas."""
    count = len(scheduler.timesteps)
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None and len(sigmas) in (count, count + 1):
        values = [float(s) for s in sigmas[:count]]
    elif schedule.frame == FLOW_FRAME:
        raise BenchError(f"{type(scheduler).__name__} keeps no sigma for each timestep: not driven on flow models.")
    else:
        abar = scheduler.alphas_cumprod.double()
        values = [math.sqrt((1 - float(abar[int(t)])) / float(abar[int(t)])) for t in scheduler.timesteps]
    return [schedule.at(s, snap=False) for s in values]


def run_peer(
    denoiser: Any, name: str, nfe: int, num_samples: int | None = None, seed: int | list[int] = 0, grid: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> PeerResult:  # fmt: skip
    """Sample a denoiser with a scheduler class of diffusers, or a sampler of k-diffusion.

    Args:
        denoiser: With `schedule` and `shape`.
        name: "diffusers:ClassName", or "k-diffusion:sample_name" (on any grid).
        nfe: Ceiling on network evaluations.
        num_samples, seed: As for `sk.sample`: the starting noise is the same.
        grid: trailing, leading, linspace, karras or log-snr (what the class has); for flow models "flow", or any grid where
            the class takes sigmas. None: `default_peer_grid`.
        options: Config keys of the class.

    Raises:
        BenchError: the class cannot run this model on this grid.
        UnknownNameError, OptionError, BudgetError: as named.
    """
    began = time.perf_counter()
    schedule = denoiser.schedule
    grid = grid or default_peer_grid(name, schedule)
    seeds = sample_seeds(seed, num_samples if num_samples is not None else len(seed))  # type: ignore[arg-type]
    if name.startswith(K_DIFFUSION):
        made, planned, deterministic = k_diffusion.run(denoiser, name, nfe, seeds, grid, options or {})
        seconds, asked = planned + made.seconds, round(made.asked * len(seeds))
        return PeerResult(made.x, made.nfe, seconds, made.seconds_model, deterministic, planned, made.passes, asked)
    scheduler = build_peer(name, schedule, grid, options or {})
    set_budget(scheduler, nfe, schedule, grid)
    planned = time.perf_counter() - began
    noise = SampleNoise(seeds, denoiser.shape, torch.float32, getattr(denoiser, "device", "cpu"))
    levels = peer_levels(scheduler, schedule)
    generator = torch.Generator().manual_seed(seeds[0] % 2**63)
    before = generator.get_state()
    extra = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}

    with torch.no_grad(), counting() as count:
        model_seconds, wanted = 0.0, 0
        x = _start(scheduler, schedule, noise, levels[0])
        for i, t in enumerate(scheduler.timesteps):
            level = levels[i]
            own = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            root = 1.0 if schedule.frame == FLOW_FRAME else math.hypot(1.0, float(level))  # VP coordinates to the frame
            began_call, rows_before = time.perf_counter(), count.rows
            denoised = denoiser(own * root, level)
            model_seconds += time.perf_counter() - began_call
            wanted += len(x)
            if count.rows == rows_before and not getattr(denoiser, "may_skip", False):  # no network of ours: one pass
                record(len(x))
            require_finite(denoised, i, level)
            # eps = (x - D) / s in the sigma frame, and the velocity eps - x_0 = (x - D) / s in the flow frame
            x = scheduler.step((own * root - denoised) / float(level), t, x, return_dict=False, **extra)[0]
    seconds = time.perf_counter() - began
    stochastic = bool((generator.get_state() != before).any())
    return PeerResult(x, count.rows / len(x), seconds, model_seconds, not stochastic, planned, count.passes, wanted)


def _start(scheduler: Any, schedule: Schedule, noise: SampleNoise, first: Level) -> torch.Tensor:
    """The starting noise in the scheduler's coordinates."""
    top = schedule.level(schedule.ratio_max)
    z = noise(PRIOR)
    if schedule.frame == FLOW_FRAME:
        return z
    z = z * (schedule.prior_std(top) / top.scale / math.hypot(1.0, float(top)))  # the model's start, in VP coordinates
    return z * math.hypot(1.0, float(first)) if float(scheduler.init_noise_sigma) != 1 else z
