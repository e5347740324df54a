"""Video pipelines."""

from __future__ import annotations

import importlib
import types
from typing import Any

import diffusers
import torch
from tiny_pipe import Tiny, embeds, finish, image, randn, seeded, vae
from tiny_stable_diffusion import SCALED
from tiny_unets import unet


def animatediff() -> Tiny:
    adapter = seeded(
        diffusers.MotionAdapter, block_out_channels=(8,), motion_layers_per_block=1, motion_num_attention_heads=2,
        motion_norm_num_groups=4, motion_max_seq_length=4, use_motion_mid_block=False,
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, timestep_spacing="linspace",
        steps_offset=1,
    )  # fmt: skip
    net = seeded(diffusers.UNetMotionModel.from_unet2d, unet=unet(), motion_adapter=adapter)
    pipe = diffusers.AnimateDiffPipeline(
        vae=vae(), text_encoder=None, tokenizer=None, unet=net, motion_adapter=adapter, scheduler=scheduler
    )
    inputs = {"num_frames": 2, "guidance_scale": 4.0, "output_type": "latent"}
    return finish(pipe, {**embeds(), **inputs}, (1, 4, 2, 8, 8), "frames")


class Pixels:
    """A feature extractor that leaves the pixels as they are."""

    def __call__(self, images: torch.Tensor, **_: Any) -> Any:
        return types.SimpleNamespace(pixel_values=images)


def svd() -> Tiny:
    """The guidance grows along the frames, from min_guidance_scale to max_guidance_scale."""
    transformers = importlib.import_module("transformers")
    config = transformers.CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, projection_dim=8, num_hidden_layers=1, num_attention_heads=2, image_size=8,
        patch_size=4,
    )  # fmt: skip
    net = seeded(
        diffusers.UNetSpatioTemporalConditionModel, sample_size=8, down_block_types=("CrossAttnDownBlockSpatioTemporal",),
        up_block_types=("CrossAttnUpBlockSpatioTemporal",), block_out_channels=(64,), addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=12, layers_per_block=1, cross_attention_dim=8, num_attention_heads=2,
        num_frames=2,
    )  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(
        prediction_type="v_prediction", use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0, steps_offset=1,
        timestep_spacing="leading", timestep_type="continuous", **SCALED,
    )  # fmt: skip
    pipe = diffusers.StableVideoDiffusionPipeline(
        vae=seeded(diffusers.AutoencoderKLTemporalDecoder, block_out_channels=(32,)),
        image_encoder=seeded(transformers.CLIPVisionModelWithProjection, config=config), unet=net, scheduler=scheduler,
        feature_extractor=Pixels(),
    )  # fmt: skip
    inputs = {"image": image(), "height": 8, "width": 8, "num_frames": 2, "max_guidance_scale": 3.0}
    return finish(pipe, {**inputs, "output_type": "latent"}, (1, 2, 4, 8, 8), "frames")


def cogvideox() -> Tiny:
    """The frames come before the channels."""
    net = seeded(
        diffusers.CogVideoXTransformer3DModel, num_attention_heads=2, attention_head_dim=8, in_channels=4,
        out_channels=4, time_embed_dim=8, text_embed_dim=8, num_layers=1, sample_width=4, sample_height=4,
        sample_frames=5, max_text_seq_length=4,
    )  # fmt: skip
    scheduler = diffusers.CogVideoXDDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, snr_shift_scale=3.0, clip_sample=False,
        timestep_spacing="trailing", **SCALED,
    )  # fmt: skip
    pipe = diffusers.CogVideoXPipeline(tokenizer=None, text_encoder=None, vae=None, transformer=net, scheduler=scheduler)
    inputs = {"height": 32, "width": 32, "num_frames": 5, "guidance_scale": 4.0, "output_type": "latent"}
    return finish(pipe, {**embeds(), **inputs}, (1, 2, 4, 4, 4), "frames")


def wan() -> Tiny:
    net = seeded(
        diffusers.WanTransformer3DModel, num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
        text_dim=8, freq_dim=8, ffn_dim=16, num_layers=1, rope_max_seq_len=16,
    )  # fmt: skip
    scheduler = diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    pipe = diffusers.WanPipeline(tokenizer=None, text_encoder=None, vae=None, scheduler=scheduler, transformer=net)
    inputs = {"height": 32, "width": 32, "num_frames": 5, "guidance_scale": 4.0, "output_type": "latent"}
    return finish(pipe, {**embeds(), **inputs}, (1, 4, 2, 4, 4), "frames")


