"""What the builders of tiny pipelines share: networks with seeded weights, inputs, and what a builder returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import diffusers
import torch

LATENTS = (1, 4, 8, 8)  # of the pipelines that are no packed tokens and no video


class Tiny(NamedTuple):
    pipe: Any
    inputs: dict[str, Any]
    shape: tuple[int, ...]  # of the sample that scheduler.step sees
    output: str  # the attribute of the result that holds the sample


def seeded(cls: Callable[..., Any], /, **config: Any) -> Any:
    """A network in eval mode with weights that depend on nothing but its config; none of them stays zero."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = cls(**config)
        with torch.no_grad():
            for parameter in net.parameters():
                if not parameter.any():
                    parameter.normal_(0, 0.1)
    return net.eval().requires_grad_(False)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def image() -> torch.Tensor:
    """Values in [0, 1], as the image processors expect them of a tensor."""
    return torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def finish(pipe: Any, inputs: dict[str, Any], shape: tuple[int, ...], output: str = "images") -> Tiny:
    pipe.set_progress_bar_config(disable=True)
    return Tiny(pipe, inputs, shape, output)


def vae() -> Any:
    """Four latent channels at the resolution of the image."""
    return seeded(diffusers.AutoencoderKL, block_out_channels=(8,), norm_num_groups=4, shift_factor=0.05)


def embeds(*, pooled: bool = False, mask: bool = False) -> dict[str, Any]:
    """What stands in for the prompt and the negative prompt."""
    inputs: dict[str, Any] = {}
    for seed, prefix in enumerate(("", "negative_")):
        inputs[prefix + "prompt_embeds"] = randn(1, 4, 8, seed=seed)
        if pooled:
            inputs[prefix + "pooled_prompt_embeds"] = randn(1, 8, seed=seed + 2)
        if mask:
            inputs[prefix + "prompt_attention_mask"] = torch.ones(1, 4, dtype=torch.long)
    return inputs
