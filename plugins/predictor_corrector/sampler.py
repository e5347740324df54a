"""The predictor-corrector sampler, the published recipes, and the family from the reverse SDE to the probability flow."""

from __future__ import annotations

import math
from typing import Any, Literal

import solverkit as sk
from solverkit import Grid, Level
from solverkit.errors import OptionError
from solverkit.plan.plan import advance, begin
from solverkit.plan.trace import trace
from solverkit.registry.registry import resolve
from solverkit.steps import parse_options

from .langevin import annealed_size, annealed_step, langevin_step
from .released import released_pc
from .transition import PREDICTORS, Transition

SONG_2021 = "Song et al. 2021, arXiv 2011.13456"
CORRECTORS = ("langevin", "annealed-langevin", "none")
Order = Literal["corrector-first", "predictor-first"]


def correct(
    model: Any, x: Any, s: Level, noise: Any, corrector: str, n_steps: int, snr: float, batch_norms: bool = False
) -> Any:
    """n_steps corrector steps at level s, one evaluation each, or those of a sampler that has a `corrector`."""
    if corrector not in CORRECTORS:
        name, options = parse_options(corrector)
        other = getattr(resolve(name).fn, "corrector", None)
        if other is None:
            known = ", ".join(CORRECTORS)
            raise OptionError(f"{name!r} is no corrector: {known}, or a sampler with one, such as lm-langevin.")
        return other(model, x, s, noise, **{"n_steps": n_steps, **options})
    for _ in range(n_steps if corrector != "none" else 0):
        denoised = model(x, s)
        z = noise(s, s)
        if corrector == "langevin":
            x = langevin_step(x, denoised, z, float(s), s.alpha, snr, batch_norms=batch_norms)
        else:
            x = annealed_step(x, denoised, z, float(s), s.alpha, annealed_size(float(s), snr))
    return x


def predict(x: Any, denoised: Any, s: Level, t: Level, transition: Transition, noise: Any) -> Any:
    """The predictor's step in the frame: own x = k x and own score = (alpha D - x) / (k s^2)."""
    c_x, c_score, std = transition
    weight = c_score / (s.scale * s * s)
    x = ((c_x * s.scale - weight) / t.scale) * x + (weight * s.alpha / t.scale) * denoised
    return x + (std / t.scale) * noise(s, t) if std > 0 else x


def _pc_order(options: dict[str, Any]) -> int | None:
    quiet = options["corrector"] == "none" and options["predictor"] == "probability-flow"
    return 1 if quiet and not options["released"] else None


@sk.sampler(
    "pc",
    order=_pc_order,
    linear=lambda options: options["corrector"] in ("annealed-langevin", "none"),
    reference=SONG_2021,
    cite="song2021sde",
    variants=(
        {"corrector": "none"},
        {"predictor": "euler-maruyama", "corrector": "none"},
        {"predictor": "ancestral", "corrector": "annealed-langevin", "snr": 0.1, "n_steps": 2},
        {"predictor": "probability-flow", "corrector": "none"},
        {"predictor": "dpmpp-2m", "sequence": "predictor-first"},
        {"predictor": "heun", "corrector": "none"},
        {"predictor": "unipc:order=2"},
        {"predictor": "none", "n_steps": 2},
    ),
)
def pc(
    model: Any,
    x: Any,
    grid: Grid,
    noise: Any,
    predictor: str = "reverse-diffusion",
    corrector: str = "langevin",
    n_steps: int = 1,
    snr: float = 0.16,
    sequence: Order = "corrector-first",
    batch_norms: bool = False,
    released: bool = False,
) -> Any:
    """Predictor-corrector sampling: at each level n_steps of the corrector, then one step of the predictor.

    A predictor step costs one evaluation and each corrector step another: N (n_steps + 1) for N grid steps. The step to
    noise level 0 is the denoised prediction itself; from alpha = 0, predictors that have no limit there noise it again.
    Any other traceable sampler can be the predictor, with its options behind its name ("unipc:order=2"): its plan is driven
    with the corrector at the start of each of its steps.
    Stochastic, except with corrector="none" and a deterministic predictor. Langevin steps of a fixed SNR have a bias that
    does not vanish with the grid.
    Source: Song et al. 2021, Algorithms 1 to 5; reference: yang-song/score_sde.

    Args:
        predictor: "reverse-diffusion", "euler-maruyama", "ancestral", "probability-flow", "none", or a sampler's name.
        corrector: "langevin" (step from the SNR of each sample), "annealed-langevin" (step from the level), "none", or a
            sampler that has a corrector, with its options ("lm-langevin:stats=mnist"; its snr is its own).
        n_steps: Corrector steps a level.
        snr: Signal-to-noise ratio of a corrector step; larger is smoother.
        sequence: Corrector before the predictor, as published, or after it at the new level.
        batch_norms: The published rule, means of the norms over the batch: a sample then depends on its batch.
        released: The released update with its own discretisation (see `released.py`): VE and VP in continuous time only.
    """
    if n_steps < 1 or not 0 < snr < math.inf:
        raise OptionError(f"pc needs n_steps >= 1 and snr > 0, got n_steps={n_steps} and snr={snr}.")
    name, options = parse_options(predictor)
    if released:
        return released_pc(model, x, grid, noise, predictor, corrector, n_steps, snr, sequence, batch_norms)

    def corrected(y: Any, level: Level) -> Any:
        return correct(model, y, level, noise, corrector, n_steps, snr, batch_norms)

    if name not in PREDICTORS:
        return _around(model, x, grid, noise, name, options, corrected, sequence)
    for s, t in grid.steps():
        if sequence == "corrector-first":
            x = corrected(x, s)
        if name == "none" and t > 0:
            x = (s.scale / t.scale) * x
        else:
            denoised = model(x, s)
            if t == 0:
                return denoised
            if s.alpha == 0 and name in ("ancestral", "euler-maruyama"):
                x = t.alpha * denoised + float(t) * noise(s, t)  # the posterior q(x_t | x_0 = D) from pure noise
            else:
                x = predict(x, denoised, s, t, PREDICTORS[name](s, t, grid), noise)
        if sequence == "predictor-first":
            x = corrected(x, t)
    return x


