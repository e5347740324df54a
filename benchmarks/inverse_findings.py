"""Posterior samplers on Gaussians: which are exact, how wide DAPS is, what DiffPIR's rho does, what DPS steps by.

    python benchmarks/inverse_findings.py          prints the tables of docs/inverse.md; some minutes on one CPU core
    python benchmarks/inverse_findings.py daps     one of: law, daps, diffpir, dps

All laws are known in closed form. An interval is two standard errors of the figure at the number of draws given.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch
from markdown_table import table

import solverkit as sk
from solverkit import inverse
from solverkit.problems import ExactDenoiser, GaussianMixture, gaussian, posterior

DRAWS = 4096


def normal(dim: int, variance: float = 1.0, schedule: Any = None) -> ExactDenoiser:
    """N(0, variance I)."""
    eye = torch.eye(dim, dtype=torch.float64)[None]
    target = GaussianMixture(torch.ones(1), torch.zeros(1, dim), eye, torch.full((1, dim), variance))
    return ExactDenoiser(target, sk.EDM() if schedule is None else schedule)


def apart(x: torch.Tensor, exact: GaussianMixture) -> list[str]:
    """RMS errors of mean and covariance, in units of the exact standard deviations."""
    size = exact.covariance.diagonal().sqrt()
    mean = float(((x.mean(0) - exact.mean) / size).square().mean().sqrt())
    moved = (torch.cov(x.T) - exact.covariance) / (size[:, None] * size)
    return [f"{mean:.3f}", f"{float(moved.square().mean().sqrt()):.3f}"]


def law() -> None:
    """Mean and covariance of 4096 draws against the posterior's: a full covariance, and N(0, I)."""
    std, dim = 0.3, 6
    methods: list[tuple[str, Any, str, dict[str, Any]]] = [
        ("mmps, 3 iterations", lambda *m: inverse.mmps(*m, iterations=3), "heun", {"steps": 25}),
        ("mmps, 1 iteration", lambda *m: inverse.mmps(*m, iterations=1), "heun", {"steps": 25}),
        ("pigdm", inverse.pigdm, "heun", {"steps": 25}),
        ("tmpd", inverse.tmpd, "heun", {"steps": 25}),
        ("diffpir, exact rho", inverse.diffpir, "heun", {"steps": 25}),
        ("diffpir, released rho", lambda *m: inverse.diffpir(*m, rho="released"), "heun", {"steps": 25}),
        ("diffpir, released rho, zeta 0.1", lambda *m: inverse.diffpir(*m, rho="released"), "cps",
         {"steps": 50, "eta": 2 / math.pi * math.asin(math.sqrt(0.1))}),
        ("dps, zeta 0.3", inverse.measured, "dps", {"steps": 50, "zeta": 0.3}),
        ("daps, exact draw", inverse.measured, "daps", {"steps": 50, "inner": "exact"}),
        ("red-diff", inverse.measured, "red-diff", {"steps": 50}),
    ]  # fmt: skip
    A = torch.randn(3, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).abs()
    lines = []
    targets = {"full covariance": gaussian(dim, 20.0), "N(0, I)": normal(dim)}
    for name, make, sampler, options in methods:
        cells = []
        for target in targets.values():
            operator = inverse.matrix(A, (dim,))
            y = operator(target.target.sample(1, seed=1))
            exact = posterior(target, operator, y, std).target
            x = sk.sample(make(target, operator, y, std), sampler, shape=(DRAWS, dim), dtype=torch.float64, **options).x
            cells += apart(x, exact)
        lines.append([name, *cells])
        print(lines[-1], flush=True)
    cells = []
    for target in targets.values():
        operator = inverse.matrix(A, (dim,))
        exact = posterior(target, operator, operator(target.target.sample(1, seed=1)), std).target
        cells += apart(exact.sample(DRAWS, seed=3), exact)
    lines.append([f"{DRAWS} exact draws", *cells])
    print(table(["", "mean", "covariance", "N(0, I): mean", "covariance"], lines), flush=True)


