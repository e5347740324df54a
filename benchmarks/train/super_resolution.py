"""Train a ResShift network: digits of 7 x 7 pixels to 28 x 28, along a path whose mean moves from one to the other.

    python benchmarks/train/super_resolution.py --data mnist.npz --out runs/mnist-super-resolution --minutes 5

y is the image x_0 averaged over 4 x 4 blocks and enlarged again (bicubic). The path is that of ResShift (Yue et al. 2023,
arXiv 2307.12348; T = 15, kappa = 2, p = 0.3, sqrt(eta) from 0.02 to 0.99):

    x_t = x_0 + eta_t (y - x_0) + kappa sqrt(eta_t) eps,     sqrt(eta_t) = 0.02 (0.99 / 0.02)^((t / 14)^0.3), t = 0 .. 14.

In z = x - y this is z_t = (1 - eta_t) (x_0 - y) + kappa sqrt(eta_t) eps, an ordinary path: alpha = 1 - eta, sigma = kappa
sqrt(eta). The network is given x_t / sqrt(kappa^2 eta_t + 1) and y side by side, is told 1000 t / 14, and answers x_0;
the loss is the mean square of x_0's error. It sees t anywhere in [0, 14], not at the 15 steps alone, so that a solver may
ask at any level in between. A perfect x_0 from y alone does not exist (a digit of 7 x 7 has many at 28 x 28): that is
what is sampled.

Writes unet/ (a `UNet2DModel` of two channels in, one out, no labels) and training.json, which holds the constants of the
path.
"""

from __future__ import annotations

import json

import torch
from loop import arguments, digits, start, train
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate
from unet import CONFIG, UNet, save

T, KAPPA, POWER = 15, 2.0, 0.3
SQRT_ETA = 0.02, 0.99  # at t = 0 and t = T - 1


def eta(t: Tensor) -> Tensor:
    """eta at t (B,) in [0, T - 1], as (B, 1, 1, 1)."""
    first, last = SQRT_ETA
    return (first * (last / first) ** ((t / (T - 1)) ** POWER)).square().view(-1, 1, 1, 1)


def enlarged(x0: Tensor) -> Tensor:
    """y (B, 1, 28, 28): averages of 4 x 4 pixels of images (B, 1, 28, 28), bicubic, within [-1, 1]."""
    return interpolate(avg_pool2d(x0, 4), scale_factor=4, mode="bicubic", align_corners=False).clamp(-1, 1)


def main() -> None:
    args = arguments(__doc__ or "", batch=512, rate=2e-3).parse_args()
    start(args)
    images, _ = digits(args.data, args.device)
    config = {**CONFIG, "in_channels": 2, "num_class_embeds": None, "block_out_channels": [32, 48, 64]}
    config["attention_head_dim"] = 32
    net = UNet(config).to(args.device)

    def loss(progress: float) -> tuple[Tensor, Tensor]:
        x0 = images[torch.randint(len(images), (args.batch,), device=args.device)]
        y = enlarged(x0)
        t = torch.rand(args.batch, device=args.device) * (T - 1)
        variance = KAPPA**2 * eta(t)
        x = x0 + eta(t) * (y - x0) + variance.sqrt() * torch.randn_like(x0)
        answer = net(torch.cat([x / (variance + 1).sqrt(), y], dim=1), 1000 * t / (T - 1))
        value = (answer - x0).square().mean()
        return value, value

    def write(average: dict[str, Tensor], record: dict) -> None:
        save(args.out / "unet", config, average)
        path = {"steps_of_the_path": T, "kappa": KAPPA, "power": POWER, "sqrt_eta": SQRT_ETA, "time_scale": 1000 / (T - 1)}
        seen = {"images_seen": record["steps"] * args.batch}
        full = {"objective": "res_shift", "prediction": "sample", "factor": 4, **path, **seen, **record}
        (args.out / "training.json").write_text(json.dumps(full, indent=2) + "\n", encoding="utf-8")

    train(args, net, loss, write)


if __name__ == "__main__":
    main()
