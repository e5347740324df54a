"""A sampling server: requests of any samplers and budgets share one network, step by step.

    uvicorn --factory server:make_app          # in this folder
    curl localhost:8000/sample -H 'content-type: application/json' -d '{"sampler": "unipc", "nfe": 9, "seed": 3}'

A request is a plan, a state x and a `State`: tuples that `sk.begin` and `sk.advance` take and give. Nothing of it lives in
the network or in a scheduler, so any requests can be in one batch: each row is at its own level, with its own label. The
batch always has SLOTS rows, the free ones filled with zeros: the network runs the same kernels whoever shares it, and a
sample is bit for bit what the server makes when it is alone with it. docs/serving.md says where that was measured. Samplers
that choose their steps while they run (pull-only) have no plan and are refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import torch
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

import solverkit as sk
from solverkit.registry.registry import resolve
from solverkit.run.choose import choose_grid
from solverkit.run.noise import PRIOR, SampleNoise, sample_seeds

SLOTS = 8
NO_LABEL = 10  # the class that the bundled networks are told where no digit is wanted


class Wanted(BaseModel):
    """What a client asks for."""

    sampler: str = "dpmpp-2m"
    nfe: int = Field(20, ge=1, le=1000)
    seed: int = Field(0, ge=0, lt=2**63)
    label: int = Field(NO_LABEL, ge=0, le=NO_LABEL)


@dataclass
class Request:
    """Where one sample stands: a plan, (x, state) of it, and who waits for the end."""

    plan: sk.Plan
    draw: SampleNoise
    label: int
    x: torch.Tensor
    state: sk.State
    done: asyncio.Future[torch.Tensor]


def opened(denoiser: sk.Denoiser, wanted: Wanted) -> Request:
    """A request at its first evaluation. Raises SolverKitError where there is no such run."""
    card = resolve(wanted.sampler)
    if not card.traceable:
        raise sk.errors.OptionError(
            f"{wanted.sampler!r} decides itself how often to ask (pull-only); this server runs plans."
        )
    options = card.prepared(denoiser, {}, (1, *denoiser.shape))
    plan = sk.trace(card, choose_grid(card, denoiser.schedule, wanted.nfe, None, None, None, options), **options)
    if plan.of or plan.to:
        raise sk.errors.OptionError(f"{wanted.sampler!r} asks another model or a flow map; this server has one network.")
    draw, first = SampleNoise(sample_seeds(wanted.seed, 1), denoiser.shape, device=denoiser.device), plan.grid[0]
    x, state = sk.begin(plan, draw(PRIOR) * (denoiser.schedule.prior_std(first) / first.scale), draw)
    return Request(plan, draw, wanted.label, x, state, asyncio.get_running_loop().create_future())


def step(denoiser: sk.Denoiser, requests: list[Request]) -> None:
    """One evaluation of each of at most SLOTS requests, in one batch of SLOTS rows."""
    free = SLOTS - len(requests)
    levels = [r.plan.levels[r.state.index] for r in requests]
    labels = torch.tensor([r.label for r in requests] + [NO_LABEL] * free, device=denoiser.device)
    x = torch.cat([*(r.x for r in requests), torch.zeros(free, *denoiser.shape, device=denoiser.device)])
    with torch.no_grad():
        answers = denoiser.view(class_labels=labels)(x, (*levels, *levels[:1] * free))
        for request, denoised in zip(requests, answers.split(1)):
            request.x, request.state = sk.advance(request.plan, request.state, request.x, denoised, request.draw)


async def serve(denoiser: sk.Denoiser, queue: asyncio.Queue[Request]) -> None:
    """Step all requests that are open, SLOTS at a time in turn, as long as the server runs."""
    waiting: list[Request] = []
    while True:
        while not queue.empty() or not waiting:
            waiting.append(await queue.get())
        batch, waiting = waiting[:SLOTS], waiting[SLOTS:]
        try:
            await asyncio.to_thread(step, denoiser, batch)
        except Exception as error:
            for request in batch:
                request.done.set_exception(error)
            continue
        for request in batch:
            if request.state.index < request.plan.nfe:
                waiting.append(request)
            elif not request.done.cancelled():
                request.done.set_result(request.x * request.plan.grid[-1].scale)


def make_app(model: str = "mnist") -> FastAPI:
    """The server of one network, a bundled name or a folder."""
    denoiser = sk.load(model)
    queue: asyncio.Queue[Request] = asyncio.Queue()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.create_task(serve(denoiser, queue))
        yield
        loop.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post("/sample")
    async def sample(wanted: Wanted) -> dict[str, Any]:
        try:
            request = opened(denoiser, wanted)
        except sk.errors.SolverKitError as error:
            raise HTTPException(422, str(error)) from None
        await queue.put(request)
        x = await request.done
        # passes: calls of the network since the server started, for all requests together
        return {"nfe": request.plan.nfe, "passes": denoiser.calls, "x": x[0].tolist()}

    return app
