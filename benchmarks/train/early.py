"""A weak `mnist`: the same network and objective (epsilon, discrete VP), trained anew and stopped early.

    python benchmarks/train/early.py --data mnist.npz --out runs/mnist-early --steps 300

A weak model beside a strong one of the same family is what reflection needs (weak-to-strong diffusion, arXiv 2502.00473),
and guidance by a bad version of oneself (arXiv 2406.02507). `--steps` decides how weak. Its weights are averaged and its
learning rate falls to zero as those of the other networks: it has seen little, but it is not noisy.
"""

from __future__ import annotations

import torch
from loop import arguments, digits, start, train
from torch import Tensor
from unet import CONFIG, NULL_CLASS, UNet, save_pipeline
from variance_preserving import SCHEDULER, alphas_cumprod


def main() -> None:
    parser = arguments(__doc__ or "", batch=128, rate=2e-3)
    parser.set_defaults(steps=300)
    args = parser.parse_args()
    start(args)
    images, labels = digits(args.data, args.device)
    abar = alphas_cumprod(args.device)
    ratio = ((1 - abar) / abar).sqrt()
    weight = ratio.clamp(1, 25) / ratio.clamp(1, 25).mean()  # as in benchmarks/train/mnist.py
    net = UNet(CONFIG).to(args.device)

    def loss(progress: float) -> tuple[Tensor, Tensor]:
        pick = torch.randint(len(images), (args.batch,), device=args.device)
        x0, y = images[pick], labels[pick]
        y = torch.where(torch.rand(args.batch, device=args.device) < 0.1, NULL_CLASS, y)
        t = torch.randint(1000, (args.batch,), device=args.device)
        eps = torch.randn_like(x0)
        alpha, sigma = abar[t].sqrt().view(-1, 1, 1, 1), (1 - abar[t]).sqrt().view(-1, 1, 1, 1)
        error = net(alpha * x0 + sigma * eps, t, y) - eps
        value = (weight[t] * error.square().mean(dim=(1, 2, 3))).mean()
        return value, value

    def save(average: dict[str, Tensor], record: dict) -> None:
        full = {"objective": "epsilon", "images_seen": record["steps"] * args.batch, **record}
        save_pipeline(args.out, net, average, {**SCHEDULER, "prediction_type": "epsilon"}, full)

    train(args, net, loss, save)


if __name__ == "__main__":
    main()