def ltx() -> Tiny:
    """The latents are packed, (batch, places, channels)."""
    net = seeded(
        diffusers.LTXVideoTransformer3DModel, in_channels=4, out_channels=4, num_attention_heads=2,
        attention_head_dim=8, cross_attention_dim=16, num_layers=1, caption_channels=8,
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, shift_terminal=0.1
    )
    pipe = diffusers.LTXPipeline(scheduler=scheduler, vae=None, text_encoder=None, tokenizer=None, transformer=net)
    inputs = {"height": 128, "width": 128, "num_frames": 9, "guidance_scale": 3.0, "output_type": "latent"}
    return finish(pipe, {**embeds(mask=True), **inputs}, (1, 32, 4), "frames")


class Guardrail:
    """Stands in for cosmos_guardrail, which need not be installed."""

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, video: Any) -> Any:
        return video

    def to(self, *_: Any) -> Any:
        return self


def cosmos() -> Tiny:
    """The scheduler steps twice an iteration: first for the predicted sample alone, with the batch doubled."""
    net = seeded(
        diffusers.CosmosTransformer3DModel, in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16,
        num_layers=1, mlp_ratio=1.0, text_embed_dim=8, adaln_lora_dim=4, max_size=(4, 16, 16),
        concat_padding_mask=False,  # needs torchvision
    )  # fmt: skip
    scheduler = diffusers.EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, final_sigmas_type="sigma_min")
    pipe = diffusers.CosmosTextToWorldPipeline(
        text_encoder=None, tokenizer=None, transformer=net, vae=None, scheduler=scheduler, safety_checker=Guardrail()
    )
    inputs = {"height": 32, "width": 32, "num_frames": 9, "guidance_scale": 4.0, "output_type": "latent"}
    return finish(pipe, {**embeds(), **inputs}, (1, 4, 2, 4, 4), "frames")


def cosmos_video() -> Tiny:
    """The first frame is given: the pipeline noises it itself, in the coordinates of the network's input."""
    net = seeded(
        diffusers.CosmosTransformer3DModel, in_channels=5, out_channels=4, num_attention_heads=2, attention_head_dim=16,
        num_layers=1, mlp_ratio=1.0, text_embed_dim=8, adaln_lora_dim=4, max_size=(4, 16, 16),
        concat_padding_mask=False,
    )  # fmt: skip
    encoder = seeded(
        diffusers.AutoencoderKLCosmos, latent_channels=4, encoder_block_out_channels=(8, 8, 8, 8),
        decode_block_out_channels=(8, 8, 8, 8), attention_resolutions=(8,), resolution=64, num_layers=1,
        latents_mean=None, latents_std=None,
    )  # fmt: skip
    scheduler = diffusers.EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, final_sigmas_type="sigma_min")
    pipe = diffusers.CosmosVideoToWorldPipeline(
        text_encoder=None, tokenizer=None, transformer=net, vae=encoder, scheduler=scheduler, safety_checker=Guardrail()
    )
    inputs = {"height": 32, "width": 32, "num_frames": 9, "guidance_scale": 4.0, "output_type": "latent"}
    first = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return finish(pipe, {**embeds(), **inputs, "image": first}, (1, 4, 2, 4, 4), "frames")


