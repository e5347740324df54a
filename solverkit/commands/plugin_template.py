"""`solverkit new-plugin NAME`: a small package that registers one sampler, with its test."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

import typer

from ..errors import OptionError, PluginError
from .console import remark
from .destination import require_folder

WHERE = typer.Option(Path("."), "--out", "-o", help="Folder in which the plugin's folder is made.")

PYPROJECT = """\
[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"

[project]
name = "solverkit-{name}"
version = "0.1.0"
description = "A sampler for solverkit"
requires-python = ">=3.10"
dependencies = ["solverkit"]

# solverkit finds the plugin through this entry point
[project.entry-points.solverkit]
{module} = "solverkit_{module}"

[tool.setuptools]
py-modules = ["solverkit_{module}"]
"""

MODULE = '''\
"""A plugin of solverkit: the sampler {name}."""

from __future__ import annotations

import solverkit as sk


def {module}(model, x, grid, noise, weight: float = 0.5):
    """Heun's method with a free weight: 0.5 is the trapezoidal rule, of order 2.

    Two evaluations a step, one in the step to 0. Source: Karras et al. 2022, Algorithm 1. Replace this by your own method.

    Args:
        weight: Of the slope at the end of the step.
    """
    for s, t in grid.steps():  # levels s > t, floats
        d = (x - model(x, s)) / s  # model(x, s) -> E[x_0 | x]
        y = x + (t - s) * d
        if t > 0:
            d = (1 - weight) * d + weight * (y - model(y, t)) / t
            y = x + (t - s) * d
        x = y
    return x


def order(options):
    """The order that a proof can confirm (a plain number where no option changes it, None for a stochastic sampler)."""
    return 2 if options["weight"] == 0.5 else 1


@sk.hookimpl
def register_samplers(register):
    register("{name}", {module}, order=order, reference="Karras et al. 2022, Algorithm 1")
'''

TEST = """\
import solverkit as sk
from solverkit_{module} import {module}


def test_it_reaches_the_exact_solution():
    model = sk.problems.gaussian(dim=4)
    coarse, fine = (sk.sample(model, {module}, steps=n, num_samples=8).x for n in (64, 128))
    assert (coarse - fine).abs().max() < 0.01


def test_it_counts_two_evaluations_a_step():
    model = sk.problems.gaussian(dim=4)
    assert sk.sample(model, {module}, steps=5, num_samples=2).nfe == 9  # one in the step to 0


def test_it_is_registered_and_proves_itself():
    assert "{name}" in sk.samplers()
    results = sk.testing.check_sampler("{name}")
    assert all(r.passed for r in results), [r for r in results if not r.passed]
"""

README = """\
# solverkit-{name}

    pip install -e .
    solverkit samplers
    solverkit show {name} --nfe 9
    solverkit check {name}
    solverkit bench --sampler {name} --sampler heun --model mixture
"""


def new_plugin(
    name: str = typer.Argument(help="The sampler's name, e.g. my-solver."),
    out: Path = WHERE,
) -> None:
    """Write a plugin: a folder with pyproject.toml, a module with one sampler, and its test."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(name.replace("-", "_")):
        raise OptionError(f"a plugin's name is small letters, digits and single hyphens (my-solver), got {name!r}.")
    from ..registry.catalogue import samplers

    if name in samplers():
        raise OptionError(
            f"there is a sampler {name!r} already, of the plugin {samplers()[name].plugin!r}: choose another name."
        )
    require_folder(out)
    module = name.replace("-", "_")
    folder = out / f"solverkit-{name}"
    files = {
        "pyproject.toml": PYPROJECT,
        f"solverkit_{module}.py": MODULE,
        f"tests/test_{module}.py": TEST,
        "README.md": README,
    }
    if folder.exists():
        raise PluginError(f"{folder} exists already; nothing was written.")
    try:
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text.replace("{name}", name).replace("{module}", module), encoding="utf-8")
    except OSError as error:
        raise PluginError(f"cannot write {folder}: {error.strerror or error}.") from None
    print(folder)
    remark(f"next: cd {folder} && pip install -e . && solverkit show {name} --nfe 9")
