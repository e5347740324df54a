"""Write the converged solutions of a suite into the package, so that `solverkit bench` starts at once.

    python benchmarks/make_references.py                  # the default suite
    python benchmarks/make_references.py --suite mine.toml --folder references

A reference belongs to a fingerprint of the network and to the noise that samples start from: after either has changed run
it again with --prune, which deletes the files that nothing asks for any more.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from solverkit.bench.reference import SHIPPED, compute_reference, find_reference, fingerprint, reference_key
from solverkit.bench.suite_file import load_suite
from solverkit.hub import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="quick")
    parser.add_argument("--folder", type=Path, default=SHIPPED)
    parser.add_argument("--force", action="store_true", help="compute again what is there")
    parser.add_argument("--prune", action="store_true", help="delete the folder's other references")
    arguments = parser.parse_args()
    kept = set()
    suite = load_suite(arguments.suite)
    for entry in suite.models:
        denoiser = load(entry.name, **entry.options)
        key = reference_key(fingerprint(denoiser), suite.seed, entry.reference_steps)
        path = arguments.folder / f"{key}.safetensors"
        kept.add(path)
        reference = None if arguments.force or not path.is_file() else find_reference(key, entry.num_samples)
        if reference is None:
            reference = compute_reference(
                denoiser, key, entry.num_samples, suite.seed, entry.reference_steps, entry.batch_size, arguments.folder
            )
        print(f"{entry.name}: {len(reference.x)} samples, error at half the steps {reference.error:.2e}, {path}")
    for path in set(arguments.folder.glob("*.safetensors")) - kept if arguments.prune else ():
        path.unlink()
        print(f"deleted {path}")


if __name__ == "__main__":
    main()
