"""The parameters that several commands share, each declared once, so that a name and a letter mean one thing."""

from __future__ import annotations

from typing import Any

import typer

LARGEST_SEED = 2**63 - 1

MODEL = typer.Argument(help="A registered model, a diffusers folder or a hub id.")
SAMPLER = typer.Argument(help="A registered sampler; options may stand behind it: unipc:order=2.")
SAMPLER_OPTION = typer.Option("dpmpp-2m", "--sampler", "-s", help="A registered sampler, such as heun or unipc:order=2.")
GRID = typer.Option(None, "--grid", "-g", help="A registered grid; default: the sampler's own.")
PAIRS = typer.Option([], "--set", help="Option of the sampler, name=value; may be repeated.")
SEED = typer.Option(0, "--seed", min=0, max=LARGEST_SEED, help="Of all draws.")
LABEL = typer.Option(None, "--label", min=0, help="Class of a conditional network.")
DEVICE = typer.Option(None, "--device", help="Where the network runs: cpu, cuda, cuda:1, mps.")
DTYPE = typer.Option(None, "--dtype", help="Of the network: float32, float64, bfloat16 or float16.")
BATCH = typer.Option(None, "--batch", min=1, help="Samples at a time; the result is the same.")
THREADS = typer.Option(None, "--threads", min=1, help="CPU threads; default: one a core, or OMP_NUM_THREADS.")
JSON = typer.Option(False, "--json", help="Print JSON.")


def num_samples(default: int | None, text: str) -> Any:
    """--num-samples with a default of its own."""
    return typer.Option(default, "--num-samples", "--samples", "-k", min=1, help=text)


def nfe(default: int | None, text: str = "Ceiling on network evaluations.") -> Any:
    """--nfe with a default of its own."""
    return typer.Option(default, "--nfe", "-n", help=text)
