"""Distil the bundled `mnist-flow` into its average velocity u(z, r, t): a flow map, one evaluation from t to any r < t.

    python benchmarks/train/mean_flow.py --data mnist.npz --out runs/mnist-mean-flow --minutes 5

On the path z_t = (1 - t) x_0 + t eps with velocity v, dz/dt = v(z_t, t), the average velocity and its identity are (Geng
et al. 2025, Mean Flows for One-step Generative Modeling, arXiv 2505.13447, eq. 3 and 6)

    u(z_t, r, t) = 1 / (t - r) integral_r^t v(z_s, s) ds,     u(z_t, r, t) = v(z_t, t) - (t - r) du/dt,
    du/dt: the derivative of (z, r, t) -> u along (v, 0, 1) (eq. 8);     z_r = z_t - (t - r) u(z_t, r, t).

The right side of the identity, without gradient, is what u is regressed on, weighted by 1 / (|error|^2 + c)^p (c = 1e-3;
the paper: p = 1 for ImageNet, 0.75 for CIFAR-10; 0.5 here, where the target has no noise of its own). v is the teacher's
(`--velocity teacher`: distillation) or that of the images (`--velocity data`: eps - x_0, the paper's own). `--equal` of
the batch has r = t, where u is v. The loss that is printed is the mean square of the error, not weighted.

The network is the teacher's and is told 1000 t and the label as before; a second embedding, of t - r, is added to the
first, zero at the start, so that u(z, r, t) = v(z, t) then. du/dt needs a network that is smooth in both times. The
teacher's three highest frequencies (1000, 316 and 100 radians over t in [0, 1]) carry noise alone: on 32 images its loss
without them is the same to three digits, and du/dt agrees with a difference quotient over 0.01 of t (to 0.02, t >= 0.2);
with them not even in size. So their weights are held at zero, and the second embedding starts at 10 radians (at 100 the
training diverged). du/dt comes in over the first `--warm` of the minutes (a tangent warm-up, Lu and Song 2025, section
4.2).

Writes unet/ (a `UNet2DModel` whose class embedding is "identity": a vector that is added to the embedded time) and
second_time.safetensors: that vector is class_embedding.weight[label] + linear_2 silu(linear_1 e), e the cosines and sines
of 10 (t - r) as the positional time has them. Told = "t,h": the network is given (t, h = t - r).
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from loop import arguments, digits, start, train
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import jvp
from unet import NULL_CLASS, Embedding, GroupNorm, UNet, load, save

TEACHER = Path(__file__).parents[2] / "solverkit" / "networks" / "mnist-flow" / "unet"
NOISY = 3  # frequencies of the told time that are left out
SECOND_SCALE = 10.0


class TwoTimes(nn.Module):
    """u(z, h, t) of images (B, 1, 28, 28), times (B,) and labels (B,); h = t - r."""

    def __init__(self, teacher: UNet) -> None:
        super().__init__()
        config = {**teacher.config, "num_class_embeds": None, "class_embed_type": "identity"}
        weights = teacher.state_dict()
        labels = weights.pop("class_embedding.weight")
        self.unet = UNet(config)
        self.unet.load_state_dict(weights)
        self.class_embedding = nn.Embedding.from_pretrained(labels.clone(), freeze=False)
        self.second = Embedding(config["block_out_channels"][0], labels.shape[1])
        nn.init.zeros_(self.second.linear_2.weight)
        nn.init.zeros_(self.second.linear_2.bias)
        for module in self.unet.modules():
            if isinstance(module, GroupNorm):
                module.written_out = True

    def forward(self, z: Tensor, h: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return self.unet(z, 1000 * t, self.class_embedding(labels) + self.second(SECOND_SCALE * h))

    @torch.no_grad()
    def smooth(self) -> None:
        """Zero weights of the highest frequencies of t: of their cosines and of their sines."""
        first = self.unet.time_embedding.linear_1.weight
        half = first.shape[1] // 2
        first[:, :NOISY] = 0
        first[:, half : half + NOISY] = 0


def times(n: int, device: str) -> tuple[Tensor, Tensor]:
    """r <= t (n,): two draws of a logistic normal (mean -0.4, deviation 1: the paper's), a quarter of them uniform;
    then a tenth of the r are 0 and a tenth of the t are 1, where maps to samples end and start."""
    draws = torch.sigmoid(torch.randn(2, n, device=device) - 0.4)
    draws = torch.where(torch.rand(n, device=device) < 0.25, torch.rand(2, n, device=device), draws)
    r, t = draws.amin(0), draws.amax(0)
    r = torch.where(torch.rand(n, device=device) < 0.1, torch.zeros_like(r), r)
    return r, torch.where(torch.rand(n, device=device) < 0.1, torch.ones_like(t), t)


def main() -> None:
    parser = arguments(__doc__ or "", batch=512, rate=5e-4)
    parser.add_argument("--teacher", type=Path, default=TEACHER)
    parser.add_argument("--velocity", choices=["teacher", "data"], default="teacher")
    parser.add_argument("--equal", type=float, default=0.25, help="share of the batch with r = t")
    parser.add_argument("--warm", type=float, default=0.2, help="share of the minutes over which du/dt comes in")
    parser.add_argument("--power", type=float, default=0.5, help="p of the weight")
    args = parser.parse_args()
    start(args)
    images, labels = digits(args.data, args.device)
    teacher = load(args.teacher).to(args.device).eval().requires_grad_(False)
    net = TwoTimes(teacher).to(args.device)
    net.smooth()
    equal = int(args.equal * args.batch)

    def loss(progress: float) -> tuple[Tensor, Tensor]:
        pick = torch.randint(len(images), (args.batch,), device=args.device)
        x0, y = images[pick], labels[pick]
        y = torch.where(torch.rand(args.batch, device=args.device) < 0.1, NULL_CLASS, y)
        r, t = times(args.batch, args.device)
        r = torch.cat([t[:equal], r[equal:]])
        eps = torch.randn_like(x0)
        s = t.view(-1, 1, 1, 1)
        z = (1 - s) * x0 + s * eps
        with torch.no_grad():
            v = teacher(z, 1000 * t, y) if args.velocity == "teacher" else eps - x0
        zd, td, rd, yd, vd = (a[equal:] for a in (z, t, r, y, v))  # where r < t
        along = vd, torch.zeros_like(rd), torch.ones_like(td)
        u, derivative = jvp(lambda z, r, t: net(z, t - r, t, yd), (zd, rd, td), along)
        coming = min(1.0, progress / args.warm)
        aim = vd - coming * (td - rd).view(-1, 1, 1, 1) * derivative.detach()
        there = net(z[:equal], torch.zeros_like(t[:equal]), t[:equal], y[:equal])
        error = (torch.cat([there - v[:equal], u - aim])).square().sum(dim=(1, 2, 3))
        return (error / (error.detach() + 1e-3) ** args.power).mean(), error.mean() / z[0].numel()

    def write(average: dict[str, Tensor], record: dict) -> None:
        unet = {name.removeprefix("unet."): value for name, value in average.items() if name.startswith("unet.")}
        second = {name.removeprefix("second."): value for name, value in average.items() if not name.startswith("unet.")}
        save(args.out / "unet", net.unet.config, unet)
        save_file({k: v.float().cpu().contiguous() for k, v in second.items()}, args.out / "second_time.safetensors")
        told = {"told": "t,h", "time_scale": 1000.0, "second_time_scale": SECOND_SCALE, "velocity": args.velocity}
        seen = {"equal": args.equal, "power": args.power, "images_seen": record["steps"] * args.batch}
        full = {"objective": "mean_flow", "teacher": "mnist-flow", **told, **seen, **record}
        (args.out / "training.json").write_text(json.dumps(full, indent=2) + "\n", encoding="utf-8")

    train(args, net, loss, write, after=net.smooth)


if __name__ == "__main__":
    main()
