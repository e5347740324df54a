"""Tables of docs/teleportation.md, from the rows of benchmarks/suites/teleportation.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markdown_table import short, table

from solverkit.bench.store import latest, read

SOLVERS = ("dpmpp-2m", "unipc", "heun", "deis", "ipndm", "dpmpp-3m")
MODELS = ("mixture", "mnist", "mnist-flow")
BUDGETS = (5, 10)
DEFAULTS = {"mixture": "karras", "mnist": "trailing", "mnist-flow": "flow"}  # of sk.sample, where no grid is named
BY_HAND = {"mnist": "trailing", "mnist-flow": "flow:shift=3"}  # what docs/benchmarks.md found best
SWEPT = ("karras", "log-snr", "time-uniform", "flow", "trailing")
NAMES = {"dpmpp-2m": "2M", "unipc": "UniPC"}


class Errors:
    """Errors of the rows that have what is asked for."""

    def __init__(self, results: Path) -> None:
        self.rows = [row for row in latest(read(results / "teleportation.jsonl")) if row["status"] == "ok"]

    def all(self, **wanted: Any) -> list[float]:
        def fits(row: dict[str, Any]) -> bool:
            flat = {"skip_to": "auto", "jump": "gaussian", **row["options"]}
            flat |= {key: row[key] for key in ("model", "sampler", "budget", "grid")}
            return all(flat.get(key) == value for key, value in wanted.items())

        return [row["ode_error"] for row in self.rows if fits(row)]

    def one(self, **wanted: Any) -> float:
        return self.all(**wanted)[0]

    def best(self, model: str, solver: str, budget: int) -> float:
        """Of a solver without a jump, on the best of the swept grids and the default one."""
        grids = dict.fromkeys((*SWEPT, DEFAULTS[model]))
        return min(self.one(model=model, sampler=solver, budget=budget, grid=grid) for grid in grids)

    def auto(self, model: str, solver: str, budget: int, skip_to: str = "auto") -> float:
        return self.one(model=model, sampler="teleport", solver=solver, skip_to=skip_to, budget=budget)


def gain(results: Path) -> str:
    """Error with a jump over that of the same solver without one."""
    errors, lines = Errors(results), []
    for model in MODELS:
        for solver in SOLVERS:
            ratios = [errors.auto(model, solver, n) / errors.best(model, solver, n) for n in BUDGETS]
            lines.append([f"{model}, {solver}", *(f"{ratio:.2f}" for ratio in ratios)])
        ratios = [
            errors.one(model=model, sampler="gaussian-exponential", budget=n) / errors.best(model, "dpmpp-2m", n)
            for n in BUDGETS
        ]
        lines.append([f"{model}, gaussian-exponential over 2M", *(f"{ratio:.2f}" for ratio in ratios)])
    return table(["", *(f"NFE {n}" for n in BUDGETS)], lines)


def by_hand(results: Path) -> str:
    """Best solver against best solver, on the grids that were chosen by hand."""
    errors, lines = Errors(results), []
    for model, grid in BY_HAND.items():
        budgets = (5, 10)
        plain = [min(errors.one(model=model, sampler=s, budget=n, grid=grid) for s in SOLVERS) for n in budgets]
        jumped = [min(errors.auto(model, s, n) for s in SOLVERS) for n in budgets]
        for name, values, others in (("no jump", plain, jumped), ("teleport", jumped, plain)):
            cells = [
                f"**{short(a, 3)}**" if round(a, 3) <= round(b, 3) else short(a, 3) for a, b in zip(values, others)
            ]
            lines.append([f"{model}, {name}", *cells])
    return table(["", "NFE 5", "NFE 10"], lines)


def parts(results: Path) -> str:
    """What the new levels gain, and what the jump."""
    errors, lines = Errors(results), []
    for model in MODELS:
        for solver in NAMES:
            kinds = [
                [errors.best(model, solver, n) for n in (5, 10)],
                [errors.auto(model, solver, n, "none") for n in (5, 10)],
                [errors.auto(model, solver, n) for n in (5, 10)],
            ]
            least = [min(round(kind[i], 3) for kind in kinds) for i in (0, 1)]
            cells = [
                ", ".join(f"**{short(v, 3)}**" if round(v, 3) == low else short(v, 3) for v, low in zip(kind, least))
                for kind in kinds
            ]
            lines.append([f"{model}, {NAMES[solver]}, NFE 5, 10", *cells])
    return table(["", "best grid", "levels laid anew", 'and a jump ("auto")'], lines)


TABLES = {"teleportation-gain": gain, "teleportation-by-hand": by_hand, "teleportation-parts": parts}
