"""Which native class and which sampler of ours stand for one method, by the family of a pipeline's network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Method:
    """One column.

    Attributes:
        name: Its head.
        sampler, options: Ours.
        classes: The native class by family; families that are absent have none.
        native: What a user must add to the native config for this method.
    """

    name: str
    sampler: str
    classes: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)
    native: dict[str, Any] = field(default_factory=dict)


def _vp(name: str, **others: str) -> dict[str, str]:
    return {"vp": name, "cogvideox": name, **others}


DPM, EDM_DPM, UNIPC = "DPMSolverMultistepScheduler", "EDMDPMSolverMultistepScheduler", "UniPCMultistepScheduler"
FLOW_EULER = "FlowMatchEulerDiscreteScheduler"

METHODS = (
    Method("DDIM", "ddim", {"vp": "DDIMScheduler", "cogvideox": "CogVideoXDDIMScheduler"}),
    Method(
        "Euler",
        "euler",
        _vp("EulerDiscreteScheduler", svd="EulerDiscreteScheduler", edm="EDMEulerScheduler", flow=FLOW_EULER),
    ),
    Method(
        "Euler a", "euler-ancestral", _vp("EulerAncestralDiscreteScheduler", flow="LTXEulerAncestralRFScheduler")
    ),
    Method("Heun", "heun", _vp("HeunDiscreteScheduler", flow="FlowMatchHeunDiscreteScheduler")),
    Method("DPM++ 2M", "dpmpp-2m", _vp(DPM, edm=EDM_DPM, flow=DPM)),
    Method(
        "DPM++ 2M SDE",
        "dpmpp-2m-sde",
        {
            "vp": DPM, "flow": DPM, "edm": EDM_DPM, "arctan": "CosineDPMSolverMultistepScheduler",
            "cogvideox": "CogVideoXDPMScheduler",
        },
        native={"algorithm_type": "sde-dpmsolver++"},
    ),
    Method("UniPC", "unipc", _vp(UNIPC, flow=UNIPC)),
    Method(
        "DEIS",
        "deis",
        _vp("DEISMultistepScheduler", flow="DEISMultistepScheduler"),
        native={"algorithm_type": "deis", "solver_type": "logrho"},
    ),
    Method("DDPM", "ddpm", _vp("DDPMScheduler")),
    Method("LMS", "lms", _vp("LMSDiscreteScheduler")),
    Method("KDPM2", "kdpm2", _vp("KDPM2DiscreteScheduler")),
    Method("PNDM", "pndm", _vp("PNDMScheduler"), {"start": "plms"}, {"skip_prk_steps": True}),
)  # fmt: skip


def family(config: Mapping[str, Any]) -> str:
    """What kind of network a shipped scheduler config belongs to: vp, cogvideox, svd, edm, arctan or flow."""
    name = config.get("_class_name") or ""
    if "sigma_data" in config:
        return "arctan" if "Cosine" in name or config.get("sigma_schedule") == "exponential" else "edm"
    if "shift" in config or config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        return "flow"
    if "snr_shift_scale" in config:
        return "cogvideox"
    return "svd" if config.get("timestep_type") == "continuous" else "vp"


def additions(method: Method, kind: str, config: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What a user must add to the shipped config for the native class, whose constructor takes `parameters`.

    The schedulers for flow networks alone call their shift `shift`; DPM++, UniPC and DEIS have to be told that the network
    is a flow, and call it `flow_shift`.
    """
    added = {key: value for key, value in method.native.items() if key in parameters}
    if kind != "flow":
        return added
    shift = config.get("shift") if config.get("shift") is not None else config.get("flow_shift")
    if "use_flow_sigmas" in parameters:
        added |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    name = "flow_shift" if "flow_shift" in parameters else "shift"
    if name in parameters and shift is not None and config.get(name) != shift:
        added[name] = shift
    return added


# what of a config changes the result, whichever class carries it out, and the values that change nothing
MATTERS = {
    "beta_start": (),
    "beta_end": (),
    "beta_schedule": (),
    "prediction_type": (),
    "timestep_spacing": (),
    "steps_offset": (0,),
    "rescale_betas_zero_snr": (False,),
    "snr_shift_scale": (1.0,),
    "set_alpha_to_one": (True,),
    "clip_sample": (False,),
    "thresholding": (False,),
    "timestep_type": ("discrete",),
    "final_sigmas_type": ("zero",),
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
}
MATTERS_FLOW = {
    "use_dynamic_shifting": (False,), "shift_terminal": (None,), "invert_sigmas": (False,), "use_karras_sigmas": (False,),
}  # fmt: skip


def lost(kind: str, config: Mapping[str, Any], scheduler: Any, parameters: Mapping[str, Any]) -> list[str]:
    """What a native scheduler does not take over of the shipped config: keys that it lacks, or fills itself."""
    found, native = [], scheduler.config
    for key, idle in (MATTERS_FLOW if kind == "flow" else MATTERS).items():
        given = config.get(key)
        if key in parameters and key not in config and native[key] not in idle:
            found.append(f"{key}={native[key]!r} comes in")
        elif key in parameters and key in config and native[key] != given and {native[key], given} - {*idle}:
            found.append(f"{key}={given!r} becomes {native[key]!r}")
        elif key not in parameters and given is not None and given not in idle:
            found.append(f"{key}={given!r} is not read")
    if getattr(scheduler, "noise_sampler", None) is not None:
        found.append("noise from a Brownian tree with a seed of its own")
    return found
