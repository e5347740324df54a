"""A plugin of solverkit: the sampler my-solver."""

from __future__ import annotations

import math

import solverkit as sk


def my_solver(model, x, grid, noise, share: float = 1.0):
    """Two-step exponential Adams method: between the nodes D is the line through its last two values.

    The probability flow is dx/ds = (x - D) / s in every frame. With D(u) = D_s + (u - s) d it is solved exactly by

        x_t = (t / s) x + (1 - t / s) D_s + (t log(s / t) - (s - t)) d.

    Order 2, one evaluation a step. Source: Hochbruck and Ostermann 2010 (exponential Adams methods), in the variable s.

    Args:
        share: Of the slope d: 1 is the method, 0 is Euler's.
    """
    # What is behind `noise` is an option: its name, type and default are what users may write, as in my-solver:share=0.5.
    if not 0 <= share <= 1:
        raise sk.errors.OptionError(f"share must lie in [0, 1], got {share}.")
    previous = None
    for s, t in grid.steps():  # s > t: levels of the run's frame, floats that also know alpha, log-SNR and the model's time
        # Ask the model about the state itself, and derive from it only afterwards: an edit of x between steps then carries
        # over. `sk.keep` stores the answer as one value, since two steps use it.
        denoised = sk.keep(model(x, s))  # E[x_0 | x], of the state's shape
        # The exact step for a D that does not change. Write x = x + ..., never x += ...; coefficients are Python floats.
        x = (t / s) * x + (1 - t / s) * denoised
        if previous is not None:
            s_before, denoised_before = previous
            slope = (denoised - denoised_before) / (s - s_before)
            weight = (t * math.log(s / t) if t > 0 else 0.0) - (s - t)  # t log(s / t) -> 0 in the last step, to t = 0
            x = x + (share * weight) * slope
        previous = s, denoised
    return x


def order(options):
    """The order that `solverkit check` confirms; a number where no option changes it, None for a stochastic sampler."""
    return 2 if options["share"] == 1 else 1


@sk.hookimpl
def register_samplers(register):
    """solverkit calls this when it is loaded. `variants` are option sets that the checks run beside the defaults."""
    register(
        "my-solver",
        my_solver,
        order=order,
        reference="Hochbruck and Ostermann 2010",
        variants=({"share": 0.5},),
        multistep=True,  # its steps use what earlier steps evaluated
    )