def daps() -> None:
    """Variance of a coordinate that is not observed, prior variance 0.25; 200 levels from 100 to 0.1, tau 0.01."""
    S, n, width = 0.25, 4, 2000
    d = sk.wrap(lambda x, sigma: S / (S + sigma.reshape(-1, 1) ** 2) * x, "denoised", sk.EDM(), shape=(width,))
    mask = torch.zeros(width, dtype=torch.bool)
    mask[: width // 2] = True
    y = torch.full((1, width // 2), 0.5)
    m = inverse.measured(d, inverse.inpainting(mask), y, 0.05)
    levels = [(100 ** (1 / 7) + i / 199 * (0.1 ** (1 / 7) - 100 ** (1 / 7))) ** 7 for i in range(200)]
    lines, draws = [], n * width // 2
    for name, options in (
        ("released: 100 Langevin steps", {}),
        ("1000 Langevin steps", {"langevin_steps": 1000}),
        ("converged: the exact draw", {"inner": "exact"}),
    ):
        x = sk.sample(m, "daps", levels=[*levels, 0.0], num_samples=n, dtype=torch.float64, tau=0.01, **options).x
        free = x[:, width // 2 :]
        variance = float(free.square().mean())
        lines.append([name, f"{variance:.3f} ± {2 * variance * math.sqrt(2 / draws):.3f}"])
        print(lines[-1], flush=True)
    recursion, own, short = 100.0**2 + S, 100.0**2 + S, 100.0**2 + S
    for i, (s, t) in enumerate(zip(levels, [*levels[1:], 0.0])):
        recursion = S / (S + s * s) * recursion + s * s + t * t  # the exact flow to 0, then N(guess, s^2)
        own = (S / (S + s * s)) ** 2 * own + S * s * s / (S + s * s) + t * t  # the mean, then N(D, s^2 dD/dx)
        eta, chain = 1e-4 * (1 - 0.99 * i / len(levels)), 0.0
        for _ in range(100):
            chain = (1 - eta / s**2) ** 2 * chain + 2 * eta
        short = S / (S + s * s) * short + chain + t * t  # the exact flow, then 100 Langevin steps
    lines.append(["100 Langevin steps, the exact flow in the place of 5 Euler steps (recursion)", f"{short:.3f}"])
    lines.append(["converged, the exact flow in the place of 5 Euler steps (recursion)", f"{recursion:.3f}"])
    lines.append(["N(D, s^2 dD/dx) in the place of N(guess, s^2 I) (recursion)", f"{own:.4f}"])
    lines.append(["the posterior", f"{S:.4f}"])
    print(table([f"{draws} draws", "variance"], lines), flush=True)


def diffpir() -> None:
    """N(0, 1), y = x_0 + N(0, 1/4): the share of y - D that D' adds at each noise level, and what runs end in."""
    std, y = 0.5, 2.0
    d, A = normal(1), inverse.matrix(torch.ones(1, 1), (1,))
    values = torch.full((1, 1), y, dtype=torch.float64)
    names = {"exact": {"rho": "exact"}, "released": {"rho": "released"}, "released, lam 7": {"rho": "released", "lam": 7.0}}
    lines = []
    for s in (20.0, 5.0, 2.0, 1.0, 0.5, 0.1):
        x = torch.zeros(1, 1, dtype=torch.float64)
        shares = [float(inverse.diffpir(d, A, values, std, **o)(x, s)) / y for o in names.values()]  # type: ignore[arg-type]
        truth = float(posterior(d, A, values, std)(x, s)) / y
        lines.append([f"{s:g}", f"{truth:.3f}", *(f"{share:.3f}" for share in shares)])
    print(table(["s", "E[x_0 given x, y]", *names], lines))
    lines = []
    eta = 2 / math.pi * math.asin(math.sqrt(0.1))
    for sampler, options in (("heun", {"steps": 25}), ("cps", {"steps": 50, "eta": eta})):
        for name, o in names.items():
            guided = inverse.diffpir(d, A, values, std, **o)  # type: ignore[arg-type]
            x = sk.sample(guided, sampler, shape=(DRAWS, 1), dtype=torch.float64, **options).x  # type: ignore[arg-type]
            mean, variance = float(x.mean()), float(x.var())
            lines.append([
                f"{sampler}, {name}", f"{mean:.3f} ± {2 * math.sqrt(variance / DRAWS):.3f}",
                f"{variance:.3f} ± {2 * variance * math.sqrt(2 / DRAWS):.3f}",
            ])  # fmt: skip
    lines.append(["the posterior", f"{y / (1 + std**2):.3f}", f"{std**2 / (1 + std**2):.3f}"])
    print(table([f"{DRAWS} draws", "mean", "variance"], lines), flush=True)


def dps() -> None:
    """N(0, I) in two dimensions, the first observed as 2 with noise 1/2; 999 steps of VP, any batch."""
    std, n = 0.5, 400
    d = normal(2, schedule=sk.VP())
    A = inverse.matrix(torch.tensor([[1.0, 0.0]]), (2,))
    y = torch.full((1, 1), 2.0, dtype=torch.float64)
    m = inverse.measured(d, A, y, std)
    lines = []
    runs: list[tuple[str, dict[str, Any]]] = [(f"per sample, zeta {z:g}", {"zeta": z}) for z in (0.03, 0.1, 0.3, 1.0)]
    runs += [(f"released, batches of {b}", {"zeta": 0.3, "released": True, "batch_size": b}) for b in (1, 16, n)]
    for name, options in runs:
        x = sk.sample(m, "dps", steps=999, shape=(n if "of 1" not in name else 64, 2), dtype=torch.float64, **options).x
        mean, variance = float(x[:, 0].mean()), float(x[:, 0].var())
        lines.append([
            name, f"{mean:.3f} ± {2 * math.sqrt(variance / len(x)):.3f}",
            f"{variance:.3f} ± {2 * variance * math.sqrt(2 / len(x)):.3f}",
        ])  # fmt: skip
        print(lines[-1], flush=True)
    lines.append(["the posterior", f"{2 / (1 + std**2):.3f}", f"{std**2 / (1 + std**2):.3f}"])
    print(table(["", "mean of the observed one", "variance"], lines), flush=True)


PARTS = {"law": law, "daps": daps, "diffpir": diffpir, "dps": dps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    torch.set_num_threads(1)
    for name in parser.parse_args().parts or PARTS:
        print(f"\n{PARTS[name].__doc__}\n")
        PARTS[name]()


if __name__ == "__main__":
    main()
