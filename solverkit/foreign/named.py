"""Released samplers by name: "diffusers:UniPCMultistep:solver_order=3", "k-diffusion:dpmpp_2m"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch

from ..errors import OptionError, UnknownNameError, nearest
from ..grid.grid import Grid
from ..grid.named import make_grid
from ..process.schedule import EDM, Flow, Schedule
from ..registry.registry import resolve
from ..registry.spelled import FIRST, parse_options
from . import DIFFUSERS, K_DIFFUSION
from .claims import CLAIMS, Claim
from .k_diffusion import KDiffusionRun, adapt_k_diffusion
from .released import k_diffusion_function, k_diffusion_version, takes
from .schedulers import Edit, ScheduledRun, config_of, is_flow, refusal


class Said(NamedTuple):
    """How many evaluations a sampler says that it makes, and how many were counted, in words too."""

    told: int
    counted: int
    words: str


class Foreign(Protocol):
    """A released sampler that can be proven.

    Attributes:
        name: As it is written, in full.
        package: Of which release it is.
        options: That were given.
        defaults: Of all options.
        schedule: A process that it runs on.
        own_levels: It lays out its levels itself, between two ends.
    """

    @property
    def name(self) -> str: ...

    @property
    def package(self) -> str: ...

    @property
    def options(self) -> dict[str, Any]: ...

    @property
    def own_levels(self) -> bool: ...

    @property
    def defaults(self) -> dict[str, Any]: ...

    @property
    def schedule(self) -> Schedule: ...

    @property
    def claim(self) -> Claim: ...

    def run(
        self, model: Any, x: torch.Tensor, grid: Grid, noise: Any = None, edit: Edit | None = None,
        seeds: Sequence[int] | None = None, **more: Any,
    ) -> torch.Tensor:  # fmt: skip
        """From x at the first level to the last; noise None: it draws by itself, from `seeds`, one a sample."""
        ...

    def said(self, steps: int) -> Said | None:
        """What it says of its evaluations in so many steps; None where it says nothing."""
        ...

    def starts(self, grid: Grid) -> list[int]:
        """The nodes of a grid where its steps begin."""
        ...


def foreign(text: str) -> Foreign:
    """The released sampler behind a name.

    Raises:
        UnknownNameError: there is none of that name.
        OptionError: the package is not installed, an option does not exist, or nothing can be proven of it.
    """
    family = DIFFUSERS if text.startswith(DIFFUSERS) else K_DIFFUSION
    name, options = parse_options(text[len(family) :])
    if FIRST in options:
        raise OptionError(f"{text!r}: an option is written NAME=VALUE, got {options[FIRST]!r}.")
    return _Scheduler.of(name, options) if family == DIFFUSERS else _Function.of(name, options)


def scheduler_class(name: str) -> Any:
    """The class of diffusers behind a name, with or without "Scheduler" at its end.

    Raises:
        UnknownNameError: there is none.
    """
    import diffusers

    known = [n for n in dir(diffusers) if n.endswith("Scheduler") and not n.startswith(("Flax", "Karras"))]
    full = name if name in known else f"{name}Scheduler"
    if full not in known:
        raise UnknownNameError("scheduler of diffusers", name, known)
    return getattr(diffusers, full)


@dataclass
class _Scheduler:
    cls: Any
    options: dict[str, Any]
    package: str
    own_levels: bool = False

    @classmethod
    def of(cls, name: str, options: dict[str, Any]) -> _Scheduler:
        import diffusers

        found = scheduler_class(name)
        known = config_of(found)
        for key in options:
            if key not in known:
                raise OptionError(
                    f"diffusers:{found.__name__} has no option {key!r} of its method.{nearest(key, known)} They are: "
                    f"{', '.join(known) or 'none'}."
                )
        if why := refusal(found):
            raise OptionError(f"nothing can be proven of diffusers:{found.__name__}: {why}.")
        made = cls(found, options, f"diffusers {diffusers.__version__}")
        ScheduledRun(found, make_grid("flow" if is_flow(found) else "karras", made.schedule, 4), options)
        return made

    @property
    def name(self) -> str:
        return f"{DIFFUSERS}{self.cls.__name__}"

    @property
    def defaults(self) -> dict[str, Any]:
        return config_of(self.cls)

    @property
    def schedule(self) -> Schedule:
        return Flow() if is_flow(self.cls) else EDM()

    @property
    def claim(self) -> Claim:
        return CLAIMS.get(self.name, Claim())

    def run(
        self, model: Any, x: torch.Tensor, grid: Grid, noise: Any = None, edit: Edit | None = None,
        seeds: Sequence[int] | None = None, **more: Any,
    ) -> torch.Tensor:  # fmt: skip
        generators = None if seeds is None else [torch.Generator().manual_seed(seed) for seed in seeds]
        options = {**self.options, **more}
        if seeds is not None and "noise_sampler_seed" in config_of(self.cls):
            options["noise_sampler_seed"] = list(seeds)
        return ScheduledRun(self.cls, grid, options)(model, x, noise, edit, generators)

    def said(self, steps: int) -> Said | None:
        scheduler = self.cls(**self.options)
        scheduler.set_timesteps(steps)
        count = len(scheduler.timesteps)
        return Said(steps, count, f"num_inference_steps={steps} makes {count} evaluations")

    def starts(self, grid: Grid) -> list[int]:
        made = ScheduledRun(self.cls, grid, self.options)
        count = len(made.scheduler.timesteps) - (not made.whole)
        return sorted({made.node(i) for i in range(count) if made.starts(i)})


@dataclass
class _Function:
    fn: Any
    options: dict[str, Any]
    package: str

    @classmethod
    def of(cls, name: str, options: dict[str, Any]) -> _Function:
        fn = k_diffusion_function(name)
        resolve(adapt_k_diffusion(fn, f"{K_DIFFUSION}{fn.__name__}")).check(options)
        return cls(fn, options, f"k-diffusion {k_diffusion_version()}")

    @property
    def name(self) -> str:
        return f"{K_DIFFUSION}{self.fn.__name__}"

    @property
    def defaults(self) -> dict[str, Any]:
        return resolve(adapt_k_diffusion(self.fn)).defaults

    @property
    def schedule(self) -> Schedule:
        return EDM()

    @property
    def own_levels(self) -> bool:
        return not takes(self.fn, "sigmas")

    @property
    def claim(self) -> Claim:
        return CLAIMS.get(self.name, Claim())

    def run(
        self, model: Any, x: torch.Tensor, grid: Grid, noise: Any = None, edit: Edit | None = None,
        seeds: Sequence[int] | None = None, **more: Any,
    ) -> torch.Tensor:  # fmt: skip
        run = KDiffusionRun(self.fn, model, x, grid, noise, edit)
        with torch.random.fork_rng():
            if seeds is not None:
                torch.manual_seed(seeds[0])
            return run({**self.options, **more})

    def said(self, steps: int) -> Said | None:
        if not self.own_levels:
            return None
        asked = [0]

        def model(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            asked[0] += 1
            return 0.5 * x

        x, ends = torch.ones(1, 1), {"sigma_min": 0.01, "sigma_max": 10.0, "disable": True}
        if takes(self.fn, "n"):
            self.fn(model, x, n=steps, **ends, **self.options)
            return Said(steps, asked[0], f"n={steps} makes {asked[0]} evaluations")
        told = self.fn(model, x, return_info=True, **ends, **self.options)[1]["nfe"]
        return Said(told, asked[0], f"its info says {told} evaluations, {asked[0]} were counted")

    def starts(self, grid: Grid) -> list[int]:
        return list(range(len(grid) - 1))
