"""The loop that the training scripts share: minutes instead of steps, an average of the weights, checkpoints that resume.

The learning rate rises over 100 steps, is constant, and falls linearly to zero over the last 30 % of the minutes, so that
a machine of any speed ends with an annealed network.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FALL = 0.3
REPORT_EVERY, SAVE_EVERY = 15.0, 60.0  # seconds


def arguments(description: str, *, batch: int, rate: float, data: bool = True) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    if data:
        parser.add_argument("--data", required=True, help="mnist.npz, as benchmarks/train/mnist.py describes it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5.0, help="of training, earlier parts included")
    parser.add_argument("--steps", type=int, default=None, help="stop after so many steps, if that comes first")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--lr", type=float, default=rate)
    parser.add_argument("--average", type=float, default=0.999, help="decay of the average of the weights")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def start(args: argparse.Namespace) -> None:
    """Threads, seeds and TensorFloat-32 matrix products."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    args.out.mkdir(parents=True, exist_ok=True)


def digits(path: str, device: str) -> tuple[Tensor, Tensor]:
    """The training images (60000, 1, 28, 28) in [-1, 1] and their labels (60000,), on the device."""
    data = np.load(path)
    images = torch.from_numpy(data["train_x"]).to(device).float().div(127.5).sub(1).unsqueeze(1)
    return images, torch.from_numpy(data["train_y"].astype(np.int64)).to(device)


def train(
    args: argparse.Namespace,
    net: nn.Module,
    loss: Callable[[float], tuple[Tensor, Tensor]],
    save: Callable[[dict[str, Tensor], dict[str, Any]], None],
    *,
    after: Callable[[], None] | None = None,
    kept: dict[str, nn.Module] | None = None,
) -> None:
    """Minimise the first of `loss(progress)`, progress in [0, 1), over the parameters of `net`; report the second.

    Args:
        args: of `arguments`.
        save: is given the averaged weights and the record, now and then and at the end.
        after: is called after each step.
        kept: modules that belong into a checkpoint beside `net`.
    """
    parameters = [p for p in net.parameters() if p.requires_grad]
    fused = torch.device(args.device).type == "cuda"
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=0.0, betas=(0.9, 0.99), fused=fused)
    kept = {"net": net, **(kept or {})}
    average = {name: value.detach().clone() for name, value in net.state_dict().items()}
    step, before = 0, 0.0
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=args.device, weights_only=True)
        for name, module in kept.items():
            module.load_state_dict(saved[name])
        optimizer.load_state_dict(saved["optimizer"])
        average, step, before = saved["average"], saved["step"], saved["seconds"]
        torch.manual_seed(args.seed + step)
        print(f"resumed at step {step}, {before:.0f} s", flush=True)

    names = [name for name, value in average.items() if value.is_floating_point()]
    now = net.state_dict()
    averaged, current = [average[name] for name in names], [now[name] for name in names]
    total, count, losses = torch.zeros((), device=args.device), 0, [0.0]
    clock = time.perf_counter()
    reported = written = before

    def write(seconds: float, finished: bool) -> None:
        states = {name: module.state_dict() for name, module in kept.items()}
        saved = {**states, "optimizer": optimizer.state_dict(), "average": average, "step": step, "seconds": seconds}
        torch.save(saved, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)
        device = torch.cuda.get_device_name() if fused else f"{args.threads} CPU thread{'s'[: args.threads > 1]}"
        record = {
            "steps": step, "batch": args.batch, "seconds": round(seconds), "device": device, "loss": round(losses[-1], 6),
            "learning_rate": args.lr, "average": args.average, "annealed": finished, "seed": args.seed,
            "torch": torch.__version__,
        }  # fmt: skip
        save(average, record)

    while True:
        seconds = before + time.perf_counter() - clock
        progress = seconds / (60 * args.minutes)
        if args.steps is not None:
            progress = max(progress, step / args.steps)
        if progress >= 1:
            break
        rate = args.lr * min(1.0, (step + 1) / 100, (1 - progress) / FALL)
        for group in optimizer.param_groups:
            group["lr"] = rate
        value, shown = loss(progress)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if after is not None:
            after()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, current, 1 - min(args.average, (step + 1) / (step + 10)))
        total, count, step = total + shown.detach(), count + 1, step + 1
        if seconds - reported >= REPORT_EVERY or count == 1 == step:
            losses.append(float(total) / count)
            total, count, reported = torch.zeros_like(total), 0, seconds
            print(f"step {step} loss {losses[-1]:.5f} seconds {seconds:.0f}", flush=True)
        if seconds - written >= SAVE_EVERY:
            written = seconds
            write(seconds, finished=False)
    if count:
        losses.append(float(total) / count)
    write(seconds, finished=True)
    print(f"finished: step {step} loss {losses[-1]:.5f} seconds {seconds:.0f}", flush=True)
