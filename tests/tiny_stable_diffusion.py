"""Pixel models, Stable Diffusion, and what else has its U-Net and noise schedule."""

from __future__ import annotations

import importlib
import types
from typing import Any

import diffusers
import torch
from tiny_pipe import LATENTS, Tiny, embeds, finish, image, randn, seeded, vae
from tiny_unets import pixel_unet, unet

SCALED: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def pixels(cls: Any, scheduler: Any) -> Tiny:
    """The pipeline clamps what it returns to [0, 1]."""
    return finish(cls(unet=pixel_unet(), scheduler=scheduler(clip_sample=False)), {"output_type": "np"}, (1, 3, 8, 8))


def pndm() -> Any:
    return diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False, **SCALED)


def stable_diffusion(cls: Any, modules: dict[str, Any] | None = None, **inputs: Any) -> Tiny:
    absent = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    modules = {"unet": unet(), "vae": vae(), "scheduler": pndm(), **absent, **(modules or {})}
    pipe = cls(requires_safety_checker=False, **modules)
    return finish(pipe, {**embeds(), "guidance_scale": 4.0, "output_type": "latent", **inputs}, LATENTS)


def sd_inpaint(channels: int) -> Tiny:
    """The right half is painted; with a U-Net of 4 channels the left half is the noised image after each step."""
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4:] = 1
    inputs = {"image": image(), "mask_image": mask, "strength": 1.0}
    return stable_diffusion(diffusers.StableDiffusionInpaintPipeline, {"unet": unet(in_channels=channels)}, **inputs)


def sd_controlnet() -> Tiny:
    control = seeded(
        diffusers.ControlNetModel, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D",), cross_attention_dim=8, conditioning_embedding_out_channels=(4,),
    )  # fmt: skip
    return stable_diffusion(diffusers.StableDiffusionControlNetPipeline, {"controlnet": control}, image=image())


def stable_diffusion_xl(cls: Any, **inputs: Any) -> Tiny:
    refiner = cls is diffusers.StableDiffusionXLImg2ImgPipeline
    width = 8 + 4 * (5 if refiner else 6)
    net = unet(addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=width)
    scheduler = diffusers.EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1, **SCALED)
    absent = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    options = {"requires_aesthetics_score": True} if refiner else {}
    pipe = cls(vae=vae(), unet=net, scheduler=scheduler, add_watermarker=False, **absent, **options)
    return finish(pipe, {**embeds(pooled=True), "guidance_scale": 4.0, "output_type": "latent", **inputs}, LATENTS)


class Tokens:
    """A tokenizer with no vocabulary: letters are tokens, and the text is repeated to fill the length."""

    def __call__(self, text: str | list[str], max_length: int = 77, **_: Any) -> Any:
        texts = [text] if isinstance(text, str) else text
        rows = [[ord(letter) % 32 for letter in ((line or " ") * max_length)[:max_length]] for line in texts]
        return types.SimpleNamespace(input_ids=torch.tensor(rows))


def ldm() -> Tiny:
    module = importlib.import_module("diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion")
    config = module.LDMBertConfig(
        vocab_size=32, encoder_layers=1, encoder_ffn_dim=8, encoder_attention_heads=2, head_dim=4, d_model=8
    )
    scheduler = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1, **SCALED)
    pipe = diffusers.LDMTextToImagePipeline(
        vqvae=vae(), bert=seeded(module.LDMBertModel, config=config), tokenizer=Tokens(), unet=unet(),
        scheduler=scheduler,
    )  # fmt: skip
    inputs = {"prompt": "a tiny image", "guidance_scale": 4.0, "height": 64, "width": 64, "output_type": "pt"}
    return finish(pipe, inputs, LATENTS)


def marigold() -> Tiny:
    """There is no guidance; the latents are returned besides the depth."""
    scheduler = diffusers.DDIMScheduler(
        prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, steps_offset=1,
        timestep_spacing="trailing", rescale_betas_zero_snr=True, **SCALED,
    )  # fmt: skip
    pipe = diffusers.MarigoldDepthPipeline(
        unet=unet(in_channels=8), vae=vae(), scheduler=scheduler, text_encoder=None, tokenizer=None,
        prediction_type="depth", default_denoising_steps=4, default_processing_resolution=0,
    )  # fmt: skip
    pipe.empty_text_embedding = randn(1, 2, 8)
    inputs = {"image": image(), "match_input_resolution": False, "output_latent": True, "output_type": "pt"}
    return finish(pipe, inputs, LATENTS, "latent")


def latent_upscale() -> Tiny:
    net = unet(in_channels=8, out_channels=5, time_cond_proj_dim=128 + 8)
    scheduler = diffusers.EulerDiscreteScheduler(prediction_type="sample", **SCALED)
    pipe = diffusers.StableDiffusionLatentUpscalePipeline(
        vae=vae(), text_encoder=None, tokenizer=None, unet=net, scheduler=scheduler
    )
    inputs = {"image": randn(1, 4, 4, 4, seed=5), "guidance_scale": 4.0, "output_type": "latent"}
    return finish(pipe, {**embeds(pooled=True), **inputs}, LATENTS)
