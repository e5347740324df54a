"""A device without float64, imitated: what the imitation refuses, and the paths that must run there."""

from __future__ import annotations

import pytest
import torch

import solverkit as sk
from solverkit import SolverKitScheduler
from solverkit.proofs.device import IMITATED, SinglePrecisionDevice


def test_the_imitation_refuses_what_such_a_device_refuses():
    host = torch.arange(4.0)
    with SinglePrecisionDevice():
        x = host.to(IMITATED)
        assert x.device.type == IMITATED.type and (2 * x + 1).device.type == IMITATED.type
        assert x.new_tensor([1.0]).dtype == torch.float32 and x.tolist() == [0.0, 1.0, 2.0, 3.0]
        assert float(x.sum()) == 6.0 and torch.equal((x * x).cpu(), host * host)
        for wrong in (
            x.double, lambda: host.double().to(IMITATED), lambda: torch.zeros(2, dtype=torch.float64, device=IMITATED)
        ):  # fmt: skip
            with pytest.raises(TypeError, match="float64"):
                wrong()
        with pytest.raises(RuntimeError, match="same device"):
            x + host
    assert torch.zeros(1, dtype=torch.float64).device.type == "cpu"  # outside nothing is watched


@pytest.mark.parametrize(
    ("prediction", "schedule"), [("epsilon", sk.VP()), ("edm", sk.EDM()), ("flow_prediction", sk.Flow())], ids=str
)
def test_wrapped_networks_constraints_and_trajectories(prediction, schedule):
    denoiser = sk.wrap(lambda x, t: 0.1 * x, prediction=prediction, schedule=schedule)
    known, mask = torch.zeros(2, 1, 4, 4), torch.ones(1, 1, 4, 4)
    mask[..., :2] = 0
    results = []
    for device in ("cpu", IMITATED):
        with SinglePrecisionDevice():
            inpaint = sk.constraints.inpaint(known.to(device), mask.to(device))
            run = sk.sample(
                denoiser, "ddpm", steps=4, shape=(2, 1, 4, 4), device=device, constrain=inpaint, return_trajectory=True
            )
            results.append((run.x.cpu(), run.trajectory.cpu()))
    for host, there in zip(*results):
        torch.testing.assert_close(there, host, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("native", ["DDIMScheduler", "EulerDiscreteScheduler"])
@pytest.mark.parametrize("sampler", ["unipc", "euler-ancestral", "heun"])
def test_the_scheduler(native, sampler):
    results = []
    for device in (torch.device("cpu"), IMITATED):
        with SinglePrecisionDevice():
            scheduler = SolverKitScheduler(sampler=sampler, native_class=native)
            scheduler.set_timesteps(4, device=device)
            x = torch.linspace(-1, 1, 64).reshape(1, 4, 4, 4).to(device)
            x = scheduler.add_noise(x, x, scheduler.timesteps[:1])
            for t in scheduler.timesteps:
                output = 0.1 * scheduler.scale_model_input(x, t)
                generator = torch.Generator().manual_seed(0)
                noise = torch.randn(x.shape, generator=generator).to(device)
                extra = {"variance_noise": noise} if scheduler._run.stepper.stochastic else {}
                x = scheduler.step(output, t, x, return_dict=False, **extra)[0]
            results.append(x.cpu())
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-5)
