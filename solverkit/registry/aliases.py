"""Names that people know from elsewhere: what each means here, exactly; or, where it is not here, what to write.

A name that a plugin registers is that plugin's, whatever stands here.
"""

from __future__ import annotations

from typing import NamedTuple

from ..errors import OptionError
from .spelled import parse_options


class Alias(NamedTuple):
    """A name from elsewhere.

    Attributes:
        means: What it is here, with options behind the name; "" where nothing here is the same.
        of: Whose name it is.
        instead: What to write, where it means nothing here.
    """

    means: str
    of: str
    instead: str = ""


K, COMFY, DIFFUSERS = "k-diffusion, ComfyUI", "ComfyUI", "diffusers"
CFG_PP = "CFG++ needs the prediction without a label beside the guided one; guidance is a denoiser here: solverkit.guidance"
CLOSE = "the same method with coefficients of its own: write {0}, which is not proven equal"


def _gpu(name: str, means: str) -> dict[str, Alias]:
    """A name, and the same with its noise made on the device: draws here are keyed, and the same on every device."""
    return {name: Alias(means, K), f"{name}_gpu": Alias(means, COMFY)}


SAMPLERS: dict[str, Alias] = {
    "euler_ancestral": Alias("euler-ancestral", K),
    "dpm_2": Alias("kdpm2", K),
    "dpm_2_ancestral": Alias("kdpm2-ancestral", K),
    "dpmpp_2s_ancestral": Alias("dpmpp-2s-ancestral", K),
    **_gpu("dpmpp_sde", "dpmpp-sde"),
    "dpmpp_2m": Alias("dpmpp-2m:released=true", K),
    **_gpu("dpmpp_2m_sde", "dpmpp-2m-sde:released=true"),
    "dpmpp_2m_sde_heun": Alias("dpmpp-2m-sde:released=true,solver_type=heun", COMFY),
    "dpmpp_2m_sde_heun_gpu": Alias("dpmpp-2m-sde:released=true,solver_type=heun", COMFY),
    **_gpu("dpmpp_3m_sde", "dpmpp-3m-sde:released=true,lower_order_final=false"),
    "res_multistep": Alias("dpmpp-2m:released=true,solver_type=heun", COMFY),
    "lcm": Alias("renoise", COMFY),
    "dpm_fast": Alias("", K, "it lays out levels of its own: write dpm-singlestep:order=3, or adapt its function"),
    "dpm_adaptive": Alias("", K, "it measures one error for the whole batch: write dpm-solver-23 (norm=batch is its rule)"),
    "uni_pc": Alias("", COMFY, "it ends at sigma 0.001: write unipc:order=3,variant=bh1,released=true; this ends at 0"),
    "uni_pc_bh2": Alias("", COMFY, "it ends at sigma 0.001: write unipc:order=3,variant=bh2,released=true; this ends at 0"),
    "ipndm_v": Alias("", COMFY, CLOSE.format("adams-bashforth:order=4")),
    "er_sde": Alias("", COMFY, CLOSE.format("er-sde:released=true")),
    "seeds_2": Alias("", COMFY, CLOSE.format("seeds-2")),
    "seeds_3": Alias("", COMFY, CLOSE.format("seeds-3")),
    "sa_solver": Alias("", COMFY, CLOSE.format("sa-solver")),
    "sa_solver_pece": Alias("", COMFY, CLOSE.format("sa-solver:pece=true")),
    "exp_heun_2_x0": Alias("", COMFY, CLOSE.format("seeds-2:eta=0")),
    "exp_heun_2_x0_sde": Alias("", COMFY, CLOSE.format("seeds-2")),
    "heunpp2": Alias("", COMFY, "Heun++ is not here: write heun"),
    "gradient_estimation": Alias("", COMFY, "gradient estimation is not here: write lml, which corrects directions too"),
    "res_multistep_ancestral": Alias("", COMFY, "its ancestral form is not here: write dpmpp-2m-sde:solver_type=heun"),
    **{name: Alias("", COMFY, CFG_PP) for name in (
        "euler_cfg_pp", "euler_ancestral_cfg_pp", "dpmpp_2s_ancestral_cfg_pp", "dpmpp_2m_cfg_pp", "res_multistep_cfg_pp",
        "res_multistep_ancestral_cfg_pp", "gradient_estimation_cfg_pp", "cfgpp_ud10_ab",
    )},
    "DDIMScheduler": Alias("ddim", DIFFUSERS),
    "EulerDiscreteScheduler": Alias("euler", DIFFUSERS),
    "EulerAncestralDiscreteScheduler": Alias("euler-ancestral", DIFFUSERS),
    "HeunDiscreteScheduler": Alias("heun", DIFFUSERS),
    "KDPM2DiscreteScheduler": Alias("kdpm2", DIFFUSERS),
    "KDPM2AncestralDiscreteScheduler": Alias("kdpm2-ancestral", DIFFUSERS),
    "LMSDiscreteScheduler": Alias("lms", DIFFUSERS),
    "DPMSolverMultistepScheduler": Alias("dpmpp-2m:released=true", DIFFUSERS),
    "DPMSolverSDEScheduler": Alias("dpmpp-sde", DIFFUSERS),
    "UniPCMultistepScheduler": Alias("unipc:order=2,variant=bh2,released=true", DIFFUSERS),
    "DEISMultistepScheduler": Alias("deis:order=2,variable=log-rho,released=true", DIFFUSERS),
    "FlowMatchEulerDiscreteScheduler": Alias("euler", DIFFUSERS),
    "DPMSolverSinglestepScheduler": Alias("", DIFFUSERS, "write dpmpp-singlestep (solver_order is order)"),
    "SASolverScheduler": Alias("", DIFFUSERS, CLOSE.format("sa-solver")),
    "PNDMScheduler": Alias("", DIFFUSERS, "write pndm (skip_prk_steps is start=plms)"),
    "DDPMScheduler": Alias("", DIFFUSERS, "write ddpm (variance_type fixed_large is variance=large)"),
    "LCMScheduler": Alias("", DIFFUSERS, "write renoise on the grid lcm"),
    "TCDScheduler": Alias("", DIFFUSERS, "write tcd on the grid tcd, which ends at 0"),
}  # fmt: skip

