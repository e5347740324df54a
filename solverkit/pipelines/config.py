"""The config of `SolverKitScheduler`: all keys of the native class that it stands in for, and six of its own.

Nothing of the native config is lost, so that `DDIMScheduler.from_config(ours.config)` gives back what there was.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ..errors import OptionError, ScheduleError, nearest
from ..files.diffusers_config import class_defaults
from ..grid.named import parse_grid
from ..registry.registry import SamplerCard, resolve
from .convention import Convention
from .inversion import require_invertible
from .native_layout import layout_class, own_class, peer_of
from .peers import METHOD_KEYS, Peer, forward_class, inverting, of_student, peer_named
from .writer import native_class

OWN = ("sampler", "grid", "sampler_options", "native_class", "layout_class", "inverse")
SAMPLER = "dpmpp-2m"
KEPT = ("_use_default_values",)

# keywords of pipelines' and models' loaders that are passed on to every component
LOADERS = (
    "torch_dtype", "dtype", "variant", "device_map", "max_memory", "offload_folder", "offload_state_dict",
    "low_cpu_mem_usage", "use_safetensors", "trust_remote_code", "custom_revision", "quantization_config", "from_flax",
    "use_flax", "use_onnx", "provider", "sess_options", "output_loading_info", "mirror", "disable_mmap", "dduf_entries",
    "use_keep_in_fp32_modules", "parallel_config", "keep_in_fp32_modules", "attn_implementation", "custom_pipeline",
)  # fmt: skip

# keys that are read here, whichever class they come from
_READ = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
    "timestep_spacing", "steps_offset", "rescale_betas_zero_snr", "snr_shift_scale", "clip_sample", "clip_sample_range",
    "thresholding", "dynamic_thresholding_ratio", "sample_max_value", "use_karras_sigmas", "use_exponential_sigmas",
    "use_beta_sigmas", "use_lu_lambdas", "use_flow_sigmas", "flow_shift", "shift", "shift_terminal",
    "use_dynamic_shifting", "time_shift_type", "invert_sigmas", "final_sigmas_type", "sigma_min", "sigma_max",
    "sigma_data", "sigma_schedule", "rho", "timestep_type", "interpolation_type", "integer_time", "variance_type",
    "set_alpha_to_one", "stochastic_sampling",
)  # fmt: skip


def merged(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The whole config of a scheduler: the class's defaults, then the config, then what the user overrides.

    Args:
        config: A native scheduler's config, one of ours, or a part of one: what it lacks are the defaults of its class.
        overrides: Own keys (`OWN`) and native ones.

    Raises:
        OptionError: an override that nobody knows, or an option that the sampler does not have.
        ScheduleError: a config whose class cannot be told.
    """
    overrides = {key: plain(key, value) for key, value in overrides.items() if key not in KEPT}
    config = {key: plain(key, value) for key, value in config.items()}
    before = {key: value for key, value in config.items() if key in OWN}
    if config.get("_class_name") not in (None, "SolverKitScheduler"):
        for key in ("native_class", "inverse"):  # a native class that took one of our configs over wrote this one
            before.pop(key, None)
    native = {key: value for key, value in config.items() if key not in OWN and key not in ("_class_name", *KEPT)}
    changed = overrides.get("sampler", before.get("sampler")) != before.get("sampler")
    sampler = overrides.get("sampler") or before.get("sampler") or SAMPLER
    named = overrides.pop("native_class", None)
    name = named or before.get("native_class") or native_class(config, {**native, **overrides}, sampler)
    if of_inverse := inverting(name):
        sampler = overrides.get("sampler") or before.get("sampler") or of_inverse
    elif few_step := of_student(name):
        sampler = overrides.get("sampler") or before.get("sampler") or few_step
    defaults = class_defaults(forward_class(name))
    if defaults is None:
        raise ScheduleError(f"diffusers has no scheduler {name!r}; native_class names the class that wrote the config.")
    defaults = {**defaults, **(class_defaults(name) or {})}
    turned = overrides.pop("inverse", None)
    _known(overrides, native, {**defaults, **_defaults_of(sampler)}, name, peer_named(sampler))
    given = overrides.pop("sampler_options", None)
    kept = {} if changed else before.get("sampler_options")
    _one_shift(overrides, native, defaults)
    own = {
        "sampler": overrides.pop("sampler", None) or sampler,
        "grid": overrides.pop("grid", before.get("grid")),
        "sampler_options": copy.deepcopy((kept or {}) if given is None else given),
        "native_class": forward_class(name),
        "layout_class": overrides.pop("layout_class", named or (None if changed else before.get("layout_class"))),
        "inverse": (before.get("inverse", False) or of_inverse is not None) if turned is None else turned,
    }
    by_default = [*config.get("_use_default_values", ()), *(key for key in defaults if key not in native)]
    if native.get("variance_type") is None and "variance_type" not in defaults:
        by_default.append("variance_type")  # pipelines read it of every class; no other class is to
    native = {"variance_type": None, **defaults, **native, **overrides}
    check({**native, **own})
    native["_use_default_values"] = [key for key in dict.fromkeys(by_default) if key not in (*overrides, *OWN)]
    return {**native, **own}


