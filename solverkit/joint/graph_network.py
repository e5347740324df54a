"""A denoiser of graphs: nodes X and adjacency A at once, whatever the order of the nodes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

CONFIG: dict[str, Any] = {"features": 10, "nodes": 96, "edges": 48, "heads": 4, "products": 16, "layers": 6}


class Layer(nn.Module):
    """Attention among nodes, biased by edges; then edges from their ends and from the paths of length two."""

    def __init__(self, nodes: int, edges: int, heads: int, products: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_h, self.norm_f, self.norm_e = nn.LayerNorm(nodes), nn.LayerNorm(nodes), nn.LayerNorm(edges)
        self.time = nn.Linear(nodes, 2 * nodes + 2 * edges)
        self.qkv = nn.Linear(nodes, 3 * nodes)
        self.bias = nn.Linear(edges, heads)
        self.mix = nn.Linear(nodes + edges, nodes)
        self.node_mlp = nn.Sequential(nn.Linear(nodes, 2 * nodes), nn.SiLU(), nn.Linear(2 * nodes, nodes))
        self.ends = nn.Linear(nodes, 2 * edges)
        self.paths = nn.Linear(edges, 2 * products)
        self.edge_mlp = nn.Sequential(nn.Linear(3 * edges + products, 2 * edges), nn.SiLU(), nn.Linear(2 * edges, edges))

    def forward(self, h: Tensor, e: Tensor, told: Tensor, node: Tensor, pair: Tensor) -> tuple[Tensor, Tensor]:
        """h (B, N, H), e (B, N, N, E) symmetric, told (B, H), node (B, N, 1) and pair (B, N, N, 1) of 0 and 1."""
        B, N, H = h.shape
        count = node.sum(dim=1, keepdim=True)  # (B, 1, 1)
        scale_h, shift_h, scale_e, shift_e = self.time(silu(told)).split([H, H, e.shape[-1], e.shape[-1]], dim=1)
        g = self.norm_h(h) * (1 + scale_h[:, None]) + shift_h[:, None]
        f = (self.norm_e(e) * (1 + scale_e[:, None, None]) + shift_e[:, None, None]) * pair
        q, k, v = (part.reshape(B, N, self.heads, -1).transpose(1, 2) for part in self.qkv(g).chunk(3, dim=2))
        logits = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1]) + self.bias(f).permute(0, 3, 1, 2)
        weights = logits.masked_fill(node[:, None, None, :, 0] == 0, -1e4).softmax(dim=-1)
        mixed = (weights @ v).transpose(1, 2).reshape(B, N, H)
        h = h + self.mix(torch.cat([mixed, f.sum(dim=2) / count], dim=2)) * node
        h = h + self.node_mlp(self.norm_f(h)) * node

        left, right = (self.paths(f) * pair).permute(0, 3, 1, 2).chunk(2, dim=1)  # (B, K, N, N)
        paths = left @ right
        paths = ((paths + paths.transpose(2, 3)) / count.sqrt()[..., None]).permute(0, 2, 3, 1)
        one, two = self.ends(h).chunk(2, dim=2)
        ends = [one[:, :, None] + one[:, None], two[:, :, None] * two[:, None]]
        return h, e + self.edge_mlp(torch.cat([f, paths, *ends], dim=3)) * pair


class GraphNetwork(nn.Module):
    """Raw answers (F_X, F_A) of scaled (X, A), jointly told t; see `denoise` for the scales.

    Permuting the nodes permutes the answers; F_A is symmetric with zero diagonal; what the mask leaves out is zero.

    Args:
        features: of a node. nodes, edges: channels of the states. heads: of the attention. products: channels of paths.
        layers: how many.
    """

    def __init__(self, features: int, nodes: int, edges: int, heads: int, products: int, layers: int) -> None:
        super().__init__()
        self.nodes = nodes
        self.node_in = nn.Linear(features + 2, nodes)
        self.edge_in = nn.Linear(2, edges)
        self.time = nn.Sequential(nn.Linear(32, nodes), nn.SiLU(), nn.Linear(nodes, nodes))
        self.layers = nn.ModuleList([Layer(nodes, edges, heads, products) for _ in range(layers)])
        self.node_out = nn.Sequential(nn.LayerNorm(nodes), nn.Linear(nodes, nodes), nn.SiLU(), nn.Linear(nodes, features))
        self.edge_out = nn.Sequential(nn.LayerNorm(edges), nn.Linear(edges, edges), nn.SiLU(), nn.Linear(edges, 1))

    def forward(self, X: Tensor, A: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """X (B, N, F), A (B, N, N) symmetric, t (B,) in [0, 1], mask (B, N) of 0 and 1: (B, N, F) and (B, N, N)."""
        node = mask[..., None]
        pair = node * mask[:, None] * (1 - torch.eye(A.shape[1], device=A.device, dtype=A.dtype))
        A = A * pair
        count = mask.sum(dim=1)[:, None, None]  # (B, 1, 1)
        size = (count / 20).expand(-1, A.shape[1], 1)
        h = self.node_in(torch.cat([X * node, A.sum(dim=2, keepdim=True) / count, size], dim=2)) * node
        pair = pair[..., None]
        e = self.edge_in(torch.stack([A, A @ A / count.sqrt()], dim=3)) * pair
        angles = 100 * t[:, None] * torch.exp(-math.log(10000) / 16 * torch.arange(16, device=t.device))
        told = self.time(torch.cat([angles.cos(), angles.sin()], dim=1))
        for layer in self.layers:
            h, e = layer(h, e, told, node, pair)
        F_A = self.edge_out(e)[..., 0]
        return self.node_out(h) * node, (F_A + F_A.transpose(1, 2)) / 2 * pair[..., 0]


def scales(ratio: Tensor, deviation: float) -> tuple[Tensor, Tensor, Tensor]:
    """c_skip, c_out, c_in at sigma / alpha = `ratio` for data whose root mean square is `deviation` (EDM, table 1)."""
    total = ratio.square() + deviation**2
    return deviation**2 / total, ratio * deviation / total.sqrt(), total.rsqrt()
