"""Which class of diffusers does what a sampler does, and how that class spells the sampler's options.

People compare a sampler with the class of the same method, made from the same config. So where a pipeline leaves the noise
levels to the scheduler, that class lays them out and decides the options that nobody chose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..registry.aliases import SAMPLERS

DPM, UNIPC = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"
DDIM_INVERSE, DPM_INVERSE = "DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler"


@dataclass(frozen=True)
class Peer:
    """The native class of a sampler.

    Attributes:
        classes: By family of the network's process: "vp", "flow", "edm", "continuous".
        fixed: Keys of the class that make it this method.
        options: The sampler's option -> the key of the class.
        values: Where a key's value has another name here: key -> {native value: ours}.
        as_native: Options that make ours decide as the class does where the two have rules of their own.
        same: Other classes of the method, for configs that they wrote.
        special: Options for a class of `same` that decides otherwise.
        learns: It draws with the variance that a network answers (`variance_type`).
        inverse: The class that runs the method from data to noise, for a VP network; None where that is not known to be
            right.
    """

    classes: Mapping[str, str]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[Any, Any]] = field(default_factory=dict)
    as_native: Mapping[str, Any] = field(default_factory=dict)
    same: tuple[str, ...] = ()
    special: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    learns: bool = False
    inverse: str | None = None

    def class_for(self, family: str, writer: str) -> str | None:
        """The class of this method for a process; the one that wrote the config where it is one of them."""
        return writer if writer in (*self.classes.values(), *self.same) else self.classes.get(family)

    def told(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The keys of the class that the sampler's own options mean: the inverse of `chosen`."""
        keys = {}
        for option, key in self.options.items():
            if option in options:
                native = {ours: theirs for theirs, ours in reversed(list(self.values.get(key, {}).items()))}
                keys[key] = native.get(options[option], options[option])
        return keys

    def chosen(self, name: str, keys: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        """The sampler's options that a native config means.

        Args:
            name, keys: The class and its config.
            known: The options that the sampler has.
        """
        options = {**self.as_native, **self.special.get(name, {})}
        for option, key in self.options.items():
            if key in keys:
                options[option] = self.values.get(key, {}).get(keys[key], keys[key])
        return {option: value for option, value in options.items() if option in known}


def _dpm(order: int, kind: str = "dpmsolver++", **options: Any) -> Peer:
    classes = {"vp": DPM, "flow": DPM, "edm": "EDMDPMSolverMultistepScheduler"}
    spelled = {name: name for name in ("solver_type", "lower_order_final", "euler_at_final")}
    values = {"solver_type": dict.fromkeys(("bh1", "bh2", "logrho"), "midpoint")}
    fixed = {"algorithm_type": kind, "solver_order": order}
    if kind == "dpmsolver++":
        return Peer(classes, fixed, spelled, values, options)
    same = ("CogVideoXDPMScheduler", "CosineDPMSolverMultistepScheduler")  # both are this method and no other
    special = {"CogVideoXDPMScheduler": {"lower_order_final": False}}
    return Peer(classes, fixed, spelled, values, options, same, special)


PEERS: dict[str, Peer] = {
    "ddim": Peer({"vp": "DDIMScheduler"}, same=("DDIMParallelScheduler", "CogVideoXDDIMScheduler"), inverse=DDIM_INVERSE),
    "ddpm": Peer(
        {"vp": "DDPMScheduler"}, options={"variance": "variance_type"},
        values={"variance_type": {
            **dict.fromkeys(("fixed_small", "fixed_small_log", "learned", "learned_range", None), "small"),
            **dict.fromkeys(("fixed_large", "fixed_large_log"), "large"),
        }}, same=("DDPMParallelScheduler", "DDPMWuerstchenScheduler"),
        special={"DDPMWuerstchenScheduler": {"last_noise": False}}, learns=True, as_native={"released": True},
    ),
    "euler": Peer({
        "vp": "EulerDiscreteScheduler", "continuous": "EulerDiscreteScheduler", "edm": "EDMEulerScheduler",
        "flow": "FlowMatchEulerDiscreteScheduler",
    }, same=("MiniMaxH3Scheduler",), inverse=DDIM_INVERSE),
    "euler-ancestral": Peer({"vp": "EulerAncestralDiscreteScheduler"}),
    "heun": Peer({"vp": "HeunDiscreteScheduler", "flow": "FlowMatchHeunDiscreteScheduler"}),
    "lms": Peer({"vp": "LMSDiscreteScheduler"}),
    "kdpm2": Peer({"vp": "KDPM2DiscreteScheduler"}),
    "kdpm2-ancestral": Peer({"vp": "KDPM2AncestralDiscreteScheduler"}),
    "dpmpp-sde": Peer({"vp": "DPMSolverSDEScheduler"}),
    "dpmpp-2m": replace(_dpm(2, released=True), inverse=DPM_INVERSE),
    "dpmpp-3m": _dpm(3),
    "dpmpp-2m-sde": _dpm(2, "sde-dpmsolver++", released=True),
    "dpmpp-singlestep": Peer(
        {"vp": "DPMSolverSinglestepScheduler", "flow": "DPMSolverSinglestepScheduler"}, {"algorithm_type": "dpmsolver++"},
        {"order": "solver_order"},
    ),
    "unipc": Peer(
        {"vp": UNIPC, "flow": UNIPC}, {},
        {"order": "solver_order", "variant": "solver_type", "lower_order_final": "lower_order_final"},
        {"solver_type": dict.fromkeys(("midpoint", "heun", "logrho"), "bh2")}, {"released": True},
    ),
    "deis": Peer(
        {"vp": "DEISMultistepScheduler", "flow": "DEISMultistepScheduler"}, {},
        {"order": "solver_order", "lower_order_final": "lower_order_final"},
        as_native={"variable": "log-rho", "released": True},
    ),
    "ipndm": Peer({}, same=("IPNDMScheduler",), as_native={"released": True}),
    "pndm": Peer(
        {"vp": "PNDMScheduler"}, options={"start": "skip_prk_steps"},
        values={"skip_prk_steps": {True: "plms", False: "prk"}},
    ),
    "renoise": Peer({"vp": "LCMScheduler", "flow": "FlowMatchLCMScheduler"}),
    "tcd": Peer({"vp": "TCDScheduler"}),
    "flow-map": Peer({"flow": "FlowMapEulerDiscreteScheduler"}),
}  # fmt: skip


def forward_class(name: str) -> str:
    """The class of the same method from noise to data: of X's inverse class X, else the class itself."""
    return name.replace("InverseScheduler", "Scheduler")


def inverting(name: str) -> str | None:
    """The sampler whose inverse class this is; None for other classes."""
    return next((sampler for sampler, peer in PEERS.items() if name and peer.inverse == name), None)


STUDENTS = ("renoise", "tcd", "flow-map")


def of_student(name: str) -> str | None:
    """The sampler of a class that runs distilled networks: what one of its configs means where no sampler is named."""
    return next((sampler for sampler in STUDENTS if name in PEERS[sampler].classes.values()), None)


def peer_named(sampler: Any) -> Peer | None:
    """What a sampler is in diffusers, if it is there; options may stand behind its name."""
    name = str(sampler).partition(":")[0]
    means = SAMPLERS[name].means if name in SAMPLERS else name
    return PEERS.get(means.partition(":")[0])


# keys of native classes that name a method rather than the network or its levels: what does the same here
METHOD_KEYS = {
    "algorithm_type": "choose the sampler: 'dpmpp-2m' (dpmsolver++), 'dpmpp-2m-sde' (sde-dpmsolver++), 'deis', ...",
    "solver_order": "sampler='dpmpp-2m' or 'dpmpp-3m', or sampler_options={'order': ...} of 'unipc' and 'deis'",
    "solver_type": "sampler_options={'solver_type': ...} of 'dpmpp-2m', {'variant': ...} of 'unipc'",
    "lower_order_final": "sampler_options={'lower_order_final': ...}",
    "euler_at_final": "sampler_options={'euler_at_final': ...} of 'dpmpp-2m' and 'dpmpp-3m'",
    "predict_x0": "'unipc' predicts x_0; 'lml' and 'deis' predict epsilon",
    "disable_corrector": "sampler_options={'corrector': False} of 'unipc' leaves all corrections out",
    "solver_p": "sampler='pc' takes another solver as its predictor",
    "predictor_order": "sampler='sa-solver', sampler_options={'predictor': ...}",
    "corrector_order": "sampler='sa-solver', sampler_options={'corrector': ...}",
    "tau_func": "sampler='sa-solver', sampler_options={'tau': 1.0, 'above': ..., 'below': ...} in sigma / alpha",
    "skip_prk_steps": "sampler='pndm', sampler_options={'start': 'plms'} or {'start': 'prk'}",
    "noise_sampler_seed": "pass the pipeline a generator",
    "s_churn": "sampler='heun', sampler_options={'s_churn': ...}",
    "s_noise": "sampler_options={'s_noise': ...} of the stochastic samplers",
    "eta": "sampler_options={'eta': ...}",
}
