"""Token models: processes, wrapping, prompts, draws, counting, the cache, refusals."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

import solverkit as sk
from solverkit.errors import BudgetError, DenoiserError, NonFiniteError, OptionError, ScheduleError, UnknownNameError
from solverkit.run.noise import sample_seeds
from solverkit.tokens import TokenNoise, classifier_free, planned, temperature, top, top_k, top_p
from solverkit.tokens.noise import inverted
from solverkit.tokens.targets import (
    MarkovChain,
    TokenTable,
    bigram_shares,
    correlated,
    exact_model,
    expected_evaluations,
    markov,
    total_variation,
)


def flat(vocabulary=4, mask=4, length=6, **fields):
    """A network whose logits are zero, and the ids that it was asked about."""
    seen = []

    def net(x, *told):
        seen.append((x.clone(), *told))
        return torch.zeros(*x.shape, vocabulary)

    return sk.wrap_tokens(net, mask=mask, vocabulary=vocabulary, length=length, **fields), seen


# processes


@pytest.mark.parametrize("kind", [sk.Absorbing, sk.Uniform])
@pytest.mark.parametrize(
    "given", [{}, {"eps": 1e-3}, {"form": "linear"}, {"form": "cosine"}, {"form": "polynomial", "power": 3.0}]
)
def test_a_share_and_its_time_are_inverse_and_the_slope_is_the_derivative(kind, given):
    process = kind(**given)
    assert process.share(0.0) == 0 and process.share(1.0) >= 0.999
    for t in (0.05, 0.3, 0.8):
        assert process.time_of(process.share(t)) == pytest.approx(t, abs=1e-10)
        step = 1e-6
        assert process.slope(t) == pytest.approx((process.share(t + step) - process.share(t - step)) / (2 * step), rel=1e-6)
        level = process.at(process.share(t))
        assert (level.alpha, level.time) == (pytest.approx(1 - process.share(t)), pytest.approx(t))


def test_what_the_forms_are():
    assert sk.Absorbing().share(0.3) == 0.3
    assert sk.Absorbing("cosine").share(0.5) == pytest.approx(1 - math.cos(math.pi / 4))
    assert sk.Absorbing("linear", sigma_max=3.0).share(0.5) == pytest.approx(1 - math.exp(-1.5))
    assert sk.Absorbing("polynomial", power=2.0).share(0.5) == pytest.approx(0.75)


def test_grids_of_token_runs():
    even = sk.make_grid("uniform", sk.Absorbing(), 4)
    assert [float(m) for m in even] == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    curved = sk.make_grid("cosine", sk.Absorbing(), 4)
    assert [float(m) for m in curved] == pytest.approx([math.cos(math.pi / 2 * i / 4) for i in range(5)], abs=1e-12)
    assert [float(m) for m in sk.make_grid("flow", sk.Absorbing(), 4)] == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert float(sk.make_grid("uniform", sk.Absorbing("cosine"), 2)[1]) == pytest.approx(1 - math.cos(math.pi / 4))


@pytest.mark.parametrize(
    ("given", "error"),
    [({"form": "sine"}, UnknownNameError), ({"eps": 1.0}, ScheduleError), ({"power": 0.0}, ScheduleError)],
)
def test_a_process_that_does_not_exist(given, error):
    with pytest.raises(error):
        sk.Absorbing(**given)


# draws


def test_a_token_is_drawn_by_inversion():
    log_p = torch.tensor([[0.0, 0.5, 0.25, 0.25, 0.0]], dtype=torch.float64).log().expand(6, -1)
    u = torch.tensor([0.0, 0.49999, 0.5, 0.7499, 0.75, 1 - 2**-53], dtype=torch.float64)
    assert inverted(log_p, u).tolist() == [1, 1, 2, 2, 3, 3]


def test_a_rare_token_is_drawn_as_often_as_it_is_likely():
    """A weight of 1e-9 would be nothing beside 1 on a grid of 2^-24."""
    log_p = torch.tensor([[1.0, 1e-9]], dtype=torch.float64).log()
    u = torch.tensor([1 - 1e-9 - 1e-12, 1 - 0.99e-9], dtype=torch.float64)
    assert inverted(log_p.expand(2, -1), u).tolist() == [0, 1]


def test_draws_belong_to_sample_position_step_and_kind():
    noise, alone = TokenNoise(sample_seeds(0, 3), 5), TokenNoise([sample_seeds(0, 3)[2]], 5)
    everywhere = torch.ones(3, 5, dtype=torch.bool)
    first = noise.uniform(1, 7)
    assert torch.equal(first[2:], alone.uniform(1, 7)), "a sample's draws depend on its batch"
    assert not torch.equal(first, noise.uniform(1, 7)), "the second draw of a step is the first"
    other = TokenNoise(sample_seeds(0, 3), 5)
    assert not torch.equal(other.uniform(2, 7), first) and not torch.equal(other.uniform(1, 8), first)
    assert len(first.unique()) == 15
    happened = TokenNoise(sample_seeds(0, 3), 5).happens(0.3, 7, everywhere)
    assert torch.equal(happened, first < 0.3)
    assert not TokenNoise(sample_seeds(0, 3), 5).happens(1.0, 7, ~everywhere).any()
    assert TokenNoise(sample_seeds(0, 3), 5).happens(1.0, 7, everywhere).all()


def test_top_takes_the_leftmost_of_equals_and_no_more_than_there_are():
    score, where = torch.tensor([[1.0, 3.0, 3.0, 2.0]]), torch.tensor([[True, True, True, False]])
    assert top(score, where, 1).tolist() == [[False, True, False, False]]
    assert top(score, where, 9).tolist() == [[True, True, True, False]]
    assert top(score, where, torch.tensor([0])).sum() == 0


# the model


def test_what_a_network_is_told():
    level = sk.Absorbing("cosine").at(0.4)
    for time, expected in (("share", 0.4), ("sigma", -math.log(0.6)), ("t", 2 / math.pi * math.acos(0.6))):
        model, seen = flat(process=sk.Absorbing("cosine"), time=time)
        model(torch.zeros(2, 6, dtype=torch.long), level)
        assert seen[0][1].tolist() == pytest.approx([expected] * 2)
    model, seen = flat()
    model(torch.zeros(2, 6, dtype=torch.long), level)
    assert len(seen[0]) == 1


def test_shifted_logits_come_from_the_position_before():
    net = lambda x: torch.nn.functional.one_hot(x, 5)[..., :4].float() * 9  # noqa: E731
    x = torch.tensor([[0, 1, 2, 3]])
    plain = sk.wrap_tokens(net, mask=4, vocabulary=4)(x, 0.5).argmax(-1)
    shifted = sk.wrap_tokens(net, mask=4, vocabulary=4, shifted=True)(x, 0.5).argmax(-1)
    assert plain.tolist() == [[0, 1, 2, 3]] and shifted.tolist() == [[0, 0, 1, 2]]


def test_never_is_never_drawn():
    model, _ = flat(vocabulary=4, mask=2, never=(2,))
    log_p = model(torch.full((1, 6), 2), 1.0)
    assert bool((log_p[..., 2] == -math.inf).all()) and log_p.exp().sum(-1).allclose(torch.ones(1, 6))
    assert 2 not in sk.sample(model, "ancestral", nfe=3, num_samples=20).x


def test_a_prompt_by_text_ids_and_places():
    model, _ = flat(alphabet="abcd")
    assert model.with_prompt("ba").prompt.tolist() == [1, 0, -1, -1, -1, -1]
    assert model.with_prompt([3], length=3).prompt.tolist() == [3, -1, -1]
    x = sk.sample(model.with_prompt(torch.tensor([-1, 2, -1, 0, -1, -1])), "ancestral", nfe=2, num_samples=3).x
    assert x[:, [1, 3]].tolist() == [[2, 0]] * 3
    given = torch.tensor([[4, 1, 4], [0, 4, 4]])
    x = sk.sample(model, "p2", nfe=2, x=given).x
    assert x[0, 1] == 1 and x[1, 0] == 0 and x.max() < 4
    assert model.decode(torch.tensor([0, 3, 4])) == "ad_"
    chain = sk.load("markov", length=4)
    assert chain.with_prompt([1]).target is chain.target


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mask": 3}, "inside the vocabulary"),
        ({"mask": None}, "needs mask="),
        ({"process": sk.Uniform()}, "has no mask"),
        ({"time": "sigmas"}, "time must be"),
        ({"alphabet": "abc"}, "alphabet has 3"),
        ({"never": (9,)}, "outside 0 to 3"),
        ({"process": "absorbing"}, "sk.Absorbing"),
    ],
)
def test_a_model_that_cannot_be(given, words):
    with pytest.raises(OptionError, match=words):
        sk.wrap_tokens(lambda x: x, **{"mask": 4, "vocabulary": 4, **given})


def test_a_network_that_does_not_fit_is_refused_with_both_sizes():
    model, _ = flat(vocabulary=4)
    with pytest.raises(DenoiserError, match=r"\(1, 6, 4\).*vocabulary=5"):
        sk.sample(replace(model, vocabulary=5, mask=5), "ancestral", nfe=1, num_samples=1)
    refuses = sk.wrap_tokens(torch.nn.Embedding(4, 4), mask=4, vocabulary=4, length=3)
    with pytest.raises(DenoiserError, match="mask=4"):
        sk.sample(refuses, "ancestral", nfe=1, num_samples=1)
    broken = sk.wrap_tokens(lambda x: torch.full((*x.shape, 4), math.nan), mask=4, vocabulary=4, length=3)
    with pytest.raises(NonFiniteError):
        sk.sample(broken, "ancestral", nfe=1, num_samples=1)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: sk.sample(m, "unipc", nfe=4, num_samples=1), OptionError, "continuous models.*token model.*ancestral"),
        (lambda m: sk.sample(m, sk.samplers()["heun"], nfe=4, num_samples=1), OptionError, "token model.*ancestral"),
        (lambda m: sk.sample(sk.load("gaussian"), "remdm", nfe=4, num_samples=1), OptionError, "decodes tokens.*heun"),
        (lambda m: sk.sample(m, "posterior", nfe=4, num_samples=1), OptionError, "uniform noise.*absorbing noise.*remdm"),
        (lambda m: sk.sample(m, "ancestrel", nfe=4, num_samples=1), UnknownNameError, "Did you mean 'ancestral'"),
        (lambda m: sk.sample(m, "ancestral", num_samples=1), OptionError, "needs nfe= or steps="),
        (lambda m: sk.sample(m, "ancestral", nfe=4, steps=4, num_samples=1), OptionError, "not both"),
        (lambda m: sk.sample(m, "first-hitting", nfe=4, num_samples=1), BudgetError, "6 free tokens"),
        (lambda m: sk.sample(m, "blocks:block=2", nfe=2, num_samples=1), BudgetError, "at least 3 steps"),
        (lambda m: sk.sample(m, "ancestral", nfe=4, x=torch.rand(2, 6)), OptionError, "torch.long"),
        (lambda m: sk.sample(m, "ancestral", nfe=4, x=torch.full((2, 6), 7)), OptionError, "neither the model's"),
        (lambda m: sk.sample(m, "ancestral", nfe=4, num_samples=1, dtype=torch.float64), OptionError, "dtype="),
        (lambda m: sk.sample(m, "remdm", nfe=4, num_samples=1, etta=0.1), OptionError, "no option 'etta'"),
        (lambda m: sk.sample(m, "remdm", nfe=4, num_samples=1, eta=2.0), OptionError, "0 <= eta <= 1"),
        (lambda m: m.with_prompt([0] * 7), OptionError, "7 tokens.*6"),
        (lambda m: m.with_prompt([4]), OptionError, "not the mask"),
        (lambda m: m.with_prompt("a"), OptionError, "no alphabet"),
        (lambda m: sk.likelihood.log_likelihood(m, torch.zeros(1, 6, dtype=torch.long), "vlb"), OptionError, "elbo"),
        (lambda m: sk.likelihood.log_likelihood(m, torch.rand(1, 6), "elbo"), OptionError, "ids"),
    ],
)  # fmt: skip
def test_bad_input_is_told(call, error, words):
    model, _ = flat()
    with pytest.raises(error, match=words):
        call(model)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: sk.tune(m, nfe=(4,)),
        lambda m: sk.GaussianStats.from_network(m),
        lambda m: sk.guidance.clip(m),
        lambda m: sk.flow_map.encode(m, torch.zeros(1, 6)),
    ],
)
def test_what_is_for_continuous_models_says_so(call):
    with pytest.raises(OptionError, match=r"token model.*sk\.decoders"):
        call(flat()[0])


def test_a_bar_of_evaluations(capsys):
    model, _ = flat()
    sk.sample(model, "ancestral", nfe=3, num_samples=3, batch_size=2, progress=True)
    assert "/6" in capsys.readouterr().err


def test_a_decoder_that_writes_over_the_prompt_or_leaves_masks_is_refused():
    model, _ = flat()
    prompted = model.with_prompt([1, 1])
    with pytest.raises(OptionError, match="changed tokens that were given"):
        sk.sample(prompted, lambda model, x, grid, noise: torch.zeros_like(x), nfe=1, num_samples=1)
    with pytest.raises(OptionError, match="left masks"):
        sk.sample(model, lambda model, x, grid, noise: x, nfe=1, num_samples=1)


# counting


def test_only_sequences_that_changed_are_evaluated():
    model, seen = flat(length=3)
    r = sk.sample(model, "ancestral", steps=40, num_samples=6, seed=1)
    rows = sum(len(x) for x, *_ in seen)
    assert r.nfe == rows / 6 == r.reports["rows evaluated"] <= 3 < r.reports["rows asked"]
    assert r.reports["tokens per evaluation"] == pytest.approx(18 / rows)
    for (before, *_), (after, *_) in itertools.pairwise(seen):
        assert len(before) < 6 or len(after) < 6 or not torch.equal(before, after)
    plain = sk.sample(replace(model, cache=False), "ancestral", steps=40, num_samples=6, seed=1)
    assert torch.equal(plain.x, r.x) and plain.nfe > r.nfe


def test_a_network_that_is_told_the_time_is_asked_anew():
    model, seen = flat(length=3, time="t")
    r = sk.sample(model, "ancestral", steps=40, num_samples=6, seed=1)
    assert r.nfe == r.reports["rows asked"] > 3
    assert all(len(set(told.tolist())) == 1 for _, told in seen)


def test_when_each_token_was_revealed():
    model, _seen = flat()
    r = sk.sample(model.with_prompt([2]), "choose-then-sample", steps=5, num_samples=2, return_trajectory=True)
    assert r.reports["revealed"].sort(dim=1).values.tolist() == [[-1, 0, 1, 2, 3, 4]] * 2
    for k in range(5):
        changed = r.trajectory[k] != r.trajectory[k + 1]
        assert torch.equal(changed, r.reports["revealed"] == k)


def test_ids_are_compared_exactly():
    """Ids above 1e5 that differ by one are within torch.allclose's tolerance: a cache that used it would be stale."""
    ids = torch.tensor([[126336, 126335]])
    calls = []

    def net(x):
        calls.append(x.clone())
        return torch.zeros(*x.shape, 126336)

    def two(model, x, grid, noise):
        model(torch.where(x == model.mask, x, x), grid[0])
        y = x.clone()
        y[:, 1] = 126335
        model(y, grid[0])
        return torch.zeros_like(x)

    model = sk.wrap_tokens(net, mask=126336, vocabulary=126336, length=2)
    assert torch.allclose(ids[:, 0], ids[:, 1])
    assert sk.sample(model, two, nfe=1, num_samples=1).nfe == 2


