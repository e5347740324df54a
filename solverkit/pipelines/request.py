"""The levels of a run from what a pipeline gives to `set_timesteps`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..errors import GridError
from ..grid.grid import Grid, show
from ..grid.named import make_grid, parse_grid
from ..process.level import Level
from ..process.schedule import EDM, VE, Flow
from ..process.variance_preserving import DiscreteVP
from ..registry.registry import resolve
from ..run.choose import default_grid
from .config import check, options
from .convention import Convention, unit_alpha
from .lay_out import lay_out
from .learned import KINDS
from .native_layout import SHOWS_END, NativeLayout, lay_out_natively, own_class, peer_of
from .tables import shown
from .timetable import Timetable


class Request:
    """One call of `set_timesteps`, read: how many steps, and where their levels come from.

    Levels are, in this order: timesteps that were given alone; a grid by name; the layout of the native class, which also
    takes the sigmas of a flow model; sigmas that were given.

    Args:
        convention: How the native class talks to its pipelines.
        config: The scheduler's config, read by attribute.
        num_inference_steps, timesteps, sigmas, mu: As pipelines pass them.

    Raises:
        GridError: nothing that says how long to run, or levels that this model does not have.
    """

    def __init__(
        self, convention: Convention, config: Mapping[str, Any], num_inference_steps: Any, timesteps: Any, sigmas: Any,
        mu: float | None,
    ) -> None:  # fmt: skip
        self.convention, self.config = convention, config
        self.named = config["grid"] or _named_by(config, convention)
        self.mu = mu if config.get("use_dynamic_shifting") else None
        self.timesteps = numbers("timesteps", timesteps)
        self.sigmas = numbers("sigmas", sigmas)
        self.ramp = self.sigmas is not None and len(self.sigmas) > 1 and self.sigmas[0] == 0 and self.sigmas[-1] == 1
        if self.sigmas is not None and self.sigmas[-1] == 0 and not self.ramp:
            self.sigmas = self.sigmas[:-1]
        if config.get("inverse") and (self.timesteps is not None or self.sigmas is not None):
            raise GridError("inverse=True runs on the levels of the inverse class: pass num_inference_steps alone.")
        self._require_trained()
        self._require_shift()
        given = self.sigmas if self.sigmas is not None else self.timesteps
        self.n = count(num_inference_steps) if given is None else len(given)
        if self.timesteps is not None and self.sigmas is not None and len(self.timesteps) != len(self.sigmas):
            raise GridError(f"timesteps and sigmas differ in length: {len(self.timesteps)} and {len(self.sigmas)}.")
        total = int(config.get("num_train_timesteps") or 1000)
        if given is None and self.n > total and isinstance(convention.schedule, DiscreteVP):
            warnings.warn(
                f"{self.n} steps were asked for, and this network was trained on {total} timesteps: each is used once.",
                stacklevel=2,
            )
            self.n = total

    def _require_trained(self) -> None:
        """Raises GridError for timesteps and sigmas that the network was not trained on."""
        schedule, prior = self.convention.schedule, self.convention.schedule.ratio_max
        if isinstance(schedule, (DiscreteVP, Flow)) and self.timesteps is not None:
            top = schedule.num_train_timesteps - 1 if isinstance(schedule, DiscreteVP) else schedule.time_scale
            if wrong := [t for t in self.timesteps if not 0 <= t <= top]:
                raise GridError(f"timesteps of this network are in [0, {top:g}], got {show(wrong)}.")
        if self.sigmas is None or self.ramp:
            return
        if isinstance(schedule, DiscreteVP) and (wrong := [s for s in self.sigmas if not 0 <= s <= 1.05 * prior]):
            raise GridError(f"sigmas (sigma / alpha) of this network are in [0, {prior:.6g}], got {show(wrong)}.")
        if isinstance(schedule, Flow) and (wrong := [s for s in self.sigmas if not 0 < s <= 1]):
            raise GridError(
                f"sigmas of a flow model are in (0, 1], got {show(wrong)}; this pipeline computed them for another kind of "
                "model, and cannot drive this scheduler."
            )

    @property
    def asked(self) -> tuple[Any, ...]:
        """What distinguishes this call from another."""
        return (self.n, self.timesteps, self.sigmas, self.mu)

    @property
    def native(self) -> bool:
        """The levels are laid out by the native class."""
        if self.timesteps is not None and self.sigmas is None:
            return self.shows_end
        if self.named is not None:
            return False
        takes_sigmas = (
            (isinstance(self.convention.schedule, Flow) and not self.convention.schedule.data_at)
            or type(self.convention.schedule) is VE
            or (self.ramp and isinstance(self.convention.schedule, EDM))
        )
        return self.sigmas is None or takes_sigmas

    @property
    def shows_end(self) -> bool:
        """The pipelines expect a timestep for the end, behind those of the evaluations."""
        return self.config["native_class"] in SHOWS_END

    def _require_shift(self) -> None:
        """Raises GridError where the config wants a dynamic shift and the pipeline computed none."""
        alone = self.timesteps is not None and self.sigmas is None
        if self.config.get("use_dynamic_shifting") and self.mu is None and not alone:
            raise GridError(
                "the config has use_dynamic_shifting=True, and set_timesteps got no mu. Pass mu=, or a fixed shift: "
                "from_config(..., use_dynamic_shifting=False, shift=3.0)."
            )

    def layout(self) -> NativeLayout:
        """The layout of the native class.

        Raises:
            GridError, ScheduleError: the class has none for this config and these arguments.
        """
        sigmas: Any = None
        if self.sigmas is not None:
            edm = isinstance(self.convention.schedule, EDM)
            sigmas = torch.tensor(self.sigmas, dtype=torch.float32, device="cpu") if edm else np.array(self.sigmas)
        timesteps = None if self.timesteps is None else list(self.timesteps)
        return lay_out_natively(self.config, self.convention, self.n, sigmas, timesteps, self.mu)

    def grid(self) -> Grid:
        """The levels where no native class lays them out."""
        if self.timesteps is not None and self.sigmas is None:
            return self._explicit([(self.convention.ratio(t), self.convention.untold(t)) for t in self.timesteps])
        if self.named is not None:
            return self._named(self.named)
        told: Sequence[float | None] = self.timesteps or [None] * self.n
        ratios = map(self.convention.from_sigma, self.sigmas or ())
        return self._explicit([(r, None if t is None else self.convention.untold(t)) for r, t in zip(ratios, told)])

    @property
    def last(self) -> str:
        """Where a grid by name ends: at the smallest trained level ("min") or at 0.

        Cosmos 2 asks for the former and then repeats the last of the native sigmas itself.
        """
        repeats = isinstance(self.convention.schedule, VE) and self.convention.prediction == "epsilon"
        return "min" if self.config.get("final_sigmas_type") == "sigma_min" and not repeats else "zero"

    def _named(self, name: str) -> Grid:
        """A registered grid; "flow" takes the shift that the pipeline computed, unless the name says one."""
        card, written = parse_grid(name)
        options: dict[str, Any] = {}
        if isinstance(self.convention.schedule, Flow) and "shift" in card.options and "shift" not in written:
            options["shift"] = self.shift
        if "last" in card.options and "last" not in written:
            options["last"] = self.last
        return make_grid(name, self.convention.schedule, self.n, **options)

    @property
    def shift(self) -> float:
        """The shift of the flow's time: exp(mu) or mu where the pipeline computed one, else the config's own."""
        if self.mu is None:
            return float(getattr(self.convention.schedule, "shift", 1.0))
        return self.mu if self.config.get("time_shift_type") == "linear" else math.exp(self.mu)

    def _explicit(self, nodes: Sequence[tuple[float, float | None]]) -> Grid:
        """The given nodes, and the end behind them."""
        levels = [self.convention.level(ratio, time) for ratio, time in nodes]
        end = self.convention.schedule.ratio_min if self.last == "min" else 0.0
        if float(levels[-1]) > 0 and nodes[-1][0] > end:
            levels.append(self.convention.level(end))
        return Grid(tuple(levels), self.convention.schedule)


def _named_by(config: Mapping[str, Any], convention: Convention) -> str | None:
    """The grid of a sampler that needs the most noise at its start, as a fitted plan does; None leaves it to a class."""
    card = resolve(config["sampler"])
    return default_grid(card, convention.schedule) if card.from_the_top else None


def work_out(request: Request) -> Timetable:
    """All evaluations of the run that was asked for.

    Raises:
        SolverKitError: one of its children: no such layout, or a sampler that cannot run on it.
    """
    config, convention = request.config, request.convention
    card = check(config)
    chosen = options(config, convention, card)
    native = request.layout() if request.native else None
    if native is not None and native.idle and peer_of(config):  # the class ends in the idle step
        endings: dict[str, Any] = {k: False for k in ("lower_order_final", "euler_at_final") if k in card.options}
        chosen = {**chosen, **endings, **config["sampler_options"]}
    grid = request.grid() if native is None else native.grid
    expected = (0, 1) if native is None else (len(native.told) - native.idle, native.order)
    plan, order, lead = lay_out(card, chosen, grid, request.n, expected)
    followed = (
        native is not None
        and plan.nfe == expected[0]
        and (native.name == own_class(config, convention) or _same(plan.levels, native))
    )  # else the sampler asks more often, less, or at levels of its own
    if native is not None and followed:
        plan = replace(
            plan,
            levels=tuple(
                Level(float(level), told, level.scale, level.frame) for level, told in zip(plan.levels, native.told)
            ),
        )
    timesteps, sigmas = shown(convention, plan.levels, plan.grid[-1], None)
    if native is not None and followed:
        timesteps, sigmas = native.timesteps, native.sigmas if native.sigmas is not None else _padded(sigmas, native.idle)
    elif request.shows_end:
        timesteps = torch.cat([timesteps, timesteps.new_tensor([convention.told(plan.grid[-1])])])
    start = convention.init_noise_sigma(sigmas)
    if native is not None:
        own = convention.scale(plan.grid[0]) / convention.scale_of(plan.grid[0], unit_alpha(native.name))
        start = native.init_noise_sigma if own == 1.0 else own * float(native.init_noise_sigma)
        start = torch.tensor(start) if own != 1.0 and convention.unit_alpha else start  # as the class of the latents has it
        convention = replace(convention, ends_unit_alpha=unit_alpha(native.name))
    peer, kind = peer_of(config), config.get("variance_type")
    learned = kind if peer is not None and peer.learns and kind in KINDS else None
    idle = native.idle if native is not None and followed else 0
    return Timetable(
        convention,
        config["sampler"],
        chosen,
        plan,
        timesteps,
        sigmas,
        order,
        lead,
        idle,
        start,
        learned,
        (request.asked, config),
    )


def _same(levels: Sequence[Level], native: NativeLayout) -> bool:
    """Each evaluation is where the native class has one."""
    return all(abs(level.time - told) <= 1e-9 * abs(told) for level, told in zip(levels, native.told))


def _padded(sigmas: torch.Tensor, idle: int) -> torch.Tensor:
    """The last level once more for each timestep that changes nothing."""
    return torch.cat([sigmas, sigmas[-1:].expand(idle)])


def count(n: Any) -> int:
    """num_inference_steps as an int: a whole number of any type, or a tensor without dimensions.

    Raises:
        GridError: it is none.
    """
    value = n.item() if hasattr(n, "item") and getattr(n, "ndim", 0) == 0 else n
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or value < 1 or value % 1:
        raise GridError(
            f"set_timesteps needs num_inference_steps (a positive integer), timesteps or sigmas; got {n!r}. An "
            "image-to-image pipeline passes strength times its steps: that must be at least 1."
        )
    return int(value)


def numbers(name: str, values: Any) -> list[float] | None:
    """A list, tuple, array or tensor as Python floats.

    Raises:
        GridError: something else, nothing, or NaN.
    """
    if values is None:
        return None
    values = values.tolist() if hasattr(values, "tolist") else values
    try:
        read = [float(v) for v in (values if isinstance(values, (list, tuple, range)) else [values])]
    except (TypeError, ValueError):
        raise GridError(f"{name} must be a sequence of numbers, got {values!r:.80}.") from None
    if not read or any(math.isnan(v) for v in read):
        raise GridError(f"{name} must hold at least one number and no NaN, got {show(read)}.")
    return read
