"""Train the bundled network ``shakespeare``: a masked character model that is told no time (MDLM, RADD).

    python benchmarks/train/shakespeare.py --data shakespeare.txt --out runs/shakespeare --minutes 5

``shakespeare.txt`` is the "tiny Shakespeare" text of https://github.com/karpathy/char-rnn, 1115394 characters. Its last
tenth is held out and chooses nothing; the last 2 % of the rest choose among the averaged weights.

The loss is the bound on -log p of the absorbing process (Ou et al. 2025, the k-DCE form, equal to MDLM's weight 1/t): k of
L characters are masked, k uniform on 1 .. L and stratified over the batch, and the cross-entropy is averaged over the k.

Runs on a GPU where there is one (bfloat16 autocast), else on the CPU. ``--minutes`` is the training time in all; the rate
of learning falls to zero over it. Checkpoints are written every ``--every`` steps and picked up again by the same command.
Writes config.json, model.safetensors (float16) and training.json, whose figures are those of the float16 weights.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from solverkit.tokens.transformer import CharacterTransformer


def read(path: Path) -> tuple[str, np.ndarray]:
    """The alphabet, sorted, and the text as numbers."""
    text = np.frombuffer(path.read_bytes().decode().encode("utf-32-le"), dtype=np.uint32)
    alphabet, ids = np.unique(text, return_inverse=True)
    return "".join(map(chr, alphabet)), ids.astype(np.int64)


def masked(clean: Tensor, mask: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sequences with k of L characters masked, k stratified over the batch, and where they are."""
    b, l = clean.shape  # noqa: E741
    device = clean.device
    u = (torch.randperm(b, generator=generator, device=device) + torch.rand(b, generator=generator, device=device)) / b
    k = (u * l).long().clamp(max=l - 1) + 1
    rank = torch.rand(b, l, generator=generator, device=device).argsort(dim=1).argsort(dim=1)
    hidden = rank < k[:, None]
    return torch.where(hidden, mask, clean), hidden


def bound(net: CharacterTransformer, clean: Tensor, generator: torch.Generator) -> Tensor:
    """Nats a character, one number a sequence: an unbiased estimate of the bound on -log p / L."""
    tokens, hidden = masked(clean, net.vocabulary, generator)
    loss = cross_entropy(net(tokens).transpose(1, 2).float(), clean, reduction="none")
    return (loss * hidden).sum(dim=1) / hidden.sum(dim=1)


