"""The commands for uses of a language model, run in this process, against the library's own functions."""

import gzip
import json

import pytest
import torch
from small_models import fill, small_config
from typer.testing import CliRunner

from hf_elmo import ElmoForPreTraining, ElmoTokenizer, generate, perplexity, substitutes
from hf_elmo.commands.app import app
from hf_elmo.explore.nearest_words import NearestWords

WORDS = ["the", "cat", "sat", "on", "mat", "a", "dog", "."]
TEXT = "the cat sat. The dog sat on a mat.\n\n  \na cat\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "language-model"
    tokenizer = ElmoTokenizer.create(WORDS, max_characters_per_token=8)
    fill(ElmoForPreTraining(small_config(vocab_size=len(tokenizer)))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def loaded(folder):
    return ElmoForPreTraining.from_pretrained(folder), ElmoTokenizer.from_pretrained(folder)


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(command, *arguments, model=folder, status=0, input=None):
        result = CliRunner().invoke(app, [command, "--model", str(model), *map(str, arguments)], input=input)
        assert result.exit_code == status, result.output
        if status:
            assert "Traceback" not in result.output
            assert result.stdout == ""
            assert result.stderr.startswith("Usage: " if status == 2 else "hf-elmo: ")
        return result

    return run


def table(result):
    header, *rows = (line.split("\t") for line in result.stdout.splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


SPLIT = ["the cat sat.", "The dog sat on a mat.", "a cat"]


@pytest.mark.parametrize(
    ("options", "sentences", "carry_state"),
    [
        ([], SPLIT, False),
        (["--carry-state", "--batch-words", 5], SPLIT, True),
        (["--keep-lines"], ["the cat sat. The dog sat on a mat.", "a cat"], False),
        (["--pretokenized"], [["the", "cat", "sat.", "The", "dog", "sat", "on", "a", "mat."], ["a", "cat"]], False),
    ],
)
def test_perplexity_of_files_and_standard_input(run, loaded, tmp_path, options, sentences, carry_state):
    expected = perplexity(*loaded, sentences, carry_state=carry_state)
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    with gzip.open(tmp_path / "b.txt.gz", "wb") as file:
        file.write(TEXT.replace("\n", "\r\n").encode("utf-8-sig"))
    rows = table(run("perplexity", "a.txt", "b.txt.gz", "-", *options, input=TEXT))
    assert [row["text"] for row in rows] == ["a.txt", "b.txt.gz", "standard input"]
    for row in rows:
        assert (int(row["sentences"]), int(row["words"])) == (expected.sentences, expected.words)
        for name in ("unknown", "forward", "backward", "mean"):
            assert float(row[name]) == pytest.approx(getattr(expected, name), abs=1e-3)
    (of_json,) = json.loads(run("perplexity", "--json", *options, input=TEXT).stdout)
    assert of_json["text"] == "standard input"
    assert of_json["mean"] == pytest.approx(expected.mean, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.txt", None, "absent.txt: No such file"),
        ("blank.txt", b" \n\n", "blank.txt: There is no sentence to score"),
        ("latin.txt", "Ärger".encode("latin-1"), "latin.txt, line 1: the byte 0xc4 is no UTF-8"),
        ("plain.txt.gz", b"the cat", "plain.txt.gz is not a sound gzip file"),
        (
            "cut.txt.gz",
            gzip.compress(b"the cat sat on the mat " * 9, mtime=0)[:-12],
            "cut.txt.gz is not a sound gzip file",
        ),
    ],
)
def test_perplexity_of_what_is_no_text(run, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert message in run("perplexity", name, status=1).stderr


def test_substitutes_for_marks_and_for_all_words(run, loaded):
    texts = ["the [MASK] sat on the mat", "a [MASK] and a [MASK]."]
    rows = table(run("substitutes", *texts, "--top-k", 3))
    expected = [substitutes(*loaded, texts[0], 3), *substitutes(*loaded, texts[1], 3)]
    assert [(row["text"], row["place"], row["word"]) for row in rows[::3]] == [
        ("0", "1", "[MASK]"),
        ("1", "1", "[MASK]"),
        ("1", "4", "[MASK]"),
    ]
    for row, found in zip(rows, (found for place in expected for found in place), strict=True):
        assert row["substitute"] == found["token_str"]
        for column, field in (("score", "score"), ("forward", "forward_score"), ("backward", "backward_score")):
            assert float(row[column]) == pytest.approx(found[field], abs=1e-4)
    places = json.loads(run("substitutes", "--all-words", "--json", "--no-prior", "a zebra sat").stdout)
    assert [(each["place"], each["word"]) for each in places] == [(0, "a"), (1, "zebra"), (2, "sat")]
    expected = substitutes(*loaded, "a zebra sat", word_index="all", prior=None)
    for place, found in zip(places, expected, strict=True):
        assert [each["token_str"] for each in place["substitutes"]] == [each["token_str"] for each in found]
        assert place["substitutes"][0]["score"] == pytest.approx(found[0]["score"], rel=1e-4)


def test_substitutes_of_lines(run, tmp_path):
    (tmp_path / "in.txt").write_text("the [MASK] sat\n\n[MASK] don't sat.\n", encoding="utf-8")
    by_file = run("substitutes", "--file", "in.txt", "--target", "cat", "--target", "dog").stdout
    assert {row["substitute"] for row in table(run("substitutes", "--target", "cat", input="a [MASK]"))} == {"cat"}
    rows = table(run("substitutes", "--target", "cat", "--target", "dog", input="the [MASK] sat\n[MASK] don't sat."))
    assert [(row["text"], row["place"]) for row in rows] == [("0", "1")] * 2 + [("1", "0")] * 2
    assert len(by_file.splitlines()) == 5
    (place,) = json.loads(run("substitutes", "--pretokenized", "--json", input="[MASK] don't sat.").stdout)
    assert place["substitutes"][0]["sequence"] == f"{place['substitutes'][0]['token_str']} don't sat."


def test_generate_prints_texts(run, loaded):
    lines = run("generate", "the cat", "", "--seed", 5, "--max-words", 6).stdout.splitlines()
    chance = torch.Generator().manual_seed(5)
    expected = [["the", "cat", *generate(*loaded, "the cat", 6, generator=chance)]]
    expected.append(list(generate(*loaded, "", 6, generator=chance)))
    assert lines == [" ".join(words) for words in expected]
    (row,) = json.loads(run("generate", "--json", "--temperature", 0, "--max-words", 3, input="the cat\n").stdout)
    assert row == {"text": "the cat", "words": list(generate(*loaded, "the cat", 3, temperature=0))}
    assert run("generate", "--top-k", 1, "--max-words", 3, "the cat").stdout.split() == ["the", "cat", *row["words"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["substitutes", "the cat"], "'the cat' has no [MASK]"),
        (["substitutes", "the well-[MASK]"], "must stand for a whole word"),
        (["substitutes", ""], "There is no text"),
        (["substitutes", "the [MASK]", "--target", "zebra"], "which these are not: zebra"),
        (["substitutes", "--file", "absent.txt"], "absent.txt: No such file"),
        (["generate", "--file", "absent.txt"], "absent.txt: No such file"),
    ],
)
def test_bad_input_is_told(run, arguments, message):
    assert message in run(*arguments, status=1).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["substitutes", "the [MASK]", "--top-k", "0"],
        ["substitutes", "the [MASK]", "--file", "in.txt"],
        ["substitutes", "the [MASK]", "--unknown"],
        ["generate", "the", "--temperature", "-1"],
        ["perplexity", "a.txt", "--batch-words", "0"],
    ],
)
def test_wrong_usage_has_status_2(run, arguments):
    run(*arguments, status=2)


