"""The fixed judge of generated text: an interpolated character n-gram of the training text, and what real text scores.

    python benchmarks/train/shakespeare_judge.py --data shakespeare.txt --out solverkit/networks/shakespeare

Writes judge.safetensors (codes and counts of the n-grams of order 1 to 5 of the first nine tenths) and judge.json (its
bits a character of the held-out tenth and of windows of it, with the windows' own entropy).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from shakespeare import read

from solverkit.tokens.judge import Judge, sequence_entropy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--order", type=int, default=5)
    args = parser.parse_args()
    alphabet, ids = read(args.data)
    held, tensors = len(ids) * 9 // 10, {}
    for k in range(1, args.order + 1):
        codes = sum(ids[k - 1 - j : held - j] * len(alphabet) ** j for j in range(k))
        found, count = np.unique(codes, return_counts=True)
        tensors[f"codes.{k}"] = torch.from_numpy(found.astype(np.int32))
        tensors[f"counts.{k}"] = torch.from_numpy(count.astype(np.int32))
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.out / "judge.safetensors")
    judge, test = Judge.load(args.out, len(alphabet)), torch.from_numpy(ids[held:])
    record = {"order": args.order, "bits_per_character": round(float(judge.bits(test[None]).mean()), 4)}
    for length in (128, 256):
        windows = test[: len(test) // length * length].view(-1, length)
        bits, entropy = judge.bits(windows), sequence_entropy(windows, len(alphabet))
        record[f"windows_of_{length}"] = {"bits": round(float(bits.mean()), 4), "entropy": round(float(entropy.mean()), 4)}
    (args.out / "judge.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
