"""What a cell cost: blocks of a network that were really run, seconds on the device, memory.

Rows, passes and Jacobian products are counted by `model.counting`. This module adds what only hooks on a torch module see.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

DEEP = 5
BLOCKS = ("transformer_blocks", "single_transformer_blocks", "blocks", "layers")  # what caching rules skip


@dataclass
class BlockWork:
    """How much of a network's blocks was run, by the parameters of the layers in them.

    A rule that skips a block (FirstBlockCache and the like) replaces the block's forward, so the layers inside it are
    watched: a layer that is not called did no work.

    Attributes:
        done: Parameters of the layers that were called, summed over passes.
        passes: Passes through the network.
        whole: Parameters of all watched layers.
    """

    done: int = 0
    passes: int = 0
    whole: int = 0

    @property
    def share(self) -> float | None:
        """Executed over what all passes would have executed; None for a network without blocks."""
        return self.done / (self.whole * self.passes) if self.whole and self.passes else None


@dataclass
class Work:
    """Of one cell.

    Attributes:
        blocks: Of the network.
        seconds: Wall time inside the block, the device waited for.
    """

    blocks: BlockWork = field(default_factory=BlockWork)
    seconds: float = 0.0


@contextmanager
def watching(denoiser: Any) -> Iterator[Work]:
    """Count block work inside, wait for the device around each pass of the network, and take the wall time.

    The hooks are torch's global ones: nothing is written into the network, whose fingerprint stays what it is. Where
    there is nothing to watch (a network without blocks on the CPU) there are none.
    """
    work, handles = Work(), []
    nets = {id(net): net for net in modules_in(denoiser)}
    layers = {id(layer): size for net in nets.values() for layer, size in block_layers(net)}
    work.blocks.whole = sum(layers.values())
    if layers or any(_device(net).type != "cpu" for net in nets.values()):

        seen: set[int] = set()  # of this pass: a layer that is called twice in it is there once

        def before(module: torch.nn.Module, given: Any) -> None:
            if id(module) in nets:
                seen.clear()
                work.blocks.passes += 1
                wait(_device(module))

        def after(module: torch.nn.Module, given: Any, answer: Any) -> None:
            if id(module) in layers and id(module) not in seen:
                seen.add(id(module))
                work.blocks.done += layers[id(module)]
            if id(module) in nets:
                wait(_device(module))

        handles = [register_module_forward_pre_hook(before), register_module_forward_hook(after)]
    synchronise(denoiser)
    start = time.perf_counter()
    try:
        yield work
    finally:
        synchronise(denoiser)
        work.seconds = time.perf_counter() - start
        for handle in handles:
            handle.remove()


def modules_in(value: Any, depth: int = 0) -> list[torch.nn.Module]:
    """The torch modules behind a denoiser, those that others hold left out."""
    if isinstance(value, torch.nn.Module):
        return [value]
    if depth == DEEP or isinstance(value, (str, int, float, torch.Tensor, type)):
        return []
    parts = value if isinstance(value, (tuple, list)) else getattr(value, "__dict__", {}).values()
    found = [net for part in list(parts) for net in modules_in(part, depth + 1)]
    return list({id(net): net for net in found}.values())


def block_layers(net: torch.nn.Module) -> list[tuple[torch.nn.Module, int]]:
    """The layers with parameters inside the blocks of a network, each with the number of its own parameters."""
    named = [m for name, m in net.named_modules() if name.rpartition(".")[2] in BLOCKS]
    lists = [m for m in named if isinstance(m, torch.nn.ModuleList)]
    layers = {id(m): m for blocks in lists for m in blocks.modules()}.values()
    sized = [(layer, sum(p.numel() for p in layer.parameters(recurse=False))) for layer in layers]
    return [(layer, size) for layer, size in sized if size]


def _device(net: torch.nn.Module) -> torch.device:
    return next((p.device for p in net.parameters()), torch.device("cpu"))


def synchronise(denoiser: Any) -> None:
    """Wait until the device of a denoiser has nothing left to do."""
    wait(torch.device(getattr(denoiser, "device", None) or "cpu"))


def wait(device: torch.device) -> None:
    """Wait until a device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def reset_peak() -> None:
    """Begin to look for the peak of memory anew, where that can be done."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_bytes() -> int | None:
    """Largest memory: of tensors on the GPU, else resident size of the process since it began."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
