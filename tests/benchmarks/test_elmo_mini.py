"""The stages in which the bundled model is trained: their texts, commands, and what is kept of them."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import hf_elmo
from benchmarks import elmo_mini
from hf_elmo import ElmoForPreTraining, ElmoModel, ElmoTokenizer


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """Six paragraphs of each text."""
    monkeypatch.setenv("HF_ELMO_SHARED_DATA", str(tmp_path / "data"))
    for text in elmo_mini.TEXTS:
        folder = tmp_path / "data" / "lm" / text
        folder.mkdir(parents=True)
        with gzip.open(folder / "train.txt.gz", "wt", encoding="utf-8") as file:
            file.writelines(f"Satz {number} aus {text}: ä.\n" for number in range(1, 7))


def read(file):
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return lines.read().splitlines()


def test_each_paragraph_is_in_one_part(texts, tmp_path):
    elmo_mini.main(["text", str(tmp_path / "work")])
    for text in elmo_mini.TEXTS:
        parts = [read(elmo_mini.part_file(tmp_path / "work", text, part)) for part in range(4)]
        numbers = [[int(line.split()[1]) for line in part] for part in parts]
        assert numbers == [[4], [1, 5], [2, 6], [3]]
        assert all(line.endswith(f"aus {text}: ä.") for part in parts for line in part)


def test_each_stage_begins_where_the_one_before_has_ended(tmp_path, monkeypatch):
    monkeypatch.setitem(elmo_mini.STAGES, 2, elmo_mini.Stage(7, 0.003, 0.004, 1))
    first, second = (elmo_mini.command(number, tmp_path) for number in (1, 2))
    assert "--model" not in first
    assert first[first.index("--vocabulary") + 1] == str(elmo_mini.KEPT / "vocabulary.txt")
    assert "--vocabulary" not in second
    assert second[second.index("--model") + 1] == str(elmo_mini.KEPT / "stage-1")
    assert second[second.index("--steps") + 1] == "7"
    assert [word for word in second if word.endswith(".gz")] == [
        str(tmp_path / f"{text}.1.txt.gz") for text in elmo_mini.TEXTS
    ]
    assert "--resume" not in second
    (tmp_path / "stage-2" / "checkpoint-100").mkdir(parents=True)
    assert "--resume" in elmo_mini.command(2, tmp_path)


def test_a_stage_that_reads_a_text_whole(tmp_path, monkeypatch):
    monkeypatch.setitem(elmo_mini.STAGES, 2, elmo_mini.Stage(7, 0.003, 0.004, 1, whole=("wikinews_en",)))
    files = [Path(word).name for word in elmo_mini.command(2, tmp_path) if word.endswith(".gz")]
    assert [name for name in files if "news" in name] == [f"wikinews_en.{part}.txt.gz" for part in range(4)]
    assert len(files) == 7
    assert all(name.endswith(".1.txt.gz") for name in files if "news" not in name)


def test_the_vocabulary_has_the_first_ones_words():
    words = (elmo_mini.KEPT / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    assert words[:3] == ["<S>", "</S>", "<UNK>"]
    assert len(set(words)) == len(words) == 16_003


@pytest.fixture
def trained(tiny_model_folder, tmp_path):
    """A stage that has ended, with a log of two checkpoints."""
    folder = tmp_path / "work" / "stage-1"
    ElmoForPreTraining.from_pretrained(tiny_model_folder).save_pretrained(folder)
    ElmoTokenizer.from_pretrained(tiny_model_folder).save_pretrained(folder)
    for step in (90, 100):
        (folder / f"checkpoint-{step}").mkdir()
        state = {"global_step": step, "log_history": [{"step": step, "loss": 4.5}]}
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    return folder


def test_what_is_kept_loads_in_float32_with_nearly_the_same_vectors(trained, tmp_path):
    kept = elmo_mini.keep(1, tmp_path / "work", tmp_path / "kept")
    assert {weight.dtype for weight in load_file(kept / "model.safetensors").values()} == {torch.float16}
    log = json.loads((kept / "log.json").read_text(encoding="utf-8"))
    assert (log["updates"], log["log"]) == (100, [{"step": 100, "loss": 4.5}])
    options = json.loads((kept / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert options["tokenizer_class"] == "ElmoTokenizer"
    assert not {"is_local", "local_files_only"} & set(options)
    before, after = (ElmoModel.from_pretrained(folder).eval() for folder in (trained, kept))
    assert {parameter.dtype for parameter in after.parameters()} == {torch.float32}
    inputs = ElmoTokenizer.from_pretrained(kept)(["I read the book yesterday."], return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(
            after(**inputs).last_hidden_state, before(**inputs).last_hidden_state, atol=1e-2, rtol=0
        )


def test_a_weight_that_float16_does_not_hold_is_an_error(trained, tmp_path):
    weights = load_file(trained / "model.safetensors")
    next(iter(weights.values())).flatten()[0] = 1e6
    save_file(weights, trained / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="beyond the range of float16"):
        elmo_mini.keep(1, tmp_path / "work", tmp_path / "kept")
    assert not (tmp_path / "kept" / "stage-1").exists()


def test_perplexity_over_shared_words(tmp_path, monkeypatch, capsys):
    """Without words of their own it is that of `hf_elmo.perplexity`; unknown words and names count in that alone."""
    monkeypatch.setenv("HF_ELMO_SHARED_DATA", str(tmp_path))
    texts = ["I have read the book.", "I have read the Zwiebelfisch.", "The book."]
    for name, text in zip(elmo_mini.HELD_OUT, texts, strict=True):
        (tmp_path / "lm" / name).mkdir(parents=True)
        with gzip.open(tmp_path / "lm" / name / "test.txt.gz", "wt", encoding="utf-8") as file:
            file.write(text + "\n")
    folder = hf_elmo.bundled("elmo-mini")
    elmo_mini.main(["measure", folder, "--output", str(tmp_path / "measured.json")])
    measured = json.loads((tmp_path / "measured.json").read_text(encoding="utf-8"))
    model, tokenizer = ElmoForPreTraining.from_pretrained(folder).eval(), ElmoTokenizer.from_pretrained(folder)
    for name, text in zip(elmo_mini.HELD_OUT, texts, strict=True):
        expected = hf_elmo.perplexity(model, tokenizer, [text])
        assert measured[name]["forward"] == pytest.approx(expected.forward)
        assert measured[name]["backward"] == pytest.approx(expected.backward)
        assert measured[name]["predictions"] == expected.words
        unknown = "Zwiebelfisch" in text
        assert measured[name]["shared words"] == expected.words - unknown
        assert (measured[name]["forward, shared words"] == pytest.approx(expected.forward)) == (not unknown)
    (scored,) = hf_elmo.score_sentences(model, tokenizer, [texts[1]])
    place = scored.words.index("Zwiebelfisch")
    for direction, log_probabilities, at in (
        ("forward", scored.forward, place),
        ("backward", scored.backward, place + 1),
    ):
        others = np.delete(log_probabilities, at)
        name = f"{direction}, shared words"
        assert measured[elmo_mini.HELD_OUT[1]][name] == pytest.approx(np.exp(-others.mean()), rel=1e-5)
