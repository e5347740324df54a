"""The models that the core registers, through the same hook as everyone else."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..model.denoiser import DenoiserLike
from ..process.schedule import Schedule
from ..registry.hookspecs import hookimpl


@hookimpl
def register_models(register: Callable[..., None]) -> None:
    register("mnist", mnist, reference="benchmarks/train/mnist.py")
    register("mnist-flow", mnist_flow, reference="benchmarks/train/mnist.py")
    register("gaussian", gaussian, reference="solverkit/problems.py")
    register("mixture", mixture, reference="solverkit/problems.py")


# Models import what they need when they are built: listing them must not import diffusers.


def mnist(
    labels: int | torch.Tensor | None = None,
    guidance: float = 1.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> DenoiserLike:
    """Bundled 28 x 28 digits, epsilon on discrete VP, class-conditional (0..9; 10, the default, is no class)."""
    from .hub import bundled

    return bundled("mnist", labels, guidance, device, dtype)


def mnist_flow(
    labels: int | torch.Tensor | None = None,
    guidance: float = 1.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> DenoiserLike:
    """Bundled 28 x 28 digits, velocity on the linear path, class-conditional (0..9; 10, the default, is no class)."""
    from .hub import bundled

    return bundled("mnist-flow", labels, guidance, device, dtype)


def gaussian(dim: int = 8, condition: float = 100.0, schedule: Schedule | None = None, seed: int = 0) -> DenoiserLike:
    """One Gaussian in `dim` dimensions whose probability flow is known exactly; on EDM's schedule by default."""
    from ..targets import exact as problems

    return problems.gaussian(dim, condition, schedule, seed)


def mixture(
    dim: int | None = None, modes: int = 10, rank: int | None = None, schedule: Schedule | None = None, seed: int = 0
) -> DenoiserLike:
    """A mixture of Gaussians with an exact denoiser: MNIST at 8 x 8 or, with dim=, a random one."""
    from ..targets import exact as problems

    return problems.mixture(dim, modes, rank, schedule, seed)
