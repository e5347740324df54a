"""Networks that predict a variance besides the noise."""

from __future__ import annotations

import diffusers
from tiny_pipe import LATENTS, Tiny, embeds, finish, randn, seeded, vae
from tiny_unets import unet


def pixart() -> Tiny:
    net = seeded(
        diffusers.PixArtTransformer2DModel, num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8,
        num_layers=1, cross_attention_dim=16, sample_size=8, patch_size=2, caption_channels=8, norm_num_groups=4,
    )  # fmt: skip
    scheduler = diffusers.DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02)
    pipe = diffusers.PixArtAlphaPipeline(tokenizer=None, text_encoder=None, vae=vae(), transformer=net, scheduler=scheduler)
    inputs = {"guidance_scale": 4.0, "output_type": "latent", "use_resolution_binning": False, "negative_prompt": None}
    return finish(pipe, {**embeds(mask=True), **inputs}, LATENTS)


def kandinsky() -> Tiny:
    net = unet(
        out_channels=8, down_block_types=("SimpleCrossAttnDownBlock2D",), up_block_types=("SimpleCrossAttnUpBlock2D",),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", addition_embed_type="image", encoder_hid_dim=8,
        encoder_hid_dim_type="image_proj", resnet_time_scale_shift="scale_shift",
    )  # fmt: skip
    scheduler = diffusers.DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, variance_type="learned_range", clip_sample_range=2.0, sample_max_value=2.0,
        clip_sample=False, thresholding=True,
    )  # fmt: skip
    movq = seeded(diffusers.VQModel, block_out_channels=(8,), norm_num_groups=4, latent_channels=4, num_vq_embeddings=16)
    pipe = diffusers.KandinskyV22Pipeline(unet=net, scheduler=scheduler, movq=movq)
    inputs = {"image_embeds": randn(1, 8), "negative_image_embeds": randn(1, 8, seed=1), "guidance_scale": 4.0}
    return finish(pipe, {**inputs, "height": 8, "width": 8, "output_type": "latent"}, LATENTS)
