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
    "model.flow_map": "wrap_map MapDenoiser",
    "model.several": "with_models",
    "joint.model": "wrap_joint JointDenoiser",
    "model.towards": "wrap_towards",
    "files.hub": "load",
    "process.variance_preserving": "VP SubVP",
    "process.schedule": "VE EDM Flow Schedule",
    "process.residual": "Residual",
    "process.level": "Level",
    "grid.grid": "Grid",
    "grid.named": "make_grid",
    "run.sampling": "sample",
    "run.impute": "impute",
    "run.imputed": "Imputation",
    "run.result": "Result",
    "run.rollout": "rollout Rollout",
    "plan.transitions": "transitions mixed Transition",
    "plan.plan": "begin advance Plan State",
    "plan.trace": "trace",
    "plan.symbol": "op keep",
    "registry.catalogue": "samplers decoders grids models metrics",
    "registry.hookspecs": "hookimpl",
    "registry.declare": "sampler",
    "foreign.k_diffusion": "adapt_k_diffusion",
    "foreign.outward": "as_k_diffusion",
    "ems.stats": "ModelStats",
    "gaussian.stats": "GaussianStats",
    "gaussian.class_stats": "ClassStats",
    "diagnosis.diagnosis": "diagnose Diagnosis",
    "tuning.calibrate": "tune",
    "tuning.plans": "TunedPlans load_plans",
    "tuning.known": "known_plan",
    "tuning.chosen_levels": "choose_levels ChosenLevels load_levels",
    "tokens.model": "wrap_tokens TokenModel",
    "tokens.process": "Absorbing Uniform",
    "pipelines.restore": "restore_native",
    "pipelines.recorded": "recorded RecordedStep",
    "pipelines.pulled": "pulled",
    "pipelines.scheduler": "SolverKitScheduler SchedulerMixin",  # diffusers loads by the mixin beside it
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
_MODULES = (
    "errors", "testing", "problems", "guidance", "constraints", "inverse", "likelihood", "flow_map", "bench", "hub",
    "joint", "steps", "tokens", "typing",
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
    from . import (
        bench as bench,
    )
    from . import (
        constraints as constraints,
    )
    from . import (
        errors as errors,
    )
    from . import (
        flow_map as flow_map,
    )
    from . import (
        guidance as guidance,
    )
    from . import (
        hub as hub,
    )
    from . import (
        inverse as inverse,
    )
    from . import (
        joint as joint,
    )
    from . import (
        likelihood as likelihood,
    )
    from . import (
        problems as problems,
    )
    from . import (
        steps as steps,
    )
    from . import (
        testing as testing,
    )
    from . import (
        tokens as tokens,
    )
    from . import (
        typing as typing,
    )
    from .diagnosis.diagnosis import Diagnosis as Diagnosis
    from .diagnosis.diagnosis import diagnose as diagnose
    from .ems.stats import ModelStats as ModelStats
    from .files.hub import load as load
    from .foreign.k_diffusion import adapt_k_diffusion as adapt_k_diffusion
    from .foreign.outward import as_k_diffusion as as_k_diffusion
    from .gaussian.class_stats import ClassStats as ClassStats
    from .gaussian.stats import GaussianStats as GaussianStats
    from .grid.grid import Grid as Grid
    from .grid.named import make_grid as make_grid
    from .joint.model import JointDenoiser as JointDenoiser
    from .joint.model import wrap_joint as wrap_joint
    from .model.denoiser import Denoiser as Denoiser
    from .model.denoiser import wrap as wrap
    from .model.flow_map import MapDenoiser as MapDenoiser
    from .model.flow_map import wrap_map as wrap_map
    from .model.several import with_models as with_models
    from .model.towards import wrap_towards as wrap_towards
    from .pipelines.pulled import pulled as pulled
    from .pipelines.recorded import RecordedStep as RecordedStep
    from .pipelines.recorded import recorded as recorded
    from .pipelines.restore import restore_native as restore_native
    from .pipelines.scheduler import (
        SchedulerMixin as SchedulerMixin,
    )
    from .pipelines.scheduler import (
        SolverKitScheduler as SolverKitScheduler,
    )
    from .plan.plan import Plan as Plan
    from .plan.plan import State as State
    from .plan.plan import advance as advance
    from .plan.plan import begin as begin
    from .plan.symbol import keep as keep
    from .plan.symbol import op as op
    from .plan.trace import trace as trace
    from .plan.transitions import Transition as Transition
    from .plan.transitions import mixed as mixed
    from .plan.transitions import transitions as transitions
    from .process.level import Level as Level
    from .process.residual import Residual as Residual
    from .process.schedule import EDM as EDM
    from .process.schedule import VE as VE
    from .process.schedule import Flow as Flow
    from .process.schedule import Schedule as Schedule
    from .process.variance_preserving import VP as VP
    from .process.variance_preserving import SubVP as SubVP
    from .registry.catalogue import decoders as decoders
    from .registry.catalogue import grids as grids
    from .registry.catalogue import metrics as metrics
    from .registry.catalogue import models as models
    from .registry.catalogue import samplers as samplers
    from .registry.declare import sampler as sampler
    from .registry.hookspecs import hookimpl as hookimpl
    from .run.impute import impute as impute
    from .run.imputed import Imputation as Imputation
    from .run.result import Result as Result
    from .run.rollout import Rollout as Rollout
    from .run.rollout import rollout as rollout
    from .run.sampling import sample as sample
    from .tokens.model import TokenModel as TokenModel
    from .tokens.model import wrap_tokens as wrap_tokens
    from .tokens.process import Absorbing as Absorbing
    from .tokens.process import Uniform as Uniform
    from .tuning.calibrate import tune as tune
    from .tuning.chosen_levels import ChosenLevels as ChosenLevels
    from .tuning.chosen_levels import choose_levels as choose_levels
    from .tuning.chosen_levels import load_levels as load_levels
    from .tuning.known import known_plan as known_plan
    from .tuning.plans import TunedPlans as TunedPlans
    from .tuning.plans import load_plans as load_plans
