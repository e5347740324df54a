"""What a diffusers scheduler config says about the network: its schedule and what it predicts.

A scheduler config mixes two things: how the network was trained (betas, prediction type) and how diffusers would sample it
(spacing, clipping, karras sigmas). Only the first is read here; grids and clipping are the caller's choice.

The class that wrote the config matters. Keys that a config lacks have the defaults of that class, which differ (beta_end
is 0.02 for DDIM and 0.012 for Heun), and a config that no known class wrote is read only if its keys say what it is.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ScheduleError, UnknownNameError
from ..process.cosine import CosineVP
from ..process.schedule import EDM, VE, Flow, Schedule
from ..process.variance_preserving import VP

MOST_STEPS = 1_000_000  # a table of them is made: a config may not ask for the memory of the machine
ADVICE = "Pass schedule= and prediction= yourself, e.g. schedule=sk.VP('linear'), prediction='epsilon'."

_VP_PREDICTIONS = {
    "epsilon": "epsilon", "sample": "sample", "original_sample": "sample", "v_prediction": "v_prediction",
}  # fmt: skip
# with use_flow_sigmas diffusers leaves v unnormalised (alpha^2 + sigma^2 is not 1 there), so its v is not ours
_FLOW_PREDICTIONS = {"epsilon": "epsilon", "sample": "sample", "flow_prediction": "flow_prediction"}

# no prediction_type: what the network returns is always eps - x_0
_VELOCITY_CLASSES = ("FlowMatchEuler", "FlowMatchHeun", "FlowMatchLCM", "FlowMapEuler", "LTXEulerAncestralRF")

# classes whose process is no other's -> their reader
_OWN = {"DDPMWuerstchenScheduler": "cosine", "IPNDMScheduler": "dance", "MiniMaxH3Scheduler": "minimax"}

# classes that diffusers hides behind scipy and torchsde: without those packages their signatures cannot be read
_HIDDEN_VP = {
    "num_train_timesteps": 1000, "beta_schedule": "linear", "trained_betas": None, "prediction_type": "epsilon",
    "use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False, "timestep_spacing": "linspace",
    "steps_offset": 0,
}  # fmt: skip
_HIDDEN: dict[str, dict[str, Any]] = {
    "LMSDiscreteScheduler": {**_HIDDEN_VP, "beta_start": 1e-4, "beta_end": 0.02},
    "DPMSolverSDEScheduler": {**_HIDDEN_VP, "beta_start": 0.00085, "beta_end": 0.012, "noise_sampler_seed": None},
    "CosineDPMSolverMultistepScheduler": {
        "sigma_min": 0.3, "sigma_max": 500, "sigma_data": 1.0, "sigma_schedule": "exponential",
        "num_train_timesteps": 1000, "solver_order": 2, "prediction_type": "v_prediction", "rho": 7.0,
        "solver_type": "midpoint", "lower_order_final": True, "euler_at_final": False, "final_sigmas_type": "zero",
    },
}  # fmt: skip


def _exp(t: float) -> float:
    return math.exp(-12.0 * t)  # Shap-E


def _laplace(t: float) -> float:
    lam = -0.5 * math.copysign(1, 0.5 - t) * math.log(1 - 2 * abs(0.5 - t) + 1e-6)
    return math.sqrt(1 / (1 + math.exp(-lam)))


_ALPHA_BAR: dict[str, Callable[[float], float]] = {"exp": _exp, "laplace": _laplace}


def from_config(config: Mapping[str, Any]) -> tuple[Schedule, str]:
    """A schedule and the prediction type of `sk.wrap` from a diffusers scheduler config.

    Args:
        config: The content of scheduler_config.json, or `scheduler.config`.

    Returns:
        The schedule (time_scale 1000 for flow matching) and the prediction name.

    Raises:
        ScheduleError: a scheduler whose process or parametrisation this library does not have, keys that contradict each
            other, or too few keys to know. Nothing is ever guessed to be epsilon on VP.
    """
    if not isinstance(config, Mapping):
        raise ScheduleError(f"a scheduler config is a dict (scheduler_config.json), got {type(config).__name__}.")
    name = str(config.get("_class_name") or "")
    defaults = class_defaults(name) if name else None
    family = _family(name, defaults, config)
    merged = _Config(name or "config", {**(defaults or {}), **config})
    try:
        return _READERS[family](merged)
    except (TypeError, ValueError, OverflowError, RecursionError, UnknownNameError) as error:
        if isinstance(error, ScheduleError):
            raise
        raise ScheduleError(f"the {merged.name} cannot be read: {error} {ADVICE}") from error


class _Config:
    """A config whose missing keys are errors that say which."""

    def __init__(self, name: str, keys: Mapping[str, Any]) -> None:
        self.name, self.keys = name, keys

    def get(self, key: str, default: Any = None) -> Any:
        value = self.keys.get(key)
        return default if value is None else value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key, default)
        if value is None:
            raise ScheduleError(
                f"the {self.name} lacks {key!r}, and its default differs from class to class; add {key!r}, or the "
                f"'_class_name' of the scheduler that wrote it. {ADVICE}"
            )
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:  # NaN and 10^400 too
            raise ScheduleError(f"the {self.name} has {key}={value!r}, expected a finite number. {ADVICE}")
        return float(value)

    def steps(self) -> int:
        value = self.number("num_train_timesteps", 1000)
        if not 1 <= value <= MOST_STEPS or value != int(value):
            raise ScheduleError(
                f"the {self.name} has num_train_timesteps={value!r}, expected an integer from 1 to {MOST_STEPS}."
            )
        return int(value)

    def prediction(self, known: Mapping[str, str], default: str) -> str:
        given = self.get("prediction_type", default)
        if given not in known:
            raise ScheduleError(
                f"the {self.name} has prediction_type={given!r}, which is none of {', '.join(known)} that are "
                f"supported there. {ADVICE}"
            )
        return known[given]


def class_defaults(name: str) -> dict[str, Any] | None:
    """Defaults of a diffusers scheduler's constructor; None for a class that diffusers does not have."""
    import diffusers

    try:
        scheduler = getattr(diffusers, name)
        parameters = inspect.signature(scheduler.__init__).parameters.values()
    except (AttributeError, TypeError, ValueError, ImportError, RuntimeError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):  # a stand-in for a class whose dependency is missing
        return _HIDDEN.get(name, {})
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _family(name: str, defaults: Mapping[str, Any] | None, config: Mapping[str, Any]) -> str:
    """The name of a reader: by the class that wrote the config, else by the keys."""
    if name in _OWN:
        return _OWN[name]
    raw_flow = "base_shift" in config or "shift" in config
    flow = bool(config.get("use_flow_sigmas")) or config.get("prediction_type") == "flow_prediction"
    betas = any(config.get(key) is not None for key in ("beta_schedule", "trained_betas"))
    if name.startswith(_VELOCITY_CLASSES):
        # Cosmos 2 runs sigma = 80 .. 0.002 through a flow-matching class and hands it (x - D) / sigma
        return "ve_epsilon" if (config.get("sigma_max") or 0) > 1 and config.get("sigma_data") is not None else "flow"
    if name.startswith(("EDM", "CosineDPM")):
        return "edm"
    if config.get("timestep_type") == "continuous" and config.get("prediction_type") == "v_prediction":
        return "continuous"  # Stable Video Diffusion: EDM's coordinates and told time with sigma_data = 1
    if name == "ScoreSdeVeScheduler":
        return "ve"
    if defaults is None:
        if flow or (raw_flow and not betas):
            return "flow"
        if betas:
            return _vp_or_converted(name, {}, config)
        if "sigma_min" in config and "sigma_max" in config:
            return "edm" if "sigma_data" in config else "ve"
        who = f"{name!r}, a class that diffusers does not have," if name else "a config without '_class_name'"
        raise ScheduleError(
            f"cannot tell the schedule of {who} from its keys {sorted(config)[:8]}: expected beta_schedule or "
            f"trained_betas (VP), shift or base_shift (flow matching), or sigma_min, sigma_max, sigma_data (EDM). {ADVICE}"
        )
    if "beta_schedule" not in defaults:
        raise ScheduleError(f"{name} has a noise process or parametrisation that this library does not read. {ADVICE}")
    if flow:
        return "flow"
    return _vp_or_converted(name, defaults, config)


