"""The diffusers scheduler config of a schedule and a prediction type: the inverse of `diffusers_config.from_config`."""

from __future__ import annotations

from typing import Any

from ..errors import ScheduleError
from ..process.cosine import CosineVP
from ..process.schedule import EDM, VE, Flow, Schedule
from ..process.variance_preserving import DiscreteVP
from .diffusers_config import from_config


def to_config(schedule: Schedule, prediction: str) -> dict[str, Any] | None:
    """A diffusers scheduler config that `from_config` reads back as exactly this; None where diffusers has none."""
    config: dict[str, Any]
    if isinstance(schedule, DiscreteVP):
        named = isinstance(schedule.betas, str)
        betas = "squaredcos_cap_v2" if schedule.betas == "cosine" else schedule.betas
        config = {
            "_class_name": "DDPMScheduler" if schedule.snr_shift_scale == 1 else "CogVideoXDDIMScheduler",
            "num_train_timesteps": schedule.num_train_timesteps,
            "beta_schedule": betas if named else "linear",
            "trained_betas": None if named else list(betas),
            "beta_start": schedule.beta_start,
            "beta_end": schedule.beta_end,
            "prediction_type": prediction,
            "rescale_betas_zero_snr": schedule.zero_terminal_snr,
            "clip_sample": False,
        }
        if schedule.snr_shift_scale != 1:
            config["snr_shift_scale"] = schedule.snr_shift_scale
        if schedule.integer_time:
            config["integer_time"] = True  # diffusers keeps keys that it does not know
    elif isinstance(schedule, Flow) and schedule.time_scale == int(schedule.time_scale):
        config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": schedule.shift}
        config["num_train_timesteps"] = int(schedule.time_scale)
    elif isinstance(schedule, EDM):
        name = "CosineDPMSolverMultistepScheduler" if schedule.told == "arctan" else "EDMEulerScheduler"
        config = {"_class_name": name, "sigma_min": schedule.sigma_min, "sigma_max": schedule.sigma_max}
        config["sigma_data"] = schedule.sigma_data
        config["prediction_type"] = "v_prediction" if prediction == "edm_v" else "epsilon"
    elif isinstance(schedule, CosineVP):
        bounded = {"_class_name": "DDPMWuerstchenScheduler", "s": schedule.offset, "scaler": schedule.power}
        config = bounded if schedule.bound else {"_class_name": "IPNDMScheduler"}
    elif isinstance(schedule, VE):
        config = {"_class_name": "ScoreSdeVeScheduler", "sigma_min": schedule.sigma_min, "sigma_max": schedule.sigma_max}
    else:
        return None
    try:
        back, read = from_config(config)
    except ScheduleError:
        return None
    same = read == prediction and type(back) is type(schedule) and _levels_of(back) == _levels_of(schedule)
    return config if same else None


def _levels_of(schedule: Schedule) -> tuple[object, ...]:
    """What distinguishes two schedules of one class: betas by name or value, not the unused parameters beside them."""
    if not isinstance(schedule, DiscreteVP):
        return (schedule,)
    return (schedule.log_ratios.tobytes(), schedule.integer_time, schedule.zero_terminal_snr)
