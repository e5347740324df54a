"""Whether the last bit of an answer depends on the batch that it was asked in, as docs/serving.md says.

    python benchmarks/batch_bits.py --device cuda

Rows of a batch of eight, each at a level of its own, are asked again: in a batch of eight with nothing beside them, in the
same slot and in another one, and alone in a batch of one. Counted is how many answers differ in any bit.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from markdown_table import table

import solverkit as sk
from solverkit import problems

SLOTS = 8


def differing(denoiser: Any, dtype: torch.dtype, device: str, rounds: int) -> list[int]:
    """Answers that differ beside others, in another slot, and in a batch of one; of rounds * SLOTS."""
    levels = sk.make_grid("flow", denoiser.schedule, 20).levels[:-1]
    generator, found = torch.Generator().manual_seed(0), [0, 0, 0]

    def alone(x: torch.Tensor, level: sk.Level, slot: int, rows: int) -> torch.Tensor:
        batch, asked = torch.zeros(rows, *x.shape, dtype=dtype, device=device), [levels[-1]] * rows
        batch[slot], asked[slot] = x, level
        return denoiser(batch, tuple(asked))[slot]  # type: ignore[no-any-return]

    for _ in range(rounds):
        x = torch.randn(SLOTS, *denoiser.shape, dtype=torch.float64, generator=generator).to(device, dtype)
        own = [levels[i] for i in torch.randint(len(levels), (SLOTS,), generator=generator).tolist()]
        together = denoiser(x, tuple(own))
        for i in range(SLOTS):
            again = [alone(x[i], own[i], *place) for place in ((i, SLOTS), ((i + 3) % SLOTS, SLOTS), (0, 1))]
            found = [n + (not torch.equal(answer, together[i])) for n, answer in zip(found, again)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    name = torch.cuda.get_device_name() if args.device.startswith("cuda") else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}; of {args.rounds * SLOTS} answers differ:\n")
    lines = []
    with torch.no_grad():
        for model in ("mnist", "mnist-flow"):
            for dtype in (torch.float32, torch.bfloat16):
                denoiser = sk.load(model, device=args.device, dtype=dtype)
                lines.append([model, dtype, *differing(denoiser, torch.float32, args.device, args.rounds)])
        for model, target in (("mixture", problems.mixture()), ("gaussian", problems.gaussian())):
            lines.append([model, torch.float32, *differing(target, torch.float32, args.device, args.rounds)])
    head = ["network", "computes in", "same slot, nothing beside it", "another slot", "batch of one"]
    print(table(head, [[str(cell).removeprefix("torch.") for cell in line] for line in lines]))


if __name__ == "__main__":
    main()
