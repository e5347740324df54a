"""The converged solution of the probability-flow ODE that `ode_error` compares with, and its own error.

The solution with half as many steps is computed too; their distance bounds the error. Solver and grid were chosen by
measuring, against a much finer solution, RK4, Adams-Bashforth 4, DEIS 3, UniPC and Heun on the Karras, log-SNR,
time-uniform and flow grids, at equal cost (4 evaluations for each of `steps`):

* an exact target, whose denoiser is right at every level: RK4 on the Karras grid, down to a hundredth of the smallest level
  and then a step to 0 (256 evaluations: 6e-6 on EDM, 2e-6 on the linear path);
* a network: DEIS of order 3 in its own time on levels uniform in that time, or Karras where it is told sigma (VE, EDM), to
  the smallest trained level and then a step to 0, as samplers do (256 evaluations on `mnist-flow`: 2e-4, RK4 7e-4; on
  `mnist` how the last step to 0 is made already moves the solution by 1e-3).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from ..files import cache
from ..files.regular_file import require_file
from ..grid.grid import Grid
from ..grid.named import make_grid
from ..model.fingerprint import fingerprint, try_fingerprint
from ..process.schedule import VE, Schedule
from ..run.sampling import sample

__all__ = [
    "Reference", "cache_folder", "compute_reference", "find_reference", "fingerprint", "reference_cost", "reference_key",
    "root_mean_square", "solve", "try_fingerprint",
]  # fmt: skip

VERSION = "3"  # raise it when what is computed here changes: old caches are then not found
SHIPPED = Path(__file__).parent / "references"
TAIL = 1e-2


@dataclass(frozen=True)
class Reference:
    """A converged solution.

    Attributes:
        x: (B, ...) float32, in the model's own coordinates at level 0.
        error: RMS distance to the solution with half as many steps.
    """

    x: torch.Tensor
    error: float


def reference_key(model_fingerprint: str | None, seed: int, steps: int) -> str | None:
    """Name of the file that holds a reference; None without a fingerprint: it is then neither looked for nor stored."""
    if model_fingerprint is None:
        return None
    return f"{model_fingerprint}-seed{seed}-{steps}-v{VERSION}"


def find_reference(key: str | None, num_samples: int) -> Reference | None:
    """A stored reference of at least so many samples, shipped with the package or cached; None without one or a key.

    Sample i depends on its own seed alone, so the first rows of a larger reference are the smaller one.
    """
    for folder in () if key is None else (SHIPPED, cache_folder()):
        path = folder / f"{key}.safetensors"
        try:
            with safe_open(str(require_file(path)), framework="pt") as file:
                x, coarse = file.get_tensor("x"), file.get_tensor("coarse")
        except Exception:  # missing, cut off, or something else by that name: it is computed anew
            continue
        if x.shape == coarse.shape and len(x) >= num_samples and bool(x.isfinite().all()):
            x, coarse = x[:num_samples], coarse[:num_samples]
            return Reference(x, root_mean_square(x - coarse))
    return None


def reference_cost(steps: int) -> int:
    """Network evaluations of both solutions together, near enough for a progress bar."""
    return 4 * steps + 4 * (steps // 2)


def compute_reference(
    denoiser: Any, key: str | None, num_samples: int, seed: int, steps: int, batch_size: int = 512,
    folder: Path | None = None, tick: Callable[[], None] | None = None,
) -> Reference:  # fmt: skip
    """Solve the ODE with `steps` and with half as many steps, and store both in the cache (or in `folder`).

    Args:
        denoiser: What to sample.
        key: From `reference_key`; None stores nothing.
        num_samples, seed: Of the starting noise.
        steps: Of the finer solution.
        batch_size: Samples at once.
        folder: Where to store it; default the cache.
        tick: Called after each evaluation of a batch.
    """
    x, coarse = (solve(denoiser, num_samples, seed, n, batch_size, tick) for n in (steps, max(steps // 2, 1)))
    if key is not None:
        _store((folder or cache_folder()) / f"{key}.safetensors", {"x": x, "coarse": coarse})
    return Reference(x, root_mean_square(x - coarse))


def solve(
    denoiser: Any, num_samples: int, seed: int, steps: int, batch_size: int = 512, tick: Callable[[], None] | None = None
) -> torch.Tensor:
    """The ODE's solution at level 0, float32; the state is float64 for an exact target."""
    exact = hasattr(denoiser, "target")
    solver, grid = _method(denoiser.schedule, steps, exact)
    result = sample(
        denoiser, solver, num_samples=num_samples, seed=seed, grid=grid, batch_size=batch_size,
        callback=None if tick is None else lambda _: tick(), dtype=torch.float64 if exact else torch.float32,
    )  # fmt: skip
    return result.x.float().cpu()


def _method(schedule: Schedule, steps: int, exact: bool) -> tuple[str, Grid]:
    """Solver and grid of about 4 evaluations for each of `steps`."""
    if exact:
        return "rk4", make_grid("karras", schedule, steps, ratio_min=TAIL * schedule.ratio_min)
    return "deis", make_grid("karras" if isinstance(schedule, VE) else "time-uniform", schedule, 4 * steps)


def cache_folder() -> Path:
    """Of references, in the user's cache."""
    return cache.cache_folder("references")


def _store(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """A cache that cannot be written is no error."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        cache.write_whole(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def root_mean_square(x: torch.Tensor) -> float:
    """Over everything, in float64."""
    return float(x.double().square().mean().sqrt())
