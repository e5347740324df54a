"""Train the bundled networks ``mnist`` (epsilon, discrete VP) and ``mnist-flow`` (velocity, linear path).

    python benchmarks/train/mnist.py --data mnist.npz --objective epsilon --out runs/mnist
    python benchmarks/train/mnist.py --data mnist.npz --objective flow    --out runs/mnist-flow

``mnist.npz`` holds ``train_x`` (60000, 28, 28) uint8, ``train_y``, ``test_x``, ``test_y``: the MNIST of LeCun, Cortes and
Burges, https://yann.lecun.org/exdb/mnist/ (any lossless copy will do). Images are scaled to [-1, 1]; label 10 is the null
class, drawn for a tenth of the images so that classifier-free guidance has an unconditional network to lean on.

The learning rate is constant after a warm-up and falls linearly to zero over the last ``--decay`` steps. SIGUSR1 starts
that fall at once (a machine that turned out slower than planned still ends with an annealed network). Checkpoints are
written every 500 steps and picked up again by the same command.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DModel

NULL_CLASS = 10


def build_network() -> UNet2DModel:
    """A UNet small enough for a laptop: 28 -> 14 -> 7, attention at 7 x 7 only."""
    return UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(16, 32, 64),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=32,
        num_class_embeds=NULL_CLASS + 1,
    )


class EpsilonObjective:
    """x_t = alpha x_0 + sigma eps on 1000 linear betas; the network predicts eps (Ho et al. 2020, eq. 14).

    The probability-flow ODE integrates eps over sigma / alpha, from 157 to 0: an error of 0.01 at the start moves the
    sample by one. So the loss is weighted by sigma / alpha, kept within [1, 25].
    """

    prediction = "epsilon"

    def __init__(self) -> None:
        self.scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", clip_sample=False)
        self.alphas_cumprod = self.scheduler.alphas_cumprod
        ratio = ((1 - self.alphas_cumprod) / self.alphas_cumprod).sqrt()
        self.weight = ratio.clamp(1, 25)
        self.weight /= self.weight.mean()

    def loss(self, net: torch.nn.Module, x0: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        n = len(x0)
        t = stratified(n).mul(1000).long().clamp(max=999)
        abar = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        eps = torch.randn_like(x0)
        out = net(abar.sqrt() * x0 + (1 - abar).sqrt() * eps, t, y).sample
        return (self.weight[t] * (out - eps).square().mean(dim=(1, 2, 3))).mean()


class FlowObjective:
    """x_t = (1 - t) x_0 + t eps; the network predicts eps - x_0 and is told 1000 t (Lipman et al. 2023)."""

    prediction = "flow_prediction"

    def __init__(self) -> None:
        self.scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0)

    def loss(self, net: torch.nn.Module, x0: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        t = stratified(len(x0))
        s = t.view(-1, 1, 1, 1)
        eps = torch.randn_like(x0)
        out = net((1 - s) * x0 + s * eps, 1000 * t, y).sample
        return torch.nn.functional.mse_loss(out, eps - x0)


def stratified(n: int) -> torch.Tensor:
    """n times in (0, 1), one a stratum: less variance than independent draws (Kingma et al. 2021, appendix I)."""
    return ((torch.arange(n) + torch.rand(n)) / n)[torch.randperm(n)]


def save(out: Path, net: UNet2DModel, objective: EpsilonObjective | FlowObjective, record: dict) -> None:
    """The folder that ``DDPMPipeline.from_pretrained`` opens, plus ``training.json``."""
    net.save_pretrained(out / "unet")
    objective.scheduler.save_pretrained(out / "scheduler")
    index = {
        "_class_name": "DDPMPipeline",
        "_diffusers_version": "0.35.0",
        "scheduler": ["diffusers", type(objective.scheduler).__name__],
        "unet": ["diffusers", "UNet2DModel"],
    }
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--objective", choices=["epsilon", "flow"], required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--decay", type=int, default=800)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    data = np.load(args.data)
    images = torch.from_numpy(data["train_x"]).float().div(127.5).sub(1).unsqueeze(1)
    labels = torch.from_numpy(data["train_y"].astype(np.int64))

    objective = EpsilonObjective() if args.objective == "epsilon" else FlowObjective()
    net = build_network()
    optimizer = torch.optim.AdamW(net.parameters(), lr=args.lr, weight_decay=0.0, betas=(0.9, 0.99))
    average = {k: v.detach().clone() for k, v in net.state_dict().items()}
    step, seconds, end = 0, 0.0, args.steps
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])
        average, step, seconds = saved["average"], saved["step"], saved["seconds"]
        print(f"resumed at step {step}")

    finish_now = False

    def on_signal(*_: object) -> None:
        nonlocal finish_now
        finish_now = True

    signal.signal(signal.SIGUSR1, on_signal)
    losses: list[float] = []
    clock = time.perf_counter()
    while step < end:
        if finish_now:
            end, finish_now = min(end, step + args.decay), False
        rate = args.lr * min(1.0, (step + 1) / 200, max((end - step) / args.decay, 0.0))
        for group in optimizer.param_groups:
            group["lr"] = rate
        pick = torch.randint(len(images), (args.batch,))
        y = torch.where(torch.rand(args.batch) < 0.1, NULL_CLASS, labels[pick])
        loss = objective.loss(net, images[pick], y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        decay = min(0.999, (step + 1) / (step + 10))
        with torch.no_grad():
            for k, v in net.state_dict().items():
                average[k].lerp_(v, 1 - decay)
        step += 1
        losses.append(loss.item())
        if step % 100 == 0:
            now = time.perf_counter()
            print(f"step {step} loss {np.mean(losses[-100:]):.4f} seconds {seconds + now - clock:.0f}", flush=True)
        if step % 500 == 0 or step == end:
            now = time.perf_counter()
            seconds, clock = seconds + now - clock, now
            state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "average": average}
            torch.save({**state, "step": step, "seconds": seconds}, checkpoint)
            averaged = build_network()
            averaged.load_state_dict(average)
            record = {
                "objective": args.objective,
                "steps": step,
                "batch": args.batch,
                "images_seen": step * args.batch,
                "seconds": round(seconds),
                "threads": args.threads,
                "loss_last_500": round(float(np.mean(losses[-500:])), 5),
                "learning_rate": args.lr,
                "annealed": step == end,
                "seed": args.seed,
                "torch": torch.__version__,
            }
            save(args.out, averaged, objective, record)


if __name__ == "__main__":
    main()