def _around(
    model: Any, x: Any, grid: Grid, noise: Any, name: str, options: dict[str, Any], corrected: Any, sequence: str
) -> Any:
    """Drive another sampler's plan, with the corrector before each of its steps, or after each."""
    plan = trace(name, grid, **options)
    x, state = begin(plan, x, noise.draw)
    for j, (level, boundary) in enumerate(zip(plan.levels, plan.boundary)):
        if boundary and sequence == "corrector-first":
            grid.begin_step()
            x = corrected(x, level)
        elif boundary:
            x = corrected(x, level) if j > 0 else x
            grid.begin_step()
        x, state = advance(plan, state, x, plan.ask(j, model, x), noise.draw)
    return corrected(x, grid[-1]) if sequence == "predictor-first" and grid[-1] > 0 else x


@sk.sampler("pc-ve", linear=False, reference=SONG_2021, cite="song2021sde")
def pc_ve(model: Any, x: Any, grid: Grid, noise: Any, snr: float = 0.16, n_steps: int = 1) -> Any:
    """The recipe of the VE models: reverse diffusion with one Langevin step a level, SNR 0.16 (CIFAR-10; CelebA 0.17).

    Stochastic; N (n_steps + 1) evaluations. The same as `pc` with its defaults.
    Source: Song et al. 2021, Table 1 (PC, reverse diffusion); yang-song/score_sde, configs/ve.

    Args:
        snr, n_steps: As in `pc`.
    """
    return pc(model, x, grid, noise, "reverse-diffusion", "langevin", n_steps, snr)


@sk.sampler("pc-vp", reference=SONG_2021, cite="song2021sde")
def pc_vp(model: Any, x: Any, grid: Grid, noise: Any) -> Any:
    """The recipe of the continuous VP and sub-VP models: Euler-Maruyama without a corrector.

    Stochastic; one evaluation a step.
    Source: yang-song/score_sde, configs/vp and configs/subvp.
    """
    return pc(model, x, grid, noise, "euler-maruyama", "none")


@sk.sampler("ncsn", reference="Song and Ermon 2019, arXiv 1907.05600", cite="song2019")
def ncsn(model: Any, x: Any, grid: Grid, noise: Any, n_steps: int = 5, snr: float = 0.316) -> Any:
    """Annealed Langevin dynamics: no predictor, n_steps of the corrector at each level.

    Published: NCSN n_steps=100, snr=0.316 on 10 levels; NCSNv2 n_steps=5, snr=0.176 on 232 levels (CIFAR-10). The default
    has the steps of the latter and the size of the former. eps = 2 (snr sigma)^2, that is
    snr = sqrt(step_lr / (2 sigma_min^2)). Stochastic; about N n_steps evaluations.
    Source: Song and Ermon 2019, Algorithm 1; Song and Ermon 2020.

    Args:
        n_steps: Langevin steps a level.
        snr: As in `pc`.
    """
    return pc(model, x, grid, noise, "none", "annealed-langevin", n_steps, snr)


@sk.sampler(
    "reverse-sde",
    order=lambda options: 1 if options["flow_share"] == 1 else None,
    reference="Huang et al. 2021, arXiv 2106.02808",
    cite="huang2021",
    variants=({"flow_share": 1.0}, {"flow_share": 0.5}),
)
def reverse_sde(model: Any, x: Any, grid: Grid, noise: Any, flow_share: float = 0.0) -> Any:
    """The family of reverse processes with the same marginals, solved exactly for a frozen denoised prediction.

    Drift (1 - l/2) g^2 score - f and diffusion sqrt(1 - l) g: l = 0 is the reverse SDE (then equal to `ddpm`), l = 1 the
    probability flow (then equal to `ddim`). With q = 1 - l and r = e^-h the step is
    x+ = (t/s) r^q x + alpha_t (1 - r^(1+q)) D + t sqrt(1 - r^(2q)) z, in every frame and from alpha = 0.
    Order 1 at l = 1; first order in law else; one evaluation a step.
    Source: Huang, Lim, Courville 2021, eq. 17 and section 4.

    Args:
        flow_share: l, 0 to 1.
    """
    if not 0 <= flow_share <= 1:
        raise OptionError(f"flow_share must be between 0 (reverse SDE) and 1 (probability flow), got {flow_share}.")
    q = 1 - flow_share
    for s, t in grid.steps():
        denoised = model(x, s)
        r = t * s.alpha / (t.alpha * s)
        kept = r**q if q > 0 else 1.0
        x = (t / s * kept) * x + (t.alpha * (1 - kept * r)) * denoised
        if t > 0 and q > 0:
            x = x + (t * math.sqrt(1 - kept * kept)) * noise(s, t)
    return x



