"""Stock diffusers pipelines with tiny random networks, built in memory: PIPELINES maps a name to a builder.

A builder returns Tiny(pipe, inputs, shape, output). Run it with
pipe(**inputs, num_inference_steps=4, generator=torch.Generator().manual_seed(0)) and read the attribute `output`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import diffusers
import torch


class Tiny(NamedTuple):
    pipe: Any
    inputs: dict[str, Any]
    shape: tuple[int, ...]  # of the sample that scheduler.step sees
    output: str  # the attribute of the result that holds the sample


# --- shared pieces


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


TINY_UNET: dict[str, Any] = {"sample_size": 8, "layers_per_block": 1, "block_out_channels": (8,), "norm_num_groups": 4}


def calm(net: Any, spread: float = 0.2) -> Any:
    """Makes a U-Net of one block with 8 channels predict the normalised input, plus `spread` of what it predicted.

    That is near enough to the noise; with unrelated noise the sample would grow by 1 / alpha at the first step.
    The input goes through in pairs of channels, c and -c, since silu(c) - silu(-c) = c.
    """
    eye = torch.eye(8)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if ".conv2." in name or ".proj_out." in name or ".to_out." in name:
                parameter.mul_(spread)
            elif name.endswith("conv_shortcut.weight"):
                parameter.copy_(torch.cat([eye, eye], 1)[:, :, None, None] / 2)
        count = min(net.conv_out.out_channels, 4)
        pairs = torch.kron(torch.eye(count), torch.tensor([[1.0], [-1.0]]))
        net.conv_in.weight[: 2 * count] *= spread
        net.conv_in.weight[: 2 * count, :count, 1, 1] = pairs
        net.conv_out.weight *= spread
        net.conv_out.weight[:count, : 2 * count, 1, 1] += pairs.T
    return net


def unet(**options: Any) -> Any:
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    config = {**TINY_UNET, **blocks, "cross_attention_dim": 8, "attention_head_dim": 2, **options}
    return calm(seeded(diffusers.UNet2DConditionModel, **config))


def pixel_unet() -> Any:
    """One group for the norms and a small spread keep most pixels off the clamp at the end of the pipeline."""
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "add_attention": False}
    return calm(seeded(diffusers.UNet2DModel, **{**TINY_UNET, **blocks, "norm_num_groups": 1}), 0.05)


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


# --- pixels


def pixels(cls: Any, scheduler: Any) -> Tiny:
    """The pipeline clamps what it returns to [0, 1]."""
    return finish(cls(unet=pixel_unet(), scheduler=scheduler(clip_sample=False)), {"output_type": "np"}, (1, 3, 8, 8))


# --- Stable Diffusion


SCALED: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
LATENTS = (1, 4, 8, 8)


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


# --- other conditions


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


# --- flow matching


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


# --- learned variance


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


# --- audio and video


class BrownianPath:
    """Stands in for torchsde.BrownianInterval: W(b) - W(a) of one path, drawn where it is asked for."""

    def __init__(self, t0: Any, t1: Any, size: Any, dtype: Any, device: Any, entropy: int, **_: Any) -> None:
        self.generator = torch.Generator().manual_seed(entropy % 2**63)
        self.points = {float(t0): torch.zeros(size, dtype=dtype, device=device)}

    def at(self, t: float) -> torch.Tensor:
        if t not in self.points:
            below = max((s for s in self.points if s < t), default=None)
            above = min((s for s in self.points if s > t), default=None)
            near = next(self.points[s] for s in (below, above) if s is not None)
            noise = torch.randn(near.shape, generator=self.generator).to(near)
            if below is None or above is None:
                self.points[t] = near + noise * abs(t - (above if below is None else below)) ** 0.5
            else:
                share = (t - below) / (above - below)
                mean = torch.lerp(self.points[below], self.points[above], share)
                self.points[t] = mean + noise * ((t - below) * (1 - share)) ** 0.5
        return self.points[t]

    def __call__(self, a: Any, b: Any) -> torch.Tensor:
        return self.at(float(b)) - self.at(float(a))


def cosine_dpm_solver(**config: Any) -> Any:
    """Its module imports torchsde, which need not be installed."""
    missing = importlib.util.find_spec("torchsde") is None
    if missing:
        sys.modules["torchsde"] = types.SimpleNamespace(BrownianInterval=BrownianPath)
    try:
        module = importlib.import_module("diffusers.schedulers.scheduling_cosine_dpmsolver_multistep")
    finally:
        if missing:
            del sys.modules["torchsde"]
    return module.CosineDPMSolverMultistepScheduler(**config)


def stable_audio() -> Tiny:
    net = seeded(
        diffusers.StableAudioDiTModel, sample_size=16, in_channels=4, out_channels=4, num_layers=1,
        attention_head_dim=8, num_attention_heads=2, num_key_value_attention_heads=1, cross_attention_dim=8,
        cross_attention_input_dim=8, global_states_input_dim=16, time_proj_dim=8,
    )  # fmt: skip
    oobleck = seeded(
        diffusers.AutoencoderOobleck, encoder_hidden_size=4, downsampling_ratios=[2], channel_multiples=[1],
        decoder_channels=4, decoder_input_channels=4, audio_channels=2, sampling_rate=4,
    )  # fmt: skip
    projection = seeded(
        diffusers.StableAudioProjectionModel, text_encoder_dim=8, conditioning_dim=8, min_value=0, max_value=512
    )
    scheduler = cosine_dpm_solver(
        sigma_min=0.3, sigma_max=500, sigma_data=1.0, sigma_schedule="exponential", prediction_type="v_prediction"
    )
    pipe = diffusers.StableAudioPipeline(
        vae=oobleck, text_encoder=None, projection_model=projection, tokenizer=None, transformer=net,
        scheduler=scheduler,
    )  # fmt: skip
    return finish(pipe, {**embeds(), "guidance_scale": 4.0, "output_type": "latent"}, (1, 4, 16), "audios")


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


PIPELINES: dict[str, Callable[[], Tiny]] = {
    "ddpm": lambda: pixels(diffusers.DDPMPipeline, diffusers.DDPMScheduler),
    "ddim": lambda: pixels(diffusers.DDIMPipeline, diffusers.DDIMScheduler),
    "ldm": ldm,
    "sd": lambda: stable_diffusion(diffusers.StableDiffusionPipeline),
    "sd-img2img": lambda: stable_diffusion(diffusers.StableDiffusionImg2ImgPipeline, image=image(), strength=0.75),
    "sd-inpaint": lambda: sd_inpaint(4),
    "sd-inpaint-9": lambda: sd_inpaint(9),
    "sd-controlnet": sd_controlnet,
    "sdxl": lambda: stable_diffusion_xl(diffusers.StableDiffusionXLPipeline),
    # the image: latents as the base model leaves them at denoising_end
    "sdxl-img2img": lambda: stable_diffusion_xl(
        diffusers.StableDiffusionXLImg2ImgPipeline, image=randn(*LATENTS, seed=5), denoising_start=0.5
    ),
    "sd3": lambda: stable_diffusion_3(diffusers.StableDiffusion3Pipeline),
    "sd3-img2img": lambda: stable_diffusion_3(
        diffusers.StableDiffusion3Img2ImgPipeline, image=image(), strength=0.75, height=8, width=8
    ),
    "flux": lambda: flux_like(diffusers.FluxPipeline),
    "flux-img2img": lambda: flux_like(diffusers.FluxImg2ImgPipeline, image=image(), strength=0.75),
    "pixart": pixart,
    "kandinsky": kandinsky,
    "marigold": marigold,
    "latent-upscale": latent_upscale,
    "animatediff": animatediff,
    "svd": svd,
    "wan": wan,
    "ltx": ltx,
    "cogvideox": cogvideox,
    "cosmos": cosmos,
    "stable-audio": stable_audio,
}
