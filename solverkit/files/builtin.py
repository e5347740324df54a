"""The models that the core registers, through the same hook as everyone else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..model.denoiser import DenoiserLike
from ..process.schedule import Schedule
from ..registry.hookspecs import hookimpl


@hookimpl
def register_models(register: Callable[..., None]) -> None:
    register("mnist", mnist, reference="benchmarks/train/mnist.py")
    register("mnist-flow", mnist_flow, reference="benchmarks/train/mnist.py")
    register("mnist-consistency", mnist_consistency, reference="benchmarks/train/consistency.py")
    register("mnist-map", mnist_map, reference="benchmarks/train/mean_flow.py")
    register("mnist-early", mnist_early, reference="benchmarks/train/early.py")
    register("mnist-super-resolution", mnist_super_resolution, reference="benchmarks/train/super_resolution.py")
    register("communities", communities, reference="benchmarks/train/graphs.py")
    register("gaussian", gaussian, reference="solverkit/problems.py")
    register("mixture", mixture, reference="solverkit/problems.py")
    register("coupled-gaussian", coupled_gaussian, reference="solverkit/targets/coupled_gaussian.py")
    register("series", series, reference="solverkit/problems.py")


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


def mnist_consistency(
    labels: int | torch.Tensor | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> DenoiserLike:
    """Bundled consistency student of `mnist` (v on discrete VP): its denoised prediction at any level is a sample."""
    from .hub import bundled

    return bundled("mnist-consistency", labels, 1.0, device, dtype)


def mnist_early(
    labels: int | torch.Tensor | None = None,
    guidance: float = 1.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> DenoiserLike:
    """Bundled weak `mnist`: the same network and objective after 1000 steps of training."""
    from .hub import bundled

    return bundled("mnist-early", labels, guidance, device, dtype)


def mnist_map(
    labels: int | torch.Tensor | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> DenoiserLike:
    """Bundled flow map of `mnist-flow` (MeanFlow): asked from any level to any lower one, or as a denoiser."""
    from .mean_flow_network import open_mean_flow

    return open_mean_flow("mnist-map", labels, device, dtype)


def mnist_super_resolution(
    small: torch.Tensor,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> DenoiserLike:
    """Bundled 7 x 7 to 28 x 28 digits along ResShift's path; small: (B, 1, 7, 7) in [-1, 1]."""
    from .super_resolution import open_super_resolution

    return open_super_resolution("mnist-super-resolution", small, device, dtype)


def communities(
    sizes: int | list[int] | torch.Tensor | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Any:
    """Bundled system of graphs with two communities, 12 to 20 nodes: features of nodes on VP, adjacency on VE."""
    from .joint_folder import bundled_joint

    return bundled_joint("communities", sizes, device, dtype)


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


def coupled_gaussian(size: int = 4, features: int = 2, mask: torch.Tensor | None = None) -> Any:
    """A system with an exact joint denoiser: nodes x on VP and adjacency adj on VE, one coupled Gaussian."""
    from ..targets.coupled_gaussian import coupled_gaussian as build

    return build(size, features, mask=mask)


def series(channels: int = 4, length: int = 24, schedule: Schedule | None = None) -> DenoiserLike:
    """A Gaussian process over several time series, (channels, length), with an exact denoiser."""
    from ..targets.series import series as process

    return process(channels, length, schedule)
