"""The language model's benchmarks, run whole on a little text: what they compare has to be comparable."""

import itertools
import json
import math
import random
import sys
from pathlib import Path

import pytest
import torch
from places import CHECKOUT

sys.path.insert(0, str(CHECKOUT))

from benchmarks import lm_throughput
from benchmarks.quality import wikitext2
from hf_elmo import ElmoConfig, ElmoForPreTraining

SIZES = ["--cell-size", "24", "--projection", "8", "--lstm-size", "48", "--rows", "4", "--steps", "10"]


def lines(count: int, seed: int) -> list[str]:
    """Lines of up to 12 words, which begin anywhere in a sentence that repeats itself."""
    chance = random.Random(seed)
    words = ["the", "lobster", "<unk>", "is", "=", "of", "1992", "blue", ","]
    places = [(chance.randrange(9), chance.randint(1, 12)) for _ in range(count)]
    return [" " + " ".join(words[(begin + i) % 9] for i in range(length)) + " " for begin, length in places]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    for seed, (name, count) in enumerate({"train": 200, "valid": 60, "test": 50}.items()):
        (folder / f"{name}.txt").write_text("\n \n".join(lines(count, seed)) + "\n", encoding="utf-8")
    return folder


@pytest.mark.slow
def test_all_arms_of_wikitext2(folder, tmp_path, capsys):
    output = tmp_path / "results.json"
    arguments = ["--data", str(folder), "--minutes", "0.01", *SIZES, "--samples", "5", "--output", str(output)]
    results = wikitext2.main(arguments)
    assert json.loads(output.read_text(encoding="utf-8")) == results
    arms = {arm["arm"]: arm for arm in results["arms"]}
    assert tuple(arms) == wikitext2.ARMS
    valid = [len(line.split()) + 1 for line in lines(60, 1)]
    for name, arm in arms.items():
        assert arm["seconds"] >= 0.6
        assert arm["steps"] >= 1
        assert arm["words"] >= arm["steps"]
        # Every word, and the end of every line that is not blank, by all of them.
        assert arm["valid"]["predictions"] == sum(valid)
        assert arm["test"]["predictions"] == sum(len(line.split()) + 1 for line in lines(50, 2))
        assert arm["valid"]["running"] > 1
        if name.startswith("elmo"):
            assert arm["valid"]["by_sentence"]["predictions"] == sum(valid)
        assert arm["valid"]["running"] == pytest.approx(arm["test"]["running"], rel=0.3)
    # Nine words and ends, which a model that learned nothing but how frequent they are does not tell apart.
    assert arms["lstm-sgd"]["valid"]["running"] < 8
    assert arms["lstm-sgd"]["looks"][-1]["seconds"] >= 0.6
    assert "lstm-adamw" in capsys.readouterr().out


def test_words_that_train_has_not(folder, tmp_path):
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text((folder / f"{name}.txt").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "test.txt").write_text("a shrimp\n", encoding="utf-8")
    with pytest.raises(ValueError, match="test has 2 words that train has not, one is 'a'"):
        wikitext2.main(["--data", str(tmp_path), "--minutes", "0.01", *SIZES])


