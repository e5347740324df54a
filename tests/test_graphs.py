"""The bundled graph network, the graphs that it learned from, and how near graphs are to real ones."""

from __future__ import annotations

import json
import shutil
from itertools import combinations

import networkx as nx
import pytest
import torch

import solverkit as sk
from solverkit.bench import graph_front
from solverkit.bench.graph_metrics import discrepancies, local_clustering, mmd, movers, orbit_counts, statistics
from solverkit.errors import LoadError, OptionError
from solverkit.files.joint_folder import open_joint
from solverkit.files.network import NETWORKS
from solverkit.targets.communities import communities


def adjacency(graph) -> torch.Tensor:
    return torch.from_numpy(nx.to_numpy_array(graph)).float()[None]


def test_orbits_of_graphs_that_are_known():
    """Numbers of Przulj 2007, figure 1: each connected graphlet of four nodes is itself, once."""
    known = {
        nx.path_graph(4): (4, 5, 5, 4), nx.star_graph(3): (7, 6, 6, 6), nx.cycle_graph(4): (8, 8, 8, 8),
        nx.Graph([(0, 1), (1, 2), (2, 0), (2, 3)]): (10, 10, 11, 9),
        nx.Graph([(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]): (13, 12, 13, 12), nx.complete_graph(4): (14, 14, 14, 14),
    }  # fmt: skip
    for graph, orbits in known.items():
        counts = orbit_counts(adjacency(nx.relabel.convert_node_labels_to_integers(graph, ordering="sorted")))[0]
        assert counts[:, 4:].sum() == 4
        assert all(counts[node, orbit] == 1 for node, orbit in enumerate(orbits))
    counts = orbit_counts(adjacency(nx.complete_graph(5)))[0]
    assert torch.equal(counts[0], torch.tensor([4, 0, 0, 6, *[0] * 10, 4]).double())


def test_clustering_and_orbits_of_random_graphs_are_those_of_networkx():
    A, mask = graph_front.real_graphs(3, 0)
    counts = orbit_counts(A)
    for b in range(3):
        graph = nx.from_numpy_array(A[b].numpy())
        expected = nx.clustering(graph)
        found = local_clustering(A[b : b + 1])[0]
        torch.testing.assert_close(found, torch.tensor([expected[i] for i in range(20)]).double())
        assert counts[b, :, 3].tolist() == [nx.triangles(graph, i) for i in range(20)]
        inner = [graph.subgraph(four) for four in combinations(range(20), 4)]
        assert counts[b, :, 4:].sum() == 4 * sum(nx.is_connected(four) for four in inner)
        assert counts[b, :, 1].sum() / 2 == counts[b, :, 2].sum()
    assert float(mask.sum(1).min()) >= 12


def test_the_discrepancy_is_unbiased_and_its_error_covers_it():
    kernel = movers(1.0)
    figures = []
    for seed in range(40):
        draws = torch.rand(2, 30, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        x, y = draws / draws.sum(2, keepdim=True)
        figures.append(mmd(x, y, kernel))
    values = torch.tensor([f.value for f in figures])
    assert abs(float(values.mean())) <= 3 * float(values.std()) / 40**0.5
    other = mmd(torch.eye(5).double()[:4], torch.eye(5).double()[1:].flip(1), kernel)
    assert other.value != 0 and other.error >= 0


def test_real_graphs_are_as_the_card_says():
    X, A, mask = communities(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(A, A.mT) and float(A.diagonal(dim1=1, dim2=2).max()) == 0
    assert torch.equal(X.argmax(2) + 1, A.sum(2).clamp(1, 10).long()) and float((X.sum(2) - mask).abs().max()) == 0
    real = statistics(*graph_front.real_graphs(256, 1))
    far = discrepancies(statistics(A, mask), real)
    empty = discrepancies(statistics(0 * A, mask), real)
    assert all(abs(far[n].value) < 0.03 and empty[n].value > 0.3 for n in far)


def test_the_bundled_network_draws_symmetric_graphs_of_drawn_or_given_sizes():
    made = sk.sample(sk.load("communities"), "dpmpp-2m", nfe=4, num_samples=3, seed=2)
    A = made.x["adjacency"]
    assert torch.equal(A, A.mT) and float(A.diagonal(dim1=1, dim2=2).abs().max()) == 0
    assert float((A * (1 - made.mask)[:, :, None]).abs().max()) == 0 and int(made.mask.sum(1).min()) >= 12
    alone = sk.sample(sk.load("communities"), "dpmpp-2m", nfe=4, num_samples=1, seed=[2 * 2**64 + 1])
    assert torch.equal(alone.mask[0], made.mask[1])
    torch.testing.assert_close(alone.x["adjacency"][0], A[1], rtol=1e-4, atol=1e-4)
    sized = sk.sample(sk.load("communities", sizes=[13, 20]), "euler", nfe=2, num_samples=2)
    assert sized.mask.sum(1).tolist() == [13, 20]
    for wrong in (11, 21, [12, 30], "many", True, []):
        with pytest.raises(OptionError, match="12 to 20"):
            sk.load("communities", sizes=wrong)


def test_the_bundled_network_does_not_know_the_order_of_nodes():
    joint = sk.load("communities", sizes=14)
    order = torch.cat([torch.randperm(14, generator=torch.Generator().manual_seed(0)), torch.arange(14, 20)])
    xs = sk.sample(joint, "euler", nfe=1, num_samples=2, return_trajectory=True).trajectory
    xs = {name: x[0] for name, x in xs.items()}
    levels = {name: part.schedule.level(1.0) for name, part in joint.components.items()}
    out = joint(xs, levels)
    moved = joint({"nodes": xs["nodes"][:, order], "adjacency": xs["adjacency"][:, order][:, :, order]}, levels)
    torch.testing.assert_close(moved["nodes"], out["nodes"][:, order], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moved["adjacency"], out["adjacency"][:, order][:, :, order], rtol=1e-4, atol=1e-4)


def test_a_folder_that_is_no_graph_network_is_told_so(tmp_path):
    folder = shutil.copytree(NETWORKS / "communities", tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    assert sk.load(folder).source == str(folder)
    (folder / "config.json").write_text(json.dumps({**config, "layers": 2}))
    with pytest.raises(LoadError, match="does not fit"):
        open_joint(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(LoadError):
        sk.load(folder)
    with pytest.raises(LoadError, match="describes no GraphNetwork"):
        open_joint(folder)


def test_the_suite_says_its_floor_first_and_then_a_row_a_cell():
    entries = [graph_front.Entry("euler", None, "euler", 50), graph_front.Entry("heun", "karras", "heun", 2)]
    rows = list(graph_front.run(8, entries, budgets=(2, 3)))
    assert [row.get("budget") for row in rows] == [None, 2, 2, 3]
    assert rows[0]["label"] == "real" and all(rows[0][name] > 0 for name in ("degree", "clustering", "orbit"))
    assert rows[1]["nfe"] == 2 and rows[1]["degree_error"] >= 0
