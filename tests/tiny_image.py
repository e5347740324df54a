"""The newer image pipelines, each with the scheduler and config of its released checkpoint."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from tiny_pipe import LATENTS, Tiny, embeds, finish, randn, seeded, vae


def flow_euler(**config: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**config)


def prompts(mask: str = "", **names: tuple[int, ...]) -> dict[str, Any]:
    """Inputs by name, and their negative_ twins; with a mask of ones if it is given a name."""
    inputs: dict[str, Any] = {}
    for seed, prefix in enumerate(("", "negative_")):
        for name, shape in names.items():
            inputs[prefix + name] = randn(*shape, seed=seed)
        if mask:
            inputs[prefix + mask] = torch.ones(1, 4, dtype=torch.bool)
    return inputs


def flux_2() -> Tiny:
    """The latents are packed, (batch, places, channels); guidance_scale is an input of the network."""
    net = seeded(
        diffusers.Flux2Transformer2DModel, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=8, timestep_guidance_channels=8, axes_dims_rope=(2, 2, 2, 2),
    )  # fmt: skip
    scheduler = flow_euler(shift=3.0, use_dynamic_shifting=True)
    pipe = diffusers.Flux2Pipeline(scheduler=scheduler, vae=None, text_encoder=None, tokenizer=None, transformer=net)
    inputs = {"prompt_embeds": randn(1, 4, 8), "guidance_scale": 4.0, "output_type": "latent"}
    return finish(pipe, {**inputs, "height": 64, "width": 64}, (1, 16, 16))


def qwen_image() -> Tiny:
    """The latents are packed; true guidance by a second call, rescaled to the norm of the first."""
    net = seeded(
        diffusers.QwenImageTransformer2DModel, in_channels=16, out_channels=4, num_layers=1, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=8, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    scheduler = flow_euler(use_dynamic_shifting=True, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02)
    pipe = diffusers.QwenImagePipeline(scheduler=scheduler, vae=None, text_encoder=None, tokenizer=None, transformer=net)
    inputs = {"true_cfg_scale": 4.0, "height": 64, "width": 64, "output_type": "latent"}
    return finish(pipe, {**prompts("prompt_embeds_mask", prompt_embeds=(1, 4, 8)), **inputs}, (1, 16, 16))


def z_image() -> Tiny:
    """The network is told 1 - t and answers with the opposite of the velocity."""
    net = seeded(
        diffusers.ZImageTransformer2DModel, in_channels=4, dim=16, n_layers=1, n_refiner_layers=1, n_heads=2,
        n_kv_heads=2, cap_feat_dim=8, axes_dims=[2, 2, 4], axes_lens=[64, 16, 16],
    )  # fmt: skip
    pipe = diffusers.ZImagePipeline(
        scheduler=flow_euler(shift=3.0), vae=None, text_encoder=None, tokenizer=None, transformer=net
    )
    inputs = {"prompt_embeds": [randn(4, 8)], "negative_prompt_embeds": [randn(4, 8, seed=1)], "guidance_scale": 3.0}
    return finish(pipe, {**inputs, "height": 64, "width": 64, "output_type": "latent"}, LATENTS)


def sana() -> Tiny:
    """It ships with a native multistep solver on flow sigmas."""
    net = seeded(
        diffusers.SanaTransformer2DModel, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2,
        attention_head_dim=8, num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16,
        caption_channels=8, sample_size=8,
    )  # fmt: skip
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    pipe = diffusers.SanaPipeline(tokenizer=None, text_encoder=None, vae=None, transformer=net, scheduler=scheduler)
    inputs = {"guidance_scale": 4.5, "height": 256, "width": 256, "use_resolution_binning": False}
    masked = prompts("prompt_attention_mask", prompt_embeds=(1, 4, 8))
    return finish(pipe, {**masked, **inputs, "negative_prompt": None, "output_type": "latent"}, LATENTS)


def chroma() -> Tiny:
    """The latents are packed."""
    net = seeded(
        diffusers.ChromaTransformer2DModel, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=8, axes_dims_rope=(2, 2, 4), approximator_num_channels=8,
        approximator_hidden_dim=8, approximator_layers=1,
    )  # fmt: skip
    pipe = diffusers.ChromaPipeline(scheduler=flow_euler(), vae=None, text_encoder=None, tokenizer=None, transformer=net)
    inputs = {"guidance_scale": 5.0, "height": 64, "width": 64, "output_type": "latent"}
    return finish(pipe, {**prompts("prompt_attention_mask", prompt_embeds=(1, 4, 8)), **inputs}, (1, 16, 16))


def lumina_2() -> Tiny:
    """The network is told 1 - t and answers with the opposite of the velocity."""
    net = seeded(
        diffusers.Lumina2Transformer2DModel, sample_size=8, in_channels=4, hidden_size=16, num_layers=1,
        num_refiner_layers=1, num_attention_heads=2, num_kv_heads=1, multiple_of=8, axes_dim_rope=(2, 2, 4),
        axes_lens=(16, 16, 16), cap_feat_dim=8,
    )  # fmt: skip
    pipe = diffusers.Lumina2Pipeline(
        transformer=net, scheduler=flow_euler(shift=6.0), vae=None, text_encoder=None, tokenizer=None
    )
    inputs = {"guidance_scale": 4.0, "height": 64, "width": 64, "output_type": "latent"}
    return finish(pipe, {**prompts("prompt_attention_mask", prompt_embeds=(1, 4, 8)), **inputs}, LATENTS)


def cogview_4() -> Tiny:
    """The pipeline passes both timesteps, which the network is told, and sigmas, which are shifted."""
    net = seeded(
        diffusers.CogView4Transformer2DModel, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8,
        num_attention_heads=2, text_embed_dim=8, time_embed_dim=8, condition_dim=4, sample_size=8,
        rope_axes_dim=(8, 8),
    )  # fmt: skip
    scheduler = flow_euler(base_shift=0.25, max_shift=0.75, use_dynamic_shifting=True, time_shift_type="linear")
    pipe = diffusers.CogView4Pipeline(tokenizer=None, text_encoder=None, vae=vae(), transformer=net, scheduler=scheduler)
    inputs = {"guidance_scale": 5.0, "height": 16, "width": 16, "output_type": "latent"}
    return finish(pipe, {**embeds(), **inputs}, (1, 4, 16, 16))


def hidream() -> Tiny:
    """It looks at the scheduler's class: native UniPC lays out its own sigmas, any other gets mu.

    The pipeline scales every size to the area of its default one.
    """
    net = seeded(
        diffusers.HiDreamImageTransformer2DModel, patch_size=2, in_channels=4, num_layers=1, num_single_layers=1,
        attention_head_dim=8, num_attention_heads=2, caption_channels=[8, 8], text_emb_dim=8, num_routed_experts=2,
        num_activated_experts=1, axes_dims_rope=(2, 2, 4), max_resolution=(8, 8), llama_layers=[0, 1],
    )  # fmt: skip
    scheduler = diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    absent = dict.fromkeys(f"{part}{i}" for part in ("text_encoder", "tokenizer") for i in ("", "_2", "_3", "_4"))
    pipe = diffusers.HiDreamImagePipeline(scheduler=scheduler, vae=None, transformer=net, **absent)
    pipe.default_sample_size = 8
    inputs = prompts(prompt_embeds_t5=(1, 4, 8), prompt_embeds_llama3=(2, 1, 4, 8), pooled_prompt_embeds=(1, 8))
    return finish(pipe, {**inputs, "guidance_scale": 5.0, "height": 64, "width": 64, "output_type": "latent"}, LATENTS)


def aura_flow() -> Tiny:
    net = seeded(
        diffusers.AuraFlowTransformer2DModel, sample_size=8, in_channels=4, num_mmdit_layers=1,
        num_single_dit_layers=1, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=8,
        caption_projection_dim=16, out_channels=4, pos_embed_max_size=16,
    )  # fmt: skip
    pipe = diffusers.AuraFlowPipeline(
        tokenizer=None, text_encoder=None, vae=vae(), transformer=net, scheduler=flow_euler(shift=1.73)
    )
    inputs = {"guidance_scale": 3.5, "height": 8, "width": 8, "output_type": "latent"}
    return finish(pipe, {**prompts("prompt_attention_mask", prompt_embeds=(1, 4, 8)), **inputs}, LATENTS)
