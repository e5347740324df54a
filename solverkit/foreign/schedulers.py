"""Scheduler classes of diffusers as samplers of ours, on levels that are given: nothing but their arithmetic is theirs.

A class of the VP family gets a table of trained timesteps that is the grid, one entry a level, in float64, and visits all
of it. A grid that ends above 0 ends where the class would evaluate at its last level. A class that ends at its lowest
trained level, and never at 0, has one more entry, and ends there. Flow classes take levels themselves.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from ..errors import GridError, OptionError
from ..grid.grid import Grid
from ..process.level import FLOW_FRAME, Level, from_ratio
from .draws import BrownianPath, KeyedRandom

Edit = Callable[[int, torch.Tensor], torch.Tensor]
TABLE_KEYS = ("num_train_timesteps", "trained_betas", "prediction_type", "clip_sample", "timestep_spacing", "steps_offset")
NEARLY = 1e-3  # a class that never ends at 0 ends at NEARLY of the last level above it, and at most at NEARLY^2
LAYOUTS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas", "use_flow_sigmas")


def config_of(cls: Any) -> dict[str, Any]:
    """The config keys of a class that are the method's own, and their defaults: not the network's, nor the layout's."""
    known = inspect.signature(cls.__init__).parameters
    taken = ("self", "args", "kwargs", *TABLE_KEYS, *LAYOUTS, "beta_start", "beta_end", "beta_schedule")
    return {name: p.default for name, p in known.items() if name not in taken}


def refusal(cls: Any) -> str | None:
    """Why a class cannot be driven on given levels; None where it can."""
    keys = inspect.signature(cls.__init__).parameters
    if "LCM" in cls.__name__ or "original_inference_steps" in keys:
        return "it runs distilled networks, on the timesteps of their training"
    if "FlowMatch" in cls.__name__:
        return None if _takes(cls.set_timesteps, "sigmas") else "it lays out a flow's levels itself"
    if "Inverse" in cls.__name__:
        return "it runs from data to noise"
    if not _takes(cls.step, "sample") or _takes(cls.step, "timestep_back"):
        return "its step takes more than an output, a timestep and a state"
    if "trained_betas" not in keys:
        return "its levels cannot be given (no trained_betas)"
    if not ("timestep_spacing" in keys or _takes(cls.set_timesteps, "timesteps")):
        return "it cannot visit every timestep of a table (no timestep_spacing, no timesteps=)"
    return None


def is_flow(cls: Any) -> bool:
    """Whether a class runs flow models alone."""
    return "FlowMatch" in cls.__name__


def _ends_low(scheduler: Any) -> bool:
    """Whether a class ends at its lowest trained level, after its table was visited down to it."""
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None:
        return float(sigmas[-1]) > 0
    final = getattr(scheduler, "final_alpha_cumprod", None)
    return final is not None and float(final) < 1


def _takes(fn: Any, name: str) -> bool:
    return name in inspect.signature(fn).parameters


