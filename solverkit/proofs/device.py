"""A device without float64, imitated on the host: what a sampler does on Apple's GPUs, provable on any machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from ..registry.registry import SamplerCard
from ..run.sampling import sample
from .driving import framed, short_grids
from .finding import at_most, holds

IMITATED = torch.device("lazy")  # a name that torch moves tensors to without asking for a driver


class _Resident(torch.Tensor):
    """A tensor that says it lives on the imitated device; its numbers are on the host."""

    held: torch.Tensor
    __slots__ = ("held",)

    @staticmethod
    def __new__(cls: type[_Resident], held: torch.Tensor) -> _Resident:
        made: _Resident = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=IMITATED
        )
        made.held = held
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"resident({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        with SinglePrecisionDevice():  # a tensor that outlives the block
            return func(*args, **(kwargs or {}))


class _MadeOnHost(TorchFunctionMode):
    """Python numbers become tensors on the host and are moved, and back: torch would ask the device's own allocator."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.tolist:
            return args[0].cpu().tolist()
        if func is torch.Tensor.new_tensor:
            like, *args = args
            func, kwargs = torch.tensor, {"dtype": like.dtype, "device": like.device, **kwargs}
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        return func(*args, **kwargs)


class SinglePrecisionDevice(TorchDispatchMode):
    """Inside the block the device `IMITATED` holds every type of tensor but float64.

    Raises:
        TypeError: float64 on the device.
        RuntimeError: tensors of two devices in one operation.
    """

    def __enter__(self) -> Any:
        self._numbers = _MadeOnHost()
        self._numbers.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._numbers.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [v for v in tree_flatten((args, kwargs))[0] if isinstance(v, torch.Tensor)]
        resident = any(isinstance(v, _Resident) for v in tensors)
        asked = kwargs.get("device")
        if asked is not None:
            asked = torch.device(asked)
            kwargs["device"] = torch.device("cpu") if asked.type == IMITATED.type else asked
        moves = func is torch.ops.aten._to_copy.default or func is torch.ops.aten.copy_.default
        if resident and not moves and any(not isinstance(v, _Resident) and v.ndim for v in tensors):
            raise RuntimeError(f"expected all tensors on the same device in {func}, found {IMITATED} and cpu")
        there = asked.type == IMITATED.type if asked is not None else resident
        if func is torch.ops.aten.copy_.default:
            there = isinstance(args[0], _Resident)
        elif func is torch.ops.aten._local_scalar_dense.default:
            there = False
        args, kwargs = tree_map(_held, (args, kwargs))
        out = func(*args, **kwargs)
        return tree_map(_placed, out) if there else out


def _held(value: Any) -> Any:
    return value.held if isinstance(value, _Resident) else value


def _placed(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if value.dtype in (torch.float64, torch.complex128):
        raise TypeError("a float64 tensor on a device that has none: make it on the host, cast it, and move it then")
    return _Resident(value)


def check_device(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """No float64 tensor is made on the state's device: the run is the one on the host, to float32's rounding."""
    for target, grid in short_grids(steps=3 if card.traceable else 1):  # each operation is slow here
        with framed(target.schedule):
            host = sample(target, card, grid=grid, num_samples=2, **options).x
            with SinglePrecisionDevice():
                there = sample(target, card, grid=grid, num_samples=2, device=IMITATED, **options).x
                holds(
                    there.device.type == IMITATED.type and there.dtype == torch.float32,
                    f"the samples came back as {there.dtype} on {there.device}",
                    "a tensor that the sampler makes itself has its own dtype or device: make it with "
                    "torch.zeros_like(x) or x.new_tensor(...)",
                )
                difference = float((there.cpu() - host).abs().max())
            at_most(
                difference, 1e-4 * max(1.0, float(host.abs().max())),
                f"the run differs by {difference:.2e} from the one on the host",
                "an op loses digits in float32: a difference of nearly equal numbers, or a coefficient that is a "
                "tensor where a Python float would do",
            )  # fmt: skip
