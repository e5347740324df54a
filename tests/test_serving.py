"""The example server: concurrent requests of mixed samplers and budgets in shared batches, each as if it were alone."""

from __future__ import annotations

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import solverkit as sk

testclient = pytest.importorskip("fastapi.testclient")
WANTED = [
    {"sampler": "dpmpp-2m", "nfe": 3, "seed": 0, "label": 1},
    {"sampler": "unipc:order=3", "nfe": 5, "seed": 1, "label": 2},
    {"sampler": "heun", "nfe": 5, "seed": 2},
    {"sampler": "ddim:eta=1", "nfe": 3, "seed": 3, "label": 4},
    {"sampler": "euler-ancestral", "nfe": 4, "seed": 4, "label": 5},
    {"sampler": "pc", "nfe": 4, "seed": 5, "label": 6},
    {"sampler": "rk4", "nfe": 6, "seed": 6, "label": 7},
    {"sampler": "ddpm", "nfe": 2, "seed": 7, "label": 8},
    {"sampler": "lml", "nfe": 3, "seed": 8, "label": 9},
]


@pytest.fixture(scope="module")
def server():
    path = Path(__file__).parents[1] / "docs" / "examples" / "server.py"
    spec = importlib.util.spec_from_file_location("server", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["server"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def client(server):
    with testclient.TestClient(server.make_app("mnist")) as client:
        yield client


def ask(client, wanted):
    answer = client.post("/sample", json=wanted)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_nine_requests_at_once_are_bit_for_bit_what_each_is_alone(server, client):
    before = ask(client, WANTED[7])["passes"]
    with ThreadPoolExecutor(len(WANTED)) as pool:
        together = list(pool.map(lambda wanted: ask(client, wanted), WANTED))
    shared = max(answer["passes"] for answer in together) - before
    evaluations = sum(answer["nfe"] for answer in together)
    assert shared < 0.6 * evaluations  # they were in one batch, step by step
    alone = [ask(client, wanted) for wanted in WANTED]
    assert [a["x"] for a in together] == [a["x"] for a in alone]
    assert [a["nfe"] for a in alone] == [a["nfe"] for a in together]
    assert all(a["nfe"] <= w["nfe"] for a, w in zip(alone, WANTED))


def test_it_is_sample_up_to_rounding(client):
    for wanted in WANTED[:2]:
        denoiser = sk.load("mnist", labels=wanted["label"])
        own = sk.sample(denoiser, wanted["sampler"], nfe=wanted["nfe"], num_samples=1, seed=wanted["seed"]).x[0]
        assert torch.allclose(torch.tensor(ask(client, wanted)["x"]), own, atol=1e-4)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"sampler": "nosuch"}, "unknown sampler"),
        ({"sampler": "rk45"}, "decides itself"),
        ({"sampler": "reflect:of=weak"}, "no option"),
        ({"sampler": "heun", "nfe": 0}, "greater than or equal to 1"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"label": 11}, "less than or equal to 10"),
        ({"sampler": "flow-map"}, "flow map"),
    ],
)
def test_what_cannot_run_is_told_to_its_client_alone(client, wanted, words):
    answer = client.post("/sample", json=wanted)
    assert answer.status_code == 422 and words in answer.text
