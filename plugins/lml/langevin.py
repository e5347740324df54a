"""Langevin steps at a level in a metric that carries information, alone or as a corrector."""

from __future__ import annotations

from typing import Any, Literal

import solverkit as sk
from solverkit import GaussianStats, Grid, Level
from solverkit.errors import OptionError

from .metric import adapted, metric_step, probe

Source = Literal["gaussian", "secant"]


def lm_correct(
    model: Any, x: Any, s: Level, noise: Any, stats: str | GaussianStats | None = None, metric: Source = "secant",
    n_steps: int = 1, snr: float = 0.3, damping: float = 0.1, probes: int = 1, adapt: bool = True,
    pooled: bool = False,
) -> Any:  # fmt: skip
    """n_steps of `metric_step` at level s; (1 + probes) evaluations each. Options as in `lm_langevin`."""
    if n_steps < 1 or not snr > 0 or not damping > 0 or probes < 0:
        given = f"{n_steps}, {snr}, {damping}, {probes}"
        raise OptionError(f"lm-langevin needs n_steps >= 1, snr > 0, damping > 0 and probes >= 0, got {given}.")
    if pooled and metric != "secant":
        raise OptionError("pooled= is of the secant metric; the Gaussian one is the same for all samples anyway.")
    if metric == "gaussian" and stats is None:
        raise OptionError('metric="gaussian" needs stats=: GaussianStats, a bundled name, a file or a hub id.')
    gaussian = GaussianStats.load(stats) if stats is not None and metric == "gaussian" else None
    share: Any = float(damping)
    moved: list[Any] = []
    answered: list[Any] = []
    before: Any = None
    asked = probes if gaussian is None else 0  # the Gaussian needs none
    for _ in range(n_steps):
        denoised = model(x, s)
        if before is not None:
            moved, answered = [*moved[-1:], x - before[0]], [*answered[-1:], denoised - before[1]]
            if adapt:
                stats_before, moved_before, answered_before = before[2]
                share = adapted(
                    moved[-1], answered[-1], stats_before, moved_before, answered_before, pooled, s, share
                )
        fresh_moved, fresh_answered = moved, answered  # the last two secants; older ones are of other places
        direction: Any = noise(s, s) if asked else None
        for _ in range(asked):
            step = probe(direction, s, 0.5)
            direction = model(x + step, s) - denoised
            fresh_moved, fresh_answered = [*fresh_moved, step], [*fresh_answered, direction]
        known: Any = (gaussian, [], []) if gaussian is not None else (None, fresh_moved, fresh_answered)
        before = (x, denoised, known)
        x = metric_step(x, denoised, noise(s, s), known[0], known[1], known[2], pooled, s, share, float(snr))
    return x


@sk.sampler(
    "lm-langevin",
    linear=False,
    reference="arXiv 2505.24222; Girolami and Calderhead 2011",
    cite="wang2025lml girolami2011",
    variants=({"metric": "gaussian", "stats": "isotropic:variance=0.8"}, {"probes": 0, "n_steps": 1}),
    option_examples=({"metric": "gaussian", "stats": "isotropic:variance=0.5"}, {"stats": "isotropic:variance=0.5"}),
    informed=True,
)
def lm_langevin(
    model: Any,
    x: Any,
    grid: Grid,
    noise: Any,
    stats: str | GaussianStats | None = None,
    metric: Source = "secant",
    n_steps: int = 2,
    snr: float = 0.3,
    damping: float = 0.1,
    probes: int = 1,
    adapt: bool = True,
    pooled: bool = False,
) -> Any:
    """Annealed Langevin dynamics whose steps are preconditioned by an estimate of the Hessian of log p, damped.

    At each level n_steps of x+ = x + eps P score + noise, P = (H + delta I)^-1 frozen over the step, eps by the SNR rule in
    the metric; then on to the next level, and at the end the denoised prediction. About N n_steps (1 + probes)
    evaluations, N n_steps in the Gaussian metric. As a corrector: `pc` with
    corrector="lm-langevin:metric=gaussian,stats=mnist".
    Source: the Levenberg-Marquardt idea of arXiv 2505.24222 with a Hessian that carries information; Girolami and
    Calderhead 2011, section 5, with a metric that is constant over a step; formulas in `metric.py`.

    Args:
        stats: For the Gaussian metric: `GaussianStats`, a bundled name, a file, or a hub id.
        metric: "gaussian" or "secant".
        n_steps: Steps a level.
        snr: Signal-to-noise ratio of a step, in the metric.
        damping: Of the first step, as a share of the largest curvature.
        probes: Finite differences a step that teach the secant metric, one evaluation each.
        pooled: One secant metric for the whole batch, from all its pairs: much better, and a sample then depends on its
            batch.
        adapt: Halve or double the damping by how well the metric predicted the change of D.
    """
    for s, t in grid.steps():
        x = lm_correct(model, x, s, noise, stats, metric, n_steps, snr, damping, probes, adapt, pooled)
        if t == 0:
            return model(x, s)
        x = (s.scale / t.scale) * x
    return x


lm_langevin.corrector = lm_correct  # type: ignore[attr-defined]  # how `pc` finds it
