"""Every command reads the same text from the same file: packed or not, words between white space, lines that end."""

import gzip
import json

import h5py
import numpy as np
import pyarrow as pa
import pytest
from small_models import fill, small_config
from typer.testing import CliRunner

from hf_elmo import ElmoForPreTraining, ElmoTokenizer
from hf_elmo.commands.app import app

# White space as str.split sees it, which bilm-tf and AllenNLP call: a no-break space and an ideographic one stand
# between words, and so does the line separator, at which no line ends.
TEXT = "il paie 10\u00a0000 euros\r\nle\u3000chat dort\u2028ici\rbien\n"
WORDS = [["il", "paie", "10", "000", "euros"], ["le", "chat", "dort", "ici"], ["bien"]]
ALL_WORDS = [word for words in WORDS for word in words]
LINES = ["il paie 10\u00a0000 euros", "le\u3000chat dort\u2028ici", "bien"]
PACK = {
    ".txt": lambda data: data,
    ".txt.gz": gzip.compress,
    ".txt.zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
    "-": gzip.compress,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "language-model"
    tokenizer = ElmoTokenizer.create(ALL_WORDS, max_characters_per_token=8)
    fill(ElmoForPreTraining(small_config(vocab_size=len(tokenizer)))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments, status=0, input=None):
        result = CliRunner().invoke(app, list(map(str, arguments)), input=input)
        assert result.exit_code == status, result.output
        assert "Traceback" not in result.output
        return result

    return run


def words_of_embed(run, folder, place, input):
    run("embed", "--file", place, "--pretokenized", "--model", folder, "-o", "v.npz", input=input)
    with np.load("v.npz") as archive:
        return [json.loads(line) for line in bytes(archive["words"]).splitlines()]


def words_of_elmo(run, folder, place, input):
    run("elmo", place, "v.hdf5", "--all", "--model", folder, input=input)
    with h5py.File("v.hdf5") as file:
        texts = json.loads(file["sentence_to_index"][0])
        shapes = [file[str(number)].shape[1] for number in range(len(file) - 1)]
    words = [text.split() for text in sorted(texts, key=lambda text: int(texts[text]))]
    assert shapes == list(map(len, words))
    return words


def words_of_substitutes(run, folder, place, input):
    found = run(
        "substitutes", "--file", place, "--pretokenized", "--all-words", "--json", "--model", folder, input=input
    )
    places = json.loads(found.stdout)
    return [[each["word"] for each in places if each["text"] == text] for text in range(3)]


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("words_of", [words_of_embed, words_of_elmo, words_of_substitutes])
def test_words_and_lines(run, folder, tmp_path, words_of, kind):
    content, name = PACK[kind](TEXT.encode("utf-8-sig")), kind if kind == "-" else f"text{kind}"
    if kind != "-":
        (tmp_path / name).write_bytes(content)
    assert words_of(run, folder, name, content if kind == "-" else None) == WORDS


@pytest.mark.parametrize("kind", PACK)
def test_counts(run, folder, tmp_path, kind):
    content, name = PACK[kind](TEXT.encode()), kind if kind == "-" else f"text{kind}"
    if kind != "-":
        (tmp_path / name).write_bytes(content)
    input = content if kind == "-" else None
    (score,) = json.loads(run("perplexity", name, "--pretokenized", "--json", "--model", folder, input=input).stdout)
    assert (score["sentences"], score["words"]) == (3, len(ALL_WORDS) + 3)
    run("vocab", name, "--pretokenized", "-o", "vocab.txt", input=input)
    assert (tmp_path / "vocab.txt").read_text(encoding="utf-8").split("\n")[3:-1] == sorted(ALL_WORDS)
    run("embed-vocabulary", "v.txt", "--vocabulary", "vocab.txt", "--model", folder)
    (tmp_path / "vocab.zst").write_bytes(PACK[".txt.zst"]((tmp_path / "vocab.txt").read_bytes()))
    run("embed-vocabulary", "w.txt", "--vocabulary", "vocab.zst", "--model", folder)
    assert (tmp_path / "v.txt").read_bytes() == (tmp_path / "w.txt").read_bytes()
    rows = run("generate", "--file", name, "--max-words", 1, "--seed", 1, "--json", "--model", folder, input=input)
    assert [row["text"] for row in json.loads(rows.stdout)] == LINES


def test_typed_sentences(run, folder):
    result = run("compare", "a\u00a0b", "b\u3000c", "--pretokenized", "--model", folder)
    assert [line.split("\t")[:3] for line in result.stdout.splitlines()[1:]] == [["b", "1", "0"]]


COMMANDS = {
    "embed": ("embed", "--file", "long", "--model", "MODEL"),
    "elmo": ("elmo", "long", "v.hdf5", "--top", "--model", "MODEL"),
    "perplexity": ("perplexity", "long", "--model", "MODEL"),
    "substitutes": ("substitutes", "--file", "long", "--model", "MODEL"),
    "generate": ("generate", "--file", "long", "--model", "MODEL"),
    "plot senses": ("plot", "senses", "word", "long", "-o", "map.png", "--model", "MODEL"),
    "vocab": ("vocab", "long", "-o", "vocab.txt"),
    "train": ("train", "long", "-o", "out"),
    "train --eval": ("train", "short", "--eval", "long", "-o", "out"),
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("short\n" + "word " * 300, "long, line 2: more than 1,000 bytes"),
        (b"short\nJ\xfcrgen\n", "long, line 2: the byte 0xfc is no UTF-8"),
    ],
    ids=["long", "bytes"],
)
def test_lines_that_are_refused(run, folder, tmp_path, arguments, content, message):
    (tmp_path / "short").write_text("a short text\n" * 100, encoding="utf-8")
    (tmp_path / "long").write_bytes(content if isinstance(content, bytes) else content.encode())
    arguments = [folder if each == "MODEL" else each for each in arguments]
    result = run(*arguments, "--max-line-bytes", 1000, status=1)
    assert message in result.stderr
    if "bytes," in message:
        assert "(--max-line-bytes)" in result.stderr
    assert result.stderr.count("hf-elmo: ") == 1
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name != "out") == ["long", "short"]
