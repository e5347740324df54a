"""What discrete decoders do that their descriptions do not say, each measured on a target whose law is known.

    python benchmarks/tokens_findings.py            # all of it
    python benchmarks/tokens_findings.py confidence trapezoidal

Laws of three tokens are enumerated (no noise); figures on the Markov chain are of samples, beside the floor of as many
exact ones. What is measured of diffusers is its installed version.
"""

from __future__ import annotations

import argparse
import itertools
import math
import warnings

import numpy as np
import torch
from solverkit_plugins.tokens.uniform import sweep
from torch import Tensor

import solverkit as sk
from solverkit.proofs.token_law import branches, distance, law
from solverkit.tokens.targets import (
    TokenTable,
    bigram_shares,
    correlated,
    exact_model,
    expected_evaluations,
    total_variation,
)

CARDS = sk.decoders()


def levels(model: sk.TokenModel, values: list[float]) -> sk.Grid:
    return sk.Grid(tuple(model.process.at(m) for m in values), model.process)


def uniform(model: sk.TokenModel, n: int) -> sk.Grid:
    return sk.make_grid("uniform", model.process, n)


def precision() -> None:
    """Zipf(1.1) vocabulary of 50257: what is left of a distribution that is drawn together with a small rate."""
    p = torch.arange(1, 50258, dtype=torch.float64) ** -1.1
    p /= p.sum()
    entropy = lambda w: float(torch.special.entr(w / w.sum()).sum())  # noqa: E731
    print(f"exact entropy {entropy(p):.2f} nats")
    for n in (64, 1024, 4096):
        product = p.half() * torch.tensor(1 / n)  # float16 times a 0-dim float32 is float16
        w = product.double()
        q = 1 / n
        race = p * q / (1 - q)  # against the mask, on uniforms that are multiples of 2^-24
        lam = 2.0**24 * race
        won = race / (lam * torch.special.expm1(1 / lam)).clamp(max=1e300)
        won = torch.where(lam > 1e-3, won, 0.0)
        print(
            f"n = {n}: p q in float16: {int((w == 0).sum())} tokens of weight 0, {1 - float(w.sum()) * n:.1%} of the mass "
            f"lost, entropy {entropy(w):.2f}; exponential race in float32: entropy {entropy(won):.2f}; float64, whether "
            f"first, then which: {entropy(p):.2f}"
        )
    generator, w, tokens, races = torch.Generator().manual_seed(0), 2.0**-24, 2**13, 200_000
    won = 0
    for _ in range(races // 2000):  # the earliest of `tokens` equal ones has the largest uniform
        first = torch.rand(2000, tokens, generator=generator).amax(dim=1).log().neg() / w
        won += int((first < torch.rand(2000, generator=generator).log().neg()).sum())
    factor = 1 / math.expm1(1)
    print(
        f"float32 race of {tokens} tokens of weight 2^-24 against a mask, {races} races: {won} won +- {won**0.5:.0f}; "
        f"exact {races * tokens * w:.0f}, with the factor 1 / (lam (e^(1/lam) - 1)) at lam = 1 "
        f"{races * tokens * w * factor:.0f}"
    )


def confidence() -> None:
    """One token an evaluation with exact conditionals at temperature 1: before or after the draw."""
    model = correlated(3, 3, 0.3)
    grid, exact = uniform(model, 3), model.target.p  # type: ignore[attr-defined]
    entropy = lambda p: float(torch.special.entr(p).sum())  # noqa: E731
    print(f"3 tokens of 3 kinds, Dirichlet(0.3), 3 evaluations, enumerated; exact entropy {entropy(exact):.2f}")
    for name, options in (
        ("sample-then-choose", {"by": "drawn"}),
        ("choose-then-sample", {"by": "max"}),
        ("choose-then-sample", {"by": "margin"}),
        ("choose-then-sample", {"by": "entropy"}),
        ("sample-then-choose", {"by": "random"}),
        ("ancestral", {}),
    ):
        found = law(CARDS[name], model, grid, options)
        inner = found[:3, :3, :3]
        print(f"  {name} {options}: TV {distance(CARDS[name], model, grid, options):.1e}, entropy {entropy(inner):.2f}")
    chain = sk.load("markov")
    target = chain.target  # type: ignore[union-attr,attr-defined]
    n = 300
    floors = [total_variation(bigram_shares(target.sample(n, seed=s), 5), target.bigrams) for s in range(10)]
    print(
        f"Markov chain, 64 tokens of 5 kinds, {n} samples; bigram TV, floor of exact samples {np.mean(floors):.3f} "
        f"(largest of 10: {max(floors):.3f})"
    )
    for nfe in (8, 64):
        for name, options in (
            ("ancestral", {}),
            ("choose-then-sample", {"by": "random"}),
            ("choose-then-sample", {"by": "max"}),
            ("choose-then-sample", {"by": "entropy"}),
            ("sample-then-choose", {"by": "drawn"}),
        ):
            r = sk.sample(chain, name, steps=nfe, num_samples=n, **options)
            tv = total_variation(bigram_shares(r.x, 5), target.bigrams)
            print(
                f"  {nfe} steps, {name} {options}: {tv:.3f}, {r.nfe:.1f} rows evaluated a sequence, "
                f"-log p {-float(target.log_prob(r.x).mean()) / 64:.3f} nats a token (exact {target.entropy:.3f})"
            )


def noised(p: Tensor, m: float) -> Tensor:
    """The exact law of a table's tokens with each masked with probability m, shape (V + 1, ...)."""
    for axis in range(p.ndim):
        p = torch.cat([(1 - m) * p, m * p.sum(dim=axis, keepdim=True)], dim=axis)
    return p


def trapezoidal() -> None:
    """Law at level 0.1 from level 1, theta-trapezoidal against ancestral: orders under weak and strong dependence."""
    counts = (4, 8, 16, 32, 64)
    for concentration, theta in ((20.0, 0.5), (20.0, 0.3), (0.3, 0.5), (0.3, 0.3)):
        model = correlated(3, 2, concentration)
        exact = noised(model.target.p, 0.1)  # type: ignore[attr-defined]
        errors: dict[str, list[float]] = {}
        for name, options in (("theta-trapezoidal", {"theta": theta}), ("ancestral", {})):
            errors[name] = [
                total_variation(
                    law(CARDS[name], model, levels(model, [0.1 ** (i / n) for i in range(n + 1)]), options), exact
                )
                for n in counts
            ]
        trap, plain = errors["theta-trapezoidal"], errors["ancestral"]
        orders = [math.log2(a / b) for a, b in itertools.pairwise(trap)]
        print(
            f"3 tokens of 2 kinds, Dirichlet({concentration:g}), theta {theta}: TV at {counts} steps "
            f"{', '.join(f'{e:.1e}' for e in trap)}; orders {', '.join(f'{o:.2f}' for o in orders)}; of ancestral's error "
            f"{trap[-1] / plain[-1]:.2f} at equal steps, {trap[-2] / plain[-1]:.2f} at equal evaluations (64)"
        )


def erring(model: sk.TokenModel, worst: float, always: bool = False) -> sk.TokenModel:
    """A network that is wrong by a share of uniform: `worst` times the masked share of the sequence, or everywhere."""
    target = model.target  # type: ignore[attr-defined]

    def net(x: Tensor) -> Tensor:
        c = target(x, torch.zeros(len(x), dtype=torch.float64)).exp()
        w = worst * (1.0 if always else (x == model.mask).double().mean(dim=1))
        w = torch.as_tensor(w, dtype=torch.float64).expand(len(x))[:, None, None]
        return ((1 - w) * c + w / model.vocabulary).log()

    out = sk.wrap_tokens(net, mask=model.mask, vocabulary=model.vocabulary, length=model.length)
    vars(out)["target"] = target
    return out


def remasking() -> None:
    """ReMDM with exact conditionals and with a network that errs, TV of the joint law of 3 tokens, enumerated."""
    model = correlated(3, 2, 0.3)
    runs = (
        ("ancestral", {}),
        ("remdm", {"rule": "cap", "eta": 0.05}),
        ("remdm", {"rule": "rescale", "eta": 0.05}),
        ("remdm", {"rule": "rescale", "eta": 0.2}),
    )
    cases = (
        ("exact", model),
        ("errs where much is masked (to 0.5)", erring(model, 0.5)),
        ("errs 0.2 everywhere", erring(model, 0.2, True)),
    )
    for label, one in cases:
        for n in (8, 16, 64, 128):
            found = ", ".join(
                f"{name} {o.get('rule', '')} {o.get('eta', '')}".strip()
                + f" {distance(CARDS[name], one, uniform(one, n), o):.2e}"
                for name, o in runs
            )
            print(f"{label}, n = {n}: {found}")
    pair = correlated(2, 2, 0.5)
    for name, o in (*runs[:3], ("remdm", {"rule": "rescale", "eta": 0.2})):
        found = [distance(CARDS[name], pair, uniform(pair, n), o) for n in (128, 256, 512)]
        print(
            f"order on 2 tokens of 2 kinds, exact conditionals, n = 128 to 512: {name} {o}: "
            f"{', '.join(f'{math.log2(a / b):.2f}' for a, b in itertools.pairwise(found))}"
        )
    product = exact_model(TokenTable(torch.einsum("a,b->ab", *torch.tensor([[0.8, 0.2], [0.6, 0.4]]).double())))
    conf = distance(CARDS["remdm"], product, uniform(product, 3), {"rule": "conf"}, whole=True)
    cap = distance(CARDS["remdm"], product, uniform(product, 3), {"rule": "cap"})
    print(f"2 independent tokens, exact conditionals, 3 steps: remdm conf is {conf:.1e} from exact, cap {cap:.1e}")


def gibbs() -> None:
    """Does a corrector sweep keep p_s? Uniform noise, 3 tokens of 3 kinds, alpha 0.5, enumerated: TV after 1, 10, 200
    sweeps."""
    model = correlated(3, 3, 0.3, "uniform")
    level = model.process.at(0.5)
    p = model.target.p  # type: ignore[attr-defined]
    for axis in range(3):
        p = 0.5 * p + 0.5 * p.sum(dim=axis, keepdim=True).expand_as(p) / 3
    states = model.target.states()  # type: ignore[attr-defined]
    from solverkit.tokens.asked import AskedTokens

    for selection, count, tau in (
        ("random", 1, 1.0),
        ("random", 2, 1.0),
        ("margin", 1, 1.0),
        ("current", 1, 1.0),
        ("max", 1, 1.0),
        ("margin", 1, 1e-3),
    ):

        def run(x: Tensor, noise: object, selection: str = selection, count: int = count, tau: float = tau) -> Tensor:
            asked = AskedTokens(model, x, torch.ones_like(x, dtype=torch.bool))
            return sweep(asked, x, level, count, selection, tau, 0, noise)

        kernel = torch.zeros(27, 27, dtype=torch.float64)
        for i, state in enumerate(states):
            ends, weights = branches(run, state[None], torch.ones(1, dtype=torch.float64))
            kernel[i].index_add_(0, (ends * torch.tensor([9, 3, 1])).sum(dim=1), weights)
        start, out = p.flatten(), []
        for k in (1, 10, 200):
            out.append(total_variation(start @ torch.linalg.matrix_power(kernel, k), start))
        print(f"selection {selection}, {count} position(s), tau {tau:g}: {', '.join(f'{v:.1e}' for v in out)}")


def dream() -> None:
    """Dream's counts floor(masked (1 - t / s)) on linspace(1, 1e-3, n + 1): what the first steps and the last reveal."""
    for n in (256, 1024):
        model = sk.load("independent", length=n)
        grid = levels(model, [*torch.linspace(1, 1e-3, n + 1, dtype=torch.float64).tolist()[:-1], 0.0])  # type: ignore[arg-type]
        r = sk.sample(model, "sample-then-choose", grid=grid, num_samples=1, by="random", released=True)
        steps = torch.bincount(r.reports["revealed"].flatten(), minlength=r.passes)
        asked = int(r.reports["rows asked"])
        print(
            f"{n} masks, {n} steps, independent tokens: the first three evaluations reveal {steps[:3].tolist()}, the "
            f"last one {int(steps.max())}; {asked} asked, {r.nfe:g} evaluated; empty steps "
            f"in all {int(asked - (steps > 0).sum())}"
        )


def leftovers() -> None:
    """diffusers' EntropyBound on flat logits, and BlockRefinement's minimal_topk."""
    import diffusers

    warnings.simplefilter("ignore")
    print(f"diffusers {diffusers.__version__}")
    torch.manual_seed(0)
    scheduler = diffusers.EntropyBoundScheduler(entropy_bound=0.1)
    scheduler.set_timesteps(8)
    accepted = scheduler.step(torch.zeros(512, 64, 32), 7, torch.zeros(512, 64, dtype=torch.long)).accepted_index
    share = float(accepted.double().mean())
    print(
        f"EntropyBoundScheduler, flat logits over 32 ids, 64 positions, the last of 8 steps: {share:.1%} "
        "accepted; the others are returned as uniformly random ids"
    )
    committed = []
    for least in (1, 8):
        block = diffusers.BlockRefinementScheduler(block_length=32, minimal_topk=least)
        block.set_timesteps(32)
        out = block.step(torch.randn(1, 32, 16), 0, torch.full((1, 32), 99), mask_token_id=99, minimal_topk=least)
        committed.append(int(out.transfer_index.sum()))
    print(
        f"BlockRefinementScheduler, minimal_topk 1 and 8: {committed[0]} and {committed[1]} tokens in the first of 32 steps"
    )
    ids = torch.tensor([126336]), torch.tensor([126335])
    print(
        f"torch.allclose of ids 126336 and 126335 (a cache test of ReMDM): {torch.allclose(*ids)}"
    )


def evaluations() -> None:
    """Rows evaluated by the cached ancestral decoder on the Markov chain, against sum_i 1 - (1 - p_i)^L."""
    for length, n, count in ((64, 64, 256), (64, 256, 256), (1024, 4096, 4)):
        chain = sk.load("markov", length=length)
        r = sk.sample(chain, "ancestral", steps=n, num_samples=count)  # type: ignore[arg-type]
        expected = expected_evaluations([float(m) for m in uniform(chain, n)], length)  # type: ignore[arg-type]
        print(
            f"Markov chain, L = {length}, n = {n}, {count} sequences: {r.nfe:.2f} rows a sequence, formula {expected:.2f} "
            f"({r.nfe / expected - 1:+.2%}); asked {r.reports['rows asked']:.1f}"
        )


FINDINGS = {f.__name__: f for f in (precision, confidence, trapezoidal, remasking, gibbs, dream, leftovers, evaluations)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(FINDINGS)}; default: all")
    torch.set_num_threads(1)
    for name in parser.parse_args().names or FINDINGS:
        print(f"\n## {name}: {(FINDINGS[name].__doc__ or '').strip()}", flush=True)
        FINDINGS[name]()


if __name__ == "__main__":
    main()
