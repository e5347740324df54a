"""NFE is counted whatever thread a pass is made in, and two runs at once count their own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest
import torch

import solverkit as sk
from solverkit.errors import DenoiserError
from solverkit.model.counting import counting, record

torch.set_num_threads(1)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as made:
        yield made


def network():
    return sk.wrap(lambda x, t: 0.1 * x, "epsilon", sk.VP(), shape=(2,))


class Guided:
    """Two passes in threads of a pool, as a denoiser of two networks makes them."""

    def __init__(self, denoiser, pool):
        self.denoiser, self.pool, self.schedule, self.shape = denoiser, pool, denoiser.schedule, denoiser.shape

    def __call__(self, x, level):
        a, b = (self.pool.submit(self.denoiser, x, level) for _ in range(2))
        return b.result() + 2 * (a.result() - b.result())


def test_passes_in_threads_of_a_denoiser_are_counted(pool):
    net = network()
    result = sk.sample(Guided(net, pool), "heun", nfe=5, num_samples=3)
    assert result.nfe == net.calls == 10 and result.passes == 10


@pytest.mark.parametrize("by", ["x", "level", "both", "context"])
def test_two_counts_that_share_a_network_and_a_pool(pool, by):
    """A pass belongs to the evaluation whose x or whose level it has."""
    net, both = network(), threading.Barrier(2)
    counts = {}

    def evaluate(name, rows, passes):
        x, level = torch.zeros(rows, 2), net.schedule.at(1.0)
        with counting(x, level) as count:
            both.wait(10)
            for _ in range(passes):
                if by == "context":
                    pool.submit(copy_context().run, net, x + 1, 1.0).result()
                else:
                    pool.submit(net, x + 1 if by == "level" else x, 1.0 if by == "x" else level).result()
            both.wait(10)
        counts[name] = count.rows, count.passes

    threads = [threading.Thread(target=evaluate, args=a) for a in (("a", 3, 5), ("b", 2, 7))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == {"a": (15, 5), "b": (14, 7)} and net.calls == 12


def test_a_pass_that_could_be_eithers_is_refused(pool):
    level, ready, done = sk.EDM().at(1.0), threading.Barrier(2), threading.Event()

    def other():
        with counting(torch.zeros(2), level):
            ready.wait(10)
            done.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    with counting(torch.zeros(2), level) as count:
        ready.wait(10)
        with pytest.raises(DenoiserError, match="copy_context"):
            pool.submit(record, 2, torch.zeros(2), level).result()
        pool.submit(record, 2, torch.zeros(2), sk.EDM().at(1.0)).result()  # of neither
        assert count.passes == 0
    done.set()
    thread.join()


def test_nested_blocks_count_what_their_threads_do(pool):
    with counting() as outer:
        with counting() as inner:
            pool.submit(record, 3).result()
        record(2)
        pool.submit(record, 1).result()
    pool.submit(record, 5).result()  # nobody counts
    assert (inner.rows, inner.passes, outer.rows, outer.passes) == (3, 1, 6, 3)


def test_many_threads_lose_no_pass(pool):
    net = network()
    with counting() as count:
        list(pool.map(lambda _: [net(torch.zeros(1, 2), 1.0) for _ in range(50)], range(8)))
    assert count.rows == net.calls == 400