def hunyuan_video() -> Tiny:
    """Version 1.5, whose guidance is a component of the pipeline and calls the network twice."""
    net = seeded(
        diffusers.HunyuanVideo15Transformer3DModel, in_channels=9, out_channels=4, num_attention_heads=2,
        attention_head_dim=8, num_layers=1, num_refiner_layers=1, text_embed_dim=8, text_embed_2_dim=8,
        image_embed_dim=8, rope_axes_dim=(2, 2, 4), task_type="t2v",
    )  # fmt: skip
    vae = seeded(
        diffusers.AutoencoderKLHunyuanVideo15, latent_channels=4, block_out_channels=(8, 8, 8, 8, 8), layers_per_block=1
    )
    pipe = diffusers.HunyuanVideo15Pipeline(
        text_encoder=None, tokenizer=None, transformer=net, vae=vae, text_encoder_2=None, tokenizer_2=None,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0),
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=6.0),
    )  # fmt: skip
    pipe.vision_num_semantic_tokens = 2
    inputs: dict[str, Any] = {"height": 64, "width": 64, "num_frames": 5, "output_type": "latent"}
    for seed, prefix in enumerate(("", "negative_")):
        for part in ("", "_2"):
            inputs[f"{prefix}prompt_embeds{part}"] = randn(1, 4, 8, seed=seed)
            inputs[f"{prefix}prompt_embeds_mask{part}"] = torch.ones(1, 4)
    return finish(pipe, inputs, (1, 4, 2, 4, 4), "frames")


def ltx_2() -> Tiny:
    """Video and audio, with a copy of the scheduler for the audio; three calls of the network, each with its guidance.

    The latents of the video are packed, (batch, places, channels).
    """
    net = seeded(
        diffusers.LTX2VideoTransformer3DModel, in_channels=4, out_channels=4, num_attention_heads=2,
        attention_head_dim=8, cross_attention_dim=16, audio_in_channels=4, audio_out_channels=4,
        audio_num_attention_heads=2, audio_attention_head_dim=4, audio_cross_attention_dim=8, num_layers=1,
        caption_channels=8,
    )  # fmt: skip
    connectors = seeded(
        importlib.import_module("diffusers.pipelines.ltx2.connectors").LTX2TextConnectors, caption_channels=8,
        text_proj_in_factor=2, video_connector_num_attention_heads=2, video_connector_attention_head_dim=4,
        video_connector_num_layers=1, video_connector_num_learnable_registers=4,
        audio_connector_num_attention_heads=2, audio_connector_attention_head_dim=4, audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=4,
    )  # fmt: skip
    vae = seeded(
        diffusers.AutoencoderKLLTX2Video, latent_channels=4, block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8), layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1),
    )  # fmt: skip
    audio_vae = seeded(
        diffusers.AutoencoderKLLTX2Audio, base_channels=4, output_channels=2, ch_mult=(1,), num_res_blocks=1,
        latent_channels=2, mel_bins=8,
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, shift_terminal=0.1
    )
    pipe = diffusers.LTX2Pipeline(
        scheduler=scheduler, vae=vae, audio_vae=audio_vae, text_encoder=None, tokenizer=None, connectors=connectors,
        transformer=net, vocoder=None,
    )  # fmt: skip
    inputs: dict[str, Any] = {"height": 128, "width": 128, "num_frames": 9, "output_type": "latent"}
    for seed, prefix in enumerate(("", "negative_")):
        inputs[prefix + "prompt_embeds"] = randn(1, 4, 16, seed=seed)
        inputs[prefix + "prompt_attention_mask"] = torch.ones(1, 4, dtype=torch.long)
    return finish(pipe, {**inputs, "spatio_temporal_guidance_blocks": [0]}, (1, 32, 4), "frames")


def kandinsky_5() -> Tiny:
    """The channels come last; the scheduler sees a view of latents that also hold a condition, and is written into it."""
    net = seeded(
        diffusers.Kandinsky5Transformer3DModel, in_visual_dim=4, in_text_dim=8, in_text_dim2=8, time_dim=8,
        out_visual_dim=4, model_dim=16, ff_dim=16, num_text_blocks=1, num_visual_blocks=1, axes_dims=(4, 6, 6),
        visual_cond=True,
    )  # fmt: skip
    pipe = diffusers.Kandinsky5T2VPipeline(
        transformer=net, vae=None, text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0),
    )  # fmt: skip
    inputs: dict[str, Any] = {"height": 32, "width": 32, "num_frames": 5, "guidance_scale": 5.0}
    for seed, prefix in enumerate(("", "negative_")):
        inputs[prefix + "prompt_embeds_qwen"] = randn(1, 4, 8, seed=seed)
        inputs[prefix + "prompt_embeds_clip"] = randn(1, 8, seed=seed)
        inputs[prefix + "prompt_cu_seqlens"] = torch.tensor([0, 4])
    return finish(pipe, {**inputs, "output_type": "latent"}, (1, 2, 4, 4, 4), "frames")
