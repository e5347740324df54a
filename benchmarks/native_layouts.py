"""What a grid by name is worth in the drop-in, beside the layout of the native class (grid=None), on the bundled networks.

    python benchmarks/native_layouts.py            # 128 noises, about four minutes on one core
    python benchmarks/native_layouts.py --noises 16 --budgets 5

The scheduler drives the network as a pipeline does: it is told the scheduler's timesteps and scales its own input. The
config is what a Stable Diffusion 1.5 checkpoint ships (written by PNDM, no timestep_spacing, steps_offset 1), with the
network's own betas; for the flow network that of FlowMatchEuler with shift 3. Errors are RMS distances to the converged
solution of the same noises; no grid was chosen on them. A ratio whose 95 % bootstrap interval over the noises holds 1 is a
tie.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from markdown_table import short, table

import solverkit as sk
from solverkit import SolverKitScheduler
from solverkit.tuning.loss import interval, per_sample

SEED = 20261
CONFIGS: dict[str, dict[str, Any]] = {
    "mnist": {
        "_class_name": "PNDMScheduler", "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02,
        "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
    },
    "mnist-flow": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0, "num_train_timesteps": 1000},
}  # fmt: skip
GRIDS = {"mnist": ("trailing", "karras", "log-snr"), "mnist-flow": ("flow", "flow:shift=5")}
SAMPLERS = ("euler", "dpmpp-2m", "unipc", "deis")


@torch.no_grad()
def driven(scheduler: SolverKitScheduler, model: Any, z: torch.Tensor, n: int) -> torch.Tensor:
    """A pipeline's loop, (B, ...)."""
    inputs = {name: torch.full((len(z),), value) for name, value in model.inputs.items()}  # the label "none"
    scheduler.set_timesteps(n)
    x = z * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        told = torch.full((len(x),), float(t))
        answer = model.net(scheduler.scale_model_input(x, t), told, **inputs).sample
        x = scheduler.step(answer, t, x, return_dict=False)[0]
    return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noises", type=int, default=128)
    parser.add_argument("--budgets", type=int, nargs="+", default=[5, 10, 20])
    arguments = parser.parse_args()
    for name, config in CONFIGS.items():
        model = sk.load(name)
        z = torch.randn((arguments.noises, *model.shape), generator=torch.Generator().manual_seed(SEED))
        fine = [
            sk.sample(model, "deis", x=z, grid=f"{'flow' if 'flow' in name else 'trailing'}", steps=n).x for n in (250, 125)
        ]
        exact = fine[0]
        floor = per_sample(fine[1] - exact).max()
        print(f"\n{name}: {arguments.noises} noises; the converged solution is good to {floor:.4f}\n")
        lines = []
        for sampler in SAMPLERS:
            for n in arguments.budgets:
                native, *named = (
                    per_sample(
                        driven(SolverKitScheduler.from_config(config, sampler=sampler, grid=grid), model, z, n) - exact
                    )
                    for grid in (None, *GRIDS[name])
                )
                cells = [f"{float(native.square().mean().sqrt()):.3f} ({float(native.median()):.3f})"]
                for error in named:
                    low, high = interval(error, native)
                    ratio = float((error.square().mean() / native.square().mean()).sqrt())
                    cells.append(f"{short(ratio)} [{short(low)}, {short(high)}]{' tie' if low <= 1 <= high else ''}")
                lines.append([f"`{sampler}`", str(n), *cells])
        head = ["sampler", "steps", "grid=None: RMS (median)", *(f'"{grid}" / None' for grid in GRIDS[name])]
        print(table(head, lines))


if __name__ == "__main__":
    main()
