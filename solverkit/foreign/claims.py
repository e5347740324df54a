"""What released code says of itself, and why it fails where it does: data for `solverkit check`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """What is said of one sampler.

    Attributes:
        order: Of convergence at given options; None where nothing is said.
        says: Where that is said.
        order_options: Options that the proof of the order sets: no noise, no lower-order ending.
        smooth: The order is said for steps of equal length alone.
        causes: Why a check fails, where that is known.
    """

    order: Callable[[Options], int | None] = lambda options: None
    says: str = ""
    order_options: Mapping[str, Any] = field(default_factory=dict)
    smooth: bool = False
    causes: Mapping[str, str] = field(default_factory=dict)

    def cause(self, check: str) -> str:
        """Why a check fails; "" where that is not known."""
        return self.causes.get(check, "")


def _is(order: int) -> Callable[[Options], int | None]:
    return lambda options: order


def _solver_order(more: int = 0) -> Callable[[Options], int | None]:
    def order(options: Options) -> int | None:
        return None if "sde" in str(options.get("algorithm_type")) else int(options["solver_order"]) + more

    return order


NO_NOISE = {"eta": 0.0}
TWO_A_STEP = "a step of num_inference_steps is two evaluations, but for the last"
ONE_STREAM = "its default noise is one stream for the whole batch: pass a noise_sampler that draws sample by sample"
HALF_D2 = "its second difference is half the second derivative of the prediction in log-SNR"
UNSET = "the length of a step is read before it was set where the first step is the last one"
BACK = "the corrector begins again from the state before the last step, so only what the network answered knows of the edit"

CLAIMS: dict[str, Claim] = {
    "diffusers:DDIMScheduler": Claim(_is(1), "Song et al. 2021, eq. 13: Euler's method"),
    "diffusers:DDIMParallelScheduler": Claim(_is(1), "Song et al. 2021, eq. 13: Euler's method"),
    "diffusers:EulerDiscreteScheduler": Claim(_is(1), "Euler's method"),
    "diffusers:HeunDiscreteScheduler": Claim(_is(2), "Karras et al. 2022, Algorithm 1", causes={"nfe": TWO_A_STEP}),
    "diffusers:KDPM2DiscreteScheduler": Claim(_is(2), "DPM-Solver-2", causes={"nfe": TWO_A_STEP}),
    "diffusers:KDPM2AncestralDiscreteScheduler": Claim(causes={
        "nfe": TWO_A_STEP,
        "finite": "sigma_down, the root of t^2 - u^2, is 0 in float32 where a step is long, and so is the stage between",
    }),
    "diffusers:DPMSolverSDEScheduler": Claim(causes={"nfe": TWO_A_STEP}),
    "diffusers:LMSDiscreteScheduler": Claim(_is(4), "order=4 of its step"),
    "diffusers:PNDMScheduler": Claim(
        _is(2), "Liu et al. 2022, section 3", smooth=True,
        causes={"nfe": "the first step is made of two evaluations (12 with the Runge-Kutta start)"},
    ),
    "diffusers:DPMSolverMultistepScheduler": Claim(_solver_order(), "solver_order", causes={
        "order": HALF_D2,
        "edits": "with sde-dpmsolver++ and solver_order=3 the second difference has the weight phi_3 - 1 in the place of "
                 "phi_3, which does not vanish with the step",
        "finite": "the noise of the sde-dpmsolver form is as large as that of the level that a long step leaves",
    }),
    "diffusers:DPMSolverSinglestepScheduler": Claim(_solver_order(), "solver_order", causes={
        "order": "the levels inside a step are those of the grid, and the third-order step is right where they lie at 1/3 "
                 "and 2/3 of it in log-SNR: with even steps the order is 3",
    }),
    "diffusers:DEISMultistepScheduler": Claim(_solver_order(), "solver_order"),
    "diffusers:UniPCMultistepScheduler": Claim(
        _solver_order(1), "solver_order + 1, its docstring", {"lower_order_final": False}, causes={"edits": BACK}
    ),
    "diffusers:SASolverScheduler": Claim(
        lambda options: int(options["predictor_order"]), "predictor_order",
        {"tau_func": lambda t: 0, "lower_order_final": False}, causes={"edits": BACK},
    ),
    "diffusers:FlowMatchEulerDiscreteScheduler": Claim(_is(1), "Euler's method"),
    "k-diffusion:sample_euler": Claim(_is(1), "Euler's method"),
    "k-diffusion:sample_euler_ancestral": Claim(
        _is(1), "Euler's method at eta = 0", NO_NOISE, causes={"independence": ONE_STREAM}
    ),
    "k-diffusion:sample_heun": Claim(_is(2), "Karras et al. 2022, Algorithm 1"),
    "k-diffusion:sample_dpm_2": Claim(_is(2), "DPM-Solver-2"),
    "k-diffusion:sample_dpm_2_ancestral": Claim(
        _is(2), "second-order steps, its docstring", NO_NOISE, causes={"independence": ONE_STREAM}
    ),
    "k-diffusion:sample_lms": Claim(lambda options: int(options["order"]), "order"),
    "k-diffusion:sample_dpm_fast": Claim(_is(3), "DPM-Solver-3 steps"),
    "k-diffusion:sample_dpm_adaptive": Claim(causes={
        "independence": "the error that accepts a step is one norm of the whole batch",
    }),
    "k-diffusion:sample_dpmpp_2s_ancestral": Claim(
        _is(2), "second-order steps, its docstring", NO_NOISE, causes={"independence": ONE_STREAM}
    ),
    "k-diffusion:sample_dpmpp_sde": Claim(
        _is(2), "DPM-Solver++(2S) at eta = 0", NO_NOISE, causes={"independence": ONE_STREAM}
    ),
    "k-diffusion:sample_dpmpp_2m": Claim(_is(2), "2M"),
    "k-diffusion:sample_dpmpp_2m_sde": Claim(
        _is(2), "2M at eta = 0", NO_NOISE, causes={"independence": ONE_STREAM, "finite": UNSET}
    ),
    "k-diffusion:sample_dpmpp_3m_sde": Claim(
        _is(3), "3M at eta = 0", NO_NOISE, causes={"order": HALF_D2, "independence": ONE_STREAM, "finite": UNSET}
    ),
}  # fmt: skip
