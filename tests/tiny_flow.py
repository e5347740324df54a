"""Flow-matching image pipelines."""

from __future__ import annotations

from typing import Any

import diffusers
from tiny_pipe import LATENTS, Tiny, embeds, finish, seeded, vae


def stable_diffusion_3(cls: Any, **inputs: Any) -> Tiny:
    net = seeded(
        diffusers.SD3Transformer2DModel, sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=1,
        attention_head_dim=8, num_attention_heads=2, joint_attention_dim=8, caption_projection_dim=16,
        pooled_projection_dim=8, pos_embed_max_size=8,
    )  # fmt: skip
    encoders = dict.fromkeys(f"{part}{i}" for part in ("text_encoder", "tokenizer") for i in ("", "_2", "_3"))
    pipe = cls(transformer=net, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), vae=vae(), **encoders)
    return finish(pipe, {**embeds(pooled=True), "guidance_scale": 4.0, "output_type": "latent", **inputs}, LATENTS)


def flux_like(cls: Any, **inputs: Any) -> Tiny:
    """The latents are packed, (batch, places, channels); guidance_scale is an input of the network."""
    net = seeded(
        diffusers.FluxTransformer2DModel, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(2, 2, 4),
        guidance_embeds=True,
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    encoders = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    pipe = cls(scheduler=scheduler, vae=vae(), transformer=net, **encoders)
    options = {"height": 8, "width": 8, "true_cfg_scale": 2.0, "guidance_scale": 3.5, "output_type": "latent"}
    return finish(pipe, {**embeds(pooled=True), **options, **inputs}, (1, 16, 16))
