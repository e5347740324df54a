"""Every error that a user can cause. Each says what was given, what was expected, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SolverKitError(Exception):
    """Base of all errors that solverkit raises on purpose."""


class UnknownNameError(SolverKitError, LookupError):
    """A sampler, grid, model, metric, prediction type or the like that nobody registered."""

    def __init__(self, kind: str, name: object, known: Iterable[str], meant: str | None = None) -> None:
        self.kind, self.name, self.known, self.meant = kind, name, sorted(known), meant
        hint = nearest(str(name), self.known) if meant is None else f" Did you mean {meant!r}?"
        super().__init__(f"unknown {kind} {name!r}.{hint} Known: {', '.join(self.known)}.")

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.kind, self.name, self.known, self.meant)


class OptionError(SolverKitError, TypeError):
    """An option that the sampler, grid or command does not have, or a value that it cannot take."""


class GridError(SolverKitError, ValueError):
    """Noise levels that cannot be run: rising, NaN, out of range, or too few."""


class BudgetError(SolverKitError, ValueError):
    """An NFE budget that the sampler cannot meet."""


class ScheduleError(SolverKitError, ValueError):
    """A noise schedule that does not exist or whose parameters contradict each other."""


class TraceError(SolverKitError, TypeError):
    """A sampler that cannot be traced to a plan, or a plan that was driven wrongly."""


class DenoiserError(SolverKitError, ValueError):
    """A network that refuses its input or whose output does not fit."""


class FingerprintError(SolverKitError, TypeError):
    """A network that holds something whose content cannot be read, so that two networks could look the same."""


class NonFiniteError(SolverKitError, FloatingPointError):
    """NaN or inf came out of the network or the solver."""


class LoadError(SolverKitError, OSError):
    """A model folder, hub id or weights file that cannot be read."""


class StatsError(SolverKitError, ValueError):
    """Gaussian statistics that make no Gaussian, or that do not belong to the model that they are used with."""


class ProblemError(SolverKitError, ValueError):
    """A target distribution that was asked for something it does not have."""


class PluginError(SolverKitError):
    """A plugin that collides with another one or registers something malformed."""


class PluginWarning(UserWarning):
    """A plugin could not be imported; everything else works."""


class BenchError(SolverKitError, ValueError):
    """A suite, store or report that cannot be run or read."""


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean ...?' for the closest known name, or the empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {match[0]!r}?" if match else ""
