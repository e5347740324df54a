"""`fid` and `fd-dinov2`: Fréchet distances in the features of published networks, by torch-fidelity (`solverkit[fid]`).

torch-fidelity loads the networks (and downloads their weights once; DINOv2 by torch.hub, with the code of its repository)
and takes images as bytes; the distance is `frechet.frechet_distance`. Published figures are of 50,000 samples: fewer give
larger ones, so compare at equal numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import OptionError
from .frechet import frechet_distance, moments
from .judged import Run
from .measured import Measured, of_set

FID = ("inception-v3-compat", "2048")
DINOV2 = ("dinov2-vit-l-14", "dinov2")
ENOUGH = 2048
CHUNK = 64


def fid(run: Run) -> Measured | None:
    """Fréchet distance of Inception features to real images (--data), by torch-fidelity; None without images."""
    return _distance(run, *FID)


def fd_dinov2(run: Run) -> Measured | None:
    """Fréchet distance of DINOv2 features to real images (--data), by torch-fidelity; None without images."""
    return _distance(run, *DINOV2)


def _distance(run: Run, network: str, layer: str) -> Measured | None:
    if run.x.ndim != 4 or run.x.shape[1] not in (1, 3):
        return None
    real, other = run.real(len(run.x), 0), run.real(len(run.x), 1)
    if real is None:
        return None
    extractor = load_extractor(network, layer)
    mean, covariance = moments(embed(extractor, real.x))

    def distance(rows: Tensor) -> float:
        return frechet_distance(*moments(rows), mean, covariance)

    made = of_set(distance, embed(extractor, run.x))
    floor = None if other is None else distance(embed(extractor, other.x))
    return Measured(made.value, made.interval, floor=floor, against=real.source)


@functools.lru_cache(maxsize=2)
def load_extractor(network: str, layer: str) -> Any:
    """A feature extractor of torch-fidelity.

    Raises:
        OptionError: torch-fidelity is not installed, or cannot load the network.
    """
    try:
        from torch_fidelity.utils import create_feature_extractor
    except ImportError as error:
        raise OptionError(f"this metric needs torch-fidelity ({error}): pip install 'solverkit[fid]'.") from None
    except Exception as error:  # torchvision of another torch fails in ways of its own
        raise OptionError(
            f"torch-fidelity cannot be imported ({type(error).__name__}: {error}): install the torchvision that belongs to "
            f"torch {torch.__version__}."
        ) from None
    try:
        return create_feature_extractor(network, [layer], cuda=torch.cuda.is_available(), verbose=False)
    except Exception as error:  # a download that fails, in whatever way
        raise OptionError(f"torch-fidelity cannot load {network}: {type(error).__name__}: {error}") from None


@torch.no_grad()
def embed(extractor: Any, x: Tensor) -> Tensor:
    """Features (n, F) of images (n, 1 or 3, H, W) in [-1, 1]; they are rounded to bytes, as files of images are."""
    images = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).expand(-1, 3, -1, -1)
    device = next((p.device for p in extractor.parameters()), torch.device("cpu"))
    return torch.cat([extractor(part.to(device))[0].cpu() for part in images.split(CHUNK)])


def register_metrics(register: Callable[..., None]) -> None:
    """Register them; called by the hook of `metrics`."""
    unit = "squared distance of features"
    register("fid", fid, min_samples=ENOUGH, unit=unit, reference="Heusel et al. 2017")
    register("fd-dinov2", fd_dinov2, min_samples=ENOUGH, unit=unit, reference="Stein et al. 2023")
