"""Native schedulers back in the places that ours took."""

from __future__ import annotations

from typing import Any

from .scheduler import SolverKitScheduler


def restore_native(pipe: Any) -> Any:
    """Give a pipeline its native schedulers back, so that it can be saved and loaded where solverkit is not installed.

    Args:
        pipe: A diffusers pipeline, also one that is combined of several (prior and decoder); native schedulers stay.

    Returns:
        The pipeline.
    """
    inner = [part for name, part in vars(pipe).items() if name.endswith("_pipe") and hasattr(part, "scheduler")]
    for part in (*inner, pipe):
        for name, component in {**getattr(part, "components", {}), "scheduler": part.scheduler}.items():
            if isinstance(component, SolverKitScheduler) and not name.startswith("_"):
                setattr(part, name, component.native())
    return pipe