GRIDS: dict[str, Alias] = {
    "exponential": Alias("log-snr", K),
    "normal": Alias("linspace", K),
    "sgm_uniform": Alias("sgm-uniform", COMFY),
    "kl_optimal": Alias("kl-optimal", COMFY),
    "polyexponential": Alias("", K, "its rho bends log sigma: write log-snr (rho = 1), or levels="),
    "ddim_uniform": Alias("", COMFY, "write leading:steps_offset=1, which has n steps where it may have one more"),
    "linear_quadratic": Alias("", COMFY, "write levels="),
    "use_karras_sigmas": Alias("karras", DIFFUSERS),
    "use_exponential_sigmas": Alias("log-snr", DIFFUSERS),
    "use_beta_sigmas": Alias("beta", DIFFUSERS),
    "use_lu_lambdas": Alias("log-snr", DIFFUSERS),
}

OF_KIND = {"samplers": SAMPLERS, "grids": GRIDS}


def canonical(kind: str, text: str) -> str:
    """A name of ours for a name from elsewhere, with the options of both: "dpmpp_2m" is "dpmpp-2m:released=true".

    Args:
        kind: "samplers" or "grids".
        text: The name, with options behind it or without.

    Raises:
        OptionError: nothing here is the same; the message says what to write.
    """
    name, _, given = text.partition(":")
    alias = OF_KIND.get(kind, {}).get(name)
    if alias is None:
        return text
    if not alias.means:
        raise OptionError(f"{name!r} of {alias.of} has no exact counterpart here; {alias.instead}.")
    if not given:
        return alias.means
    ours, options = parse_options(alias.means)
    parse_options(text)  # refuses what is malformed
    own = {pair.partition("=")[0].strip() for pair in given.split(",")}
    kept = [f"{key}={value}".lower() for key, value in options.items() if key not in own]
    return f"{ours}:{','.join([given, *kept])}"