@pytest.mark.parametrize("steps", [64, 256])
def test_evaluations_are_those_of_the_formula(steps):
    model, _ = flat(length=64)
    r = sk.sample(model, "ancestral", steps=steps, num_samples=64)
    expected = expected_evaluations([float(m) for m in sk.make_grid("uniform", model.process, steps)], 64)
    assert expected == pytest.approx(steps * (1 - (1 - 1 / steps) ** 64))
    assert r.nfe == pytest.approx(expected, rel=0.03)


def test_a_run_in_parts_is_the_whole_run():
    chain = sk.load("markov", length=10)
    grid = sk.make_grid("uniform", chain.process, 6)
    whole = sk.sample(chain, "ancestral", grid=grid, num_samples=4).x
    half = sk.sample(chain, "ancestral", grid=sk.Grid(grid.levels[:4], grid.schedule), num_samples=4).x
    assert bool((half == chain.mask).any())
    assert torch.equal(sk.sample(chain, "ancestral", grid=grid.tail(3), x=half).x, whole)


def test_callbacks_see_every_evaluation_asked_for():
    seen = []
    model, _ = flat()
    sk.sample(model, "choose-then-sample", steps=3, num_samples=2, callback=seen.append)
    assert [(e.index, e.x.shape, e.denoised.shape) for e in seen] == [(i, (2, 6), (2, 6, 4)) for i in range(3)]


