"""Audio pipelines."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from typing import Any

import diffusers
import torch
from tiny_pipe import Tiny, embeds, finish, seeded


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