@pytest.mark.parametrize("arguments", [["perplexity"], ["substitutes", "the [MASK]"], ["generate", "the"]])
def test_a_model_without_softmax_is_told(run, tiny_model_folder, arguments):
    message = run(*arguments, model=tiny_model_folder, status=1, input="the cat").stderr
    assert f"{tiny_model_folder} is not a language model: the softmax over words is missing" in message
    assert "Published ELMo weights come without it" in message


def test_the_bundled_model_is_the_default():
    result = CliRunner().invoke(app, ["substitutes", "He died on 12 [MASK] 1950 .", "--top-k", "3"])
    assert result.exit_code == 0, result.output
    assert len(table(result)) == 3


def test_neighbours_by_spelling_and_by_use(run, loaded):
    nearest = NearestWords(*loaded)
    header, *rows = (line.split("\t") for line in run("neighbours", "cat", "--count", 3).stdout.splitlines())
    assert header == ["rank", "by spelling", "cosine", "by use", "cosine"]
    expected = zip(nearest.by_spelling("cat", 3), nearest.by_use("cat", 3), strict=True)
    for number, (row, (spelling, use)) in enumerate(zip(rows, expected, strict=True), start=1):
        assert row == [str(number), spelling.word, f"{spelling.cosine:.4f}", use.word, f"{use.cosine:.4f}"]
    # Of three words one is the word itself.
    assert len(run("neighbours", "cat", "--most-words", 3).stdout.splitlines()) == 3


def test_neighbours_without_a_row(run, loaded, tmp_path):
    result = run("neighbours", "catalogue")
    assert result.stdout.splitlines()[0] == "rank\tby spelling\tcosine"
    assert "catalogue is not a word of the vocabulary, so there are no neighbours by use" in result.stderr
    model, tokenizer = loaded
    for part in (model.elmo, tokenizer):
        part.save_pretrained(tmp_path / "vectors")
    assert "give a language model with --model" in run("neighbours", "cat", model=tmp_path / "vectors").stderr
    ElmoTokenizer.create([], max_characters_per_token=8).save_pretrained(tmp_path / "vectors")
    assert "no vocabulary" in run("neighbours", "cat", model=tmp_path / "vectors", status=1).stderr
    assert "one word" in run("neighbours", "two words", status=2).stderr
    assert "absent" in run("neighbours", "cat", model=tmp_path / "absent", status=1).stderr
