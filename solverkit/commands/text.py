"""`solverkit sample` and `solverkit likelihood` of token models: text in, text out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import OptionError
from .console import console, print_json, read_options, remark
from .destination import require_writable, with_folder
from .network import loader_options
from .waiting import use_threads

DECODER, NFE, SAMPLES = "ancestral", 64, 1
OTHERS = {"sampler": "dpmpp-2m", "num_samples": 16, "out": Path("samples.png")}  # what the command says by itself
DARKEST, BRIGHTEST = 240, 255  # greys of a terminal


def is_token_model(model: str) -> bool:
    """Whether a name, or a folder, is a token model's; nothing is loaded."""
    from ..registry.registry import registry

    card = registry().cards["models"].get(model)
    if card is not None:
        return card.plugin == "token-models"
    if not Path(model).is_dir():
        return False
    from ..files.token_folder import is_token_folder

    return is_token_folder(Path(model))


def open_tokens(model: str, length: int | None, device: str | None, dtype: str | None) -> Any:
    """The token model of a name or a folder."""
    from ..files.hub import load

    given: dict[str, Any] = loader_options(model, None, device, dtype)
    if length is not None:
        given["length"] = length
    return load(model, **given)


def sample_text(
    model: str, sampler: str, nfe: int | None, num_samples: int, seed: int, grid: str | None, pairs: list[str],
    text: tuple[str | None, int | None], out: Path, machine: tuple[Any, Any, Any, Any], as_json: bool, refused: dict[str,
Any], ) -> None:  # fmt: skip
    """Sample a token model and print what came out: newer tokens are brighter where the terminal can show it."""
    prompt, length = text
    device, dtype, batch, threads = machine
    for name, value in refused.items():
        if value is not None:
            raise OptionError(f"{name} is for continuous models, and {model!r} is a token model: leave it out.")
    file = None if out == OTHERS["out"] else out
    if file is not None:
        require_writable(file, (".safetensors", ".txt"))
    use_threads(threads)
    from ..registry.decoders import resolve_decoder
    from ..run.sampling import sample

    tokens = open_tokens(model, length, device, dtype)
    if prompt is not None:
        tokens = tokens.with_prompt(prompt.replace("\\n", "\n"), length)
    card = resolve_decoder(DECODER if sampler == OTHERS["sampler"] else sampler, tokens)
    options = read_options(card, pairs)
    count = SAMPLES if num_samples == OTHERS["num_samples"] else num_samples
    budget = NFE if nfe is None and not card.own_pace else nfe
    result = sample(tokens, card, nfe=budget, num_samples=count, seed=seed, grid=grid, batch_size=batch, **options)
    texts = [tokens.decode(ids) if tokens.alphabet else " ".join(map(str, ids.tolist())) for ids in result.x]
    if file is not None:
        _write(with_folder(file), texts, result.x)
    asked = float(result.reports["rows asked"])
    if as_json:
        head = {"model": model, "sampler": card.name, "options": options, "seed": seed, "nfe": result.nfe}
        return print_json({**head, "rows_asked": asked, "seconds": result.seconds, "texts": texts})
    if tokens.alphabet:
        for ids, revealed in zip(result.x, result.reports["revealed"]):
            _show(tokens, ids, revealed)
    else:
        print("\n".join(texts))
    said = f", {asked:g} asked" if asked != result.nfe else ""
    remark(f"{count} x {result.x.shape[1]} tokens, {result.nfe:g} evaluations each{said}, {result.seconds:.2f} s")


def _show(tokens: Any, ids: Any, revealed: Any) -> None:
    """One text; given tokens are bold, others from dark (revealed first) to bright (last) on a terminal with colours."""
    from rich.text import Text

    screen = console()
    if not (screen.is_terminal and screen.color_system in ("256", "truecolor")):
        return print(tokens.decode(ids) + "\n")
    last = max(int(revealed.max()), 1)
    line = Text()
    for i, step in zip(ids, revealed.tolist()):
        shade = DARKEST + round((BRIGHTEST - DARKEST) * step / last)
        line.append(tokens.decode(i[None]), style="bold" if step < 0 else f"color({shade})")
    screen.print(line, soft_wrap=True)
    screen.print()


def _write(path: Path, texts: list[str], x: Any) -> None:
    from safetensors.torch import save_file

    if path.suffix == ".txt":
        path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    else:
        save_file({"x": x.cpu().contiguous()}, path)


def text_likelihood(
    model: str, data: Path | None, num: int, draws: int | None, seed: int, machine: tuple[Any, Any, Any, Any], as_json: bool
) -> None:
    """The bound of a text file, cut into sequences of the model's length, or of exact samples: bits a token."""
    import math

    device, dtype, batch, threads = machine
    use_threads(threads)
    from ..tokens.likelihood import token_bound

    tokens = open_tokens(model, None, device, dtype)
    x = _sequences(tokens, data, num)
    found = token_bound(tokens, x.to(tokens.device), "elbo", draws, seed, batch)
    bits = found.bits_per_dim
    assert bits is not None
    mean, error = float(bits.mean()), float(bits.std()) / math.sqrt(len(bits)) if len(bits) > 1 else math.nan
    nats = float(found.nats.mean())
    target = getattr(tokens, "target", None)
    exact = None if target is None else -float(target.log_prob(x).mean()) / (x.shape[1] * math.log(2))
    if as_json:
        head = {"model": model, "method": "elbo", "samples": len(x), "tokens": x.shape[1], "nfe": found.nfe, "nats": nats}
        return print_json({**head, "bits/token": [mean, error], **({} if exact is None else {"exact bits/token": exact})})
    print(f"elbo of {len(x)} x {x.shape[1]} tokens under {model}, {found.nfe:.0f} evaluations each")
    print(f"bits/token  {mean:.4f} +- {error:.4f} (standard error over sequences)")
    if exact is not None:
        print(f"exact       {exact:.4f}")


def _sequences(tokens: Any, data: Path | None, num: int) -> Any:
    """Ids (B, L) of a text, a file of ids, or exact samples.

    Raises:
        OptionError: no data, or less than one sequence.
    """
    import torch

    if data is None:
        target: Any = getattr(tokens, "target", None)
        if not hasattr(target, "sample"):
            raise OptionError("--data is missing: a text file, or ids as .npy, .npz or .safetensors.")
        return target.sample(num, seed=1)
    if data.suffix.lower() in (".npy", ".npz", ".safetensors"):
        from ..files.arrays import read_array

        return read_array(data, None, ("x",)).long()[:num]
    ids = tokens.encode(data.read_text(encoding="utf-8"))
    rows = len(ids) // tokens.length
    if not rows:
        raise OptionError(f"{data} holds {len(ids)} tokens, fewer than one sequence of {tokens.length}.")
    return torch.as_tensor(ids[: rows * tokens.length]).view(rows, tokens.length)[:num]
