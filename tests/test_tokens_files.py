"""Token networks from folders, from transformers, and on the command line."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import save_file

import solverkit as sk
from solverkit.errors import LoadError, OptionError
from solverkit.tokens.transformer import CharacterTransformer


@pytest.fixture
def folder(tmp_path):
    """A folder as training writes it, of a tiny random network."""
    torch.manual_seed(0)
    net = CharacterTransformer(4, 16, 1, 2)
    path = tmp_path / "net"
    path.mkdir()
    save_file({k: v.half() for k, v in net.state_dict().items()}, path / "model.safetensors")
    said = {"_class_name": "CharacterTransformer", "vocabulary": 4, "width": 16, "depth": 1, "heads": 2, "mask": 4}
    (path / "config.json").write_text(json.dumps({**said, "length": 12, "alphabet": "ab:\n"}))
    return path


def test_a_folder_is_a_model(folder):
    model = sk.load(folder)
    assert (model.vocabulary, model.mask, model.length, model.alphabet) == (4, 4, 12, "ab:\n")
    assert next(model.net.parameters()).dtype == torch.float32
    x = torch.tensor([[0, 4, 1, 4]])
    log_p = model(x, 0.5)
    assert log_p.shape == (1, 4, 4) and torch.allclose(log_p.exp().sum(-1), torch.ones(1, 4))
    assert sk.load(folder, length=5).length == 5
    cached, plain = (sk.sample(sk.load(folder, cache=c), "remdm", steps=30, num_samples=5) for c in (True, False))
    assert torch.equal(cached.x, plain.x) and cached.nfe < plain.nfe


def test_the_network_looks_both_ways_and_at_places(folder):
    net = sk.load(folder).net
    x = torch.tensor([[0, 1, 2, 4, 2, 1]])
    base = net(x)
    for place in (0, 5):
        other = x.clone()
        other[0, place] = 3
        assert float((net(other) - base)[0, 3].abs().max()) > 1e-5, "an end of the sequence is not seen in the middle"
    assert not torch.allclose(net(torch.tensor([[0, 1, 4]]))[0, 2], net(torch.tensor([[1, 0, 4]]))[0, 2])


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"width": 32}, "does not fit"),
        ({"heads": 0}, "describes no CharacterTransformer"),
        ({"depth": "two"}, "describes no CharacterTransformer"),
    ],
)
def test_a_folder_that_contradicts_itself(folder, broken, words):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **broken}))
    with pytest.raises(LoadError, match=words):
        sk.load(folder)


def test_a_folder_without_weights_or_with_wrong_ones(folder):
    (folder / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(LoadError, match="safetensors"):
        sk.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(LoadError):
        sk.load(folder)


def test_options_that_no_token_model_has(folder):
    with pytest.raises(OptionError, match="takes no lenght="):
        sk.load(folder, lenght=5)
    with pytest.raises(OptionError, match="inside the vocabulary"):
        sk.load(folder, mask=3)


# transformers


@pytest.mark.parametrize("name", ["BertForMaskedLM", "ModernBertForMaskedLM"])
def test_a_masked_language_model_of_transformers(tmp_path, name):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    kind = getattr(transformers, name)
    extra = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    net = kind(
        kind.config_class(**sizes, **(extra if name.startswith("Modern") else {}), max_position_embeddings=32)
    ).eval()
    net.save_pretrained(tmp_path / "lm")
    model = sk.load(tmp_path / "lm", mask=39, length=8)
    assert (model.vocabulary, model.mask, model.never, model.shifted) == (40, 39, (39,), False)
    x = torch.randint(39, (2, 8))
    with torch.no_grad():
        logits = net(x).logits.index_fill(-1, torch.tensor([39]), -torch.inf)
    assert torch.allclose(model(x, 0.5), logits.log_softmax(-1), atol=1e-5)
    r = sk.sample(model.with_prompt([5, 6]), "sample-then-choose", nfe=4, num_samples=3)
    assert r.x[:, :2].tolist() == [[5, 6]] * 3 and r.x.max() < 39
    with pytest.raises(OptionError, match="pass mask="):
        sk.load(tmp_path / "lm")


@dataclass
class Config:
    """Of a checkpoint that brings its own code."""

    model_type: str
    vocab_size: int


class Remote(torch.nn.Module):
    """What `AutoModel.from_pretrained(..., trust_remote_code=True)` gives: a config, and logits as an attribute."""

    def __init__(self, model_type, vocabulary):
        super().__init__()
        self.config = Config(model_type, vocabulary)
        self.table = torch.nn.Embedding(vocabulary, 8)

    def forward(self, input_ids):
        logits = self.table(input_ids).sum(-1, keepdim=True) + torch.arange(16.0)
        return type("Output", (), {"logits": logits})()


def test_what_is_known_of_llada_and_dream():
    """Their mask, and that Dream's logits are shifted: read from model_type; the ids are those of the released networks."""
    for kind, mask, shifted in (("llada", 126336, False), ("Dream", 151666, True)):
        model = sk.hub.masked_lm(Remote(kind, 152064))
        assert (model.mask, model.shifted, model.never, model.vocabulary) == (mask, shifted, (mask,), 152064)
        assert not any(p.requires_grad for p in model.net.parameters())
    small = sk.hub.masked_lm(Remote("Dream", 16), mask=15)
    x = torch.tensor([[3, 15, 4]])
    direct = small.net(x).logits[:, [0, 0, 1]].index_fill(-1, torch.tensor([15]), -torch.inf).log_softmax(-1)
    assert torch.allclose(small(x, 1.0), direct)
    assert sk.hub.masked_lm(Remote("llada", 16), mask=16).never == ()
    with pytest.raises(OptionError, match="pass mask="):
        sk.hub.masked_lm(Remote("other", 16))


