"""A policy gradient on `mnist` through the log-probabilities of its own steps: docs/rollouts.md.

    python benchmarks/policy_gradient.py                                      # minutes on one CPU core
    python benchmarks/policy_gradient.py --device cuda --rounds 60 --batch 256

The network without a label draws every digit; the reward is the probability that the bundled classifier reads DIGIT. A
round is one rollout of `--batch` samples in `--steps` steps of `--sampler`, and one step of Adam on -E[advantage log p],
the advantage being the reward's distance from the round's mean in standard deviations. Of rounds that nothing was updated
on, drawn before and after training from the same seeds, it prints the mean reward with its standard error.

The importance ratio is checked twice: with the network that made the run it is 1 to the last bit; and behind the first
step, which is SHORT times as long as the others, E[exp(log p' - log p)] over draws of the network before it is 1 within
its standard error (behind a whole step too, but 784 dimensions in 8 steps give a ratio that no number of draws averages).
"""

from __future__ import annotations

import argparse
import math
import time

import torch

import solverkit as sk
from solverkit.bench.features import load_features

FRESH = 10**6  # seeds of the rounds that measure
SHORT = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digit", type=int, default=7)
    parser.add_argument("--sampler", default="ddim:eta=1")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--measured", type=int, default=256, help="samples of the measurement before and after")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    denoiser, classify = sk.load("mnist", device=args.device), load_features().to(args.device)
    network = denoiser.net
    plan = sk.trace(args.sampler, sk.make_grid("trailing", denoiser.schedule, args.steps))
    optimizer = torch.optim.Adam(network.parameters(), lr=args.rate)

    def rewards(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return classify(x.clamp(-1, 1)).softmax(dim=1)[:, args.digit]

    def measured() -> str:
        found = torch.cat([
            rewards(sk.rollout(denoiser, plan, 64, seed=FRESH + k).x) for k in range(math.ceil(args.measured / 64))
        ])  # fmt: skip
        return f"{float(found.mean()):.3f} +- {float(found.std()) / math.sqrt(len(found)):.3f} ({len(found)} samples)"

    print(f"reward before: {measured()}", flush=True)
    clock = time.perf_counter()
    for k in range(args.rounds):
        run = sk.rollout(denoiser, plan, args.batch, seed=args.seed + k)
        reward = rewards(run.x)
        advantage = (reward - reward.mean()) / reward.std().clamp(min=1e-6)
        before = run.log_prob(reduce="sum")
        optimizer.zero_grad()
        now = run.log_prob(denoiser, reduce="sum")
        exact = torch.equal(now, before)  # one batch, one network: bit for bit
        dimensions = run.x[0].numel()
        (-(advantage * now.sum(0)).mean() / dimensions).backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = args.rate * (SHORT if k == 0 else 1)
        optimizer.step()
        if k == 0:
            with torch.no_grad():
                ratio = (run.log_prob(denoiser, reduce="sum") - before).sum(0)
            weights = ratio.exp()
            mean, error = float(weights.mean()), float(weights.std()) / math.sqrt(len(weights))
            print(f"ratio before the first step: {'1 to the last bit' if exact else 'NOT 1'}")
            print(f"ratio behind it: {mean:.3f} +- {error:.3f}")
            print(f"log ratio behind it {float(ratio.mean()):+.4f}, deviation {float(ratio.std()):.4f}", flush=True)
        if k % 5 == 0:
            print(f"round {k}: reward {float(reward.mean()):.3f}, gradient {float(norm):.3g}", flush=True)
    print(f"{args.rounds} rounds in {time.perf_counter() - clock:.0f} s")
    print(f"reward after: {measured()}")


if __name__ == "__main__":
    main()
