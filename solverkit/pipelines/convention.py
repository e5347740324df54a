"""How a native scheduler class talks to its pipeline: the coordinates of the latents, and what the network is shown.

The classes of diffusers hold their latents in one of two ways, and a pipeline relies on the one that it shipped with:

* the network's own process x = alpha x_0 + sigma eps (DDIM, DDPM, PNDM, the DPM family, UniPC, flow matching, EDM);
* x / alpha = x_0 + (sigma / alpha) eps (Euler, Heun, LMS, KDPM2 on VP), which `scale_model_input` turns into the former.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import OptionError, ScheduleError
from ..files.diffusers_config import from_config
from ..model.prediction import denoised_weights, input_scale
from ..process.cosine import CosineVP
from ..process.level import Level, from_ratio, to_ratio
from ..process.schedule import EDM, Flow, Schedule
from ..process.variance_preserving import DiscreteVP

# classes whose latents are x / alpha on VP
_UNIT_ALPHA = ("EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete", "KDPM2", "DPMSolverSDE")

_REFUSED = {
    "RePaint": "resamples between the steps of its pipeline",
    "ScoreSdeVe": "has no step(), its pipeline calls a predictor and a corrector (sampler 'pc' of sk.sample does both)",
}


@dataclass(frozen=True)
class Convention:
    """What a scheduler config says about the network and about the latents of its pipelines.

    Attributes:
        schedule, prediction: Of the network, as for `sk.wrap`.
        unit_alpha: The latents are x / alpha.
        inverted: The network is told time_scale (1 - t) and predicts x_0 - eps (invert_sigmas).
        clip: The denoised prediction is clipped to [-clip, clip]; None does not.
        threshold: Dynamic thresholding: (quantile, largest value); None does not.
        start_at_spread: `init_noise_sigma` is sqrt(sigma_max^2 + 1) rather than sigma_max.
        ends_unit_alpha: The latents are x / alpha at the end of a run, which matters where that is not at 0.
    """

    schedule: Schedule
    prediction: str
    unit_alpha: bool = False
    inverted: bool = False
    clip: float | None = None
    threshold: tuple[float, float] | None = None
    start_at_spread: bool = False
    ends_unit_alpha: bool | None = None

    @classmethod
    def read(cls, config: Mapping[str, Any], name: str) -> Convention:
        """From a config and the name of the native class that it belongs to.

        Raises:
            ScheduleError: a config that cannot be honoured.
        """
        reason = next((why for part, why in _REFUSED.items() if part in name), None)
        if reason is not None:
            raise ScheduleError(f"{name} {reason}; SolverKitScheduler cannot take its place.")
        if config.get("stochastic_sampling"):
            raise ScheduleError(
                f"the {name} has stochastic_sampling=True: each step draws fresh noise at the next level, as samplers "
                "of distilled networks do: here that is sampler='renoise' with stochastic_sampling=False."
            )
        inverted = bool(config.get("invert_sigmas", False))
        schedule, prediction = from_config({**config, "_class_name": name, "invert_sigmas": False})
        if inverted and not (isinstance(schedule, Flow) and prediction == "flow_prediction"):
            raise ScheduleError(f"the {name} has invert_sigmas=True, which means something for flow matching only.")
        euler = isinstance(schedule, DiscreteVP) and name.startswith(_UNIT_ALPHA)
        if isinstance(schedule, DiscreteVP) and math.isinf(schedule.ratio_max) and prediction == "epsilon":
            raise ScheduleError(
                f"the {name} has zero terminal SNR and prediction_type='epsilon'; at alpha = 0 epsilon says nothing about "
                "the sample. Such networks predict v: pass prediction_type='v_prediction', or rescale_betas_zero_snr=False."
            )
        clip = float(config.get("clip_sample_range") or 1.0) if config.get("clip_sample") else None
        threshold = None
        if config.get("thresholding"):
            ratio, most = config.get("dynamic_thresholding_ratio"), config.get("sample_max_value")
            threshold = (0.995 if ratio is None else float(ratio), 1.0 if most is None else float(most))
        spread = isinstance(schedule, EDM) and not name.startswith(_UNIT_ALPHA)
        return cls(
            schedule,
            prediction,
            unit_alpha=euler and not math.isinf(schedule.ratio_max),  # x / alpha does not exist at alpha = 0
            inverted=inverted,
            clip=None if threshold else clip,
            threshold=threshold,
            start_at_spread=spread or config.get("timestep_spacing") not in ("linspace", "trailing"),
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Convention:
        return self

    def level(self, ratio: float, time: float | None = None) -> Level:
        """The level at sigma / alpha, told `time` where it is given."""
        if time is None:
            return self.schedule.level(ratio)
        alpha, sigma = self.schedule.alpha_sigma(ratio)
        frame = self.schedule.frame
        return Level(from_ratio(ratio, frame), time, alpha + frame * sigma, frame)

    def told(self, level: Level) -> float:
        """What the pipeline's `timesteps` say at a level."""
        return self._time_scale - level.time if self.inverted else level.time

    def untold(self, told: float) -> float:
        """The schedule's time where the pipeline's `timesteps` say `told`."""
        return self._time_scale - told if self.inverted else told

    def ratio(self, told: float) -> float:
        """sigma / alpha at a told time."""
        return self.schedule.ratio(self.untold(told))

    @property
    def to_data(self) -> bool:
        """The network of a flow predicts x_0 - eps."""
        return self.inverted or (self.prediction == "flow_prediction" and getattr(self.schedule, "data_at", 0) == 1)

    @property
    def _time_scale(self) -> float:
        return float(getattr(self.schedule, "time_scale", 1.0))

    def sigma(self, level: Level) -> float:
        """What the pipeline's `sigmas` say at a level: sigma / alpha, or t of a flow model."""
        if isinstance(self.schedule, Flow):
            s = from_ratio(level.ratio, 1)
            return 1 - s if self.inverted else s
        return level.ratio

    def from_sigma(self, sigma: float) -> float:
        """sigma / alpha of a value of `sigmas`."""
        if isinstance(self.schedule, Flow):
            return to_ratio(1 - sigma if self.inverted else sigma, 1)
        return sigma

    def scale(self, level: Level) -> float:
        """The pipeline's latents are this times the frame's state."""
        return self.scale_of(level, self.unit_alpha)

    def end_scale(self, level: Level) -> float:
        """The same at the end of a run."""
        return self.scale_of(level, self.unit_alpha if self.ends_unit_alpha is None else self.ends_unit_alpha)

    def scale_of(self, level: Level, unit_alpha: bool) -> float:
        """The same for latents of either kind."""
        return 1.0 / level.alpha if unit_alpha and isinstance(self.schedule, DiscreteVP) else level.scale

    def input_scale(self, level: Level) -> float:
        """`scale_model_input`: what the latents are multiplied by before the network sees them."""
        sigma = float(level) * level.scale
        own = level.scale / self.scale(level)
        return own * input_scale(self.prediction, sigma, getattr(self.schedule, "sigma_data", 1.0))

    def weights(self, level: Level) -> tuple[float, float]:
        """(w_x, w_out): denoised = w_x * latents + w_out * model_output."""
        alpha, sigma = level.alpha * level.scale, float(level) * level.scale
        w_x, w_out = denoised_weights(self.prediction, alpha, sigma, getattr(self.schedule, "sigma_data", 1.0))
        return w_x * level.scale / self.scale(level), -w_out if self.to_data else w_out

    def marginal(self, level: Level) -> tuple[float, float]:
        """(a, b): noisy latents = a * clean + b * noise."""
        scale = self.scale(level)
        return scale * level.alpha, scale * float(level)

    def velocity(self, level: Level) -> tuple[float, float]:
        """(a, b): the training target of v-prediction or flow matching = a * clean + b * noise.

        Raises:
            OptionError: the process has none.
        """
        if isinstance(self.schedule, Flow):
            return (1.0, -1.0) if self.to_data else (-1.0, 1.0)
        if not isinstance(self.schedule, (DiscreteVP, CosineVP)):
            raise OptionError(f"networks on {type(self.schedule).__name__} are not trained on a velocity.")
        return -float(level) * level.scale, level.alpha * level.scale

    def clipped(self, denoised: torch.Tensor) -> torch.Tensor:
        """A denoised prediction (B, ...) clipped as the config asks.

        Dynamic thresholding clips each sample at a quantile of its own sizes, between 1 and the largest value, and divides
        by it (Saharia et al. 2022, section 2.3).
        """
        if self.threshold is not None:
            quantile, most = self.threshold
            size = denoised.flatten(1).abs().float()
            bound = torch.quantile(size, quantile, dim=1).clamp(1.0, most).to(denoised.dtype)
            bound = bound.reshape(-1, *[1] * (denoised.ndim - 1))
            return denoised.clamp(-bound, bound) / bound
        return denoised if self.clip is None else denoised.clamp(-self.clip, self.clip)

    def init_noise_sigma(self, sigmas: torch.Tensor) -> Any:
        """What pipelines multiply unit noise by, for `sigmas` as they read them; a tensor where native classes have one."""
        if not self.unit_alpha and not isinstance(self.schedule, EDM):
            return 1.0
        largest = sigmas[torch.isfinite(sigmas)].max()
        start = torch.hypot(largest, torch.ones_like(largest)) if self.start_at_spread else largest
        return start if self.unit_alpha else float(start)


def unit_alpha(name: str) -> bool:
    """Whether the latents of a native class on VP are x / alpha."""
    return name.startswith(_UNIT_ALPHA)