def test_running_perplexity_is_that_of_each_word_after_all_before(folder, tmp_path):
    """Of the plain model, word by word, rows cut by hand."""
    data = wikitext2.Data.read(folder, tmp_path)
    torch.manual_seed(0)
    model = wikitext2.WordLstm(len(data.tokenizer), 16, 0.5).eval()
    # Large weights, by which all words before matter.
    model.embedding.weight.data.mul_(30)
    found, count = wikitext2.running_perplexity(model, data.rows("test", 3, 7))
    ids = data.tokenizer.get_vocab()
    read, predicted = [], []
    for line in lines(50, 2):
        words = [ids[word] for word in line.split()]
        read += [ids["<S>"], *words]
        predicted += [*words, ids["</S>"]]
    assert count == len(read)
    bounds = [row * len(read) // 3 for row in range(4)]
    total = 0.0
    with torch.no_grad():
        for begin, end in itertools.pairwise(bounds):
            hidden, _ = model.lstm(model.embedding(torch.tensor([read[begin:end]])))
            scores = model.softmax(hidden[0]).double().log_softmax(-1)
            total -= float(scores[torch.arange(end - begin), torch.tensor(predicted[begin:end])].sum())
    assert found == pytest.approx(math.exp(total / count), rel=1e-4)


def test_budget_goes_up_and_down():
    budget = wikitext2.Budget(100.0)
    rates = {}
    for used in (0.0, 2.5, 5.0, 52.5, 100.0, 120.0):
        budget.used = used
        rates[used] = budget.rate()
    expected = {0.0: 0.01, 2.5: 0.5, 5.0: 1.0, 52.5: 0.5, 100.0: 0.0, 120.0: 0.0}
    assert rates == pytest.approx(expected)


def test_throughput(folder, capsys):
    sizes = ["--rows", "4", "--words", "5", "--vocabulary", "8", "--samples", "4", "--cell", "200", "--rounds", "2"]
    results = lm_throughput.main(["--text", str(folder / "train.txt"), *sizes])
    assert {(model["model"], model["precision"]) for model in results["models"]} == {
        (name, precision) for name in ("hf_elmo", "nn.LSTM") for precision in ("fp32", "bf16")
    }
    for model in results["models"]:
        times = model["milliseconds"]
        assert set(times) == {
            *("step", "data", "optimizer"),
            *(f"{part}, {way}" for part in lm_throughput.PARTS[1:4] for way in ("forward", "backward")),
        }
        assert min(times.values()) > 0
        # A loss in nats of about eight words, of the first steps: the mean of both directions, not their sum.
        assert 0.5 < model["last_loss"] < 1.5 * math.log(12)
    assert len(results["ratios"]) == 4
    assert "hf_elmo bf16 : nn.LSTM bf16" in capsys.readouterr().out


def test_throughput_with_muon(folder, capsys):
    sizes = ["--rows", "4", "--words", "5", "--vocabulary", "8", "--samples", "4", "--cell", "200", "--rounds", "2"]
    arguments = ["--text", str(folder / "train.txt"), *sizes, "--precisions", "fp32", "--muon"]
    own, plain, muon = lm_throughput.main(arguments)["models"]
    assert [each["model"] for each in (own, plain, muon)] == ["hf_elmo", "nn.LSTM", "hf_elmo, Muon"]
    # The same weights, but other steps.
    assert own["last_loss"] != muon["last_loss"]
    assert muon["milliseconds"]["optimizer"] > 0
    assert "  hf_elmo, Muon fp32" in capsys.readouterr().out


def test_the_plain_bilm_is_the_same_model():
    """With the same weights and no clip within reach, both say the same: full softmax, in evaluation."""
    torch.manual_seed(0)
    config = ElmoConfig(
        char_embed_dim=4, filters=[[1, 6], [2, 6]], num_highway_layers=1, cell_size=12, projection_dim=5, vocab_size=9
    )
    config.forget_bias = 0.0
    config.pad_token_id = None
    own, plain = ElmoForPreTraining(config).eval(), lm_throughput.PlainBilm(config).eval()
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        plain.characters.load_state_dict(own.elmo.character_encoder.state_dict())
        plain.softmax.load_state_dict(own.softmax.state_dict())
        for stack, layers in zip(
            plain.lstms.stacks, (own.elmo.bilstm.forward_layers, own.elmo.bilstm.backward_layers), strict=True
        ):
            for lstm, layer in zip(stack, layers, strict=True):
                lstm.weight_ih_l0.copy_(layer.weight_ih)
                lstm.weight_hh_l0.copy_(layer.weight_hh)
                lstm.weight_hr_l0.copy_(layer.weight_hr)
                lstm.bias_ih_l0.copy_(layer.bias)
                lstm.bias_hh_l0.zero_()
    own_state = plain_state = None
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        batch = {
            name: torch.randint(1, 260, (3, 7, 50), generator=generator)
            for name in ("character_ids", "backward_character_ids")
        }
        labels = torch.randint(0, 9, (2, 3, 8), generator=generator)
        labels[0, :, 0] = labels[1, :, -1] = -100
        batch |= {"labels": labels[0], "backward_labels": labels[1]}
        mask = torch.ones(3, 7, dtype=torch.long)
        with torch.no_grad():
            outputs = own(**batch, attention_mask=mask, state=own_state, return_state=True)
            loss, plain_state = plain(**batch, state=plain_state)
        own_state = outputs.state
        assert loss.item() == pytest.approx(outputs.loss.item(), rel=1e-5)
