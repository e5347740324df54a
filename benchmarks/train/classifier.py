"""Train the bundled MNIST classifier whose features the Fréchet distance is taken in.

    python benchmarks/train/classifier.py --data mnist.npz --out solverkit/networks/mnist-classifier

``mnist.npz`` holds ``train_x`` (60000, 28, 28) uint8, ``train_y``, ``test_x``, ``test_y``: the MNIST of
LeCun, Cortes and Burges, https://yann.lecun.org/exdb/mnist/ (any lossless copy will do). Images are scaled to
[-1, 1] and shifted by at most one pixel: more would teach the features to overlook a misplaced stroke.

Writes ``config.json`` (with the test accuracy, and with the Fréchet distance of 5000 training images from the
test set, the value that a perfect sampler would get), ``model.safetensors`` and ``statistics.safetensors``
(float64 mean and covariance of the features of the 10000 test images). The number of epochs is fixed
beforehand: the test images choose nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from solverkit.bench.features import DigitFeatures
from solverkit.bench.frechet import frechet_distance, moments


def load_images(data: np.lib.npyio.NpzFile, split: str) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(data[f"{split}_x"]).float().div(127.5).sub(1).unsqueeze(1)
    return images, torch.from_numpy(data[f"{split}_y"].astype(np.int64))


def shifted(x: Tensor) -> Tensor:
    """The batch, moved as a whole by -1, 0 or 1 pixels in either direction; black comes in."""
    i, j = torch.randint(3, (2,)).tolist()
    return pad(x, (1, 1, 1, 1), value=-1.0)[..., i : i + 28, j : j + 28]


def train(net: DigitFeatures, images: Tensor, labels: Tensor, epochs: int, batch: int, rate: float) -> None:
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.01)
    per_epoch = len(images) // batch
    steps = epochs * per_epoch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.2)
    for epoch in range(epochs):
        clock, total = time.perf_counter(), 0.0
        for pick in torch.randperm(len(images))[: per_epoch * batch].view(per_epoch, batch):
            loss = cross_entropy(net(shifted(images[pick])), labels[pick], label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds = time.perf_counter() - clock
        print(f"epoch {epoch + 1} loss {total / per_epoch:.4f} seconds {seconds:.0f}", flush=True)


@torch.no_grad()
def accuracy(net: DigitFeatures, images: Tensor, labels: Tensor) -> float:
    guesses = torch.cat([net(part).argmax(dim=1) for part in images.split(500)])
    return float((guesses == labels).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    data = np.load(args.data)
    images, labels = load_images(data, "train")
    channels, width = (16, 32, 32, 48), 64
    net = DigitFeatures(channels, width)
    clock = time.perf_counter()
    train(net, images, labels, args.epochs, args.batch, args.lr)
    seconds = time.perf_counter() - clock

    net.eval()
    test_images, test_labels = load_images(data, "test")
    mean, covariance = moments(net.features(test_images))
    pick = torch.randperm(len(images), generator=torch.Generator().manual_seed(args.seed))[:5000]
    config = {
        "channels": channels,
        "width": width,
        "input": "MNIST, (B, 1, 28, 28), [-1, 1]",
        "parameters": sum(p.numel() for p in net.parameters()),
        "test_accuracy": round(accuracy(net, test_images, test_labels), 4),
        "frechet_of_5000_training_images": round(
            frechet_distance(*moments(net.features(images[pick])), mean, covariance), 5
        ),
        "feature_variance": round(float(covariance.trace()), 5),
        "epochs": args.epochs,
        "batch": args.batch,
        "learning_rate": args.lr,
        "seconds": round(seconds),
        "threads": args.threads,
        "seed": args.seed,
        "torch": torch.__version__,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(net.state_dict(), args.out / "model.safetensors")
    save_file({"mean": mean, "covariance": covariance}, args.out / "statistics.safetensors")
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(config, indent=2))


if __name__ == "__main__":
    main()
