"""docs/truth.md: every claim about released code that this project carries, measured again.

    python benchmarks/truth.py                      # all claims that take seconds, into benchmarks/results/truth.jsonl
    python benchmarks/truth.py unipc-edits tcd-end  # some, printed and not stored
    python benchmarks/truth.py --checks             # the table of `solverkit check`, into benchmarks/results/released.jsonl
    python benchmarks/tables.py truth --write

A claim that takes longer has a command of its own; its figure is read out of the page that carries it. The samplers of
k-diffusion are those of the installed package (docs/coming-from.md).
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from markdown_table import table

import solverkit as sk
from solverkit.foreign import proofs
from solverkit.foreign.named import foreign
from solverkit.proofs.finding import CheckError
from solverkit.proofs.order import measured_order
from solverkit.registry.registry import resolve
from solverkit.testing import check_foreign

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}

CHECKED = (
    *(f"k-diffusion:{name}" for name in (
        "euler", "euler_ancestral", "heun", "dpm_2", "dpm_2_ancestral", "lms", "dpm_fast", "dpm_adaptive",
        "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m_sde",
    )),
    *(f"diffusers:{name}" for name in (
        "DDIM", "DDPM", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete",
        "KDPM2AncestralDiscrete", "LMSDiscrete", "PNDM:skip_prk_steps=true", "DPMSolverMultistep",
        "DPMSolverMultistep:solver_order=3", "DPMSolverMultistep:algorithm_type=sde-dpmsolver++",
        "DPMSolverMultistep:solver_order=3,algorithm_type=sde-dpmsolver++", "DPMSolverSinglestep",
        "DPMSolverSinglestep:solver_order=3", "DPMSolverSDE", "DEISMultistep", "DEISMultistep:solver_order=3",
        "UniPCMultistep", "UniPCMultistep:solver_order=3", "SASolver", "FlowMatchEulerDiscrete",
    )),
)  # fmt: skip


class Claim(NamedTuple):
    """One claim: whose code, what is said of it, where the project says so, and how it is measured.

    `measure` takes seconds; where it is None, `command` makes the figure, `quoted` finds its parts a, b, ... in the page
    `where`, and `shown` says what they are.
    """

    of: str
    said: str
    where: str
    measure: Callable[[], str] | None = None
    command: str = ""
    quoted: str = ""
    shown: str = "{a}"


def check(name: str, which: str) -> str:
    """What `solverkit check NAME` finds, in words."""
    try:
        return str(getattr(proofs, f"check_{which}")(foreign(name)))
    except CheckError as error:
        return str(error).partition(" (errors")[0]


def order(name: str, said: int, **options: Any) -> float:
    return measured_order(resolve(name), options, sk.EDM(), said)[0]


def third_order() -> str:
    ours = order("dpmpp-3m", 3, lower_order_final=False)
    k, d = (
        proofs.measured_order(foreign(name), 3)[0]
        for name in ("k-diffusion:dpmpp_3m_sde", "diffusers:DPMSolverMultistep:solver_order=3")
    )
    return f"order {k:.2f} (k-diffusion) and {d:.2f} (diffusers); corrected {ours:.2f}"


def sde_third_order() -> str:
    first = check("diffusers:DPMSolverMultistep:solver_order=3,algorithm_type=sde-dpmsolver++", "law")
    second = check("k-diffusion:dpmpp_3m_sde", "law")
    return f"diffusers: {first}; k-diffusion: {second}"


def unipc_vary() -> str:
    options = {"variant": "vary", "lower_order_final": False, "order": 3}
    return f"order {order('unipc', 4, **options, released=True):.2f}; with all terms {order('unipc', 4, **options):.2f}"


def unipc_two_variants() -> str:
    target = sk.problems.mixture(dim=4, modes=3, schedule=sk.EDM())

    def ends(**options: Any) -> float:
        grid = sk.make_grid("log-snr", sk.EDM(), 40, last="min")
        made = [
            sk.sample(target, "unipc", grid=grid, num_samples=8, dtype=torch.float64, variant=v, lower_order_final=False,
                      **options).x
            for v in ("bh1", "bh2")
        ]  # fmt: skip
        return float((made[0] - made[1]).abs().max())

    return f"largest difference of two runs of 40 steps: order 2 {ends(order=2):.1e}, order 3 {ends(order=3):.1e}"


def v3_pseudo() -> str:
    options = {"stats": "data", "order": 3, "lower_order_final": False}
    released, full = (order("dpm-solver-v3", 4, corrector=c, pseudo=c == "pseudo", **options) for c in ("pseudo", "full"))
    return f"order {released:.2f} at order=3; with exact derivatives {full:.2f}"


def er_sde() -> str:
    options = {"phi": "ode", "order": 3, "lower_order_final": False}
    return f"order {order('er-sde', 3, **options, released=True):.2f}; corrected {order('er-sde', 3, **options):.2f}"


def ipndm_weights() -> str:
    return f"order {order('ipndm', 2):.2f} on steps of uneven length, four past slopes"


def flow_grpo() -> str:
    zero = sk.wrap(lambda x, t: torch.zeros_like(x), "sample", sk.Flow())
    left = [
        float(sk.sample(zero, "flow-sde", grid=sk.make_grid("flow:shift=3", sk.Flow(), n), shape=(1, 200, 200),
                        released=True).x.std())
        for n in (10, 28)
    ]  # fmt: skip
    return f"standard deviation {left[0]:.3f} at 10 steps, {left[1]:.3f} at 28 (0 is right)"


def tcd_end() -> str:
    import diffusers

    native = diffusers.TCDScheduler(**SD)
    native.set_timesteps(4)
    x = torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    for t in native.timesteps:
        sigma = (1 - native.alphas_cumprod[int(t)]).sqrt()
        x = native.step(x / sigma, t, x, eta=0.3, generator=torch.Generator().manual_seed(int(t))).prev_sample
    return f"data 0, exact epsilon: standard deviation {float(x.std()):.4f} (0 is right)"


def w2sd_interval() -> str:
    import diffusers

    layout = {"timestep_spacing": "leading", "steps_offset": 1, "clip_sample": False}
    forward = diffusers.DDIMScheduler(**SD, **layout, set_alpha_to_one=False)
    inverse = diffusers.DDIMInverseScheduler(**SD, **layout)
    for scheduler in (forward, inverse):
        scheduler.set_timesteps(50)
    x, eps = torch.randn(2, 1, 4, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    times, shown = forward.timesteps, []
    for i in (0, 45, 48):
        y = forward.step(eps, times[i], x, return_dict=False)[0]
        away, back = (
            float((inverse.step(eps, t, y, return_dict=False)[0] - x).norm() / x.norm()) for t in (times[i + 1], times[i])
        )
        shown.append(f"{away:.3f} (right timestep {back:.0e}) at step {i}")
    return "equal epsilons must lead back to x; |x'' - x| / |x| = " + ", ".join(shown)


def ancestral_variance() -> str:
    betas = torch.linspace(0.1 / 1000, 20 / 1000, 1000, dtype=torch.float64)
    kept = torch.cumprod(1 - betas, 0)
    posterior = betas[1] * (1 - kept[0]) / (1 - kept[1])
    return f"at the second of 1000 levels {float(betas[1] / posterior):.2f} times the posterior's"


def langevin_norms() -> str:
    target = sk.problems.mixture(dim=4, modes=3, schedule=sk.EDM())
    run = {"steps": 10, "corrector": "langevin", "dtype": torch.float64}
    shown = []
    for batch_norms in (True, False):
        together = sk.sample(target, "pc", num_samples=5, seed=3, batch_norms=batch_norms, **run).x
        alone = sk.sample(target, "pc", num_samples=1, seed=3, batch_norms=batch_norms, **run).x
        shown.append(float((alone[0] - together[0]).abs().max()))
    return f"a sample alone and among five differ by {shown[0]:.2f}; with norms of its own by {shown[1]:.0e}"


def ddpm_last_noise() -> str:
    import diffusers

    native = diffusers.DDPMScheduler(**SD, variance_type="fixed_large", timestep_spacing="trailing", clip_sample=False)
    native.set_timesteps(10)
    x = torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    draws = torch.Generator().manual_seed(1)
    for t in native.timesteps:
        x = native.step(x / (1 - native.alphas_cumprod[int(t)]).sqrt(), t, x, generator=draws).prev_sample
    return f"data 0, exact epsilon, 10 steps: standard deviation {float(x.std()):.3f} (0 is right)"


def ddim_next_timestep() -> str:
    import diffusers

    native = diffusers.DDIMScheduler(**SD, timestep_spacing="linspace", clip_sample=False)
    native.set_timesteps(7)
    z = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    t, after = native.timesteps[0], native.timesteps[1]
    x = z * (1 - native.alphas_cumprod[int(t)]).sqrt()
    x = native.step(z, t, x).prev_sample
    left, told = float((x / z).mean()), float((1 - native.alphas_cumprod[int(after)]).sqrt())
    return f"linspace, 7 steps: after the first the noise is {left:.4f} where the timestep {int(after)} tells {told:.4f}"


def add_noise_too_early() -> str:
    import diffusers

    shown = []
    for name in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler"):
        native = getattr(diffusers, name)(**SD)
        x = native.add_noise(torch.zeros(1, 4), torch.ones(1, 4), torch.tensor([900]))
        wanted = float((1 - native.alphas_cumprod[900]).sqrt())
        shown.append(f"{name.removesuffix('Scheduler')} {float(x[0, 0]):.3f}")
    return f"noise at timestep 900 before set_timesteps: {', '.join(shown)} (right: {wanted:.3f})"


def sigmas_above_one() -> str:
    import diffusers

    shown = []
    for name in ("DPMSolverMultistepScheduler", "DEISMultistepScheduler"):
        native = getattr(diffusers, name)(use_flow_sigmas=True, use_karras_sigmas=True, prediction_type="flow_prediction")
        native.set_timesteps(10)
        shown.append(f"{name.removesuffix('Scheduler')} {float(native.sigmas.max()):.1f}")
    return f"largest sigma of a flow with use_karras_sigmas: {', '.join(shown)} (at most 1 is one)"


def clip_switched_on() -> str:
    import diffusers

    config = dict(diffusers.DPMSolverMultistepScheduler(**SD).config)
    config["_class_name"] = "DPMSolverMultistepScheduler"
    made = [f"{n} {getattr(diffusers, n + 'Scheduler').from_config(config).config.clip_sample}" for n in ("DDIM", "DDPM")]
    return f"clip_sample of a config that has no such key: {', '.join(made)}"


def kdpm2_nan() -> str:
    return check("diffusers:KDPM2AncestralDiscrete", "finite")


COMING = "docs/coming-from.md"
NATIVE = "docs/diffusers.md"
TOKEN_PAGE = "docs/tokens.md"
INVERSE = "docs/inverse.md"
STUDENTS = "docs/students.md"
BENCHMARKS = "docs/benchmarks.md"
SYSTEMS = "docs/systems.md"
DPM = "plugins/dpm_solver/README.md"
STOCHASTIC = "plugins/stochastic/README.md"
CLASSIC = "plugins/classic/README.md"
PC = "plugins/predictor_corrector/README.md"
TOKENS = "python benchmarks/tokens_findings.py"
CLAIMS: dict[str, Claim] = {
    "third-order": Claim(
        "DPM-Solver++ 3M: LuChengTHU/dpm-solver, diffusers, k-diffusion (eta = 0)",
        "third order in name; its second difference is half the second derivative", DPM,
        third_order),
    "sde-third-order": Claim(
        "diffusers, DPMSolverMultistep, solver_order=3, sde-dpmsolver++",
        "the weight of the second difference is phi_3 - 1: a fault that does not vanish with the step",
        DPM, sde_third_order),
    "unipc-vary": Claim(
        "UniPC, wl-zhao/UniPC, vary_coeff", "the loop drops terms of the corrector", DPM,
        unipc_vary),
    "unipc-b": Claim(
        "UniPC, bh1 and bh2", "B(h) cancels but for two shortcuts: at order 3 it acts in warm-up and ending alone",
        DPM, unipc_two_variants),
    "unipc-start": Claim(
        "UniPC's released codes, flow models", "the step from alpha = 0 is left uncorrected", BENCHMARKS,
        command="python benchmarks/unipc_start.py mnist-flow",
        quoted=r"\| 10 \| (?P<a>\S+) \| (?P<b>\S+) \| (?P<c>[^|]+?) \|",
        shown="RMS error at NFE 10: {a} without the correction, {b} with it, ratio {c}"),
    "unipc-edits": Claim(
        "diffusers, UniPCMultistep", "an edit of the latents between steps is lost: the corrector begins again before it",
        COMING, lambda: check("diffusers:UniPCMultistep", "edits")),
    "sa-edits": Claim("diffusers, SASolver", "the same", COMING, lambda: check("diffusers:SASolver", "edits")),
    "singlestep-uneven": Claim(
        "diffusers, DPMSolverSinglestep, solver_order=3", "third order with steps of even length alone", COMING,
        lambda: check("diffusers:DPMSolverSinglestep:solver_order=3", "order")),
    "v3-derivatives": Claim(
        "DPM-Solver-v3, thu-ml/DPM-Solver-v3, pseudo", "order 2 whatever the order asked for", DPM,
        v3_pseudo),
    "v3-without-b": Claim(
        "DPM-Solver-v3's statistics", "l without b is worse than no statistics", "docs/model-statistics.md",
        command="python benchmarks/statistical_solvers.py --finding", quoted=r"\| l alone, in closed form \| (?P<a>\S+) ",
        shown="RMS error of one step: {a} (.397 without statistics)"),
    "er-sde-3": Claim(
        "ER-SDE, QinpengCui/ER-SDE-Solver, order 3", "slope and integrals are of lower order", STOCHASTIC, er_sde),
    "ipndm": Claim("iPNDM", "constant weights: order 2 whatever its length", CLASSIC, ipndm_weights),
    "adaptive-batch": Claim(
        "DPM-Solver-12 and -23: LuChengTHU/dpm-solver, k-diffusion", "a sample depends on its batch",
        DPM, lambda: check("k-diffusion:dpm_adaptive", "independence")),
    "one-stream": Claim(
        "k-diffusion, default noise", "a sample depends on its batch", COMING,
        lambda: check("k-diffusion:euler_ancestral", "independence")),
    "one-step": Claim(
        "k-diffusion, sample_dpmpp_2m_sde and sample_dpmpp_3m_sde", "fail where the first step ends at 0", COMING,
        lambda: check("k-diffusion:dpmpp_2m_sde", "finite")),
    "kdpm2-ancestral-nan": Claim(
        "diffusers, KDPM2AncestralDiscrete", "no level for the stage of a long step: a difference in float32", COMING,
        kdpm2_nan),
    "two-a-step": Claim(
        "diffusers, Heun, KDPM2, KDPM2Ancestral, DPMSolverSDE", "num_inference_steps is not the number of evaluations",
        COMING, lambda: check("diffusers:HeunDiscrete", "nfe")),
    "pndm-count": Claim(
        "diffusers, PNDM, skip_prk_steps", "one evaluation more than num_inference_steps", COMING,
        lambda: check("diffusers:PNDM:skip_prk_steps=true", "nfe")),
    "ddpm-last": Claim(
        "diffusers, DDPM, fixed_large, trailing", "noise in the result, where Ho et al. 2020 have none", CLASSIC,
        ddpm_last_noise),
    "ddim-next": Claim(
        "diffusers, DDIM", "takes t - T // N for the next timestep, also where it emits another", NATIVE,
        ddim_next_timestep),
    "add-noise": Claim(
        "diffusers, DPM++, UniPC, DEIS", "add_noise before set_timesteps looks up the wrong level", NATIVE,
        add_noise_too_early),
    "sigmas-above-one": Claim(
        "diffusers, DPM++, DEIS, flow with Karras sigmas", "levels that no flow has", NATIVE, sigmas_above_one),
    "clip-sample": Claim(
        "diffusers, DDIM, DDPM", "switch clip_sample on in a config without such a key", NATIVE, clip_switched_on),
    "dance-diffusion": Claim(
        "diffusers, IPNDM on Dance Diffusion's config", "takes x_0 for 0 at alpha = 0", NATIVE,
        command="python -m pytest tests/test_process_of_pipelines.py",
        quoted=r"wrong by (?P<a>6e-5), the class's by (?P<b>\S+)\.",
        shown="Gaussian data, 50 steps: the class ends {b} off, this {a}"),
    "tcd-end": Claim(
        "diffusers, TCD", "ends at timestep 0 of its table: noise is left", STUDENTS, tcd_end),
    "w2sd-interval": Claim(
        "W2SD and Z-Sampling, diffusers' DDIMInverse", "the inverse step is asked with the wrong timestep",
        STUDENTS, w2sd_interval),
    "flow-grpo": Claim("Flow-GRPO", "draws in the last step too: noise is left", "docs/rollouts.md", flow_grpo),
    "taylorseer": Claim(
        "TaylorSeer, and diffusers 0.42.1", "second order whatever max_order says; Newton's are of third", BENCHMARKS,
        command="python -m pytest tests/test_bench_cells.py -k newton",
        quoted=r"TaylorSeer's released weights (?P<a>forecast with second order whatever\s+their order says)"),
    "score-sde-ancestral": Claim(
        "yang-song/score_sde_pytorch, ancestral VP", "the variance is that of the forward step", PC,
        ancestral_variance),
    "score-sde-norms": Claim(
        "yang-song/score_sde_pytorch, Langevin", "norms are means over the batch: a sample depends on it",
        PC, langevin_norms),
    "s4": Claim(
        "GDSS, S4", "weak order 1, where a splitting has 2", SYSTEMS, command="python benchmarks/s4_order.py",
        quoted=r"\| S4, as released \|.*\| (?P<a>[^|]+?) \|\n",
        shown="order between 160 and 320 steps, data variance .02, .3 and 1: {a}"),
    "s4-batch": Claim(
        "GDSS, Langevin", "a graph depends on its batch mates", SYSTEMS, command="python benchmarks/s4_order.py",
        quoted=r"among eight differ by\s+(?P<a>\S+) \(RMS",
        shown="a graph alone and among eight differ by {a} (RMS over the adjacency)"),
    "daps": Claim(
        "DAPS", "the wrong law where its inner chain converges (the posterior has variance 0.25)", INVERSE,
        command="python benchmarks/inverse_findings.py daps", quoted=r"\| converged: the exact draw \| (?P<a>[^|]+?) \|",
        shown="variance {a}"),
    "diffpir": Claim(
        "DiffPIR", "rho overshoots at high noise: E[x_0 | x, y] at s = 5 is 0.794", INVERSE,
        command="python benchmarks/inverse_findings.py diffpir",
        quoted=r"\| 5 \| 0.794 \| 0.794 \| (?P<a>\S+) \| (?P<b>\S+) \|",
        shown="{a} at lam 1, {b} at lam 7"),
    "dps": Claim(
        "DPS", "one norm over the batch, and a law that is no posterior at any zeta (variance 0.200)", INVERSE,
        command="python benchmarks/inverse_findings.py dps",
        quoted=r"\| released, zeta 0.3, batches of 16 \| [^|]+ \| (?P<a>[^|]+?) \|",
        shown="variance {a} in batches of 16"),
    "lml": Claim(
        "LML-diffusion-sampler, kappa = 0", "the base solver, and in float32 rounding noise around it", "docs/lml.md",
        command="python benchmarks/lml_control.py", quoted=r"\| mnist \(784\) \| 0.9998 \| (?P<a>[^|]+?) \|",
        shown="RMS error over DDIM's on mnist at NFE 5, 10, 20: {a}"),
    "radd-precision": Claim(
        "RADD, float16 probabilities times rate", "the tail of the vocabulary is lost", TOKEN_PAGE,
        command=f"{TOKENS} precision", quoted=r"weight 0 to (?P<a>48142 tokens, lose\s+15.9 % of the mass)",
        shown="Zipf vocabulary of 50257 at rate 1/1024: weight 0 to {a}"),
    "drawn-confidence": Claim(
        "LLaDA, Dream, Fast-dLLM, LLaDA 2", "confidence of the drawn token is biased with an exact network", TOKEN_PAGE,
        command=f"{TOKENS} confidence", quoted=r"(?P<a>\.36 from the law in total variation)",
        shown="3 tokens of 3 kinds, one an evaluation: {a}"),
    "theta-trapezoidal": Claim(
        "theta-trapezoidal", "order 1 where tokens depend strongly", TOKEN_PAGE, command=f"{TOKENS} trapezoidal",
        quoted=r"Strongly dependent, Dirichlet\(\.3\): (?P<a>1\.00 \(theta \.5\) and \.95 \(theta \.3\))",
        shown="order {a}"),
    "remdm": Claim(
        "ReMDM", "with an exact network remasking makes the law worse", TOKEN_PAGE, command=f"{TOKENS} remasking",
        quoted=r"n = 128: (?P<a>ancestral 1\.9e-3, rescale \.05 3\.1e-3, cap \.05 6\.5e-3)",
        shown="total variation at 128 steps: {a}"),
    "discrete-ddim": Claim(
        "diffusers, DiscreteDDIM, corrector", "its default selection does not keep the law", TOKEN_PAGE,
        command=f"{TOKENS} gibbs", quoted=r"log-margin \(diffusers' default\) (?P<a>\.046, \.13, \.13)",
        shown="total variation after 1, 10 and 200 sweeps: {a}"),
    "dream-counts": Claim(
        "Dream", "the first evaluation reveals nothing", TOKEN_PAGE, command=f"{TOKENS} dream",
        quoted=r"256 masks in 256 steps, (?P<a>the first evaluation reveals nothing and the last two)",
        shown="256 masks in 256 steps: {a}"),
    "entropy-bound": Claim(
        "diffusers, EntropyBound", "returns random ids where nothing was accepted", TOKEN_PAGE,
        command=f"{TOKENS} leftovers",
        quoted=r"EntropyBound on flat logits (?P<a>accepts 1\.6 % of 64 positions in the last of 8 steps)",
        shown="flat logits: {a}"),
    "minimal-topk": Claim(
        "diffusers, BlockRefinement", "minimal_topk is not used", TOKEN_PAGE, command=f"{TOKENS} leftovers",
        quoted=r"BlockRefinement (?P<a>commits one token with `minimal_topk` 1 and with 8)"),
}  # fmt: skip
FORMULA = {  # measured on the formula as published, written here, and not on the released code itself
    "unipc-vary", "unipc-b", "unipc-start", "v3-derivatives", "v3-without-b", "er-sde-3", "ipndm", "flow-grpo",
    "taylorseer", "score-sde-ancestral", "score-sde-norms", "s4", "s4-batch", "daps", "diffpir", "dps", "lml",
    "radd-precision", "drawn-confidence", "theta-trapezoidal", "remdm", "discrete-ddim", "dream-counts",
}  # fmt: skip
READ = (  # what no figure is needed for, or none was made
    ("Restart", "adds no noise unless S_noise is given", "plugins/stochastic/README.md"),
    ("SA-Solver", "adds terms of O(h^3) to its second-order weights", "plugins/stochastic/README.md"),
    ("RED-diff", "takes means over the batch", "plugins/posterior/README.md"),
    ("DAPS", "returns zeros on NaN", "plugins/posterior/README.md"),
    ("qsh-zh/deis", "sums over 10000 rectangles what can be integrated exactly", CLASSIC),
    ("diffusers, PNDM with velocities", "sums outputs of different levels before it makes a slope", CLASSIC),
)  # fmt: skip


def command(name: str) -> str:
    """The one command that makes the row."""
    return CLAIMS[name].command or f"python benchmarks/truth.py {name}"


def row(name: str) -> dict[str, str]:
    """A claim, measured now or read out of its page.

    Raises:
        ValueError: the page does not have the figure any more.
    """
    claim = CLAIMS[name]
    if claim.measure is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            measured = claim.measure()
    else:
        text = (ROOT / claim.where).read_text(encoding="utf-8")
        found = re.search(claim.quoted, text)
        if found is None:
            raise ValueError(f"{claim.where} has no figure for {name}: {claim.quoted}")
        measured = claim.shown.format(**{key: " ".join(part.split()) for key, part in found.groupdict().items()})
    return {
        "name": name, "of": claim.of, "said": claim.said, "measured": measured, "where": claim.where,
        "command": command(name), "ran": "formula" if name in FORMULA else "package",
    }  # fmt: skip


def link(where: str) -> str:
    """A page of docs/, as it is linked from there; a page of a plugin, by its folder."""
    if where.startswith("docs/"):
        page = where.removeprefix("docs/")
        return f"[{page}]({page})"
    return f"`{where.rpartition('/')[0]}`"


def truth(results: Path) -> str:
    """The table of docs/truth.md."""
    rows = [json.loads(line) for line in (results / "truth.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [
        [r["of"] + (" *" if r["ran"] == "formula" else ""), r["said"], r["measured"], link(r["where"]), f"`{r['command']}`"]
        for r in rows
    ]
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return table(["released code", "what is said here", "measured", "said in", "command"], lines)


def read_only(results: Path) -> str:
    """What was read and not measured."""
    return table(["released code", "what was read", "said in"], [[of, said, link(where)] for of, said, where in READ])


def said(check: dict[str, Any]) -> str:
    """What a check found, without the errors behind an order."""
    return str(check["detail"]).partition(" (errors")[0]


def checks(results: Path) -> str:
    """What released code proves: the table of `solverkit check`."""
    rows = [json.loads(line) for line in (results / "released.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = []
    for r in rows:
        failed = [c for c in r["checks"] if not c["passed"]]
        why = "; ".join(f"**{c['name']}**: {said(c)}{', because ' + c['cause'] if c['cause'] else ''}" for c in failed)
        first = said(r["checks"][0]) if r["checks"][0]["passed"] else ""
        lines.append([f"`{r['name']}`", f"{len(r['checks']) - len(failed)} of {len(r['checks'])}", why or first or "-"])
    head = ["`solverkit check`", "passed", "what fails, and why; where nothing does, the order"]
    return table(head, [[cell.replace("|", "\\|") for cell in line] for line in lines])


TABLES = {"truth": truth, "truth-read": read_only, "truth-checks": checks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="claims; default: all, and store the rows", metavar="NAME")
    parser.add_argument("--checks", action="store_true", help="run solverkit check on released samplers; some minutes")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in CLAIMS]
    if unknown:
        parser.error(f"no claim {unknown[0]!r}; there are {', '.join(CLAIMS)}")
    logging.disable(logging.WARNING)
    if arguments.checks:
        lines = []
        for name in CHECKED:
            results = check_foreign(name)
            made = {"name": name, "package": foreign(name).package, "checks": [r._asdict() for r in results]}
            lines.append(json.dumps(made))
            print(name, f"{sum(r.passed for r in results)} of {len(results)}", flush=True)
        (RESULTS / "released.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return
    rows = []
    for name in arguments.names or CLAIMS:
        rows.append(row(name))
        print(f"{name}: {rows[-1]['measured']}\n    {rows[-1]['command']}", flush=True)
    if not arguments.names:
        (RESULTS / "truth.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
