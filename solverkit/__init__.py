"""solverkit: sample pretrained diffusion, score and flow networks well.

Importing this module imports nothing heavy; each public name is loaded when it is first used (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# module -> the public names that live there
_NAMES = {
    "model.denoiser": "wrap Denoiser",
    "files.hub": "load",
    "process.variance_preserving": "VP SubVP",
    "process.schedule": "VE EDM Flow Schedule",
    "process.level": "Level",
    "grid.grid": "Grid",
    "grid.named": "make_grid",
    "run.sampling": "sample Result",
    "plan.plan": "begin advance Plan State",
    "plan.trace": "trace",
    "plan.symbol": "op keep",
    "registry.catalogue": "samplers grids models metrics",
    "registry.hookspecs": "hookimpl",
    "registry.declare": "sampler",
    "gaussian.stats": "GaussianStats",
    "gaussian.class_stats": "ClassStats",
    "pipelines.scheduler": "SolverKitScheduler SchedulerMixin restore_native",  # diffusers loads by the mixin beside it
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
_MODULES = (
    "errors", "testing", "problems", "guidance", "constraints", "likelihood", "flow_map", "bench", "hub", "steps", "typing",
)  # fmt: skip

__all__ = [*(name for name in _HOMES if name != "SchedulerMixin"), *_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module 'solverkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from . import bench, constraints, errors, flow_map, guidance, hub, likelihood, problems, steps, testing, typing
    from .files.hub import load
    from .gaussian.class_stats import ClassStats
    from .gaussian.stats import GaussianStats
    from .grid.grid import Grid
    from .grid.named import make_grid
    from .model.denoiser import Denoiser, wrap
    from .pipelines.scheduler import SchedulerMixin, SolverKitScheduler, restore_native
    from .plan.plan import Plan, State, advance, begin
    from .plan.symbol import keep, op
    from .plan.trace import trace
    from .process.level import Level
    from .process.schedule import EDM, VE, Flow, Schedule
    from .process.variance_preserving import VP, SubVP
    from .registry.catalogue import grids, metrics, models, samplers
    from .registry.declare import sampler
    from .registry.hookspecs import hookimpl
    from .run.sampling import Result, sample
