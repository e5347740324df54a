"""Evaluations against MMD on graphs of two communities: the suite `graphs`, its table and its picture.

    python benchmarks/graphs_front.py run      about 25 minutes on one core; goes on with what --out has
    python benchmarks/graphs_front.py table                                         the table of docs/systems.md
    python benchmarks/graphs_front.py picture --picture docs/graphs.png             graphs, real and drawn
    python benchmarks/graphs_front.py card --samples 512 --nfe 50                   the figures of the network's card

MMD^2 is unbiased, against 1024 real graphs; "floor" is the 95 % point of as many real graphs as were drawn: what is
below (bold) ties with real graphs; of what is marked ≈ the 95 % interval reaches it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

import solverkit as sk
from solverkit.bench.graph_front import BUDGETS, REAL, floor, real_graphs, run
from solverkit.bench.graph_metrics import STATISTICS, discrepancies, statistics


def run_suite(args: argparse.Namespace) -> None:
    there = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    done = {(row["label"], row.get("budget")) for row in there}
    with args.out.open("a", encoding="utf-8") as file:
        for row in run(args.samples, seed=args.seed, device=args.device, done=done):
            row["torch"], row["device"] = torch.__version__, args.device or "cpu"
            print(json.dumps(row), flush=True)
            file.write(json.dumps(row) + "\n")
            file.flush()


def table(args: argparse.Namespace) -> None:
    rows = [json.loads(line) for line in args.out.read_text().splitlines()]
    real, done = rows[0], [row for row in rows[1:] if row["status"] == "ok"]
    labels = list(dict.fromkeys(row["label"] for row in done))
    for name in STATISTICS:
        print(f"\n{name}, MMD^2 x 1000 (+- 1 standard error); floor {1000 * real[name]:.1f}\n")
        print("| evaluations | " + " | ".join(map(str, BUDGETS)) + " |")
        print("|---" * (len(BUDGETS) + 1) + "|")
        for label in labels:
            cells = {row["budget"]: row for row in done if row["label"] == label}
            shown = [_cell(cells[b], name, real[name]) if b in cells else "" for b in BUDGETS]
            print(f"| {label} | " + " | ".join(shown) + " |")


def _cell(row: dict[str, float], name: str, limit: float) -> str:
    text = f"{1000 * row[name]:.1f} ± {1000 * row[f'{name}_error']:.1f}"
    near = row[name] - 1.96 * row[f"{name}_error"] <= limit
    return f"**{text}**" if row[name] <= limit else f"≈ {text}" if near else text


def picture(args: argparse.Namespace) -> None:
    """A row of real graphs, and a row of each sampler, the same starting noise down a column."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import networkx as nx

    columns, s4 = 7, "s4:snr=0.05,scale_eps=0.7"
    shown = [(s4, 20, "score-sde"), ("dpmpp-2m", 20, None), (s4, 100, "score-sde")]
    lines = [("real", *real_graphs(columns, 3))]
    for name, nfe, grid in shown:
        made = sk.sample(sk.load("communities"), name, nfe=nfe, num_samples=columns, seed=args.seed, grid=grid)
        lines.append((f"{name.split(':')[0]}, {nfe} evaluations", made.x["adjacency"], made.mask))
    figure, axes = plt.subplots(len(lines), columns, figsize=(1.75 * columns, 1.9 * len(lines)))
    for line, (title, A, mask) in zip(axes, lines):
        line[0].set_title(title, loc="left", fontsize=10)
        for axis, graph, there in zip(line, A, mask):
            n = int(there.sum())
            G = nx.from_numpy_array((graph[:n, :n] > 0.5).numpy().astype(int))
            side = {node: i for i, part in enumerate(nx.community.greedy_modularity_communities(G)) for node in part}
            place = nx.spring_layout(G, seed=0, iterations=200)
            ends = [side[a] == side[b] for a, b in G.edges]
            nx.draw_networkx_edges(G, place, ax=axis, width=[0.7 if same else 1.6 for same in ends],
                                   edge_color=["#9aa5b1" if same else "#d1495b" for same in ends])  # fmt: skip
            colours = ["#2e86ab", "#f6a01a", "#5b8c5a", "#7d5ba6", "#444444"]
            nx.draw_networkx_nodes(G, place, ax=axis, node_size=26, node_color=[colours[min(side[v], 4)] for v in G])
            axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(args.picture, dpi=110)


def card(args: argparse.Namespace) -> None:
    real = statistics(*real_graphs(REAL, 1))
    limit = floor(args.samples, real)
    made = sk.sample(sk.load("communities", device=args.device), args.sampler, nfe=args.nfe, num_samples=args.samples)
    found = discrepancies(statistics(made.x["adjacency"].cpu(), made.mask.cpu()), real)
    print(f"{args.sampler}, {args.nfe} evaluations, {args.samples} graphs, seed 0")
    for name, (value, error) in found.items():
        print(f"{name}: {1000 * value:.1f} +- {1000 * error:.1f}, floor {1000 * limit[name]:.1f} (MMD^2 x 1000)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table", "picture", "card"])
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--nfe", type=int, default=50)
    parser.add_argument("--sampler", default="dpmpp-2m")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default=None)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/graphs.jsonl"))
    parser.add_argument("--picture", type=Path, default=Path("docs/graphs.png"))
    args = parser.parse_args()
    {"run": run_suite, "table": table, "picture": picture, "card": card}[args.what](args)


if __name__ == "__main__":
    main()