# targets


def test_the_chain_is_the_table():
    """Forward-backward against a sum over all sequences, for masks and for uniform noise."""
    initial, transition = (
        torch.tensor([0.2, 0.3, 0.5]).double(),
        torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3], [0.3, 0.3, 0.4]]).double(),
    )
    p = initial[:, None, None] * transition[:, :, None] * transition[None]
    for noise in ("absorbing", "uniform"):
        chain, table = MarkovChain(initial, transition, 3, noise), TokenTable(p, noise)
        x = torch.randint(3 + (noise == "absorbing"), (50, 3), generator=torch.Generator().manual_seed(0))
        m = torch.full((50,), 0.4, dtype=torch.float64)
        assert torch.allclose(chain(x, m).exp(), table(x, m).exp(), atol=1e-14)
        assert torch.allclose(chain.log_prob(x.clamp(max=2)), table.log_prob(x.clamp(max=2)))
    assert chain.entropy * 3 == pytest.approx(float(torch.special.entr(p).sum()))
    assert torch.allclose(chain.bigrams, (p.sum(2) + p.sum(0)) / 2)


def test_exact_samples_of_the_chain_have_its_bigrams():
    target = sk.load("markov").target
    x = target.sample(2000, seed=3)
    assert total_variation(bigram_shares(x, 5), target.bigrams) < 0.01
    assert -float(target.log_prob(x).mean()) / 64 == pytest.approx(target.entropy, abs=0.01)


