"""Stock diffusers pipelines with tiny random networks, built in memory: PIPELINES maps a name to a builder.

A builder returns Tiny(pipe, inputs, shape, output). Run it with
pipe(**inputs, num_inference_steps=4, generator=torch.Generator().manual_seed(0)) and read the attribute `output`.
"""

from __future__ import annotations

from collections.abc import Callable

import diffusers
from tiny_audio import stable_audio
from tiny_flow import flux_like, stable_diffusion_3
from tiny_image import (
    aura_flow,
    chroma,
    cogview_4,
    flux_2,
    hidream,
    lumina_2,
    qwen_image,
    sana,
    z_image,
)
from tiny_learned_variance import kandinsky, pixart
from tiny_pipe import LATENTS, Tiny, image, randn
from tiny_stable_diffusion import (
    latent_upscale,
    ldm,
    marigold,
    pixels,
    sd_controlnet,
    sd_inpaint,
    stable_diffusion,
    stable_diffusion_xl,
)
from tiny_video import animatediff, cogvideox, cosmos, hunyuan_video, kandinsky_5, ltx, ltx_2, svd, wan

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
    "flux-2": flux_2,
    "qwen-image": qwen_image,
    "z-image": z_image,
    "chroma": chroma,
    "lumina-2": lumina_2,
    "cogview-4": cogview_4,
    "hidream": hidream,
    "aura-flow": aura_flow,
    "sana": sana,
    "pixart": pixart,
    "kandinsky": kandinsky,
    "marigold": marigold,
    "latent-upscale": latent_upscale,
    "animatediff": animatediff,
    "svd": svd,
    "wan": wan,
    "ltx": ltx,
    "ltx-2": ltx_2,
    "hunyuan-video-1.5": hunyuan_video,
    "kandinsky-5": kandinsky_5,
    "cogvideox": cogvideox,
    "cosmos": cosmos,
    "stable-audio": stable_audio,
}
