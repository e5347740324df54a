"""What the core itself registers: grids, models, metrics and suites, through the same hooks as everyone else."""

from __future__ import annotations

from collections.abc import Callable

from . import grid as grids
from .hookspecs import hookimpl


@hookimpl
def register_grids(register: Callable[..., None]) -> None:
    register("karras", grids.karras, reference="Karras et al. 2022, eq. 5")
    register("log-snr", grids.log_snr, reference="Lu et al. 2022, section 3.3")
    register("time-uniform", grids.time_uniform, reference="Lu et al. 2022, appendix D")
    register("time-quadratic", grids.time_quadratic, reference="Song et al. 2021 (DDIM), appendix D.2")
    register("trailing", grids.trailing, reference="Lin et al. 2024, Table 2")
    register("leading", grids.leading, reference="Song et al. 2021 (DDIM), released code")
    register("linspace", grids.linspace, reference="Nichol and Dhariwal 2021, released code")
    register("flow", grids.flow, reference="Esser et al. 2024, eq. 23")