# denoisers around denoisers


def test_temperature_top_k_and_top_p():
    p = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    model = sk.wrap_tokens(lambda x: p.log().expand(*x.shape, 4), mask=4, vocabulary=4, length=1)
    x, ask = torch.full((1, 1), 4), lambda m: m(torch.full((1, 1), 4), 1.0)[0, 0].exp().tolist()
    assert ask(temperature(model, 0.5)) == pytest.approx((p**2 / (p**2).sum()).tolist())
    assert ask(temperature(model, 0)) == [1, 0, 0, 0]
    assert ask(top_k(model, 2)) == pytest.approx([0.625, 0.375, 0, 0])
    assert ask(top_p(model, 0.6)) == pytest.approx([0.625, 0.375, 0, 0]) and ask(top_p(model, 0.5)) == [1, 0, 0, 0]
    assert ask(top_k(temperature(model, 0.5), 1)) == [1, 0, 0, 0]
    assert sk.sample(temperature(model, 0), "ancestral", nfe=1, num_samples=5).x.unique().tolist() == [0] and x.shape == (
        1,
        1,
    )


def test_guidance_masks_the_prompt_and_costs_two_rows():
    chain = sk.load("markov", length=5).with_prompt([1, 2])
    guided = classifier_free(chain, 0.5)
    x = torch.tensor([[1, 2, 5, 5, 5]])
    c, u = chain(x, 1.0), chain(torch.full((1, 5), 5), 1.0)
    expected = (u + 1.5 * (c - u))[:, 2:].log_softmax(-1)
    assert torch.allclose(guided(x, 1.0)[:, 2:], expected)
    r = sk.sample(guided, "choose-then-sample", steps=3, num_samples=4)
    assert r.nfe == 6 and r.x[:, :2].tolist() == [[1, 2]] * 4
    with pytest.raises(OptionError, match="prompt"):
        classifier_free(sk.load("markov", length=5), 0.5)


