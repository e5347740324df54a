"""The noise levels of a native class: the class itself is asked, so that they are its own to the last bit.

Which class: the one of the sampler (`peers`), where it can run this network; else the one that wrote the config. A class
can run a network if it has a key for everything that the config says about it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

from ..errors import GridError, ScheduleError
from ..files.diffusers_config import class_defaults
from ..grid.grid import SAME, Grid, show
from ..process.level import to_ratio
from ..process.schedule import EDM, VE, Flow
from ..process.variance_preserving import DiscreteVP
from .convention import Convention
from .inversion import inverse_class, require_vp, rising
from .peers import Peer, peer_named

# what the keys say of the network rather than of its sampling, and the value that says nothing
NETWORK = {
    "rescale_betas_zero_snr": False, "snr_shift_scale": 1.0, "timestep_type": "discrete", "sigma_min": None,
    "sigma_max": None, "invert_sigmas": False, "shift_terminal": None, "use_dynamic_shifting": False,
    "time_shift_type": "exponential", "sigma_data": None,
}  # fmt: skip
ALWAYS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
FLOW_CLASS = "FlowMatchEulerDiscreteScheduler"

# classes that need scipy or torchsde to exist, and ones with the same levels
STAND_INS = {
    "LMSDiscreteScheduler": "EulerDiscreteScheduler",
    "DPMSolverSDEScheduler": "KDPM2DiscreteScheduler",
    "CosineDPMSolverMultistepScheduler": "EDMDPMSolverMultistepScheduler",
}
# their timesteps stand twice where a method starts itself; a run of another method asks at each once
OWN_METHOD_ONLY = ("PNDMScheduler",)
# the last of their timesteps is told at the end, where the network is not asked; their pipelines leave it out
SHOWS_END = ("DDPMWuerstchenScheduler",)
# the end of their own method, whatever set_alpha_to_one says: the last answer, or timestep 0
ENDS_AT_DATA = ("LCMScheduler",)
ENDS_AT_TIMESTEP_0 = ("TCDScheduler",)


@dataclass(frozen=True)
class NativeLayout:
    """What a native class laid out.

    Attributes:
        timesteps, sigmas: The tensors of the class; sigmas is None where it has none, and may be longer than what it runs.
        grid: The levels where steps begin, and the end.
        idle: Evaluations at the end that change nothing, since the class repeats its last level.
        order: Of the class: evaluations a step, as pipelines read it.
        init_noise_sigma: Of the class, in its own coordinates: a number or a tensor without dimensions.
        told: What the network is told at each timestep, by the clock of the schedule.
        name: Of the class.
    """

    timesteps: torch.Tensor
    sigmas: torch.Tensor | None
    grid: Grid
    idle: int
    order: int
    init_noise_sigma: Any
    told: tuple[float, ...]
    name: str


def family(convention: Convention, name: str) -> str:
    """The kind of process, as `Peer.classes` has it."""
    schedule = convention.schedule
    if isinstance(schedule, Flow):
        return "other" if schedule.data_at else "flow"
    if isinstance(schedule, DiscreteVP):
        return "vp"
    if isinstance(schedule, EDM):
        return "edm" if name.startswith(("EDM", "CosineDPM")) else "continuous"
    return "other"


def layout_class(config: Mapping[str, Any], convention: Convention) -> tuple[str, dict[str, Any]]:
    """The class that lays out a run of `config["sampler"]`, and its config.

    The class that the user named, else that of the sampler, else the one that wrote the config.
    """
    own, method = own_class(config, convention), peer_of(config)

    def as_method(name: str, keys: dict[str, Any]) -> dict[str, Any]:
        """The keys that make the sampler's own class this method."""
        means = {} if method is None or name != own else {**method.told(config["sampler_options"]), **method.fixed}
        return {**keys, **{key: value for key, value in means.items() if key in keys}}

    if config.get("inverse"):
        require_vp(config, convention)
        name = inverse_class(config)
        if (keys := class_keys(name, config, convention)) is None:
            raise ScheduleError(
                f"inverse=True runs on the levels of {name}, which has no key for something that this config "
                f"({config['native_class']}) says of the network; choose another sampler, 'ddim' or 'dpmpp-2m'."
            )
        return name, as_method(name, keys)
    for name in filter(None, (config.get("layout_class"), own)):
        if (keys := class_keys(name, config, convention)) is not None:
            return name, as_method(name, keys)
    return config["native_class"], class_keys(config["native_class"], config, convention) or {}


def peer_of(config: Mapping[str, Any]) -> Peer | None:
    """What the sampler is in diffusers, if it is there."""
    return peer_named(config["sampler"])


