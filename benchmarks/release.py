"""The wheel in an empty environment of each Python: what docs/releasing.md asks for before a release.

    python benchmarks/release.py                            # this Python
    python benchmarks/release.py --python python3.10 --python python3.13
    python benchmarks/release.py --no-deps                  # dependencies are borrowed from the environment that it runs in

Prints a row an interpreter; ends with 1 where one is not there or something failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHECKS = {
    "sample": "import solverkit as sk; assert sk.sample(sk.load('mnist'), 'unipc', nfe=4, num_samples=1).nfe == 4",
    "show": "from solverkit.cli import main; main(['show', 'unipc', '--nfe', '4'])",
    "cite": "from solverkit.cli import main; main(['cite', 'unipc'])",
}


def main() -> None:
    """Build the wheel once, then try it on every interpreter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", help="an interpreter; may be repeated [this one]")
    parser.add_argument("--no-deps", action="store_true", help="borrow the dependencies of this environment")
    given = parser.parse_args()
    if given.no_deps and given.python:
        parser.error("--no-deps borrows what was installed for this Python; leave out --python")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        wheel = build(Path(folder))
        print(f"{wheel.name}, {wheel.stat().st_size / 2**20:.1f} MiB")
        for python in given.python or [sys.executable]:
            start = time.perf_counter()
            said = tried(python, wheel, Path(folder) / f"env{time.time_ns()}", given.no_deps)
            failed |= said != "ok"
            print(f"{python:30} {time.perf_counter() - start:6.0f} s  {said}", flush=True)
    sys.exit(failed)


def build(folder: Path) -> Path:
    """The wheel of this checkout."""
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # setuptools would pack what an older build left there
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    if (done := ran(command)).returncode:
        sys.exit(done.stdout + done.stderr)
    return next(folder.glob("solverkit-*.whl"))


def tried(python: str, wheel: Path, home: Path, borrow: bool) -> str:
    """ "ok", or what did not work."""
    if shutil.which(python) is None:
        return "not there"
    steps = [[python, "-m", "venv", str(home)]]
    inside = str(home / "bin" / "python")
    steps.append([inside, "-m", "pip", "install", "-q", *(["--no-deps"] if borrow else []), str(wheel)])
    for step in steps:
        if (done := ran(step)).returncode:
            return f"{' '.join(step[1:4])}: {(done.stderr or done.stdout).strip().splitlines()[-1]}"
    if borrow:
        site = next(home.glob("lib/python*/site-packages"))
        borrowed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
        (site / "zz-borrowed.pth").write_text("\n".join(borrowed) + "\n", encoding="utf-8")
    for name, code in CHECKS.items():
        if (done := ran([inside, "-c", code])).returncode:
            return f"{name}: {done.stderr.strip().splitlines()[-1]}"
    shutil.rmtree(home)
    return "ok"


def ran(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run outside of the checkout, which Python would import from."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "SOLVERKIT_PLUGINS")}
    return subprocess.run(command, capture_output=True, text=True, env=clean, cwd=tempfile.gettempdir(), check=False)


if __name__ == "__main__":
    main()
