"""The control of benchmarks/suites/lml.toml: DDIM, its directions turned at random by the angle of the float32 update.

    python benchmarks/lml_control.py

For each model and budget, the mean cosine between the published float32 direction and the exact one along a run, and the
RMS error to the converged ODE over DDIM's, of that update and of random turns by the same angle; rows in
benchmarks/results/lml-control.jsonl.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from solverkit_plugins.lml.direction import published_correction

import solverkit as sk
from solverkit.bench.reference import compute_reference, find_reference, fingerprint, reference_key
from solverkit.problems import mixture

OUT = Path(__file__).parent / "results" / "lml-control.jsonl"


def main() -> None:
    rows = []
    for name, samples, steps in (("mixture", 512, 64), ("mnist", 32, 128), ("mnist-flow", 32, 64)):
        net: Any = mixture() if name == "mixture" else sk.load(name)
        key = reference_key(fingerprint(net), 0, steps)
        truth = (find_reference(key, samples) or compute_reference(net, key, samples, 0, steps)).x
        for nfe in (5, 10, 20):
            run = {"nfe": nfe, "num_samples": samples, "grid": "time-uniform"}

            def error(sampler: str, run: Any = run, net: Any = net, truth: Any = truth, **options: Any) -> float:
                return float((sk.sample(net, sampler, **run, **options).x - truth).square().mean().sqrt())

            cosines: list[float] = []

            def watch(e: Any, cosines: list[float] = cosines) -> None:
                v = (e.x / e.level.scale - e.denoised) / float(e.level)
                out = v + published_correction(v, v, 1e-3, 0.0)
                cosines.append(float(torch.nn.functional.cosine_similarity(out.flatten(1), v.flatten(1)).mean()))

            sk.sample(net, "ddim", callback=watch, **run)
            cosine = sum(cosines) / len(cosines)
            angle = math.acos(min(cosine, 1.0))
            base = error("ddim")
            told = error("lml", solver="ddim", released=True) / base
            turned = error("lml", solver="ddim", random_angle=max(angle, 1e-6)) / base
            print(f"{name} NFE {nfe}: cosine {cosine:.5f}, float32 {told:.3f}, turned at random {turned:.3f}", flush=True)
            rows.append({"model": name, "nfe": nfe, "cosine": cosine, "released": told, "turned": turned})
    OUT.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
