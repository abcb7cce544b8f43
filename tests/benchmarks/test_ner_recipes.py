"""The NER recipes of benchmarks/: their files and scores, and both of them run whole on a little text."""

import itertools
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import CHECKOUT

from hf_elmo.hub.measured_results import read_results
from hf_elmo.model.heads.crf import tag_constraints

sys.path.insert(0, str(CHECKOUT))

from benchmarks.quality import conll2003, tagging, wnut17

CONLL = """-DOCSTART- -X- -X- O

EU NNP I-NP I-ORG
rejects VBZ I-VP O
German JJ I-NP I-MISC
call NN I-NP O

Peter NNP I-NP I-PER
Blackburn NNP I-NP I-PER
Paris NNP I-NP I-LOC
London NNP I-NP B-LOC

"""
WNUT = "Anna\tB-person\nLee\tI-person\nmet\tO\n\t\nin\tO\nOslo\tB-location\n"


def test_reads_columns(tmp_path):
    (tmp_path / "conll").write_text(CONLL, encoding="utf-8")
    (tmp_path / "wnut").write_text(WNUT, encoding="utf-8")
    assert tagging.read_columns(tmp_path / "conll") == [
        (["EU", "rejects", "German", "call"], ["B-ORG", "O", "B-MISC", "O"]),
        (["Peter", "Blackburn", "Paris", "London"], ["B-PER", "I-PER", "B-LOC", "B-LOC"]),
    ]
    assert tagging.read_columns(tmp_path / "wnut") == [
        (["Anna", "Lee", "met"], ["B-person", "I-person", "O"]),
        (["in", "Oslo"], ["O", "B-location"]),
    ]
    assert len(tagging.read_columns(tmp_path / "wnut", limit=1)) == 1


@pytest.mark.parametrize("content", ["Anna\n", "Anna\tPER\n", "Anna\tB-person,B-group\nx\n"])
def test_files_without_tags(tmp_path, content):
    (tmp_path / "file").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"line [12]: a word and its tag"):
        tagging.read_columns(tmp_path / "file")


def test_wnut17_is_whole(shared_data):
    """Counts of sentences, words and entities as published (SOURCE.md of the data)."""
    expected = {"train": (3394, 62730, 1975), "dev": (1009, 15733, 836), "test": (1287, 23394, 1079)}
    for name, counts in expected.items():
        sentences = tagging.read_columns(shared_data / "ner" / "wnut17" / wnut17.FILES[name])
        tags = [tag for _, row in sentences for tag in row]
        assert (len(sentences), len(tags), sum(tag.startswith("B-") for tag in tags)) == counts


@given(st.lists(st.sampled_from(["O", "B-x", "I-x", "B-y", "I-y"])))
def test_schemes(tags):
    """Any tags become lawful BIO with the same entities in the same places, and BIOES says the same again."""
    bio = tagging.to_bio(tags)
    assert [tag[1:] for tag in bio] == [tag[1:] for tag in tags]
    assert all(before == after or (before[0], after[0]) == ("I", "B") for before, after in zip(tags, bio, strict=True))
    names = ("O", "B-x", "I-x", "B-y", "I-y")
    allowed = tag_constraints(names)
    numbers = [names.index(tag) for tag in bio]
    assert not numbers or allowed.start[numbers[0]]
    assert all(allowed.transitions[a][b] for a, b in itertools.pairwise(numbers))
    bioes = tagging.to_bioes(bio)
    assert tagging.to_bio(bioes) == tagging.plain_tags(bioes) == bio
    allowed = tag_constraints(BIOES)
    numbers = [BIOES.index(tag) for tag in bioes]
    assert not numbers or (allowed.start[numbers[0]] and allowed.end[numbers[-1]])
    assert all(allowed.transitions[a][b] for a, b in itertools.pairwise(numbers))


BIOES = tuple(tagging.label_names([([], ["B-x", "B-y"])], "BIOES"))


def test_labels():
    assert sorted(BIOES) == sorted(["O", *(f"{letter}-{kind}" for letter in "BIES" for kind in "xy")])
    assert BIOES[0] == "O"


