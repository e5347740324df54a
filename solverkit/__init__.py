"""solverkit: sample pretrained diffusion, score and flow networks well.

Importing this module imports nothing heavy; each public name is loaded when it is first used (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# module -> the public names that live there
_NAMES = {
    "denoiser": "wrap Denoiser",
    "hub": "load",
    "variance_preserving": "VP SubVP",
    "schedule": "VE EDM Flow Schedule",
    "level": "Level",
    "grid": "Grid",
    "grid_choice": "make_grid",
    "sampling": "sample Result",
    "plan": "trace begin advance Plan State",
    "symbol": "op keep",
    "catalogue": "samplers grids models metrics",
    "hookspecs": "hookimpl",
    "gaussian_stats": "GaussianStats",
    "class_stats": "ClassStats",
    "scheduler": "SolverKitScheduler SchedulerMixin restore_native",  # diffusers wants the mixin beside the class it loads
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
_MODULES = ("errors", "testing", "problems", "guidance", "constraints", "likelihood", "flow_map", "bench", "hub")

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
    from . import bench, constraints, errors, flow_map, guidance, likelihood, problems, testing
    from .catalogue import grids, metrics, models, samplers
    from .class_stats import ClassStats
    from .denoiser import Denoiser, wrap
    from .gaussian_stats import GaussianStats
    from .grid import Grid
    from .grid_choice import make_grid
    from .hookspecs import hookimpl
    from .hub import load
    from .level import Level
    from .plan import Plan, State, advance, begin, trace
    from .sampling import Result, sample
    from .schedule import EDM, VE, Flow, Schedule
    from .scheduler import SchedulerMixin, SolverKitScheduler, restore_native
    from .symbol import keep, op
    from .variance_preserving import VP, SubVP
