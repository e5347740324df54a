"""Gaussian statistics from data in one or two passes, or from samples that the network draws itself."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import LoadError, StatsError
from ..model.counting import counting
from ..model.denoiser import DenoiserLike
from ..run.sampling import sample
from .gaussian import Gaussian

EXACT = 16_384  # above this dimension the covariance itself (8 D^2 bytes) is not formed
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
ROWS = 512


def from_data(
    data: Any, rank: int | None = None, shape: tuple[int, ...] | None = None, key: str | None = None, seed: int = 0
) -> tuple[Gaussian, dict[str, Any]]:
    """Mean and covariance of a dataset, and their provenance.

    Up to 16384 dimensions exact: one pass, the covariance in float64. Above, `rank` directions by a randomised range finder
    (Halko, Martinsson and Tropp 2011): a sketch in the first pass, and, where the data can be read twice, one power
    iteration with the Rayleigh quotients in the second; memory is a few times rank x D. The variance that is left becomes
    the floor.

    Args:
        data: A tensor or array (N, *shape); a .npy, .npz or .safetensors file of one; a folder of pictures or of .npy
            files; or an iterator of batches. uint8 becomes [-1, 1]; anything else is taken as it is, in the model's units.
        rank: Directions to keep; None keeps all (256 above 16384 dimensions).
        shape: Of one sample, where the data are stored flat.
        key: Which array of a .npz or .safetensors file.
        seed: Of the range finder.

    Raises:
        StatsError: fewer than two samples, NaN, samples of different shapes, or a rank that is out of range.
        LoadError: a file or folder that cannot be read.
    """
    batches = _reader(data, key)
    first = next(iter(batches()), None) if not isinstance(data, Iterator) else None
    stream: Iterable[torch.Tensor] = batches()
    if first is None:
        stream = iter(stream)
        first = next(stream, None)
        if first is None:
            raise StatsError("there are no data.")
        stream = itertools.chain([first], stream)
    shape = tuple(first.shape[1:]) if shape is None else tuple(shape)
    D = math.prod(shape)
    if rank is not None and not 0 <= rank <= D:
        raise StatsError(f"rank must be between 0 and the dimension {D}, got {rank}.")
    again = None if isinstance(data, Iterator) else batches
    with torch.autocast("cpu", enabled=False):
        if D <= EXACT:
            found = _exact(stream, D)
        else:
            found = _sketched(stream, again, D, min(256, D) if rank is None else rank, seed)
    mean, vectors, values, trace, count = found
    keep = len(values) if rank is None else min(rank, len(values))
    left = max(trace - float(values[:keep].sum()), 0.0)
    floor = left / (D - keep) if keep < D else 0.0
    source = {"source": "data", "samples": count, "rank": keep, "explained": 1 - left / trace if trace > 0 else 1.0}
    return Gaussian(mean.reshape(shape), vectors[:keep].float(), values[:keep], floor), source


def from_samples(
    denoiser: DenoiserLike, rank: int | None = None, num_samples: int = 1024, sampler: str = "dpmpp-2m", nfe: int = 20,
    batch_size: int = 256, seed: int = 0, shape: tuple[int, ...] | None = None,
) -> tuple[Gaussian, dict[str, Any]]:  # fmt: skip
    """Statistics of what the network draws, where there are no data; costs num_samples x nfe evaluations.

    Args:
        denoiser: Of the network, guided or not: the statistics are then those of the guided one.
        rank: As in `from_data`.
        num_samples, sampler, nfe, batch_size, seed: Of the runs.
        shape: Of one sample, where the denoiser does not know it.

    Raises:
        As `sk.sample` and `from_data`.
    """
    shape = shape or getattr(denoiser, "shape", None)
    if shape is None:
        raise StatsError("this denoiser does not know the shape of a sample; give shape=.")

    def drawn() -> Iterator[torch.Tensor]:
        for start in range(0, num_samples, batch_size):
            n = min(batch_size, num_samples - start)
            yield sample(denoiser, sampler, nfe=nfe, shape=(n, *shape), seed=seed + start).x

    with counting() as count:
        gaussian, provenance = from_data(drawn(), rank)
    return gaussian, {**provenance, "source": "samples", "sampler": sampler, "nfe": nfe, "evaluations": count.rows}


Found = tuple[torch.Tensor, torch.Tensor, torch.Tensor, float, int]


def _exact(stream: Iterable[torch.Tensor], D: int) -> Found:
    """Mean, eigenvectors (rows) and eigenvalues of the covariance with N - 1, its trace, and N."""
    origin, total, square, count = None, torch.zeros(D, dtype=torch.float64), None, 0
    for batch in stream:
        x = _flat(batch, D).double()
        if origin is None:  # sums around a point of the data: no cancellation where the mean is large
            origin, square = x.mean(0), torch.zeros(D, D, dtype=torch.float64)
        x = x - origin
        total += x.sum(0)
        square.addmm_(x.T, x)  # type: ignore[union-attr]
        count += len(x)
    _require(count)
    assert origin is not None and square is not None
    mean = total / count
    covariance = (square - count * torch.outer(mean, mean)) / (count - 1)
    values, vectors = torch.linalg.eigh(covariance)
    values = values.flip(0).clamp_min(0)
    return mean + origin, vectors.T.flip(0), values, float(values.sum()), count


def _sketched(stream: Iterable[torch.Tensor], again: Callable[[], Iterable[torch.Tensor]] | None, D: int, rank: int,
              seed: int) -> Found:  # fmt: skip
    """The same of the leading directions: Nyström's from one pass, Rayleigh's where there is a second."""
    width = min(D, 2 * rank + 16)
    omega = torch.linalg.qr(torch.randn(D, width, generator=torch.Generator().manual_seed(seed)))[0]
    origin, total, product, square, count = None, torch.zeros(D, dtype=torch.float64), torch.zeros(D, width), 0.0, 0
    for batch in stream:
        x = _flat(batch, D).float()
        origin = x.mean(0) if origin is None else origin
        x = x - origin
        total += x.double().sum(0)
        product.addmm_(x.T, x @ omega)
        square += float(x.double().square().sum())
        count += len(x)
    _require(count)
    assert origin is not None
    mean = total / count
    trace = (square - count * float(mean.square().sum())) / (count - 1)
    y = (product - count * torch.outer(mean.float(), mean.float() @ omega)) / (count - 1)
    core = (omega.T @ y).double()
    w, v = torch.linalg.eigh((core + core.T) / 2)
    kept = w > 1e-6 * w.max()
    half = y.double() @ (v[:, kept] / w[kept].sqrt())  # C ~ half half^T
    basis, spread, _ = torch.linalg.svd(half, full_matrices=False)
    vectors, values = basis.T, spread.square()
    if again is not None:
        q, moment, centre = basis.float(), torch.zeros(D, basis.shape[1]), (mean + origin).float()
        for batch in again():
            x = _flat(batch, D).float() - centre
            moment.addmm_(x.T, x @ q)
        p, _ = torch.linalg.qr(moment)
        small = torch.zeros(p.shape[1], p.shape[1], dtype=torch.float64)
        for batch in again():
            along = ((_flat(batch, D).float() - centre) @ p).double()
            small.addmm_(along.T, along)
        values, turn = torch.linalg.eigh(small / (count - 1))
        values, vectors = values.flip(0), (p.double() @ turn).T.flip(0)
    return mean + origin, vectors[:rank], values[:rank].clamp_min(0), max(trace, float(values[:rank].sum())), count


def _flat(batch: torch.Tensor, D: int) -> torch.Tensor:
    if batch[0].numel() != D:
        raise StatsError(f"samples of {batch[0].numel()} numbers among samples of {D}: all must have one shape.")
    x = batch.reshape(len(batch), D).cpu()  # a device may know no float64
    if not bool(torch.isfinite(x).all()):
        raise StatsError("the data hold NaN or inf.")
    return x


def _require(count: int) -> None:
    if count < 2:
        raise StatsError(f"a covariance needs at least two samples, got {count}.")


def _reader(data: Any, key: str | None) -> Callable[[], Iterable[torch.Tensor]]:
    """A function that starts reading from the beginning (once only, for an iterator)."""
    if isinstance(data, (str, os.PathLike)):
        path = Path(data)
        if path.is_dir():
            return _folder(path)
        data = _array(path, key)
    if isinstance(data, np.ndarray):
        data = torch.from_numpy(np.ascontiguousarray(data))
    if isinstance(data, torch.Tensor):
        if data.ndim < 2 or not len(data):
            raise StatsError(f"data must be (N, *shape) with N >= 2, got {tuple(data.shape)}.")
        return lambda: (_units(rows) for rows in data.split(ROWS))
    if isinstance(data, Iterable):
        return lambda: (_units(batch if isinstance(batch, torch.Tensor) else torch.as_tensor(batch)) for batch in data)
    raise StatsError(f"data must be an array, a path or an iterator of batches, got {type(data).__name__}.")


def _units(x: torch.Tensor) -> torch.Tensor:
    return x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x


def _array(path: Path, key: str | None) -> torch.Tensor:
    """One array of a file; of several the one named, or x, train_x, x_train, images, latents, or the only one."""
    from safetensors.torch import load_file

    try:
        if path.suffix == ".npy":
            return torch.from_numpy(np.load(path, mmap_mode="c"))  # pages are read when needed, and never written back
        if path.suffix == ".safetensors":
            arrays: dict[str, Any] = load_file(path)
        elif path.suffix == ".npz":
            arrays = dict(np.load(path))
        else:
            raise LoadError(f"data are read from .npy, .npz and .safetensors files or folders, got {path.name!r}.")
    except (OSError, ValueError) as error:
        raise LoadError(f"cannot read {path}: {error}") from None
    known = [name for name in ("x", "train_x", "x_train", "images", "latents") if name in arrays]
    chosen = key or (known[0] if known else next(iter(arrays)) if len(arrays) == 1 else None)
    if chosen is None or chosen not in arrays:
        raise LoadError(f"{path} holds {', '.join(arrays)}; say which with key=, got {key!r}.")
    return torch.as_tensor(arrays[chosen])


def _folder(path: Path) -> Callable[[], Iterable[torch.Tensor]]:
    """Pictures (3, H, W) or (1, H, W) in [-1, 1], or .npy files of one sample each, in the order of their names."""
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in (*PICTURES, ".npy"))
    if not files:
        raise LoadError(f"{path} has neither pictures ({', '.join(PICTURES)}) nor .npy files.")

    def read(file: Path) -> torch.Tensor:
        if file.suffix == ".npy":
            return _units(torch.from_numpy(np.load(file)))
        from PIL import Image

        pixels = np.array(Image.open(file))
        return _units(torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels[..., :3].transpose(2, 0, 1).copy()))

    def batches() -> Iterator[torch.Tensor]:
        for start in range(0, len(files), 64):
            samples = [read(file) for file in files[start : start + 64]]
            if len({s.shape for s in samples}) > 1:
                raise StatsError(f"the files of {path} have different shapes: {sorted({tuple(s.shape) for s in samples})}.")
            yield torch.stack(samples)

    return batches