def test_scores():
    """Two of three predicted entities are right, of four; broken ones count for conlleval, and not by the letter."""
    gold = [["B-x", "I-x", "O", "B-y"], ["B-x", "O", "B-y", "I-y"]]
    predicted = [["B-x", "I-x", "O", "B-x"], ["O", "O", "I-y", "I-y"]]
    scores = tagging.entity_scores(predicted, gold)
    assert scores == {"f1": 57.14, "precision": 66.67, "recall": 50.0, "strict_f1": 33.33}


@pytest.mark.slow
def test_wnut17_recipe_runs(shared_data, tiny_model_folder, tmp_path, capsys):
    """Two seeds of both models, with precomputed layers and stock training; the table says what the file says."""
    output = tmp_path / "scores.json"
    report = wnut17.main(
        [
            "--model",
            str(tiny_model_folder),
            "--limit",
            "12",
            "--epochs",
            "2",
            "--seeds",
            "1",
            "2",
            "--output",
            str(output),
            "--results",
            str(tmp_path / "results.json"),
        ]
    )
    assert json.loads(output.read_text(encoding="utf-8")) == report
    viterbi, argmax = read_results([tmp_path / "results.json"])
    for kind, result in (("viterbi", viterbi), ("argmax", argmax)):
        mean = sum(run["test"][kind]["f1"] for run in report["arms"]["ELMo, frozen"]) / 2
        assert result.value == pytest.approx(mean, abs=0.005)
        assert (result.dataset["type"], result.dataset["split"]) == ("leondz/wnut_17", "test")
        assert result.command.startswith("python -m benchmarks.quality.wnut17 --model ")
    assert list(report["arms"]) == ["ELMo, frozen", "character encoder from scratch"]
    sizes = set()
    for runs in report["arms"].values():
        assert [run["seed"] for run in runs] == [1, 2]
        for run in runs:
            assert all(
                0 <= run[split][kind]["f1"] <= 100 for split in ("dev", "test") for kind in ("viterbi", "argmax")
            )
            assert run["dev"]["viterbi"]["f1"] == run["dev"]["viterbi"]["strict_f1"]
        sizes.add(runs[0]["trained_parameters"])
    # The baseline trains its character encoder as well.
    assert len(sizes) == 2
    assert capsys.readouterr().out.splitlines()[-2].startswith("| ELMo, frozen |")
    assert not list(tmp_path.glob(".*.part"))


def test_conll2003_recipe_runs(tiny_model_folder, tmp_path):
    """The whole recipe, word vectors and character convolutions included, on a file in its format."""
    for name in conll2003.FILES.values():
        (tmp_path / name).write_text(CONLL * 2, encoding="utf-8")
    glove = tmp_path / "glove.txt"
    glove.write_text(
        "".join(f"{word} {' '.join(['0.5'] * 50)}\n" for word in ("eu", "rejects", "Paris")), encoding="utf-8"
    )
    report = conll2003.main(
        ["--data", str(tmp_path), "--model", str(tiny_model_folder), "--glove", str(glove), "--epochs=1", "--seeds=1"]
    )
    head = report["recipe"]["head"]
    assert (head["word_vector_size"], head["char_cnn_filters"], head["task_encoder_size"]) == (50, [[3, 128]], 200)
    # 4 + 8 words of the task; ELMo 2 x 16, 50, and 128 filters go into the first of two LSTM layers.
    assert head["vocab_size"] == 12
    labels, inputs = 17, 32 + 50 + 128
    lstm = 2 * 4 * 200 * (inputs + 200 + 2) + 2 * 4 * 200 * (400 + 200 + 2)
    characters = 262 * 16 + 128 * (3 * 16 + 1)
    top = 400 * labels + labels + labels**2 + 2 * labels
    run = report["arms"]["ELMo, frozen"][0]
    assert run["trained_parameters"] == 4 + 12 * 50 + characters + lstm + top


def test_conll2003_needs_data(capsys):
    with pytest.raises(SystemExit):
        conll2003.main([])
    assert "--data is needed" in capsys.readouterr().err
