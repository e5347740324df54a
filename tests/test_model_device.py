"""Denoisers, guidance and constraints on a device without float64: the answer is the one on the host."""

from __future__ import annotations

import pytest
import torch

import solverkit as sk
from solverkit import constraints, guidance
from solverkit.proofs.device import IMITATED, SinglePrecisionDevice

torch.set_num_threads(1)


def network(prediction, schedule, **inputs):
    return sk.wrap(lambda x, t, **k: torch.tanh(x) * 0.5 + 1e-3 * t.to(x.dtype).view(-1, 1), prediction, schedule, **inputs)


def guided(kind):
    c = network("sample", sk.EDM(), label=1)
    u = c.with_inputs(label=2)
    scale = torch.tensor([1.0, 2.0], dtype=torch.float64)  # made on the host, as a user makes it
    free = guidance.classifier_free(c, u, scale)
    return {
        "free": free,
        "batched": guidance.classifier_free(c, u, lambda level: float(level), batched=True),
        "rescale": guidance.rescale(free),
        "threshold": guidance.dynamic_threshold(guidance.clip(free)),
        "classifier": guidance.classifier(c, lambda x, level: -(x**2).sum(1), scale),
    }[kind]


NETWORKS = [
    ("epsilon", sk.VP()),
    ("v_prediction", sk.VP(integer_time=True)),
    ("edm", sk.EDM()),
    ("flow_prediction", sk.Flow(data_at=1)),
]
DENOISERS = {prediction: (lambda p=prediction, s=schedule: network(p, s)) for prediction, schedule in NETWORKS}
DENOISERS |= {k: (lambda k=k: guided(k)) for k in ("free", "batched", "rescale", "threshold", "classifier")}
DENOISERS["mixture"] = lambda: sk.problems.mixture(dim=4, modes=3, rank=2)


@pytest.mark.parametrize("name", DENOISERS)
def test_a_denoiser_makes_no_float64_there(name):
    d, x = DENOISERS[name](), torch.linspace(-1, 1, 8).reshape(2, 4)
    asked = [0.7, (0.7, 0.3)] if getattr(d, "takes_rows", False) else [0.7]
    for level in asked:
        with torch.no_grad():
            host = d(x, level)
        with SinglePrecisionDevice(), torch.no_grad():
            there = d(x.to(IMITATED), level)
            assert there.device.type == IMITATED.type and there.dtype == torch.float32
            torch.testing.assert_close(there.cpu(), host, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("soft", [False, True])
def test_a_constraint_makes_no_float64_there(soft):
    x, level = torch.linspace(-1, 1, 8).reshape(2, 4), sk.EDM().at(0.7)
    known = torch.ones(2, 4, dtype=torch.float64)
    mask = torch.tensor([1.0, 0.5 if soft else 0.0, 0.0, 1.0], dtype=torch.float64)
    rows = torch.linalg.qr(torch.arange(16.0, dtype=torch.float64).reshape(4, 4).cos())[0][:2]
    for constraint in (constraints.inpaint(known, mask), constraints.observe(rows, known[:, :2])):
        host = constraint.finish(constraint(x, level, lambda s, t: x))
        with SinglePrecisionDevice():
            own = x.to(IMITATED)
            there = constraint.finish(constraint(own, level, lambda s, t, own=own: own))
            assert there.device.type == IMITATED.type
            torch.testing.assert_close(there.cpu(), host, rtol=1e-5, atol=1e-5)