def test_a_planner_is_another_network_and_is_counted():
    chain, other = markov(6), markov(6, seed=1).target
    judge = exact_model(MarkovChain(other.initial, other.transition, 6, own=False))
    alone, both = (sk.sample(m, "p2", steps=4, num_samples=8) for m in (chain, planned(chain, judge)))
    assert both.nfe > alone.nfe and not torch.equal(both.x, alone.x)
    with pytest.raises(OptionError, match="same vocabulary"):
        planned(chain, sk.load("markov", symbols=3))


# likelihood


def test_the_bound_has_no_variance_on_independent_tokens():
    model = sk.load("independent")
    x = sk.sample(model, "ancestral", nfe=4, num_samples=6).x
    found = sk.likelihood.log_likelihood(model, x, "elbo", draws=8)
    exact = model.target.log_prob(x)
    one = sk.likelihood.log_likelihood(model, x, "elbo", draws=1)
    assert found.nfe == 8
    assert float((one.nats - exact).abs().max()) > 0.01  # one mask sees some of the tokens
    per_token = torch.tensor([0.5, 0.25, 0.25]).expand(4, 3)
    same = exact_model(TokenTable(torch.einsum("a,b,c,d->abcd", *per_token.double())))
    y = torch.tensor([[0, 0, 0, 0], [1, 2, 2, 1]])
    equal = sk.likelihood.log_likelihood(same, y, "elbo", draws=5)
    assert torch.allclose(equal.nats, same.target.log_prob(y), atol=1e-12) and float(equal.standard_error.max()) < 1e-12


def test_the_bound_is_exact_in_the_mean_on_enumeration():
    model = correlated(3, 3)
    x = torch.tensor([[0, 1, 2]])
    total = 0.0
    for mask in range(1, 8):
        hidden = torch.tensor([[bool(mask >> i & 1) for i in range(3)]])
        k = int(hidden.sum())
        log_c = model(torch.where(hidden, 3, x), 1.0).gather(-1, x[..., None])[..., 0]
        total += float(log_c[hidden].sum()) / k / math.comb(3, k)
    assert total == pytest.approx(float(model.target.log_prob(x)), abs=1e-12)
    many = sk.likelihood.log_likelihood(model, x.expand(400, 3), "elbo", draws=6)
    assert float(many.nats.mean()) == pytest.approx(total, abs=4 * float(many.nats.std()) / 20)
    prompted = sk.likelihood.log_likelihood(model.with_prompt([0, 1], length=3), x, "elbo", draws=4)
    conditional = model(torch.tensor([[0, 1, 3]]), 1.0)[0, 2, 2]
    assert float(prompted.nats) == pytest.approx(float(conditional), abs=1e-12)
