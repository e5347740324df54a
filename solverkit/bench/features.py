"""A small MNIST classifier whose penultimate layer is the feature space of the bundled Fréchet distance.

An Inception network knows photographs, not digits: on MNIST its Fréchet distance hardly reacts to a broken
stroke. A classifier of the data itself does. Its distances compare samplers of the bundled networks with each
other and are never to be printed beside an Inception FID.

Trained by ``benchmarks/train/classifier.py``; the figures are in ``config.json`` beside the weights.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import gelu

from ..errors import BenchError

FOLDER = Path(__file__).parent.parent / "networks" / "mnist-classifier"
CHUNK = 500


class DigitFeatures(nn.Module):
    """Images (B, 1, 28, 28) in [-1, 1] to 10 logits, by way of 64 smooth features.

    Four 3 x 3 convolutions, 28 -> 28 -> 14 -> 7 -> 4 pixels, and one linear layer to the features. There is
    no normalisation: it would hide a wrong contrast, and it would make a feature depend on the mode or on the
    batch. The last map is flattened, not pooled, so that a misplaced stroke shows.

    Args:
        channels: of the four convolutions.
        width: number of features.
    """

    def __init__(self, channels: tuple[int, int, int, int] = (16, 32, 32, 48), width: int = 64) -> None:
        super().__init__()
        c1, c2, c3, c4 = channels
        self.conv1 = nn.Conv2d(1, c1, 3, padding=1)
        self.conv2 = nn.Conv2d(c1, c2, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(c2, c3, 3, stride=2, padding=1)
        self.conv4 = nn.Conv2d(c3, c4, 3, stride=2, padding=1)
        self.squeeze = nn.Linear(c4 * 4 * 4, width)
        self.logits = nn.Linear(width, 10)

    def penultimate(self, x: Tensor) -> Tensor:
        """Features (B, width) of one batch, differentiable."""
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = gelu(conv(x))
        return gelu(self.squeeze(x.flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10) of images (B, 1, 28, 28) in [-1, 1], differentiable."""
        return self.logits(self.penultimate(x))

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Features (B, width) of any number of images, 500 at a time and without gradients.

        Args:
            x: images (B, 1, 28, 28) in [-1, 1], any floating dtype and device.

        Returns:
            (B, width) in the dtype of the network's weights, on the network's device.

        Raises:
            BenchError: x has another shape or is not floating point.
        """
        _check_images(x)
        weight = self.squeeze.weight
        return torch.cat([self.penultimate(part.to(weight)) for part in x.split(CHUNK)])


def load_features() -> DigitFeatures:
    """The bundled network in evaluation mode, weights frozen, float32 on the CPU.

    It is read afresh on every call (some 0.3 MB): whoever needs it twice keeps it, and may move it to a
    device or cast it without changing anybody else's.
    """
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    network = DigitFeatures(channels=tuple(config["channels"]), width=config["width"])
    network.load_state_dict(load_file(FOLDER / "model.safetensors"))
    return network.eval().requires_grad_(False)


def load_statistics() -> tuple[Tensor, Tensor]:
    """Mean (64,) and covariance (64, 64), float64, of the features of the 10000 MNIST test images."""
    statistics = load_file(FOLDER / "statistics.safetensors")
    return statistics["mean"], statistics["covariance"]


def _check_images(x: Tensor) -> None:
    if x.ndim != 4 or tuple(x.shape[1:]) != (1, 28, 28) or not x.is_floating_point():
        raise BenchError(
            f"digit features need floating-point images of shape (B, 1, 28, 28) in [-1, 1], got {x.dtype} of "
            f"shape {tuple(x.shape)}: reshape them, and scale bytes by x.float() / 127.5 - 1"
        )