class ScheduledRun:
    """One run of a class on a grid; `scheduler` is the object that ran.

    Args:
        cls: The class.
        grid: The levels.
        options: Config keys.

    Raises:
        GridError: levels that the class cannot run.
        OptionError: the class refuses its config, or cannot be given levels at all.
    """

    def __init__(self, cls: Any, grid: Grid, options: Mapping[str, Any]) -> None:
        if why := refusal(cls):
            raise OptionError(f"{cls.__name__} cannot be run on given levels: {why}.")
        if (grid.schedule.frame == FLOW_FRAME) != is_flow(cls):
            kind = "flow models" if is_flow(cls) else "variance-preserving and variance-exploding models"
            raise GridError(f"{cls.__name__} runs {kind} alone, and this grid is of {type(grid.schedule).__name__}.")
        if cls.__name__ == "PNDMScheduler" and not options.get("skip_prk_steps"):
            raise OptionError(
                "PNDMScheduler's Runge-Kutta start asks timesteps between those of the run, and a grid that is given has "
                "none; say skip_prk_steps=true."
            )
        self.grid, self.flow = grid, is_flow(cls)
        self.whole = grid[-1] == 0  # the class makes the last step to 0 itself
        self.levels = [float(s) for s in (grid.levels[:-1] if self.whole else grid.levels)]
        try:
            self.scheduler = self._flow(cls, options) if self.flow else self._tabulated(cls, options)
            if self.whole and not self.flow and _ends_low(self.scheduler):
                self.whole, self.levels = False, [*self.levels, min(NEARLY * self.levels[-1], NEARLY**2)]
                self.scheduler = self._tabulated(cls, options)
        except Exception as error:  # a class may refuse its config in any way
            raise OptionError(f"{cls.__name__} refuses {dict(options)}: {error}") from None
        self.stages = round(len(self.scheduler.timesteps) / len(self.levels))  # evaluations of a step
        self.scaled = not self.flow and float(self.scheduler.init_noise_sigma) != 1  # its latents are in the sigma frame

    def _flow(self, cls: Any, options: Mapping[str, Any]) -> Any:
        scheduler = cls(**options)
        scheduler.set_timesteps(sigmas=np.array(self.levels, dtype=np.float64))
        return scheduler

    def _tabulated(self, cls: Any, options: Mapping[str, Any]) -> Any:
        ratios = np.array(self.levels[::-1])
        kept = 1 / (1 + ratios**2)
        config = {
            "num_train_timesteps": len(kept),
            "trained_betas": [float(b) for b in 1 - kept / np.concatenate([[1.0], kept[:-1]])],
            "prediction_type": "epsilon", "clip_sample": False, "timestep_spacing": "trailing", "steps_offset": 0,
            **({"lower_order_final": True} if "Singlestep" in cls.__name__ else {}),  # it sets this itself, too late
            **options,
        }  # fmt: skip
        known = inspect.signature(cls.__init__).parameters
        scheduler = cls(**{key: value for key, value in config.items() if key in known})
        scheduler.alphas_cumprod = torch.from_numpy(kept)  # float32 betas lose the smallest levels
        for name, value in (("alpha_t", kept**0.5), ("sigma_t", (1 - kept) ** 0.5), ("lambda_t", -np.log(ratios))):
            if hasattr(scheduler, name):
                setattr(scheduler, name, torch.from_numpy(value))
        if "timestep_spacing" in known:
            scheduler.set_timesteps(len(kept))
        else:
            scheduler.set_timesteps(timesteps=list(range(len(kept) - 1, -1, -1)))
        sigmas = getattr(scheduler, "sigmas", None)
        if sigmas is not None and len(sigmas) == len(kept) + 1:  # not rounded to float32
            end = torch.tensor([ratios[0] if float(sigmas[-1]) else 0.0], dtype=torch.float64)
            scheduler.sigmas = torch.cat([torch.from_numpy(ratios[::-1].copy()), end])
        return scheduler

    def starts(self, i: int) -> bool:
        """Whether evaluation i starts a step: the state is then one of a level."""
        orders = getattr(self.scheduler, "order_list", None)
        if orders:
            return orders[i] == 1
        return i == 0 or (i % 2 == 0 if self.stages == 2 else True)

    def node(self, i: int) -> int:
        """The node of the grid where evaluation i starts a step."""
        return i // self.stages if self.stages > 1 else i

    def sigma(self, i: int) -> float:
        """sigma / alpha of evaluation i, in a flow sigma: what the class takes it for."""
        scheduler, count = self.scheduler, len(self.scheduler.timesteps)
        if self.stages == 2 and i % 2:
            inner = getattr(scheduler, "sigmas_interpol", None)
            if inner is not None:
                return float(inner[i - ("Ancestral" in type(scheduler).__name__)])
            if (middle := getattr(scheduler, "mid_point_sigma", None)) is not None:
                return float(middle)
        sigmas = getattr(scheduler, "sigmas", None)
        if sigmas is not None and len(sigmas) in (count, count + 1):
            return float(sigmas[i])
        kept = float(scheduler.alphas_cumprod[int(scheduler.timesteps[i])])
        return math.sqrt((1 - kept) / kept)

    def __call__(
        self, model: Any, x: torch.Tensor, noise: Any = None, edit: Edit | None = None,
        generator: Sequence[torch.Generator] | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """From x at the first level to the last, in the grid's frame, (B, ...).

        Args:
            model: model(x, level) -> x_0.
            x: The start.
            noise: noise(s, t) -> draws of the run; None: the class draws from `generator`.
            edit: edit(node, x) -> x changes the state at the start of each step.
            generator: One a sample, as pipelines give them.
        """
        place = [0]
        random = KeyedRandom(x.shape, lambda: noise(*self._interval(place[0]))) if noise is not None else nullcontext()
        if noise is not None and hasattr(self.scheduler, "noise_sampler"):
            self.scheduler.noise_sampler = BrownianPath(noise)
        count = len(self.scheduler.timesteps) - (not self.whole)
        takes = _takes(self.scheduler.step, "generator")
        latents = x if self.scaled or self.flow else x / math.hypot(1.0, self.levels[0])
        for i in range(count):
            t, place[0] = self.scheduler.timesteps[i], i
            if edit is not None and self.starts(i):
                sigma = self.levels[self.node(i)]
                factor = 1.0 if self.scaled or self.flow else math.hypot(1.0, sigma)
                latents = edit(self.node(i), latents * factor) / factor
            own = latents
            if hasattr(self.scheduler, "scale_model_input"):
                own = self.scheduler.scale_model_input(latents, t)
            sigma = self.sigma(i)
            if not sigma > 0:  # nor NaN
                raise GridError(f"evaluation {i + 1} is at the level {sigma}.")
            frame = own if self.flow else own * math.hypot(1.0, sigma)
            output = (frame - model(frame, self._level(sigma))) / sigma
            with random:
                said = {"generator": list(generator)} if takes and generator is not None else {}
                latents = self.scheduler.step(output, t, latents, return_dict=False, **said)[0]
        end = 0.0 if self.whole else self.levels[-1]
        return latents if self.scaled or self.flow else latents * math.hypot(1.0, end)

    def _interval(self, i: int) -> tuple[float, float]:
        node = min(self.node(i), len(self.grid) - 2)
        return self.grid[node].ratio, self.grid[node + 1].ratio

    def _level(self, sigma: float) -> Level:
        near = min(self.grid, key=lambda level: abs(float(level) - sigma))
        if abs(float(near) - sigma) <= 1e-6 * sigma:
            return near
        return self.grid.at(sigma if self.flow else from_ratio(sigma, self.grid.frame))
