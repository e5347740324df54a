"""`solverkit sample MODEL`: samples as safetensors, and as a picture with a caption."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import LoadError, OptionError
from . import parameters
from .console import print_json, read_options, remark, settings
from .destination import require_folder, require_writable, with_folder
from .network import loader_options, open_network, state_dtype
from .text import is_token_model, sample_text
from .waiting import use_threads

if TYPE_CHECKING:
    from ..registry.registry import SamplerCard

NFE = 20
PICTURES, ANIMATIONS, TENSORS = (".png", ".jpg", ".jpeg", ".webp"), (".gif", ".png"), ".safetensors"
PICTURE = Path("samples.png")
OUT = typer.Option(
    PICTURE, "--out", "-o",
    help="A picture (.png, .jpg, .webp) with FILE.safetensors beside it, or that alone; with --engine a folder [samples].",
)  # fmt: skip
ENGINE = typer.Option(None, "--engine", help="local or ray: blocks of samples into the folder --out, resumable.")
ANIMATE = typer.Option(None, "--animate", help="The way of 16 samples from noise to data, too: .gif, or .png (a strip).")
FORMAT = typer.Option("safetensors", "--format", help="Of the files in that folder: safetensors or png.")


def sample(
    model: str = parameters.MODEL,
    sampler: str = parameters.SAMPLER_OPTION,
    nfe: int | None = parameters.nfe(None, f"Ceiling on network evaluations [{NFE}]; adaptive samplers decide themselves."),
    num_samples: int = parameters.num_samples(16, "How many."),
    seed: int = parameters.SEED,
    grid: str | None = parameters.GRID,
    pairs: list[str] = parameters.PAIRS,
    label: int | None = parameters.LABEL,
    guidance: float | None = typer.Option(None, "--guidance", help="Weight of classifier-free guidance; needs --label."),
    prompt: str | None = typer.Option(None, "--prompt", help="Of a token model: the text that it goes on from."),
    length: int | None = typer.Option(None, "--length", min=1, help="Of a token model: tokens a sequence."),
    out: Path = OUT,
    device: str | None = parameters.DEVICE,
    dtype: str | None = parameters.DTYPE,
    batch: int | None = parameters.BATCH,
    threads: int | None = parameters.THREADS,
    engine: str | None = ENGINE,
    kind: str = FORMAT,
    animate: Path | None = ANIMATE,
    as_json: bool = parameters.JSON,
) -> None:
    """Sample a model and write what came out."""
    if is_token_model(model):
        return sample_text(
            model, sampler, nfe, num_samples, seed, grid, pairs, (prompt, length), out, (device, dtype, batch, threads),
            as_json, {"--guidance": guidance, "--label": label, "--engine": engine, "--animate": animate},
        )  # fmt: skip
    if prompt is not None or length is not None:
        raise OptionError("--prompt and --length are for token models, such as shakespeare; leave them out.")
    if engine is not None and animate is not None:
        raise OptionError("--animate is for one run in this process; leave out --engine.")
    if engine is not None:
        folder = out if out != PICTURE else PICTURE.with_suffix("")
        return sample_shards(
            model, sampler, NFE if nfe is None else nfe, num_samples, seed, grid, pairs, label, guidance, folder, device,
            dtype, batch, threads, engine, kind, as_json,
        )  # fmt: skip
    tensors, picture = _files(out)
    if animate is not None:
        require_writable(animate, ANIMATIONS, "--animate")
    if nfe is not None and nfe < 1:
        raise OptionError(f"--nfe must be a positive integer, got {nfe}.")
    if guidance is not None and label is None:
        raise OptionError("--guidance needs --label: the class to guide towards.")
    use_threads(threads)
    from safetensors.torch import save_file

    from ..registry.registry import resolve
    from ..run.animation import write_animation
    from ..run.picture import write_picture
    from ..run.sampling import sample as run

    card = resolve(sampler)
    options = read_options(card, pairs)
    if nfe is not None and not card.takes_budget:
        raise OptionError(f"{card.name!r} decides itself how often to ask the network: leave out --nfe; see its options.")
    denoiser = open_network(model, label, device, dtype, guidance)
    if animate is not None and hasattr(denoiser, "components"):
        raise OptionError(f"{model!r} is a system of {', '.join(denoiser.components)}: no picture of it to --animate.")
    result = run(
        denoiser, card, nfe=NFE if nfe is None and card.takes_budget else nfe, num_samples=num_samples, seed=seed,
        grid=grid, device=device, dtype=state_dtype(dtype), batch_size=batch, progress=_watched(as_json),
        return_trajectory=animate is not None, **options,
    )  # fmt: skip
    caption = _caption(model, card, options, grid, result.nfe, seed, label, guidance)
    written = [with_folder(tensors)]
    try:
        parts: dict[str, Any] = result.x if isinstance(result.x, dict) else {"x": result.x}
        save_file({name: x.cpu().contiguous() for name, x in parts.items()}, tensors)
        if picture is not None and len(parts) > 1:
            remark(f"no picture of a system of {', '.join(parts)}")
        elif picture is not None and write_picture(result.x, caption, picture):
            written.insert(0, picture)
        elif picture is not None:
            remark(f"no picture of samples of shape {tuple(result.x.shape[1:])}")
        if animate is not None and result.trajectory is not None:
            write_animation(result.trajectory, result.levels, with_folder(animate))
            written.append(animate)
    except (OSError, RuntimeError) as error:  # safetensors has errors of its own, such as a disk that is full
        raise LoadError(f"cannot write {tensors}: {getattr(error, 'strerror', None) or error}.") from None
    if as_json:
        return print_json(
            {
                "model": model,
                "sampler": sampler,
                "options": options,
                "num_samples": num_samples,
                "seed": seed,
                "nfe": result.nfe,
                "passes": result.passes,
                "seconds": result.seconds,
                "reports": result.reports,
                "files": [str(p) for p in written],
            }
        )
    for name, value in result.reports.items():
        remark(f"{name}: {value if isinstance(value, str) else f'{value:g}'}")
    print(f"{num_samples} samples, {result.nfe:g} evaluations each, {result.seconds:.2f} s")
    for path in written:
        print(path)


def sample_shards(
    model: str, sampler: str, nfe: int, num_samples: int, seed: int, grid: str | None, pairs: list[str], label: int | None,
    guidance: float | None, out: Path, device: str | None, dtype: str | None, batch: int | None, threads: int | None,
    engine: str, kind: str, as_json: bool,
) -> None:  # fmt: skip
    """Any number of samples into a folder, block by block; what is there already is not made again."""
    require_folder(out)
    if nfe < 1:
        raise OptionError(f"--nfe must be a positive integer, got {nfe}.")
    use_threads(threads)
    from ..bench.engine import open_engine
    from ..bench.named import find_sampler, with_own_options
    from ..bench.shards import MANIFEST, write_shards
    from ..bench.subject import open_subject
    from ..bench.suite import Cell, ModelEntry

    name, own = with_own_options(sampler, {})
    options = {**own, **read_options(find_sampler(name, {}), pairs)}
    entry = ModelEntry(
        model, num_samples, batch_size=batch, options=loader_options(model, label, device, dtype, guidance)
    )
    cell = Cell(entry, name, find_sampler(name, {}).check(options, partial=True), grid, nfe, seed)

    def tell(made: int, total: int) -> None:
        remark(f"{made} of {total} samples")

    where = open_engine(engine, [entry])
    manifest = write_shards(cell, open_subject(entry), out, where, kind, tell=None if as_json else tell)
    if as_json:
        return print_json(manifest)
    print(f"{num_samples} samples, {manifest['nfe']:g} evaluations each\n{out / MANIFEST}")


def _files(out: Path) -> tuple[Path, Path | None]:
    """Where the samples and their picture go.

    Raises:
        OptionError: neither a picture nor a .safetensors, or they cannot be written.
    """
    path = out if out.suffix or out.is_dir() else out.with_name(f"{out.name}.png")
    require_writable(path, (*PICTURES, TENSORS))
    if path.suffix.lower() == TENSORS:
        return path, None
    require_writable(tensors := path.with_suffix(TENSORS))
    return tensors, path


def _watched(as_json: bool) -> bool:
    """Whether somebody sees a progress bar: it must not stand in what is read by another program."""
    import sys

    return not (settings.quiet or as_json) and sys.stdout.isatty()


def _caption(
    model: str, card: SamplerCard, options: dict[str, Any], grid: str | None, nfe: float, seed: int,
    label: int | None, guidance: float | None,
) -> str:  # fmt: skip
    said = [model, card.name.partition(":")[0], *(f"{name}={value}" for name, value in options.items())]
    for name, value in (("grid", grid), ("NFE", f"{nfe:g}"), ("seed", seed), ("label", label), ("guidance", guidance)):
        if value is not None:
            said.append(f"{name} {value}")
    return ", ".join(said)