def test_a_checkpoint_with_code_of_its_own_is_not_executed(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LLaDAModelLM"], "model_type": "llada"}))
    with pytest.raises(LoadError, match="trust_remote_code"):
        sk.load(tmp_path)


# command line


def test_sample_prints_text(cli, folder):
    code, out, err = cli("sample", str(folder), "--sampler", "remdm", "--nfe", "8", "--prompt", "ab:", "-k", "2")
    assert (code == 0 and out.count("ab:") >= 2 and "8 evaluations" in err) or "evaluations each" in err
    code, out, _ = cli("sample", str(folder), "--nfe", "8", "--prompt", "ab:", "--length", "9", "--json")
    said = json.loads(out)
    assert said["sampler"] == "ancestral" and said["nfe"] <= 8 == said["rows_asked"]
    assert [len(text) for text in said["texts"]] == [9] and said["texts"][0].startswith("ab:")
    again = json.loads(cli("sample", str(folder), "--nfe", "8", "--prompt", "ab:", "--length", "9", "--json")[1])
    assert again["texts"] == said["texts"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--sampler", "unipc"), "token model"),
        (("--prompt", "xyz"), "no character"),
        (("--prompt", "a" * 13), "13 tokens"),
        (("--label", "3"), "continuous models"),
        (("--set", "eta=2", "--sampler", "remdm"), "eta"),
    ],
)
def test_sample_says_what_is_wrong(cli, folder, arguments, words):
    code, _, err = cli("sample", str(folder), *arguments)
    assert code == 2 and words in err.replace("\n", " ")


def test_prompt_is_for_token_models(cli):
    code, _, err = cli("sample", "mixture", "--prompt", "a")
    assert code == 2 and "token models" in err


def test_newer_tokens_are_brighter_on_a_terminal(folder, monkeypatch, capsys):
    from rich.console import Console

    from solverkit.commands import text

    screen = Console(force_terminal=True, color_system="256", width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    monkeypatch.setattr(text, "console", lambda: screen)
    model = sk.load(folder)
    text._show(model, torch.tensor([0, 1, 2, 0]), torch.tensor([-1, 0, 5, 10]))
    written = screen.export_text(styles=True)
    assert "\x1b[1ma" in written and written.index("38;5;240m") < written.index("38;5;248m") < written.index("38;5;255m")


def test_likelihood_of_text(cli, folder, tmp_path):
    (tmp_path / "t.txt").write_text("ab:\n" * 9)
    code, out, _ = cli("likelihood", str(folder), "--data", str(tmp_path / "t.txt"), "--draws", "4", "--json")
    said = json.loads(out)
    assert code == 0 and (said["samples"], said["tokens"], said["nfe"]) == (3, 12, 4)
    assert 0.5 < said["bits/token"][0] < 5
    code, out, _ = cli("likelihood", "markov", "-k", "12", "--json")
    said = json.loads(out)
    assert said["bits/token"][0] == pytest.approx(said["exact bits/token"], abs=0.1)
    code, _, err = cli("likelihood", str(folder), "--method", "vlb")
    assert code == 2 and "elbo" in err


def test_a_judge_knows_real_text_from_noise_and_from_repetition():
    from solverkit.files.network import NETWORKS
    from solverkit.tokens.judge import Judge, sequence_entropy

    said = json.loads((NETWORKS / "shakespeare" / "judge.json").read_text())
    alphabet = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    judge = Judge.load(NETWORKS / "shakespeare", 65)
    texts = ["The river bends beyond the quiet mill at evening.\n", "the the the the the the the the the the the the \n"]
    ids = [torch.tensor([alphabet.index(c) for c in t])[:48] for t in texts]
    x = torch.stack([*ids, torch.randint(65, (48,), generator=torch.Generator().manual_seed(0))])
    bits, entropy = judge.bits(x), sequence_entropy(x, 65)
    assert bits[0] < 3.2 < 6 < bits[2] and bits[1] < bits[0], "a sampler that repeats itself has few bits"
    assert entropy[1] < 2.7 < 3.5 < entropy[0] < said["windows_of_128"]["entropy"] < entropy[2]


def test_the_judge_is_a_distribution():
    from solverkit.tokens.judge import Judge

    text = torch.tensor([0, 1, 0, 2, 0, 1, 1, 2, 0, 1, 0, 0])
    codes, counts = [], []
    for k in (1, 2, 3):
        found, count = torch.unique(sum(text[k - 1 - j : len(text) - j] * 4**j for j in range(k)), return_counts=True)
        codes.append(found)
        counts.append(count)
    judge = Judge(codes, counts, 4)
    for context in ([], [0], [3], [0, 1], [2, 2]):
        x = torch.tensor([[*context, c] for c in range(4)])
        last = (-judge.bits(x) * x.shape[1]) - (-judge.bits(x[:1, :-1]) * (x.shape[1] - 1) if context else 0.0)
        assert float((last * 0.6931471805599453).exp().sum()) == pytest.approx(1.0)