def _defaults_of(sampler: Any) -> dict[str, Any]:
    """The keys of the sampler's own classes."""
    own = peer_named(sampler)
    return {} if own is None else {k: v for name in own.classes.values() for k, v in (class_defaults(name) or {}).items()}


def _known(
    overrides: Mapping[str, Any], native: Mapping[str, Any], keys: Mapping[str, Any], name: str, peer: Peer | None
) -> None:
    """Raises OptionError for an override that nobody reads; it says what does what a method's key means."""
    known = [*OWN, *_READ, *keys, *(key for key in native if not key.startswith("_"))]
    for key in overrides:
        read = peer is not None and (key in peer.options.values() or peer.fixed.get(key) == overrides[key])
        if key in METHOD_KEYS and not read:
            raise OptionError(f"{key}={overrides[key]!r} says what a native class does; here that is {METHOD_KEYS[key]}.")
        if key not in known:
            raise OptionError(
                f"SolverKitScheduler has no config key {key!r}.{nearest(key, known)} Its own are {', '.join(OWN)}; options "
                f"of the sampler go to sampler_options={{...}}; all others are those of {name}."
            )


def plain(key: str, value: Any) -> Any:
    """A config value as JSON has it: lists instead of arrays and tensors, Python numbers instead of numpy's.

    Raises:
        OptionError: a value that JSON has no form for.
    """
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: plain(f"{key}[{name!r}]", v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(key, v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise OptionError(f"the config key {key} must be a JSON value, got {type(value).__name__}: {value!r:.60}.")


def _one_shift(overrides: dict[str, Any], native: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """`flow_shift` (DPM++, UniPC) and `shift` (flow-matching classes) are one thing: give it the name that the class has.

    Raises:
        OptionError: both are given and differ.
    """
    given = {key: overrides[key] for key in ("shift", "flow_shift") if overrides.get(key) is not None}
    if len(set(given.values())) > 1:
        raise OptionError(f"shift={given['shift']} and flow_shift={given['flow_shift']} mean the same; give one of them.")
    for key, other in (("shift", "flow_shift"), ("flow_shift", "shift")):
        if key in given and key not in defaults and other in {**native, **defaults}:
            overrides[other] = overrides.pop(key)


def check(own: Mapping[str, Any]) -> SamplerCard:
    """The sampler's card, once its name, its options and the grid are known to be good.

    Raises:
        UnknownNameError, OptionError: a sampler, grid or option that does not exist, or a sampler that has no plan.
    """
    if not isinstance(own["sampler"], str):
        raise OptionError(f"sampler must be a registered name (a config is JSON), got {own['sampler']!r:.80}.")
    card = resolve(own["sampler"])
    if not card.traceable:
        raise OptionError(
            f"{card.name!r} chooses its steps by what it sees (pull-only), and a pipeline needs to know its timesteps "
            "beforehand. Use sk.sample, a modular pipeline (sk.pulled), or another sampler."
        )
    if not isinstance(own["sampler_options"], Mapping):
        raise OptionError(f"sampler_options must be a dict, got {own['sampler_options']!r:.80}.")
    card.check(dict(own["sampler_options"]))
    if own.get("timestep_spacing") not in (None, "leading", "linspace", "trailing"):
        raise OptionError(f"timestep_spacing must be 'leading', 'linspace' or 'trailing', got {own['timestep_spacing']!r}.")
    if own["grid"] is not None:
        if not isinstance(own["grid"], str):
            raise OptionError(f"grid must be the name of a grid or None (the native layout), got {own['grid']!r:.80}.")
        parse_grid(own["grid"])
    if not isinstance(own.get("inverse", False), bool):
        raise OptionError(f"inverse must be True (from data to noise) or False, got {own['inverse']!r:.80}.")
    if own.get("inverse"):
        require_invertible(own, card)
    return card


def options(config: Mapping[str, Any], convention: Convention, card: SamplerCard) -> dict[str, Any]:
    """The sampler's options: those that the user chose, and on the native layout else what the native class would do."""
    chosen = dict(config["sampler_options"])
    peer, (name, keys) = peer_of(config), layout_class(config, convention)
    if peer is None or config["grid"] is not None or name != own_class(config, convention):
        return chosen
    return {**peer.chosen(name, keys, {k: v for k, v in card.defaults.items() if k not in card.preset}), **chosen}


def settings(config: Any) -> dict[str, Any]:
    """The config as it is now. Pipelines change attributes of a config whose items stay, so attributes are read."""
    changed = {key: copy.deepcopy(getattr(config, key, value)) for key, value in config.items()}
    return {**changed, "use_flow_sigmas": config.get("use_flow_sigmas", False)}


def native_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a config belongs to the native class."""
    return {key: value for key, value in config.items() if key not in (*OWN, "_class_name", "_diffusers_version")}
