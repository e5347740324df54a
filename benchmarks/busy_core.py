"""What one busy core costs: threads that spin while they wait take the time of the others.

    python benchmarks/busy_core.py
    python benchmarks/busy_core.py --python ../other/.venv/bin/python      # another checkout, for before and after

Each command runs with idle cores and with one core kept busy by another process, under OMP_WAIT_POLICY as the user has it
(unset), passive, and active: first once to warm the disk's cache, then --rounds times, all cases interleaved. Printed are
medians in seconds, the ratio of busy to idle, and of each to passive under the same load. The effect needs a machine whose
cores are all used by one process: on two cores it is large, on many it is none.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLICIES = ("unset", "passive", "active")
LIBRARY = "import solverkit as sk; sk.sample(sk.load('mnist-flow'), 'unipc', nfe=8, num_samples=16)"
COMMANDS = {
    "sample": ("-m", "solverkit.cli", "sample", "mnist-flow", "--sampler", "unipc", "--nfe", "8"),
    "bench": (
        "-m", "solverkit.cli", "bench", "--model", "mnist-flow", "--sampler", "unipc", "--nfe", "8", "--samples", "8",
        "--quiet",
    ),
    "library": ("-c", LIBRARY),
}  # fmt: skip


@contextmanager
def busy(wanted: bool) -> Iterator[None]:
    """One process that never waits, inside the block."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if wanted else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()


def seconds(python: str, command: tuple[str, ...], policy: str, folder: Path, limit: float) -> float:
    """Wall time of one command; `limit` where it takes longer."""
    environment = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")}
    environment["SOLVERKIT_CACHE"] = str(folder / "cache")
    if policy != "unset":
        environment["OMP_WAIT_POLICY"] = policy
    start = time.perf_counter()
    try:
        subprocess.run(
            [python, *command], cwd=folder, env=environment, timeout=limit, check=True, capture_output=True
        )
    except subprocess.TimeoutExpired:
        return limit
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds after which a run is stopped")
    parser.add_argument("--only", choices=tuple(COMMANDS), help="one command")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=POLICIES)
    arguments = parser.parse_args()
    commands = {name: command for name, command in COMMANDS.items() if arguments.only in (None, name)}
    times: dict[tuple[str, str, bool], list[float]] = {}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for command in commands.values():
            seconds(arguments.python, command, "passive", folder, arguments.limit)
        for _ in range(arguments.rounds):
            for name, command in commands.items():
                for policy in arguments.policies:
                    for load in (False, True):
                        with busy(load):
                            took = seconds(arguments.python, command, policy, folder, arguments.limit)
                        times.setdefault((name, policy, load), []).append(took)
    medians = {key: statistics.median(values) for key, values in times.items()}
    print(f"{os.cpu_count()} cores; load before: {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "")
    print(f"{'':8} {'policy':8} {'idle':>8} {'one busy':>9} {'busy/idle':>10} {'over passive, busy':>19}")
    for name in commands:
        for policy in arguments.policies:
            idle, loaded = medians[name, policy, False], medians[name, policy, True]
            over = loaded / medians[name, "passive", True] if "passive" in arguments.policies else float("nan")
            mark = ">" if loaded >= arguments.limit else " "
            print(f"{name:8} {policy:8} {idle:7.2f}s {mark}{loaded:7.2f}s {loaded / idle:10.2f} {over:19.2f}")


if __name__ == "__main__":
    main()
