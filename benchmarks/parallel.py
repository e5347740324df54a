"""What a run by sweeps takes beside the sequential run of the same plan: wall seconds, interleaved, with rows and sweeps.

    python benchmarks/parallel.py --device cuda

Each line is one setting: the median over rounds of (seconds of 'parallel') / (seconds of its solver alone), both of the
same start, run one after the other in each round. Below 1 the sweeps are faster.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch

import solverkit as sk


def seconds(device: torch.device, run: Any) -> tuple[float, Any]:
    """Wall seconds of a run, the device's work included, and what it made."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    made = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="mnist")
    parser.add_argument("--nfe", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--solver", nargs="+", default=["ddim", "dpmpp-2m"])
    parser.add_argument("--window", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--tolerance", type=float, nargs="+", default=[1e-3])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    device, denoiser = torch.device(args.device), sk.load(args.model, device=args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{args.model} on {name}, torch {torch.__version__}, {args.rounds} rounds")
    print("solver     NFE  samples  window  tolerance  sweeps   rows  seconds alone  ratio  RMS to alone")
    for solver in args.solver:
        for nfe in args.nfe:
            for samples in args.samples:
                alone = lambda: sk.sample(denoiser, solver, nfe=nfe, num_samples=samples)  # noqa: B023, E731
                seconds(device, alone)  # warm
                for window in args.window:
                    for tolerance in args.tolerance:
                        by_sweeps = lambda: sk.sample(  # noqa: E731
                            denoiser, "parallel", nfe=nfe, num_samples=samples, solver=solver, window=window,  # noqa: B023
                            tolerance=tolerance,  # noqa: B023
                        )  # fmt: skip
                        seconds(device, by_sweeps)
                        pairs = [(seconds(device, alone), seconds(device, by_sweeps)) for _ in range(args.rounds)]
                        ratio = statistics.median(b[0] / a[0] for a, b in pairs)
                        one, made = pairs[-1][0][1], pairs[-1][1][1]
                        took = statistics.median(a[0] for a, _ in pairs)
                        off = float((made.x - one.x).square().mean().sqrt())
                        print(
                            f"{solver:9} {nfe:4} {samples:8} {window:7} {tolerance:10g} {made.reports['sweeps']:7.0f} "
                            f"{made.nfe:6.1f} {took:14.3f} {ratio:6.2f} {off:13.2e}",
                            flush=True,
                        )


if __name__ == "__main__":
    main()
