"""A denoiser of some samples of a batch, and one that is asked at a level a row."""

from __future__ import annotations

import pytest
import torch

import solverkit as sk
from solverkit import constraints, guidance
from solverkit.errors import DenoiserError, ProblemError
from solverkit.model.counting import counting
from solverkit.model.inputs import cut

torch.set_num_threads(1)
SHAPE = (2, 4)


class Labelled(torch.nn.Module):
    """An epsilon network of a label, a context and the time, and what it saw."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(5, 2)
        self.batches = []

    def forward(self, x, t, class_labels, context=None, extra=None):
        self.batches.append(len(x))
        y = self.embed(class_labels)[:, :, None] + torch.tanh(x) + 1e-3 * t.view(-1, 1, 1)
        y = y if context is None else y + context.mean(1)[:, None, None]
        return y if extra is None else y + extra["size"][:, :1, None] + extra["shared"].sum()


def conditioned(batch=6):
    generator = torch.Generator().manual_seed(1)
    return sk.wrap(
        Labelled(), "epsilon", sk.VP(), shape=SHAPE, class_labels=torch.arange(batch) % 5,
        context=torch.randn(batch, 3, generator=generator),
        extra={"size": torch.randn(batch, 2, generator=generator), "shared": torch.ones(7)},
    )  # fmt: skip


def wrappers(batch=6):
    c = conditioned(batch)
    u = c.with_inputs(class_labels=4)
    scale = torch.linspace(0.5, 3.0, batch)
    free = guidance.classifier_free(c, u, scale)
    return {
        "plain": c,
        "free": free,
        "batched": guidance.classifier_free(c, u, scale, batched=True),
        "interval": guidance.classifier_free(c, u, scale, interval=(0.1, 50.0)),
        "rescale": guidance.rescale(free),
        "threshold": guidance.dynamic_threshold(guidance.clip(free, -3, 3)),
        "posterior": guidance.posterior(c, lambda y: y[:, :, :1], torch.randn(batch, 2, 1), scale=0.1 * scale),
        "classifier": guidance.classifier(c, lambda y, level: -(y**2).flatten(1).sum(1), scale=scale),
    }


@pytest.mark.parametrize("name", wrappers())
def test_rows_are_the_rows_of_the_whole(name):
    torch.manual_seed(3)
    d = wrappers()[name]
    x = 2 * torch.randn(6, *SHAPE)
    whole = d(x, 1.5).detach()
    torch.testing.assert_close(d.rows(2, 5, 6)(x[2:5], 1.5).detach(), whole[2:5])
    torch.testing.assert_close(d.rows([4, 0], None, 6)(x[[4, 0]], 1.5).detach(), whole[[4, 0]])
    assert d.rows(0, 1, 6).schedule is d.schedule and d.rows(0, 1, 6).shape == SHAPE


@pytest.mark.parametrize("name", ["plain", "free", "posterior"])
def test_a_run_in_batches_is_the_whole_run(name):
    torch.manual_seed(3)
    d = wrappers()[name]
    whole, parts = (sk.sample(d, "heun", steps=3, num_samples=6, batch_size=n) for n in (6, 4))
    torch.testing.assert_close(parts.x, whole.x)
    assert parts.nfe == whole.nfe


def test_inputs_of_one_row_or_none_are_left():
    seen = {}

    def net(x, t, **inputs):
        seen.update(inputs)
        return x

    shared, one, many = torch.ones(7, 2), torch.ones(1, 2), [torch.ones(n) for n in (1, 2, 3, 5)]
    d = sk.wrap(net, "epsilon", sk.VP(), mask=shared, one=one, texts=many, flag=True, names=["a", "b", "c", "d"], label=2)
    d.rows(1, 3, 4)(torch.zeros(2, 3), 1.0)
    assert seen["mask"] is shared and seen["one"] is one and seen["names"] == ["a", "b", "c", "d"]
    assert [len(v) for v in seen["texts"]] == [2, 3] and seen["label"].tolist() == [2, 2]


def test_a_list_of_blocks_is_cut_inside():
    blocks = [torch.arange(4.0), torch.arange(4.0)]
    assert [v.tolist() for v in cut(blocks, slice(1, 3), 4)] == [[1, 2], [1, 2]]
    assert [v.tolist() for v in cut([*blocks, *blocks], [3], 4)] == [[3]] * 4  # 4 blocks of 4 rows: rows, not blocks


def test_a_view_counts_for_the_whole():
    d = conditioned()
    d.rows(0, 2, 6)(torch.zeros(2, *SHAPE), 1.0)
    d.rows(2, 6, 6)(torch.zeros(4, *SHAPE), 1.0)
    assert d.calls == 2 and d.with_inputs(class_labels=1).calls == 0


@pytest.mark.parametrize(
    "given", [(0, 3, None), (0, 9, 6), (3, 3, 6), (-1, 2, 6), ([0, 6], None, 6), ([], None, 6), ([0], 2, 6)]
)
def test_rows_that_do_not_exist(given):
    with pytest.raises(DenoiserError, match=r"total|rows"):
        conditioned().rows(*given)


# ------------------------------------------------------------------------------------------------------ levels a row


@pytest.mark.parametrize(
    "schedule", [sk.VP(), sk.VP(integer_time=True), sk.VP(zero_terminal_snr=True), sk.SubVP(), sk.EDM(), sk.Flow(),
                 sk.Flow(data_at=1)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("prediction", ["sample", "v_prediction", "flow_prediction"])
def test_one_level_a_row_is_each_row_at_its_own(schedule, prediction):
    d = sk.wrap(lambda x, t: torch.tanh(x) + 1e-3 * t.view(-1, 1), prediction, schedule)
    levels = [schedule.level(r) for r in (5.0, 0.3, 1.0, 0.0)]
    x = torch.randn(4, 3, dtype=torch.float64)
    with counting() as count:
        out = d(x, tuple(levels))
    assert (count.rows, count.passes) == (4, 1)
    for i, level in enumerate(levels):
        torch.testing.assert_close(out[i : i + 1], d(x[i : i + 1], level))
    assert d(x.float(), tuple(levels)).dtype == torch.float32


def test_edm_scales_its_input_row_by_row():
    d = sk.wrap(lambda x, t: x * t.view(-1, 1), "edm", sk.EDM())
    x, levels = torch.randn(3, 2, dtype=torch.float64), (0.1, 2.0, 30.0)
    torch.testing.assert_close(d(x, levels), torch.cat([d(x[i : i + 1], s) for i, s in enumerate(levels)]))
    with pytest.raises(DenoiserError, match="2 levels were given for 3 rows"):
        d(x, (1.0, 2.0))


@pytest.mark.parametrize("name", wrappers())
def test_guidance_takes_rows_only_where_it_handles_them(name):
    torch.manual_seed(3)
    d = wrappers()[name]
    assert d.takes_rows == (name not in ("interval", "posterior", "classifier"))
    if d.takes_rows:
        x, levels = torch.randn(6, *SHAPE), tuple(d.schedule.at(s) for s in (3.0, 2.0, 1.0, 0.5, 0.2, 0.1))
        one_by_one = [d.rows(i, i + 1, 6)(x[i : i + 1], level) for i, level in enumerate(levels)]
        torch.testing.assert_close(d(x, levels), torch.cat(one_by_one))


def test_a_scale_of_the_level_is_each_rows_own():
    c = conditioned(3)
    d = guidance.classifier_free(c, c.with_inputs(class_labels=4), lambda level: 1.0 + float(level))
    x, levels = torch.randn(3, *SHAPE), (2.0, 1.0, 0.5)
    rows = [d.rows(i, i + 1, 3)(x[i : i + 1], s) for i, s in enumerate(levels)]
    torch.testing.assert_close(d(x, levels), torch.cat(rows))


@pytest.mark.parametrize("schedule", [sk.EDM(), sk.Flow()], ids=["edm", "flow"])
@pytest.mark.parametrize("rank", [None, 2])
def test_an_exact_denoiser_takes_rows(schedule, rank):
    d = sk.problems.mixture(dim=5, modes=3, rank=rank, schedule=schedule)
    x, levels = torch.randn(4, 5, dtype=torch.float64), (0.9, 0.4, 0.0, 0.05)
    with counting() as count:
        out = d(x, levels)
    assert (count.rows, count.passes) == (4, 1) and d.takes_rows
    torch.testing.assert_close(out, torch.cat([d(x[i : i + 1], s) for i, s in enumerate(levels)]), rtol=1e-12, atol=1e-12)
    with pytest.raises(ProblemError, match="3 levels were given for 4 rows"):
        d(x, levels[:3])


# -------------------------------------------------------------------------------------------------------- constraints


def test_a_constraint_on_some_samples():
    torch.manual_seed(0)
    known, mask = torch.randn(5, 6), (torch.rand(5, 6) > 0.5).float()
    rows = torch.linalg.qr(torch.randn(6, 5))[0].T  # five rows and five samples: the matrix is not cut
    grey = torch.rand(5, 1, 2, 2)
    for whole, shape in (
        (constraints.inpaint(known, mask), (5, 6)),
        (constraints.inpaint(known, mask[0]), (5, 6)),
        (constraints.observe(rows, torch.randn(5, 5)), (5, 6)),
        (constraints.colorize(grey), (5, 3, 2, 2)),
        (constraints.together(constraints.inpaint(known, mask), lambda x, level, draw: x), (5, 6)),
    ):
        x, z, level = torch.randn(shape), torch.randn(shape), sk.EDM().at(0.7)
        edited = whole(x, level, lambda s, t, z=z: z)
        for index in (slice(1, 4), [4, 2]):
            given = (1, 4, 5) if isinstance(index, slice) else (index, None, 5)
            part = whole.rows(*given)
            torch.testing.assert_close(part(x[index], level, lambda s, t, z=z, i=index: z[i]), edited[index])
            torch.testing.assert_close(part.finish(x[index]), whole.finish(x)[index])
