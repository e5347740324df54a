"""Pipelines on cosine schedules in continuous time: Stable Cascade, Wuerstchen, Dance Diffusion."""

from __future__ import annotations

import importlib
from typing import Any

import diffusers
import torch
from tiny_pipe import LATENTS, Tiny, finish, randn, seeded


def cascade_unet(**options: Any) -> Any:
    return seeded(
        diffusers.StableCascadeUNet, timestep_ratio_embedding_dim=8, conditioning_dim=8, block_out_channels=(8,),
        num_attention_heads=(2,), down_num_layers_per_block=(1,), up_num_layers_per_block=(1,),
        down_blocks_repeat_mappers=(1,), up_blocks_repeat_mappers=(1,), clip_text_pooled_in_channels=8, dropout=0.0,
        block_types_per_layer=(("SDCascadeResBlock", "SDCascadeTimestepBlock", "SDCascadeAttnBlock"),), **options,
    )  # fmt: skip


def texts() -> dict[str, torch.Tensor]:
    """What stands in for the prompts: tokens, and one vector a text."""
    inputs = {}
    for seed, prefix in enumerate(("", "negative_")):
        inputs[prefix + "prompt_embeds"] = randn(1, 4, 8, seed=seed)
        inputs[prefix + "prompt_embeds_pooled"] = randn(1, 1, 8, seed=seed + 2)
    return inputs


class TextEncoder:
    """Pipelines of a prior ask for its dtype, also where embeddings are passed."""

    dtype = torch.float32


def stable_cascade() -> Tiny:
    """The decoder."""
    pipe = diffusers.StableCascadeDecoderPipeline(
        decoder=cascade_unet(in_channels=4, out_channels=4, effnet_in_channels=4), tokenizer=None, text_encoder=None,
        scheduler=diffusers.DDPMWuerstchenScheduler(), vqgan=None, latent_dim_scale=2.0,
    )  # fmt: skip
    inputs = {"image_embeddings": randn(1, 4, 4, 4), "guidance_scale": 2.0, "output_type": "latent"}
    return finish(pipe, {**texts(), **inputs}, LATENTS)


def stable_cascade_prior() -> Tiny:
    pipe = diffusers.StableCascadePriorPipeline(
        prior=cascade_unet(in_channels=4, out_channels=4, clip_text_in_channels=8, clip_image_in_channels=8),
        tokenizer=None, text_encoder=TextEncoder(), scheduler=diffusers.DDPMWuerstchenScheduler(), resolution_multiple=8.0,
    )  # fmt: skip
    inputs = {"height": 64, "width": 64, "guidance_scale": 4.0, "output_type": "np"}
    return finish(pipe, {**texts(), **inputs}, LATENTS, "image_embeddings")


def wuerstchen_prior() -> Tiny:
    """It asks at every timestep but the last, whatever class its scheduler is; its latents are shifted at the end.

    The network answers (x - a) / (1 - b): with small a and b that is nearly the noise.
    """
    module = importlib.import_module("diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_prior")
    net = seeded(module.WuerstchenPrior, c_in=4, c=8, c_cond=8, c_r=8, depth=1, nhead=2, dropout=0.0)
    for parameter in net.out.parameters():
        parameter.mul_(0.1)
    pipe = diffusers.WuerstchenPriorPipeline(
        tokenizer=None, text_encoder=TextEncoder(), prior=net, scheduler=diffusers.DDPMWuerstchenScheduler(),
        resolution_multiple=8.0,
    )  # fmt: skip
    inputs = {"height": 64, "width": 64, "guidance_scale": 4.0, "output_type": "np"}
    embeds = {key: value for key, value in texts().items() if not key.endswith("pooled")}
    return finish(pipe, {**embeds, **inputs}, LATENTS, "image_embeddings")


def dance_diffusion() -> Tiny:
    """The pipeline clamps what it returns to [-1, 1]."""
    net = seeded(
        diffusers.UNet1DModel, sample_size=64, sample_rate=64, in_channels=2, out_channels=2, extra_in_channels=16,
        time_embedding_type="fourier", flip_sin_to_cos=True, use_timestep_embedding=False, block_out_channels=(8, 32),
        down_block_types=("DownBlock1DNoSkip", "DownBlock1D"), up_block_types=("UpBlock1D", "UpBlock1DNoSkip"),
    )  # fmt: skip
    pipe = diffusers.DanceDiffusionPipeline(unet=net, scheduler=diffusers.IPNDMScheduler())
    return finish(pipe, {"batch_size": 1, "audio_length_in_s": 1.0}, (1, 2, 64), "audios")
