"""Train a joint denoiser of graphs, nodes and adjacency together: two communities, 12 to 20 nodes.

    python benchmarks/train/graphs.py --out runs/communities --minutes 5

The graphs are drawn here, anew for every step: two communities of 6 to 10 nodes each, an edge with probability 0.7 inside
and 0.05 between them, and one edge between them where there is none (the small communities of GraphRNN, You et al. 2018).
A node's features are its degree, one of 1 to 10 (more count as 10), as one of ten.

Nodes and adjacency have their own noise and share their time, as in GDSS (Jo et al. 2022, arXiv 2202.02514, eq. 3):

    X_t = alpha(t) X_0 + sigma(t) eps,  VP with beta from 0.1 to 20;     A_t = A_0 + sigma(t) eps,  VE from 0.02 to 20,

the noise of A symmetric, its diagonal zero. The network answers both clean parts from both noisy ones (GDSS has a network
for each score; score = (alpha D - x) / sigma^2), through EDM's scales in sigma / alpha. The loss is the mean square of
its raw answers over the nodes and pairs that there are, the two parts added.

Writes config.json (network and processes), model.safetensors, training.json and sizes in training.json: how many graphs
have n nodes, which is what a sampler draws first.
"""

from __future__ import annotations

import json

import torch
from loop import arguments, start, train
from safetensors.torch import save_file
from torch import Tensor

from solverkit.joint.graph_network import CONFIG, GraphNetwork, scales
from solverkit.targets.communities import BETWEEN, INSIDE, LARGEST, SMALLEST, communities

BETA, SIGMA = (0.1, 20.0), (0.02, 20.0)
DEVIATION_X, DEVIATION_A = 0.32, 0.6  # root mean squares of the clean parts
T_MIN = 1e-3


def node_process(t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma (B, 1, 1) of X."""
    integral = BETA[0] * t + 0.5 * (BETA[1] - BETA[0]) * t.square()
    return torch.exp(-0.5 * integral).view(-1, 1, 1), (-torch.expm1(-integral)).sqrt().view(-1, 1, 1)


def edge_process(t: Tensor) -> Tensor:
    """sigma (B, 1, 1) of A."""
    return (SIGMA[0] * (SIGMA[1] / SIGMA[0]) ** t).view(-1, 1, 1)


def symmetric_noise(A: Tensor) -> Tensor:
    upper = torch.randn_like(A).triu(1)
    return upper + upper.transpose(1, 2)


def main() -> None:
    args = arguments(__doc__ or "", batch=512, rate=1e-3, data=False).parse_args()
    start(args)
    net = GraphNetwork(**CONFIG).to(args.device)

    def loss(progress: float) -> tuple[Tensor, Tensor]:
        X0, A0, mask = communities(args.batch, args.device)
        node, pair = mask[..., None], mask[:, :, None] * mask[:, None]
        pair = pair - torch.diag_embed(mask)
        t = (torch.arange(args.batch, device=args.device) + torch.rand(args.batch, device=args.device)) / args.batch
        t = T_MIN + (1 - T_MIN) * t
        (alpha, sigma), sigma_A = node_process(t), edge_process(t)
        X = X0 + sigma / alpha * torch.randn_like(X0) * node  # x / alpha
        A = A0 + sigma_A * symmetric_noise(A0) * pair
        skip_X, out_X, in_X = scales(sigma / alpha, DEVIATION_X)
        skip_A, out_A, in_A = scales(sigma_A, DEVIATION_A)
        F_X, F_A = net(in_X * X, in_A * A, t, mask)
        error_X = (F_X - (X0 - skip_X * X) / out_X).square() * node
        error_A = (F_A - (A0 - skip_A * A) / out_A).square() * pair
        value = error_X.sum() / (node.sum() * X0.shape[2]) + error_A.sum() / pair.sum()
        return value, value

    def write(average: dict[str, Tensor], record: dict) -> None:
        processes = {"nodes": {"schedule": "VP", "beta": BETA}, "adjacency": {"schedule": "VE", "sigma": SIGMA}}
        scaled = {"nodes": DEVIATION_X, "adjacency": DEVIATION_A}
        told = {"told": "t", "t_min": T_MIN, "processes": processes, "root_mean_square": scaled}
        config = {"network": "GraphNetwork", **CONFIG, "most_nodes": 2 * LARGEST, **told}
        counts = {n: 5 - abs(n - 16) for n in range(2 * SMALLEST, 2 * LARGEST + 1)}  # of two uniform sizes, in 25
        data = {"inside": INSIDE, "between": BETWEEN, "sizes": {str(n): count / 25 for n, count in counts.items()}}
        full = {"objective": "joint", "data": data, "graphs_seen": record["steps"] * args.batch, **record}
        save_file({k: v.float().cpu().contiguous() for k, v in average.items()}, args.out / "model.safetensors")
        for name, content in {"config.json": config, "training.json": full}.items():
            (args.out / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    train(args, net, loss, write)


if __name__ == "__main__":
    main()
