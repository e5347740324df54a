"""The files of benchmarks/levels: GITS and OSS levels of the bundled models, that benchmarks/suites/tune.toml runs on.

    python benchmarks/choose_levels.py              # a few minutes on one core
    python benchmarks/choose_levels.py mixture
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import solverkit as sk

LEVELS = Path(__file__).parent / "levels"
MODELS = {"mixture": (128, 20), "mnist": (64, 10), "mnist-flow": (64, 10)}  # noises, and the most steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    for model in parser.parse_args().models:
        denoiser, (samples, steps) = sk.load(model), MODELS[model]
        for method in ("gits", "oss"):
            began = time.perf_counter()
            sk.choose_levels(denoiser, steps, method, samples=samples).save(LEVELS / f"{model}-{method}.json")
            print(f"{model} {method}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
