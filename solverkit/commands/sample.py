"""`solverkit sample MODEL`: samples as safetensors, and as a sheet of images where they are images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import typer

from ..errors import LoadError, OptionError
from .console import PAIRS, new_path, print_json, read_options, settings

OUT = typer.Option(Path("samples.png"), "--out", help="A .png; the samples stand beside it as .safetensors.")


def sample(
    model: str = typer.Argument(help="A registered model, a diffusers folder or a hub id."),
    sampler: str = typer.Option("dpmpp-2m", "--sampler", "-s", help="A registered sampler."),
    nfe: int = typer.Option(20, "--nfe", "-n", help="Ceiling on network evaluations."),
    num_samples: int = typer.Option(16, "--num-samples", "--samples", "-k", help="How many."),
    seed: int = typer.Option(0, "--seed", help="Of the noise."),
    grid: str | None = typer.Option(None, "--grid", "-g", help="A registered grid; default: the sampler's own."),
    pairs: list[str] = PAIRS,
    label: int | None = typer.Option(None, "--label", help="Class of a conditional network."),
    guidance: float | None = typer.Option(None, "--guidance", help="Weight of classifier-free guidance; needs --label."),
    out: Path = OUT,
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Sample a model and write what came out."""
    from safetensors.torch import save_file

    from ..files.hub import load
    from ..registry.registry import resolve
    from ..run.sampling import sample as run

    if guidance is not None and label is None:
        raise OptionError("--guidance needs --label: the class to guide towards.")
    options = read_options(resolve(sampler), pairs)
    chosen = {"labels": label, "guidance": guidance}
    denoiser = load(model, **{k: v for k, v in chosen.items() if v is not None})  # type: ignore[arg-type]
    progress = not (settings.quiet or as_json)
    result = run(denoiser, sampler, nfe=nfe, num_samples=num_samples, seed=seed, grid=grid, progress=progress, **options)
    tensors = new_path(out.with_suffix(".safetensors"))
    written = [tensors]
    try:
        save_file({"x": result.x.cpu().contiguous()}, tensors)
        if (sheet := make_sheet(result.x)) is not None:
            written.insert(0, out.with_suffix(".png"))
            save_sheet(sheet, written[0])
    except OSError as error:
        raise LoadError(f"cannot write {tensors}: {error.strerror or error}.") from None
    if as_json:
        return print_json(
            {
                "model": model,
                "sampler": sampler,
                "nfe": result.nfe,
                "seconds": result.seconds,
                "files": [str(p) for p in written],
            }
        )
    print(f"{num_samples} samples, {result.nfe:g} evaluations each, {result.seconds:.2f} s")
    for path in written:
        print(path)


def make_sheet(x: Any) -> Any:
    """Images (B, C, H, W) in [-1, 1], C 1 or 3, as one (rows, columns, C) uint8 array; None if they are no images."""
    import numpy as np

    if x.ndim != 4 or x.shape[1] not in (1, 3):
        return None
    n, c, h, w = x.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    pixels = ((x.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
    sheet = np.full((rows * (h + 2) + 2, columns * (w + 2) + 2, c), 128, dtype=np.uint8)
    for i in range(n):
        top, left = 2 + (i // columns) * (h + 2), 2 + (i % columns) * (w + 2)
        sheet[top : top + h, left : left + w] = pixels[i].transpose(1, 2, 0)
    return sheet


def save_sheet(sheet: Any, path: Path) -> None:
    """As PNG; small pictures are enlarged so that eyes can see them."""
    import numpy as np
    from matplotlib.image import imsave

    enlarge = max(1, 640 // max(sheet.shape[:2]))
    pixels = np.kron(sheet, np.ones((enlarge, enlarge, 1), dtype=np.uint8))
    imsave(path, np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)
