"""Distil the bundled `mnist` into a consistency student: one evaluation at any level answers a sample.

    python benchmarks/train/consistency.py --data mnist.npz --out runs/mnist-consistency --minutes 5

Consistency distillation (Song et al. 2023, algorithm 2) on the teacher's 1000 levels. A noisy image x_t is moved by the
teacher's probability flow to the level `--gap` timesteps below (Heun in sigma / alpha; past timestep 0 to the clean
image, by one Euler step, which is the teacher's denoised prediction). The student's answers at both ends must agree:

    loss = d(D(x_t, t), D'(x_s, s)),    d(a, b) = sqrt(|a - b|^2 + c^2) - c,    D'(x, no noise) = x,

D' with weights that follow the student's (decay `--target`), c = 0.00054 sqrt(784) (Song and Dhariwal 2024, section 3.3).

The student predicts v = alpha eps - sigma x_0, so D = alpha x - sigma v: c_skip = alpha and c_out = -sigma give D(x, no
noise) = x, and no level divides by alpha (the teacher's epsilon does: an error of 0.01 at timestep 999 is one of 1.6 in
D). It starts from the teacher's weights; for the first `--convert` of the minutes it learns v itself, from the images,
then the loss above. Labels are those of the images, the null class for a tenth of them; the student is told t and the
label as the teacher is.

Writes the folder that `sk.load` opens (v_prediction on the teacher's schedule); its denoised prediction is a sample.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from loop import arguments, digits, start, train
from torch import Tensor
from unet import NULL_CLASS, UNet, load, save_pipeline
from variance_preserving import SCHEDULER, alpha_sigma, alphas_cumprod

TEACHER = Path(__file__).parents[2] / "solverkit" / "networks" / "mnist" / "unet"
HUBER = 0.00054 * 28


def flow_step(teacher: UNet, abar: Tensor, x: Tensor, t: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """x at t moved to s < t along dy/dr = eps, y = x / alpha, r = sigma / alpha: Heun, Euler to the clean image."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = alpha_sigma(abar, t), alpha_sigma(abar, s)
    h = sigma_s / alpha_s - sigma_t / alpha_t
    eps = teacher(x, t, y)
    euler = x / alpha_t + h * eps
    again = teacher(alpha_s * euler, s.clamp(min=0), y)
    heun = x / alpha_t + h * (eps + again) / 2
    return alpha_s * torch.where(s.view(-1, 1, 1, 1) < 0, euler, heun)


def denoised(net: UNet, abar: Tensor, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """D = alpha x - sigma v; x itself where t = -1."""
    alpha, sigma = alpha_sigma(abar, t)
    return alpha * x - sigma * net(x, t.clamp(min=0), y)


def pseudo_huber(a: Tensor, b: Tensor) -> Tensor:
    return ((a - b).square().sum(dim=(1, 2, 3)) + HUBER**2).sqrt() - HUBER


def main() -> None:
    parser = arguments(__doc__ or "", batch=512, rate=1e-3)
    parser.add_argument("--teacher", type=Path, default=TEACHER)
    parser.add_argument("--gap", type=int, default=25, help="timesteps between the two levels")
    parser.add_argument("--target", type=float, default=0.95, help="decay of the weights that answer at the lower level")
    parser.add_argument("--convert", type=float, default=0.15, help="share of the minutes that learns v first")
    args = parser.parse_args()
    start(args)
    images, labels = digits(args.data, args.device)
    abar = alphas_cumprod(args.device)
    teacher = load(args.teacher).to(args.device).eval().requires_grad_(False)
    student = copy.deepcopy(teacher).requires_grad_(True)
    target = copy.deepcopy(teacher)
    pairs = list(target.parameters()), list(student.parameters())

    def loss(progress: float) -> tuple[Tensor, Tensor]:
        pick = torch.randint(len(images), (args.batch,), device=args.device)
        x0, y = images[pick], labels[pick]
        y = torch.where(torch.rand(args.batch, device=args.device) < 0.1, NULL_CLASS, y)
        t = torch.randint(1000, (args.batch,), device=args.device)
        eps = torch.randn_like(x0)
        alpha, sigma = alpha_sigma(abar, t)
        x = alpha * x0 + sigma * eps
        if progress < args.convert:
            value = (student(x, t, y) - (alpha * eps - sigma * x0)).square().mean()
            return value, value
        s = (t - args.gap).clamp(min=-1)
        with torch.no_grad():
            aim = denoised(target, abar, flow_step(teacher, abar, x, t, s, y), s, y)
        value = pseudo_huber(denoised(student, abar, x, t, y), aim).mean()
        return value, value

    @torch.no_grad()
    def follow() -> None:
        torch._foreach_lerp_(*pairs, 1 - args.target)

    def save(average: dict[str, Tensor], record: dict) -> None:
        told = {"gap": args.gap, "target": args.target, "convert": args.convert}
        seen = {"images_seen": record["steps"] * args.batch}
        full = {"objective": "consistency", "teacher": "mnist", **told, **seen, **record}
        save_pipeline(args.out, student, average, {**SCHEDULER, "prediction_type": "v_prediction"}, full)

    train(args, student, loss, save, after=follow, kept={"target": target})


if __name__ == "__main__":
    main()
