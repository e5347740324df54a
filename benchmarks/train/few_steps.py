"""Measure a few-step network beside its teacher: the Fréchet distance of both at a handful of evaluations.

    python benchmarks/train/few_steps.py --network runs/mnist-consistency
    python benchmarks/train/few_steps.py --network runs/mnist-mean-flow

A consistency student answers D at each level of a table and is noised again, with fresh noise, to the next: timesteps 999
(1 - i / n) for n = 1, 2, 4. A flow map goes from t = 1 to 0 in n equal parts. The teacher runs the solvers of `SOLVERS`
at 4, 8 and 16 evaluations on its usual grid, from the noises that the student starts from.

Labels are 0, 1, .., 9, 0, 1, .. and sample i is drawn from seed i. The distance is that of the card: in the features of
the bundled classifier, against the 10000 test images; +- is the jackknife's standard error over 20 parts. Its level
depends on `--count`: compare equal counts alone. Writes few_steps.json and few_steps.png (the first ten of each digit,
one row a network and number of evaluations) into the folder.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import consistency
import mean_flow
import numpy as np
import torch
import unet
from safetensors.torch import load_file
from torch import Tensor
from variance_preserving import alpha_sigma, alphas_cumprod

import solverkit as sk
from solverkit.bench.features import load_features, load_statistics
from solverkit.bench.frechet import frechet_distance, moments

SOLVERS = ("ddim", "dpmpp-2m", "unipc", "heun")
GRIDS = {"mnist": "trailing", "mnist-flow": "flow"}
FEW, TEACHERS = (1, 2, 4), (4, 8, 16)
PARTS = 20


def fresh(seeds: list[int], stream: int) -> Tensor:
    """One unit normal image a seed; streams are independent."""
    draws = [torch.randn(1, 28, 28, generator=torch.Generator().manual_seed(1_000_003 * stream + seed)) for seed in seeds]
    return torch.stack(draws)


def student(folder: Path) -> Callable[[list[int], Tensor, int], Tensor]:
    """(seeds, labels, evaluations) -> images, of a consistency student's folder."""
    net, abar = unet.load(folder / "unet").eval(), alphas_cumprod("cpu")

    def sample(seeds: list[int], labels: Tensor, n: int) -> Tensor:
        x = fresh(seeds, 0)
        for i in range(n):
            t = torch.full_like(labels, round(999 * (1 - i / n)))
            alpha, sigma = alpha_sigma(abar, t)
            x = sigma * x if i == 0 else alpha * x + sigma * fresh(seeds, i)
            x = consistency.denoised(net, abar, x, t, labels)
        return x

    return sample


def flow_map(folder: Path) -> Callable[[list[int], Tensor, int], Tensor]:
    """(seeds, labels, evaluations) -> images, of a flow map's folder."""
    net = mean_flow.TwoTimes(unet.load(mean_flow.TEACHER)).eval()
    net.unet.load_state_dict(load_file(folder / "unet" / unet.WEIGHTS))
    second = load_file(folder / "second_time.safetensors")
    net.class_embedding.load_state_dict({"weight": second.pop("class_embedding.weight")})
    net.second.load_state_dict(second)
    for module in net.modules():
        if isinstance(module, unet.GroupNorm):
            module.written_out = False

    def sample(seeds: list[int], labels: Tensor, n: int) -> Tensor:
        x, h = fresh(seeds, 0), torch.full((len(seeds),), 1 / n)
        for i in range(n):
            x = x - net(x, h, 1 - i * h, labels) / n
        return x

    return sample


def distance(features: Tensor) -> tuple[float, float]:
    """The Fréchet distance to the test images, and its jackknife standard error over `PARTS` parts."""
    against = load_statistics()
    whole = frechet_distance(*moments(features), *against)
    part = torch.arange(len(features)) // 10 % PARTS  # whole tens: each part has every digit
    left = torch.tensor([frechet_distance(*moments(features[part != k]), *against) for k in range(PARTS)])
    return whole, float(((PARTS - 1) / PARTS * (left - left.mean()).square().sum()).sqrt())


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--network", type=Path, required=True)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    record = json.loads((args.network / "training.json").read_text(encoding="utf-8"))
    few = {"consistency": student, "mean_flow": flow_map}[record["objective"]](args.network)
    name = record["teacher"]

    def by_solver(solver: str) -> Callable[[list[int], Tensor, int], Tensor]:
        def sample(seeds: list[int], labels: Tensor, n: int) -> Tensor:
            denoiser = sk.load(name, labels=labels)
            return sk.sample(denoiser, solver, nfe=n, grid=GRIDS[name], x=fresh(seeds, 0), seed=seeds).x

        return sample

    plans = [(args.network.name, few, n) for n in FEW]
    plans += [(f"{name}, {solver}", by_solver(solver), n) for solver in SOLVERS for n in TEACHERS]
    network, labels = load_features(), torch.arange(args.count) % 10
    rows, sheet = [], []
    for who, sample, n in plans:
        clock, images = time.perf_counter(), []
        for seeds in torch.arange(args.count).split(args.batch):
            images.append(sample(seeds.tolist(), labels[seeds], n))
        x = torch.cat(images).clamp(-1, 1)
        right = (torch.cat([network(part).argmax(1) for part in x.split(500)]) == labels).double().mean()
        fd, error = distance(network.features(x))
        rows.append({"network": who, "evaluations": n, "frechet": fd, "error": error, "accuracy": float(right)})
        sheet.append(torch.cat(list(x[:40, 0]), dim=1))
        seconds = time.perf_counter() - clock
        print(f"| {who} | {n} | {fd:.2f} +- {error:.2f} | {100 * float(right):.1f} % | {seconds:.0f} s", flush=True)
    summary = {"count": args.count, "grid": GRIDS[name], "rows": rows}
    (args.network / "few_steps.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.pyplot import imsave

    imsave(args.network / "few_steps.png", np.asarray(torch.cat(sheet)), cmap="gray", vmin=-1, vmax=1)


if __name__ == "__main__":
    main()
