"""decode(encode(x)) on test images of MNIST: the symmetric integrator beside the adaptive one.

    python benchmarks/round_trip.py --data mnist.npz

The file holds `test_x` (N, 28, 28) uint8. Prints, for each setting, the largest and the root-mean-square error over the
images, the evaluations there and back, and how far the latents lie from those of 160 symmetric steps (RMS).
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

import solverkit as sk
from solverkit.flow_map import decode, encode

SETTINGS = ({"steps": 20}, {"steps": 40}, {"steps": None, "rtol": 1e-4, "atol": 1e-4}, {"steps": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="mnist")
    parser.add_argument("--images", type=int, default=4)
    options = parser.parse_args()
    images = torch.from_numpy(np.load(options.data)["test_x"][: options.images])
    x = (images.float() / 127.5 - 1).unsqueeze(1)
    denoiser = sk.load(options.model)
    exact = encode(denoiser, x, steps=160).x
    print(f"{'setting':50s} {'max':>9s} {'rms':>9s} {'NFE up':>7s} {'NFE down':>8s} {'latents':>9s}")
    for setting in SETTINGS:
        there = encode(denoiser, x, **setting)
        back = decode(denoiser, there.x, **setting)
        error, off = (back.x - x).abs(), float((there.x - exact).square().mean().sqrt() / exact.std())
        worst, rms = float(error.max()), float(error.square().mean().sqrt())
        print(f"{setting!s:50s} {worst:9.1e} {rms:9.1e} {there.nfe:7.0f} {back.nfe:8.0f} {off:9.1e}", flush=True)


if __name__ == "__main__":
    main()
