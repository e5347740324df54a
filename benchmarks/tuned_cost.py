"""Rows that a calibration takes, by its own count of them; seconds on this machine are the reader's to measure.

    python benchmarks/tuned_cost.py

A row is one noise through the network once.
"""

from __future__ import annotations

from markdown_table import table

from solverkit.tuning.asked import Asked
from solverkit.tuning.progress import Work

# Words: budgets, noises, noises to judge on, fast, evaluations of a converged run.
CALLS = {
    "the default": ((5, 6, 8, 10), 96, 96, False, 128), "NFE 8 alone": ((8,), 96, 96, False, 128),
    "--fast, 16 noises, NFE 8 alone": ((8,), 16, 16, True, 64), "--fast, 16 noises": ((5, 6, 8, 10), 16, 16, True, 64),
}  # fmt: skip
TFLOP, SPEED = 24.0, 400.0  # of a guided row of SDXL's size at 1024 x 1024 (two passes of 12), and a second, assumed


def main() -> None:
    lines = []
    for words, (nfe, samples, validation, fast, evaluations) in CALLS.items():
        rows = Work(Asked(nfe, samples, validation, 2, 1, 4, fast, 0, None), evaluations, lambda told: None).total
        lines.append([words, f"{rows / 1000:.0f}k", f"{rows * TFLOP / SPEED / 60:.0f}"])
    print(table(["call", "rows", f"GPU minutes, {TFLOP:g} TFLOP a row at {SPEED:g} TFLOP/s"], lines))


if __name__ == "__main__":
    main()