def own_class(config: Mapping[str, Any], convention: Convention) -> str | None:
    """The class of the sampler for this network; None where there is none."""
    method, writer = peer_of(config), config["native_class"]
    if method is not None and config.get("inverse"):
        return method.inverse
    return None if method is None else method.class_for(family(convention, writer), writer)


def class_keys(name: str, config: Mapping[str, Any], convention: Convention) -> dict[str, Any] | None:
    """The config of a class for the network of `config`: what was given, and the class's defaults for the rest.

    None where the class has no key for something that the config says of the network.
    """
    defaults = class_defaults(name)
    if defaults is None:
        return None
    flow = isinstance(convention.schedule, Flow)
    if name == config["native_class"]:
        keys = {key: config[key] for key in defaults if key in config}
        return {**keys, "use_flow_sigmas": True} if flow and "use_flow_sigmas" in defaults else keys
    known = dict(config)
    if flow:
        shift = config.get("flow_shift") if config.get("use_flow_sigmas") else config.get("shift")
        shift = 1.0 if shift is None else shift
        known |= {"shift": shift, "flow_shift": shift, "use_flow_sigmas": "shift" not in defaults}
        known["prediction_type"] = convention.prediction
        if not {"shift", "flow_shift"} & set(defaults):
            return None
    dynamic = bool(known.get("use_dynamic_shifting"))
    for key, nothing in NETWORK.items():
        says = known.get(key, nothing) not in (nothing, None) and key not in defaults
        if says and not (flow and key.startswith("sigma_")) and not (key == "time_shift_type" and not dynamic):
            return None
    by_default = config.get("_use_default_values", ())
    network = (*ALWAYS, *NETWORK, *(("shift", "flow_shift", "use_flow_sigmas") if flow else ()))
    keys = {k: known[k] for k in defaults if k in known and (k in network or k not in by_default)}
    return {**defaults, **{k: v for k, v in keys.items() if v is not None or defaults[k] is None}}


def build(name: str, keys: Mapping[str, Any]) -> Any:
    """An object of the class.

    Raises:
        ScheduleError: the class refuses the config, with its reason.
    """
    try:
        return _class(name)(**keys)
    except Exception as error:
        raise ScheduleError(f"{name} refuses this config: {error}") from error


def _class(name: str) -> Any:
    import diffusers

    cls = getattr(diffusers, name)
    if any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(cls.__init__).parameters.values()):
        cls = getattr(diffusers, STAND_INS[name])
    return cls


def lay_out_natively(
    config: Mapping[str, Any], convention: Convention, n: int,
    sigmas: Any = None, timesteps: Sequence[float] | None = None, mu: float | None = None,
) -> NativeLayout:  # fmt: skip
    """The levels of n steps as a native class has them.

    Args:
        config: Of `SolverKitScheduler`.
        convention: What the config says of the network.
        n: num_inference_steps.
        sigmas, timesteps: Given levels, for a flow-matching class (it shifts the sigmas) or as a ramp from 0 to 1.
        mu: Of the dynamic shift.

    Raises:
        GridError: the class has no such layout, with its reason.
        ScheduleError: the class refuses the config.
    """
    arguments = {"sigmas": sigmas, "timesteps": timesteps, "mu": mu if config.get("use_dynamic_shifting") else None}
    given = {key: value for key, value in arguments.items() if value is not None}
    reason = ""
    for name, keys in _classes(config, convention, given):
        native = build(name, keys)
        extra = {key: config[key] for key in ("sigma_min", "sigma_max") if config.get(key) is not None and key not in keys}
        native.register_to_config(**extra)  # of Cosmos 2, which hands them to a flow-matching class
        try:
            native.set_timesteps(**({} if {"sigmas", "timesteps"} & set(given) else {"num_inference_steps": n}), **given)
            read = _read_rising if config.get("inverse") else _read
            return read(native, name, keys, convention, name == own_class(config, convention))
        except Exception as error:  # whatever a class does with arguments that it cannot work with
            reason = reason or f"{name} has no layout of {n} steps with {given or 'nothing else'}: {error}"
    raise GridError(
        (reason or f"{config['native_class']} takes none of {', '.join(given)}.")
        + ("" if config.get("inverse") else " Pass what it asks for, or choose a grid by name (grid='trailing').")
    )