def _vp_or_converted(name: str, defaults: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """vp, unless the config was converted from a scheduler of another process.

    X.from_config(other.config) keeps the other's keys beside X's default betas, and diffusers then runs the network as what
    it is not.
    """
    left_over = [key for key in ("base_shift", "shift", "sigma_data") if key in config and key not in defaults]
    if not left_over:
        return "vp"
    if left_over[0] != "sigma_data" and "beta_schedule" in config.get("_use_default_values", ()):
        return "flow"
    raise ScheduleError(
        f"the {name or 'config'} has betas and also {left_over[0]!r}, a key of flow-matching or EDM schedulers; it was "
        f"probably converted from one. Use the config that came with the network. {ADVICE}"
    )


def _vp(config: _Config) -> tuple[Schedule, str]:
    prediction = config.prediction(_VP_PREDICTIONS, "epsilon")
    steps = config.steps()
    betas: str | tuple[float, ...] = config.get("beta_schedule", "")
    trained = config.get("trained_betas")
    start = end = 0.0
    if trained is not None:
        betas = tuple(float(b) for b in trained)
    elif betas in _ALPHA_BAR:
        betas = _from_alpha_bar(_ALPHA_BAR[str(betas)], steps)
    elif betas not in ("squaredcos_cap_v2", "cosine"):
        start, end = config.number("beta_start"), config.number("beta_end")
        if not 0 < start <= end < 1:
            raise ScheduleError(f"the {config.name} has beta_start={start}, beta_end={end}; expected 0 < start <= end < 1.")
        if betas == "sigmoid":  # GeoDiff
            logistic = [1 / (1 + math.exp(6 - 12 * i / max(steps - 1, 1))) for i in range(steps)]
            betas = tuple(start + (end - start) * p for p in logistic)
    schedule = VP(
        betas,
        start or 1e-4,
        end or 0.02,
        steps,
        integer_time=bool(config.get("integer_time", False)),
        zero_terminal_snr=bool(config.get("rescale_betas_zero_snr", False)),
        snr_shift_scale=config.number("snr_shift_scale", 1.0),
    )
    return schedule, prediction


def _flow(config: _Config) -> tuple[Schedule, str]:
    if config.get("invert_sigmas", False):
        raise ScheduleError(
            f"the {config.name} has invert_sigmas=True (time runs from data to noise), which this library does not read; "
            "wrap it yourself: sk.wrap(net, 'flow_prediction', sk.Flow(time_scale=1000, data_at=1))."
        )
    asked = bool(config.get("use_flow_sigmas")) or config.get("prediction_type") == "flow_prediction"
    if asked or not (config.name.startswith(_VELOCITY_CLASSES) or "beta_schedule" in config.keys):
        prediction = config.prediction(_FLOW_PREDICTIONS, "flow_prediction")
    else:  # a class that has no prediction_type and takes the velocity, or whose epsilon is a default that nobody chose
        prediction = "flow_prediction"
    # under use_dynamic_shifting the shift depends on the image size and is the caller's: the static one is the default
    keys = ("flow_shift", "shift") if asked else ("shift", "flow_shift")
    shift = config.number(keys[0], config.number(keys[1], 1.0))
    if shift <= 0:
        raise ScheduleError(f"the {config.name} has shift={shift}, expected a positive number.")
    return Flow(shift=shift, time_scale=float(config.steps())), prediction


def _edm(config: _Config) -> tuple[Schedule, str]:
    prediction = config.prediction({"epsilon": "edm", "v_prediction": "edm_v"}, "epsilon")
    low, high, data = config.number("sigma_min"), config.number("sigma_max"), config.number("sigma_data", 0.5)
    told = "arctan" if config.name.startswith("CosineDPM") else "quarter-log"
    return EDM(low, high, told=told, sigma_data=data), prediction


def _continuous(config: _Config) -> tuple[Schedule, str]:
    vp, _ = _vp(config)
    low, high = config.number("sigma_min", vp.ratio_min), config.number("sigma_max", min(vp.ratio_max, 4096.0))
    return EDM(low, high, told="quarter-log", sigma_data=1.0), "edm_v"


def _ve(config: _Config) -> tuple[Schedule, str]:
    return VE(config.number("sigma_min"), config.number("sigma_max")), "score"


def _ve_epsilon(config: _Config) -> tuple[Schedule, str]:
    return VE(config.number("sigma_min", 0.002), config.number("sigma_max")), "epsilon"


def _cosine(config: _Config) -> tuple[Schedule, str]:
    return CosineVP(config.number("s", 0.008), power=config.number("scaler", 1.0)), "epsilon"


def _dance(config: _Config) -> tuple[Schedule, str]:
    """Dance Diffusion's alpha = cos(pi t / 2), sigma = sin(pi t / 2); the network answers alpha eps - sigma x_0."""
    if config.get("trained_betas") is not None:
        raise ScheduleError(
            f"the {config.name} has trained_betas, which are there the sigmas of one run of that length and say nothing "
            f"about others; leave them out. {ADVICE}"
        )
    return CosineVP(offset=0.0, bound=0.0), "v_prediction"


def _minimax(config: _Config) -> tuple[Schedule, str]:
    """MiniMax H3: told 1 - t, and the velocity points to the data."""
    return Flow(shift=config.number("shift", 12.0), data_at=1), "flow_prediction"


_READERS = {
    "vp": _vp, "flow": _flow, "edm": _edm, "continuous": _continuous, "ve": _ve, "ve_epsilon": _ve_epsilon,
    "cosine": _cosine, "dance": _dance, "minimax": _minimax,
}  # fmt: skip


def _from_alpha_bar(alpha_bar: Callable[[float], float], steps: int) -> tuple[float, ...]:
    pairs = ((alpha_bar(i / steps), alpha_bar((i + 1) / steps)) for i in range(steps))
    return tuple(min(1 - after / before, 0.999) for before, after in pairs)
