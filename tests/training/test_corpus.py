"""Text as a numbered corpus on disk."""

import gzip
import json
import os

import numpy as np
import pytest
from amounts import examples
from datasets import Dataset, IterableDataset
from hypothesis import given
from hypothesis import strategies as st

from hf_elmo import ElmoTokenizer
from hf_elmo.training.corpus import Corpus, by_frequency, prepare, read_sentences, word_counts, words_of

TEXT = "The cat sat on the mat. The dog sat on the cat.\n\n   \nA dog ate the mat.\n"
SENTENCES = [
    ["The", "cat", "sat", "on", "the", "mat", "."],
    ["The", "dog", "sat", "on", "the", "cat", "."],
    ["A", "dog", "ate", "the", "mat", "."],
]


@examples(30)
@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "é", "<S>", "日本", "x" * 60, "c\u2028d"]), max_size=9), min_size=1)
)
def test_a_corpus_is_its_sentences(tmp_path_factory, sentences):
    folder = tmp_path_factory.mktemp("corpus") / "text"
    if not any(sentences):
        with pytest.raises(ValueError, match="not a single word"):
            Corpus.save(sentences, folder, {})
        assert not list(folder.parent.iterdir())
        return
    corpus = Corpus.save(iter(sentences), folder, {"of": "a test"})
    kept = [sentence for sentence in sentences if sentence]
    assert [corpus.sentence(number) for number in range(len(corpus.ends))] == kept
    assert corpus.num_predictions == sum(len(sentence) + 1 for sentence in kept)
    assert corpus.origin == {"of": "a test"}
    counts = word_counts(kept)
    assert dict(zip(corpus.lexicon, corpus.counts.tolist(), strict=True)) == counts
    assert corpus.lexicon == sorted(counts, key=lambda word: (-counts[word], word))
    assert isinstance(corpus.words, np.memmap)
    assert [entry.name for entry in folder.parent.iterdir()] == ["text"]


def test_a_failure_in_the_middle_leaves_what_was_there(tmp_path):
    Corpus.save(SENTENCES, tmp_path / "text", {})

    def broken():
        yield ["a", "b"]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        Corpus.save(broken(), tmp_path / "text", {})
    assert Corpus.load(tmp_path / "text").sentence(2) == SENTENCES[2]
    assert [entry.name for entry in tmp_path.iterdir()] == ["text"]


@pytest.mark.parametrize("damage", ["words.npy", "ends.npy", "lexicon.json", "lexicon", "counts", "pickle"])
def test_a_damaged_corpus_is_an_error(tmp_path, damage):
    folder = tmp_path / "text"
    Corpus.save(SENTENCES, folder, {})
    if damage in ("lexicon", "counts"):
        stored = json.loads((folder / "lexicon.json").read_text(encoding="utf-8"))
        stored["words" if damage == "lexicon" else "counts"].pop()
        (folder / "lexicon.json").write_text(json.dumps(stored), encoding="utf-8")
    elif damage == "pickle":
        np.save(folder / "ends.npy", np.array([{}], dtype=object), allow_pickle=True)
    else:
        data = (folder / damage).read_bytes()
        (folder / damage).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="delete it, and it is made anew"):
        Corpus.load(folder)


def test_reads_plain_and_gzipped_text_as_sentences(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    with gzip.open(tmp_path / "b.txt.gz", "wt", encoding="utf-8") as file:
        file.write("One more line here.\n")
    sentences = read_sentences([tmp_path / "a.txt", tmp_path / "b.txt.gz"])
    assert list(sentences["text"]) == [
        "The cat sat on the mat.",
        "The dog sat on the cat.",
        "A dog ate the mat.",
        "One more line here.",
    ]
    lines = read_sentences([tmp_path / "a.txt"], split_sentences=False)
    assert list(lines["text"]) == ["The cat sat on the mat. The dog sat on the cat.", "A dog ate the mat."]


def test_missing_and_empty_text_are_errors(tmp_path):
    with pytest.raises(ValueError, match=r"no such text file: .*absent\.txt"):
        read_sentences([tmp_path / "absent.txt"])
    with pytest.raises(ValueError, match="none was given"):
        read_sentences([])
    (tmp_path / "blank.txt").write_text(" \n\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no text in"):
        read_sentences([tmp_path / "blank.txt"])
    with pytest.raises(ValueError, match=r"blank\.txt: There is not a single word"):
        prepare([tmp_path / "blank.txt"], tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize("kind", ["memory-mapped", "streamed", "tokens", "pretokenized"])
def test_words_of_any_dataset(kind):
    texts = [line for line in TEXT.split("\n") if line.strip()]
    if kind == "memory-mapped":
        words = words_of(Dataset.from_dict({"text": texts}), ElmoTokenizer.create(), split_sentences=True)
    elif kind == "streamed":
        stream = IterableDataset.from_generator(lambda: ({"text": text} for text in texts))
        words = words_of(stream, ElmoTokenizer.create(), split_sentences=True)
    elif kind == "tokens":
        words = words_of(Dataset.from_dict({"tokens": SENTENCES}))
    else:
        words = words_of(Dataset.from_dict({"text": [" ".join(sentence) for sentence in SENTENCES]}))
    assert list(words) == SENTENCES


def test_a_dataset_of_something_else_is_an_error():
    with pytest.raises(ValueError, match="no column text, nor tokens; it has: sentence"):
        list(words_of(Dataset.from_dict({"sentence": ["a"]})))


def test_a_corpus_is_made_anew_only_if_its_files_changed(tmp_path):
    file, folder = tmp_path / "a.txt", tmp_path / "out" / "corpus"
    file.write_text(TEXT, encoding="utf-8")
    first = prepare([file], folder)
    assert [first.sentence(number) for number in range(3)] == SENTENCES
    made = (folder / "words.npy").stat().st_mtime_ns
    assert prepare([file], folder).lexicon == first.lexicon
    assert (folder / "words.npy").stat().st_mtime_ns == made
    lines = prepare([file], folder, split_sentences=False)
    assert len(lines.ends) == 2
    file.write_text(TEXT + "More .\n", encoding="utf-8")
    os.utime(file, ns=(0, 0))
    assert len(prepare([file], folder, split_sentences=False).ends) == 3


def test_vocabularies_have_no_special_words():
    counts = {"b": 2, "a": 2, "c": 3, "<S>": 9, "</S>": 9, "[UNK]": 9, "[PAD]": 9, "<UNK>": 9, "d": 1}
    assert by_frequency(counts) == ["c", "a", "b", "d"]
    assert by_frequency(counts, size=2) == ["c", "a"]
    assert by_frequency(counts, min_count=3) == ["c"]
    assert len(ElmoTokenizer.create(by_frequency(counts))) == 8
