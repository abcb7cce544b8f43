"""The SQuAD recipe of benchmarks/: its scores by hand, its labels, and the whole of it on a little text."""

import json
import sys

import pytest
from places import CHECKOUT

import hf_elmo

sys.path.insert(0, str(CHECKOUT))

from benchmarks.quality import squad


def answers(*texts):
    return {"answers": [{"text": text, "answer_start": 0} for text in texts]}


@pytest.mark.parametrize(
    ("predicted", "references", "em", "f1"),
    [
        ("The Broncos!", ["Denver Broncos", "broncos"], 100, 100),
        ("Denver Broncos", ["the Broncos"], 0, 100 * 2 / 3),
        # Common words count as often as both have them.
        ("to be or not to be", ["to be"], 0, 50),
        ("a man, a plan", ["man plan canal"], 0, 80),
        ("Panama", ["canal", "a canal"], 0, 0),
        ("", ["Panama"], 0, 0),
        ("the", ["an"], 100, 100),
        ("U.S.", ["US"], 100, 100),
    ],
)
def test_scores_are_those_of_the_official_script(predicted, references, em, f1):
    assert squad.scores([predicted], [answers(*references)]) == {"em": em, "f1": pytest.approx(f1, abs=0.01)}


def test_scores_are_means_over_questions():
    found = squad.scores(["x", "y", "z z"], [answers("x"), answers("z"), answers("z")])
    assert found == {"em": 33.33, "f1": pytest.approx(100 * (1 + 0 + 2 / 3) / 3, abs=0.01)}


def test_labels_are_the_words_of_the_answers(shared_data):
    file = shared_data / "qa" / "squad_v1.1_train_partial" / "train-prefix.json"
    questions = squad.read_questions(file)
    assert len(questions) == 4370
    questions = questions[::30]
    tokenizer = hf_elmo.ElmoTokenizer.create()
    data = squad.tokenize(questions, tokenizer)
    assert len(data) == len(questions)
    whole = 0
    for row, question in zip(data, questions, strict=True):
        encoded = tokenizer(question["question"], question["context"], return_offsets_mapping=True)
        start, _ = encoded["offset_mapping"][row["start_positions"]]
        _, end = encoded["offset_mapping"][row["end_positions"]]
        assert encoded.sequence_ids()[row["start_positions"]] == encoded.sequence_ids()[row["end_positions"]] == 1
        found = question["context"][start:end]
        assert question["answers"][0]["text"].strip() in found
        whole += found == question["answers"][0]["text"]
    # The others begin or end within a word, as in "$5" or "1990s".
    assert whole > 0.97 * len(questions)


@pytest.mark.slow
def test_the_recipe_runs(tiny_model_folder, shared_data, tmp_path):
    output = tmp_path / "squad.json"
    train = shared_data / "qa" / "squad_v1.1_train_partial" / "train-prefix.json"
    options = ["--model", tiny_model_folder, "--train", train, "--dev", shared_data / "qa/squad_v1.1/dev-v1.1.json"]
    options += ["--train-limit", 20, "--dev-every", 1000, "--epochs", 2, "--seeds", 1, 2, "--output", output]
    report = squad.main(list(map(str, options)))
    assert json.loads(output.read_text(encoding="utf-8")) == report
    assert list(report["arms"]) == ["ELMo, frozen", "character encoder from scratch"]
    for runs in report["arms"].values():
        assert [run["seed"] for run in runs] == [1, 2]
        assert all(6 > run["losses"][0] >= run["losses"][1] > 0 for run in runs)
        assert all(0 <= run["dev"]["em"] <= run["dev"]["f1"] <= 100 for run in runs)
    trained = [runs[0]["trained_parameters"] for runs in report["arms"].values()]
    encoder = hf_elmo.ElmoModel.from_pretrained(tiny_model_folder).character_encoder
    assert trained[1] - trained[0] == sum(parameter.numel() for parameter in encoder.parameters())
