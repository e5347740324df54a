"""The levels of a run from what a pipeline gives to `set_timesteps`, and from what the native config says of its grid."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import GridError, ScheduleError
from ..grid.grid import Grid, show
from ..grid.named import is_count, make_grid, parse_grid
from ..process.level import FLOW_FRAME, from_ratio, to_ratio
from ..process.schedule import VE, Flow
from ..process.variance_preserving import DiscreteVP
from .convention import Convention

MakeGrid = Callable[[int], Grid]


class Request:
    """One call of `set_timesteps`, read: how many steps, and a grid for any number of them.

    Args:
        convention: How the native class talks to its pipelines.
        config: The scheduler's config, read by attribute.
        grid: A registered grid by name, or None for the native layout.
        num_inference_steps, timesteps, sigmas, mu: As pipelines pass them.

    Raises:
        GridError: nothing that says how long to run, or levels that this model does not have.
        ScheduleError: a layout that the config asks for and that does not exist here.
    """

    def __init__(
        self,
        convention: Convention,
        config: Mapping[str, Any],
        grid: str | None,
        num_inference_steps: int | None,
        timesteps: Sequence[float] | None,
        sigmas: Sequence[float] | None,
        mu: float | None,
    ) -> None:
        self.convention, self.config, self.grid = convention, config, grid
        self.mu = mu if config.get("use_dynamic_shifting") else None
        self.timesteps = _numbers("timesteps", timesteps)
        self.sigmas = _numbers("sigmas", sigmas)
        if self.sigmas is not None and len(self.sigmas) > 1 and self.sigmas[0] == 0 and self.sigmas[-1] == 1:
            num_inference_steps, self.sigmas = len(self.sigmas), None  # a ramp 0 .. 1 that the native class lays out itself
        if self.sigmas is not None and self.sigmas[-1] == 0:
            self.sigmas = self.sigmas[:-1]
        self._require_trained()
        given = self.sigmas if self.sigmas is not None else self.timesteps
        n = num_inference_steps if given is None else len(given)
        if not is_count(n):
            raise GridError(
                "set_timesteps needs num_inference_steps (a positive integer), timesteps or sigmas; got "
                f"{num_inference_steps!r}."
            )
        self.n = int(n or 0)
        if self.timesteps is not None and self.sigmas is not None and len(self.timesteps) != len(self.sigmas):
            raise GridError(f"timesteps and sigmas differ in length: {len(self.timesteps)} and {len(self.sigmas)}.")

    def _require_trained(self) -> None:
        """Raises GridError for timesteps and sigmas that the network was not trained on."""
        schedule, prior = self.convention.schedule, self.convention.schedule.ratio_max
        if isinstance(schedule, (DiscreteVP, Flow)) and self.timesteps is not None:
            top = schedule.num_train_timesteps - 1 if isinstance(schedule, DiscreteVP) else schedule.time_scale
            wrong = [t for t in self.timesteps if not 0 <= t <= top]
            if wrong:
                raise GridError(f"timesteps of this network are in [0, {top:g}], got {show(wrong)}.")
        if isinstance(schedule, DiscreteVP) and self.sigmas is not None:
            wrong = [s for s in self.sigmas if not 0 <= s <= 1.05 * prior]
            if wrong:
                raise GridError(f"sigmas (sigma / alpha) of this network are in [0, {prior:.6g}], got {show(wrong)}.")

    @property
    def asked(self) -> tuple[Any, ...]:
        """What distinguishes this call from another."""
        return (self.n, self.timesteps, self.sigmas, self.mu)

    @property
    def last(self) -> str:
        """Where a run ends: at the smallest trained level ("min") or at 0.

        Cosmos 2 asks for the former and then repeats the last of the native sigmas itself.
        """
        repeats = isinstance(self.convention.schedule, VE) and self.convention.prediction == "epsilon"
        return "min" if self.config.get("final_sigmas_type") == "sigma_min" and not repeats else "zero"

    def make(self, n: int) -> Grid:
        """The grid of n steps."""
        if self.timesteps is not None and self.sigmas is None:
            return self._explicit([(self.convention.ratio(t), t) for t in self.timesteps], n)
        if self.grid is not None:
            return self._named(self.grid, n)
        if isinstance(self.convention.schedule, Flow):
            return self._flow(n)
        if self.sigmas is not None:
            return self._explicit(self._told(self.sigmas), n)
        if isinstance(self.convention.schedule, DiscreteVP):
            return self._vp(n)
        return self._sigma(n)

    def _named(self, name: str, n: int) -> Grid:
        """A registered grid; "flow" takes the shift that the pipeline computed, unless the name says one."""
        card, written = parse_grid(name)
        options: dict[str, Any] = {}
        if isinstance(self.convention.schedule, Flow) and "shift" in card.options and "shift" not in written:
            options["shift"] = self.shift
        if "last" in card.options and "last" not in written:
            options["last"] = self.last
        return make_grid(name, self.convention.schedule, n, **options)

    def _explicit(self, nodes: Sequence[tuple[float, float | None]], n: int) -> Grid:
        """n steps over given nodes: all of them, or as many as are asked for, evenly by index."""
        if n < len(nodes):
            nodes = [nodes[round(i * len(nodes) / n)] for i in range(n)]
        inverted = self.convention.inverted  # a level then keeps its own time; `told` turns it round
        levels = [self.convention.level(ratio, None if inverted else time) for ratio, time in nodes]
        end = self.convention.schedule.ratio_min if self.last == "min" else 0.0
        if float(levels[-1]) > 0 and nodes[-1][0] > end:
            levels.append(self.convention.level(end))
        return Grid(tuple(levels), self.convention.schedule)

    @property
    def shift(self) -> float:
        """The shift of the flow's time: exp(mu) or mu where the pipeline computed one, else the config's own."""
        if self.mu is None:
            return float(getattr(self.convention.schedule, "shift", 1.0))
        return self.mu if self.config.get("time_shift_type") == "linear" else math.exp(self.mu)

    def _flow(self, n: int) -> Grid:
        given = self.sigmas or [1 - i / n for i in range(n)]
        wrong = [s for s in given if not 0 < s <= 1]
        if wrong:
            raise GridError(
                f"sigmas of a flow model are in (0, 1], got {show(wrong)}; this pipeline computed them for another kind of "
                "model, and cannot drive this scheduler."
            )
        shift = self.shift
        t = np.array([shift * s / (1 + (shift - 1) * s) for s in given])
        terminal = self.config.get("shift_terminal")
        if terminal and t[-1] < 1:
            t = 1 - (1 - t) * (1 - terminal) / (1 - t[-1])
        ratios = [to_ratio(float(s), FLOW_FRAME) for s in self._bent(t)]
        return self._explicit(self._told(ratios), n)

    def _told(self, ratios: Sequence[float]) -> list[tuple[float, float | None]]:
        """The ratios with what the network is told there, where the pipeline said it."""
        return [(r, None) for r in ratios] if self.timesteps is None else list(zip(ratios, self.timesteps))

    def _bent(self, t: np.ndarray) -> np.ndarray:
        """Karras or exponential spacing between the ends of a flow grid, in t or (with sigma_max) in sigma / alpha."""
        rule = self._rule()
        if rule is None or len(t) < 2:
            return t
        high, low = self.config.get("sigma_max"), self.config.get("sigma_min")
        rho = 7.0 if rule == "karras" else None
        if not (high and low):
            end = float(t[-1])
            if self.sigmas is None:  # then the native class goes down to its smallest trained level
                end = 1 / float(self.config.get("num_train_timesteps") or 1000)
                end = self.shift * end / (1 + (self.shift - 1) * end)
            return _between(float(t[0]), end, len(t), rho)
        return np.array([from_ratio(float(v), FLOW_FRAME) for v in _between(float(high), float(low), len(t), rho)])

    def _rule(self) -> str | None:
        config = self.config
        if config.get("use_beta_sigmas"):
            raise ScheduleError(
                "use_beta_sigmas=True asks for a grid that this library does not have; choose one with grid='karras' (or "
                "another of sk.grids()), or set use_beta_sigmas=False."
            )
        if config.get("use_karras_sigmas"):
            return "karras"
        log = config.get("use_exponential_sigmas") or config.get("use_lu_lambdas")
        return "log-snr" if log or config.get("interpolation_type") == "log_linear" else None

    def _vp(self, n: int) -> Grid:
        schedule, rule = self.convention.schedule, self._rule()
        if rule is not None:
            options: dict[str, Any] = {"last": self.last}
            if not math.isinf(schedule.ratio_max):
                ends = {"ratio_max": self.config.get("sigma_max"), "ratio_min": self.config.get("sigma_min")}
                options |= {name: value for name, value in ends.items() if value is not None}
            return make_grid(rule, schedule, n, **options)
        assert isinstance(schedule, DiscreteVP)
        lowest = float(self.config.get("lambda_min_clipped") or -math.inf)  # of DPM++ on cosine betas
        total = int((schedule.log_ratios <= -lowest).sum())
        spacing = self.config.get("timestep_spacing") or "linspace"
        if n > total:
            warnings.warn(
                f"{n} steps were asked for, and this network was trained on {total} timesteps: each is used once.",
                stacklevel=2,
            )
            n = total
        times = self._times(spacing, n, total)
        if self.last == "min" and times[-1] == 0:  # the last of one more is the end
            times = self._times(spacing, n + 1, total)
        return self._explicit([(schedule.ratio(t), t) for t in times], n if len(times) == n else n + 1)

    def _times(self, spacing: str, n: int, total: int) -> list[float]:
        """n timesteps of the named layout (Lin et al. 2024, Table 2; DDIM's own leading and linspace)."""
        if spacing == "trailing":
            return [round(total - i * total / n) - 1.0 for i in range(n)]
        if spacing == "leading":
            offset = int(self.config.get("steps_offset") or 0)
            return [float(min((n - 1 - i) * (total // n) + offset, total - 1)) for i in range(n)]
        exact = np.linspace(total - 1, 0, n)
        return [float(t) for t in (exact if self.convention.unit_alpha else exact.round())]

    def _sigma(self, n: int) -> Grid:
        """EDM and VE: the sigmas of the native class, Karras or exponential."""
        rule = "log-snr" if self.config.get("sigma_schedule") == "exponential" else (self._rule() or "karras")
        options: dict[str, Any] = {"last": self.last}
        if rule == "karras":
            options["rho"] = float(self.config.get("rho") or 7.0)
        return make_grid(rule, self.convention.schedule, n, **options)


def _between(high: float, low: float, n: int, rho: float | None) -> np.ndarray:
    u = np.linspace(0.0, 1.0, n)
    if rho is None:
        return high * (low / high) ** u
    return (high ** (1 / rho) + u * (low ** (1 / rho) - high ** (1 / rho))) ** rho


def _numbers(name: str, values: Any) -> list[float] | None:
    """A list, tuple, array or tensor as Python floats."""
    if values is None:
        return None
    values = values.tolist() if hasattr(values, "tolist") else values
    try:
        numbers = [float(v) for v in (values if isinstance(values, (list, tuple, range)) else [values])]
    except (TypeError, ValueError):
        raise GridError(f"{name} must be a sequence of numbers, got {values!r:.80}.") from None
    if not numbers or any(math.isnan(v) for v in numbers):
        raise GridError(f"{name} must hold at least one number and no NaN, got {show(numbers)}.")
    return numbers
