"""The wheel and a stranger's plugin, installed into a new environment and run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, **env: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "SOLVERKIT_PLUGINS")}
    done = subprocess.run(
        [str(c) for c in command],
        capture_output=True,
        text=True,
        env={**clean, **env},
        cwd=tempfile.gettempdir(),  # not the checkout, whose packages `python -c` would import
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """A new environment with solverkit's wheel; only its dependencies are borrowed from the environment of the tests."""
    base = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "-q"]
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # setuptools would pack what an older build left there
    run(*pip, "wheel", ROOT, "--no-deps", "--no-build-isolation", "-w", base)
    home = base / "env"
    venv.create(home, with_pip=False)
    site = next(home.glob("lib/python*/site-packages"))
    borrowed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "dependencies.pth").write_text("\n".join(borrowed) + "\n")  # an environment may itself borrow by a .pth file
    run(*pip, "install", "--no-deps", "--target", site, next(base.glob("solverkit-*.whl")))
    return home


def test_wheel_brings_plugins_and_networks(environment):
    site = next(environment.glob("lib/python*/site-packages"))
    script = "import sys; from solverkit.cli import main; sys.argv = ['solverkit', *sys.argv[1:]]; main()"
    out = run(environment / "bin" / "python", "-c", script, "samplers", COLUMNS="160")
    assert "dpmpp-2m" in out and "heun" in out
    where = run(environment / "bin" / "python", "-c", "import solverkit, solverkit_plugins; print(solverkit.__file__)")
    assert str(site) in where
    for part in ("mnist/unet/diffusion_pytorch_model.safetensors", "mnist-flow/unet/config.json", "mnist/README.md"):
        assert (site / "solverkit" / "networks" / part).exists(), part
    assert (site / "solverkit" / "py.typed").exists()
    run(
        environment / "bin" / "python",
        "-c",
        "import solverkit as sk; sk.sample(sk.load('mnist'), 'heun', nfe=3, num_samples=1)",
    )


def test_an_idea_becomes_an_installed_and_proven_plugin(environment, tmp_path):
    site = next(environment.glob("lib/python*/site-packages"))
    python = environment / "bin" / "python"
    command = [python, "-c", "from solverkit.cli import main; main()"]
    run(*command, "new-plugin", "two-step", "-o", tmp_path)
    source = tmp_path / "solverkit-two-step"
    run(sys.executable, "-m", "pip", "-q", "install", "--no-deps", "--no-build-isolation", "--target", site, source)
    plugins = json.loads(run(*command, "plugins", "--json"))
    (own,) = (record for record in plugins if record["name"] == "two_step")
    assert (own["distribution"], own["version"], own["samplers"]) == ("solverkit-two-step", "0.1.0", ["two-step"])
    assert own["path"] == str(site / "solverkit_two_step.py")
    run(python, "-m", "pytest", "-q", source / "tests", "-p", "no:cacheprovider")  # its proofs
