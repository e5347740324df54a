"""Systems from folders: the bundled graph network, nodes and adjacency at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import LoadError, OptionError
from ..joint.graph_network import GraphNetwork, scales
from ..joint.model import JointDenoiser, wrap_joint
from ..joint.spaces import nodes, symmetric_hollow
from ..model.placement import usable_device
from ..process.schedule import VE
from ..process.variance_preserving import ContinuousVP
from .network import NETWORKS, said_from
from .regular_file import read_json, require_file

SIZES = 2**58  # the ordinal of the draw of a graph's size, apart from all others


class GraphDenoiser(torch.nn.Module):
    """net(xs, times, mask): E[x_0 | xs] of `nodes` (VP) and `adjacency` (VE), through EDM's scales in sigma / alpha.

    Args:
        net: Raw answers.
        nodes: beta_min and beta_max of the nodes' process.
        deviations: Root mean squares of clean nodes and adjacency.
    """

    def __init__(self, net: GraphNetwork, schedules: tuple[ContinuousVP, VE], deviations: tuple[float, float]) -> None:
        super().__init__()
        self.net, self.schedules, self.deviations = net, schedules, deviations

    def forward(self, xs: Mapping[str, Tensor], times: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        vp, ve = self.schedules
        told = float(times["nodes"][0])  # one time for both: they are noised together
        alpha, _ = vp.alpha_sigma(vp.ratio(told))
        r_X, r_A = (torch.tensor(s.ratio(told), dtype=mask.dtype, device=mask.device) for s in (vp, ve))
        X, A = xs["nodes"] / alpha, xs["adjacency"]
        (skip_X, out_X, in_X), (skip_A, out_A, in_A) = (scales(r, d) for r, d in zip((r_X, r_A), self.deviations))
        F_X, F_A = self.net(in_X * X, in_A * A, times["nodes"].to(mask.dtype), mask)
        return {"nodes": skip_X * X + out_X * F_X, "adjacency": skip_A * A + out_A * F_A}


def is_joint_folder(folder: Path) -> bool:
    """Whether a folder's config is of the graph network."""
    path = folder / "config.json"
    return path.is_file() and read_json(path).get("network") == "GraphNetwork"


def open_joint(folder: Path, sizes: Any = None, device: Any = None, dtype: torch.dtype | None = None) -> JointDenoiser:
    """The graph network of a folder: config.json, model.safetensors, training.json.

    Args:
        folder: Of the bundled kind.
        sizes: Nodes of the graphs: one number, or one a sample; default drawn for each sample as in the training data.
        device, dtype: Where the network runs, and in what precision.

    Raises:
        LoadError: files that are missing, corrupt, or do not fit.
        OptionError: sizes that the network does not have.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config, record = read_json(folder / "config.json"), read_json(folder / "training.json")
    try:
        net = GraphNetwork(*(config[name] for name in ("features", "nodes", "edges", "heads", "products", "layers")))
        process, scaled, most = config["processes"], config["root_mean_square"], int(config["most_nodes"])
        (beta_min, beta_max), (sigma_min, sigma_max) = process["nodes"]["beta"], process["adjacency"]["sigma"]
        vp = ContinuousVP(beta_min, beta_max, config["t_min"], time_scale=1.0)
        ve = VE(sigma_min, sigma_max, told="unit")
        shares = {int(n): float(share) for n, share in record["data"]["sizes"].items()}
        whole = GraphDenoiser(net, (vp, ve), (scaled["nodes"], scaled["adjacency"]))
    except (KeyError, TypeError, ValueError) as error:
        raise LoadError(f"{folder / 'config.json'} describes no GraphNetwork: {error!r}.") from error
    try:
        net.load_state_dict(load_file(require_file(folder / "model.safetensors")))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise LoadError(f"{folder / 'model.safetensors'} does not fit its config.json: {error}") from error
    whole.eval().requires_grad_(False)
    whole.to(device=None if device is None else usable_device(device), dtype=dtype)
    components = {"nodes": ("denoised", vp, (most, config["features"])), "adjacency": ("denoised", ve, (most, most))}
    mask = drawn_sizes(shares, most) if sizes is None else sized(sizes, min(shares), most)
    return wrap_joint(
        whole, components, project={"nodes": nodes, "adjacency": symmetric_hollow}, mask=mask, lead="nodes"
    )  # fmt: skip


def sized(sizes: Any, least: int, most: int) -> Tensor:
    """The mask (B, most) of graphs of given sizes.

    Raises:
        OptionError: no whole numbers, or outside least .. most.
    """
    given = [sizes] if isinstance(sizes, int) else sizes
    numbers = [int(n) for n in given] if isinstance(given, (list, tuple, torch.Tensor, range)) else []
    if not numbers or isinstance(sizes, bool) or not all(least <= n <= most for n in numbers):
        raise OptionError(f"sizes= is a number of nodes, or one a sample, {least} to {most}; got {sizes!r:.60}.")
    return (torch.arange(most) < torch.tensor(numbers)[:, None]).float()


def drawn_sizes(shares: Mapping[int, float], most: int) -> Callable[[Sequence[int]], Tensor]:
    """keys of samples -> their masks, of sizes drawn with these shares; a sample's size belongs to its key."""
    known, total = sorted(shares), np.cumsum([shares[n] for n in sorted(shares)])

    def mask(keys: Sequence[int]) -> Tensor:
        counter = np.array([0, SIZES, 0, 0], dtype=np.uint64)
        halves = [np.array([k >> 64, k % 2**64], dtype=np.uint64) for k in keys]
        draws = [np.random.Generator(np.random.Philox(key=key, counter=counter)).random() for key in halves]
        places = np.searchsorted(total, np.array(draws) * total[-1]).clip(max=len(known) - 1)
        return sized([known[i] for i in places], known[0], most)

    return mask


def bundled_joint(name: str, sizes: Any, device: Any, dtype: torch.dtype | None) -> JointDenoiser:
    """A system of `solverkit/networks`.

    Raises:
        LoadError: it is not part of this installation.
    """
    folder = NETWORKS / name
    if not folder.is_dir():
        raise LoadError(f"the bundled network {name!r} is not part of this installation ({folder}); reinstall solverkit.")
    return said_from(name, open_joint(folder, sizes, device, dtype))  # type: ignore[return-value,arg-type]
