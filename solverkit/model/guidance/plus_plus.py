"""CFG++: the guided prediction is renoised with the unconditional epsilon."""

from __future__ import annotations

from ...errors import OptionError, ScheduleError
from ...grid.grid import Grid
from ...process.level import Level
from ...process.places import level_bits
from ..denoiser import DenoiserLike
from .classifier_free import ClassifierFree
from .wrapped import number


class PlusPlusScale:
    """scale r / (r - r_next) at the levels of a grid, r = sigma / alpha; see `cfg_plus_plus`."""

    def __init__(self, grid: Grid, scale: float) -> None:
        if not isinstance(grid, Grid):
            raise OptionError(f"grid must be the Grid that is run (sk.make_grid), got {type(grid).__name__}.")
        self.grid, self.scale = grid, number("scale", scale)
        self._next = {level_bits(s): t.ratio for s, t in zip(grid, list(grid)[1:])}

    def __call__(self, level: Level) -> float:
        following = self._next.get(level_bits(level))
        if following is None:
            raise OptionError(
                f"CFG++ is a rule for steps of the grid that it was made for, and {level!r} does not start one: run a "
                "first-order sampler (ddim, euler) on that grid, sk.sample(..., grid=grid)."
            )
        return self.scale / (1.0 - following / level.ratio)

    def __repr__(self) -> str:
        return f"PlusPlusScale({self.scale:g}, {len(self.grid) - 1} steps)"


def cfg_plus_plus(
    conditional: DenoiserLike, unconditional: DenoiserLike, grid: Grid, scale: float = 0.6, batched: bool = False
) -> ClassifierFree:
    """CFG++ (Chung et al. 2024, Algorithm 2): step to the guided prediction, renoise with the unconditional epsilon.

    With D_w = D_u + w (D_c - D_u) and epsilon_u = (x - alpha D_u) / s, their step from s to t is x' = alpha_t D_scale + t
    epsilon_u. A first-order step of a guided denoiser is x' = alpha_t D_w + (t / s) (x - alpha D_w). The two are equal for
    w = scale r_s / (r_s - r_t), r = sigma / alpha: classifier-free guidance whose scale depends on the step, and is `scale`
    itself in the step to 0.

        grid = sk.make_grid("trailing", d.schedule, 20)
        sk.sample(sk.guidance.cfg_plus_plus(conditional, unconditional, grid), "ddim", grid=grid, num_samples=16)

    That is exact for deterministic first-order steps (ddim, euler). A step of higher order combines predictions of several
    levels, whose scales would belong to other steps, and a stochastic one renoises from another level: CFG++ of those is a
    sampler that sees both predictions, and this denoiser is not it. It refuses levels inside a step.

    Args:
        conditional, unconditional: As in `classifier_free`.
        grid: The grid that is run.
        scale: Their lambda, in [0, 1].
        batched: As in `classifier_free`.

    Raises:
        OptionError: no Grid, or a scale that is no number. When called: a level that does not start a step of the grid.
        ScheduleError, DenoiserError: as `classifier_free`; also a grid of another schedule.
    """
    made = ClassifierFree(conditional, unconditional, PlusPlusScale(grid, scale), batched, 0.0)
    if grid.schedule != made.schedule:
        raise ScheduleError(f"the grid is of {grid.schedule}, the denoisers of {made.schedule}: make it with theirs.")
    return made