def _classes(
    config: Mapping[str, Any], convention: Convention, given: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The class of the run; where it does not take what the pipeline passes, one that does."""
    seen: list[str] = []
    for name, keys in (
        layout_class(config, convention),
        (config["native_class"], class_keys(config["native_class"], config, convention)),
        (
            FLOW_CLASS,
            class_keys(FLOW_CLASS, config, convention)
            if family(convention, config["native_class"]) == "flow" or type(convention.schedule) is VE
            else None,
        ),
    ):
        if config.get("inverse") and seen:
            return
        takes = set(inspect.signature(_class(name).set_timesteps).parameters)
        if keys is not None and name not in seen and set(given) <= takes:
            seen.append(name)
            yield name, keys


def _beyond_flow(convention: Convention, sigmas: torch.Tensor | None) -> bool:
    """Whether there are sigmas of a flow outside [0, 1]: Karras's of a class that forgets to convert them."""
    return sigmas is not None and isinstance(convention.schedule, Flow) and not bool(((sigmas >= 0) & (sigmas <= 1)).all())


def _up_to_the_end(
    timesteps: torch.Tensor, told: Sequence[float], ratios: Sequence[float], own_method: bool
) -> tuple[torch.Tensor, tuple[float, ...], list[float], float]:
    """The evaluations of a class whose last timestep is the end's.

    Near t = 1 several times may have one level. The class's own method takes a step there that does nothing; another one is
    asked once a level, and goes to 0 where the class stops at its smallest level.
    """
    if own_method:
        falling = accumulate(ratios[:-1], lambda s, t: min(t, s * (1 - 2 * SAME)))
        return timesteps, tuple(told[:-1]), list(falling), ratios[-1]
    kept = [i for i, r in enumerate(ratios[:-1]) if i == 0 or r < ratios[i - 1]]
    end = ratios[-1] if told[-1] > 0 else 0.0
    return timesteps[[*kept, -1]], tuple(told[i] for i in kept), [ratios[i] for i in kept], end


def _read(native: Any, name: str, keys: Mapping[str, Any], convention: Convention, own_method: bool) -> NativeLayout:
    """The levels of an object after `set_timesteps`."""
    timesteps, order = native.timesteps.cpu(), int(getattr(native, "order", 1))
    told = tuple(convention.untold(t) for t in timesteps.tolist())
    sigmas = getattr(native, "sigmas", None)
    if sigmas is not None:
        sigmas = sigmas.cpu()  # some classes show more of them than they run through
        *ratios, end = (convention.from_sigma(s) for s in sigmas.tolist()[: len(timesteps) + 1])
    else:
        ratios = [convention.schedule.ratio(t) for t in told]
        to_zero = keys.get("set_alpha_to_one", True) or not own_method
        if own_method:
            to_zero = (to_zero or name in ENDS_AT_DATA) and name not in ENDS_AT_TIMESTEP_0
        end = 0.0 if to_zero else convention.schedule.ratio(0)
    if name in SHOWS_END:
        timesteps, told, ratios, end = _up_to_the_end(timesteps, told, ratios, own_method)
    strange = any(math.isnan(value) for value in (*ratios, end, *told)) or min(*ratios, end) < 0
    if strange or _beyond_flow(convention, sigmas):
        at = show(timesteps.tolist())
        raise GridError(f"it lays out sigmas {show(ratios)} at timesteps {at}, which are no levels of this process.")
    nodes = list(zip(ratios, told))
    nodes = [*nodes[:1], *nodes[1::2]] if order == 2 else nodes
    if name in OWN_METHOD_ONLY:
        told_once = [convention.untold(float(t)) for t in reversed(native._timesteps)]
        nodes = [(convention.schedule.ratio(t), t) for t in told_once]
        if not own_method:
            timesteps, told = torch.tensor([t for _, t in nodes], dtype=timesteps.dtype), tuple(t for _, t in nodes)
    idle = 0
    while len(nodes) > 1 and nodes[-1][0] <= end:
        nodes.pop()
        idle += 1
    levels = [convention.level(*node) for node in nodes]
    if nodes[0][0] <= end:  # a single step that goes nowhere
        end = to_ratio(float(levels[0]) * (1 - 1e-6), levels[0].frame)
    grid = Grid((*levels, convention.level(end)), convention.schedule)
    return NativeLayout(timesteps, sigmas, grid, idle, order, getattr(native, "init_noise_sigma", 1.0), told, name)


def _read_rising(native: Any, name: str, keys: Mapping[str, Any], convention: Convention, own_method: bool) -> NativeLayout:
    """The levels of an inverse class."""
    nodes, end, idle = rising(native, convention)
    levels = [convention.level(*node) for node in nodes]
    grid = Grid((*levels, convention.level(end)), convention.schedule, rising=True)
    sigmas, told = getattr(native, "sigmas", None), tuple(map(float, native.timesteps.tolist()))
    return NativeLayout(native.timesteps, sigmas, grid, idle, 1, native.init_noise_sigma, told, name)
