"""The files of benchmarks/levels: GITS and OSS levels of the bundled models, that benchmarks/suites/tune.toml runs on.

    python benchmarks/choose_levels.py              # a few minutes on one core
    python benchmarks/choose_levels.py mixture
    python benchmarks/choose_levels.py --method gits

The gamma of GITS is chosen for the solver that its levels serve best of the four that the suite runs on them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import solverkit as sk

LEVELS = Path(__file__).parent / "levels"
MODELS = {  # noises, the most steps, and the solver of the gamma
    "mixture": (128, 20, "ipndm"),
    "mnist": (64, 10, "dpmpp-2m"),
    "mnist-flow": (64, 10, "deis"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--method", choices=("gits", "oss"), help="default: both")
    arguments = parser.parse_args()
    for model in arguments.models:
        denoiser, (samples, steps, solver) = sk.load(model), MODELS[model]
        for method in ("gits", "oss") if arguments.method is None else (arguments.method,):
            began, options = time.perf_counter(), {"solver": solver} if method == "gits" else {}
            levels = sk.choose_levels(denoiser, steps, method, samples=samples, **options)
            levels.save(LEVELS / f"{model}-{method}.json")
            print(f"{model} {method}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