@torch.no_grad()
def bits(net: CharacterTransformer, ids: Tensor, length: int, draws: int, seed: int = 0) -> tuple[float, float]:
    """Bits a character over windows end to end, and the standard error over the windows; `draws` masks a window."""
    windows = ids[: len(ids) // length * length].view(-1, length)
    generator = torch.Generator(windows.device).manual_seed(seed)
    net.eval()
    per_window = torch.stack(
        [torch.cat([bound(net, part, generator) for part in windows.split(128)]) for _ in range(draws)]
    ).double().mean(dim=0) / np.log(2)  # fmt: skip
    net.train()
    return float(per_window.mean()), float(per_window.std() / len(windows) ** 0.5)


def ngram_bits(train: np.ndarray, test: np.ndarray, order: int, vocabulary: int) -> float:
    """Bits a character of an interpolated n-gram (Witten, Bell 1991): p_k = (count + kinds p_{k-1}) / (total + kinds)."""
    p = np.full(len(test) - order + 1, 1.0 / vocabulary)
    for k in range(1, order + 1):
        codes = [sum(ids[k - 1 - j : len(ids) - j] * vocabulary**j for j in range(k)) for ids in (train, test)]
        count = np.bincount(codes[0], minlength=vocabulary**k)
        followers = count.reshape(-1, vocabulary)
        total, kinds = followers.sum(axis=1), np.maximum((followers > 0).sum(axis=1), 1)
        seen = codes[1][order - k :]
        context = seen // vocabulary
        p = (count[seen] + kinds[context] * p) / (total[context] + kinds[context])
    return float(-np.log2(p).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--draws", type=int, default=64, help="masks a window in the held-out figure")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else "highest")
    alphabet, ids = read(args.data)
    held = len(ids) * 9 // 10
    cut = held - held // 50
    train, validation, test = (torch.from_numpy(part).to(device) for part in (ids[:cut], ids[cut:held], ids[held:]))
    shape = {"vocabulary": len(alphabet), "width": args.width, "depth": args.depth, "heads": args.heads}
    net = CharacterTransformer(**shape, dropout=args.dropout).to(device)
    averaged = CharacterTransformer(**shape).to(device)
    averaged.load_state_dict(net.state_dict())
    decayed = [p for p in net.parameters() if p.dim() == 2]
    others = [p for p in net.parameters() if p.dim() != 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), fused=device.type == "cuda")
    generator = torch.Generator(device).manual_seed(args.seed)

    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out / "checkpoint.pt"
    step, seconds, best, history = 0, 0.0, float("inf"), []
    best_weights = {k: v.clone() for k, v in averaged.state_dict().items()}
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location=device)
        net.load_state_dict(saved["net"])
        averaged.load_state_dict(saved["averaged"])
        optimizer.load_state_dict(saved["optimizer"])
        generator.set_state(saved["generator"].cpu())
        best_weights, best, history = saved["best_weights"], saved["best"], saved["history"]
        step, seconds = saved["step"], saved["seconds"]
        print(f"resumed at step {step}")

    def autocast() -> contextlib.AbstractContextManager[None]:
        return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext()

    budget, offsets = 60 * args.minutes, torch.arange(args.length, device=device)
    running = torch.zeros((), device=device)
    clock, before = time.perf_counter(), seconds
    while seconds < budget:
        left = 1 - seconds / budget
        for group in optimizer.param_groups:
            group["lr"] = args.lr * min(1.0, (step + 1) / 200, left / 0.7)
        starts = torch.randint(len(train) - args.length + 1, (args.batch, 1), generator=generator, device=device)
        with autocast():
            loss = bound(net, train[starts + offsets], generator).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            decay = min(0.999, (step + 1) / (step + 10))
            torch._foreach_lerp_(list(averaged.parameters()), list(net.parameters()), 1 - decay)
            running += loss.detach()
        step += 1
        if device.type == "cpu" or step % 20 == 0:
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds = before + time.perf_counter() - clock
        if step % args.every == 0 or seconds >= budget:
            value, _ = bits(averaged, validation, args.length, draws=16)
            history.append((step, round(value, 4)))
            mean_loss = float(running) / (step % args.every or args.every) / np.log(2)
            print(f"step {step} train {mean_loss:.3f} validation {value:.4f} bits, {seconds:.0f} s", flush=True)
            running.zero_()
            if value < best:
                best, best_weights = value, {k: v.clone() for k, v in averaged.state_dict().items()}
            state = {"net": net.state_dict(), "averaged": averaged.state_dict(), "optimizer": optimizer.state_dict()}
            rest = {"generator": generator.get_state(), "best_weights": best_weights, "best": best, "history": history}
            torch.save({**state, **rest, "step": step, "seconds": seconds}, checkpoint)
            seconds = before + time.perf_counter() - clock  # validation counts: the limit is one of the wall

    torch.set_float32_matmul_precision("highest")
    stored = {k: v.half().cpu().contiguous() for k, v in best_weights.items()}
    averaged.load_state_dict({k: v.float() for k, v in stored.items()})
    value, error = bits(averaged, test, args.length, args.draws)
    words = {"mask": len(alphabet), "length": args.length, "alphabet": alphabet}
    config = {"_class_name": "CharacterTransformer", **shape, **words}
    numbers = (ids[:held], ids[held:])
    record = {
        "held_out_bits_per_character": round(value, 4),
        "standard_error": round(error, 4),
        "held_out_windows": len(test) // args.length,
        "masks_per_window": args.draws,
        "validation_bits_per_character": round(best, 4),
        "unigram_bits_per_character": round(ngram_bits(*numbers, 1, len(alphabet)), 4),
        "trigram_bits_per_character": round(ngram_bits(*numbers, 3, len(alphabet)), 4),
        "parameters": sum(p.numel() for p in averaged.parameters()),
        "steps": step,
        "batch": args.batch,
        "characters_seen": step * args.batch * args.length,
        "epochs": round(step * args.batch * args.length / len(train), 1),
        "learning_rate": args.lr,
        "dropout": args.dropout,
        "seconds": round(seconds),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {args.threads} threads",
        "seed": args.seed,
        "torch": torch.__version__,
        "validation": history,
    }
    save_file(stored, args.out / "model.safetensors")
    for name, content in (("config.json", config), ("training.json", record)):
        (args.out / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
