"""Word vectors in GloVe's text format: what is read, and what is refused."""

import gzip

import numpy as np
import pytest
from amounts import examples
from hypothesis import given
from hypothesis import strategies as st

from hf_elmo.model.heads.glove import look_up, read_word_vectors

LINES = "the 0.5 -1.25 2\nThe 1 1 1\n. . . 3e-2 0 -0\ncafé 7 8 9\nthe 0 0 0\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text(LINES, encoding="utf-8")
    return path


def test_reads_what_is_wanted(file):
    vectors = read_word_vectors(file, ["the", ". . .", "café", "absent"], size=3)
    assert {word: vector.tolist() for word, vector in vectors.items()} == {
        "the": [0.5, -1.25, 2.0],
        ". . .": [np.float32(0.03), 0.0, 0.0],
        "café": [7.0, 8.0, 9.0],
    }
    assert all(vector.dtype == np.float32 for vector in vectors.values())


@examples(50)
@given(
    words=st.lists(st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), min_size=1), unique=True),
    size=st.integers(2, 4),
)
def test_any_word_that_is_no_line_of_its_own(tmp_path_factory, words, size):
    """Spaces, digits, and characters at which text is often cut: NEL, vertical tabs, Unicode's line separators."""
    path = tmp_path_factory.mktemp("vectors") / "vectors.txt"
    matrix = np.arange(len(words) * size, dtype=np.float32).reshape(-1, size) / 8
    # The first line decides about the size, and must not look like one of another.
    lines = ["first " + " ".join(["1"] * size)]
    lines += [" ".join([word, *map(str, row)]) for word, row in zip(words, matrix, strict=True)]
    path.write_bytes("\n".join(lines).encode())
    vectors = read_word_vectors(path, words, size)
    for word, row in zip(words, matrix, strict=True):
        assert vectors[word].tolist() == ([1] * size if word == "first" else row.tolist())


def test_header_of_word2vec_windows_and_gzip(tmp_path):
    path = tmp_path / "vectors.vec.gz"
    path.write_bytes(gzip.compress(b"2 3\r\nthe 1 2 3\r\ncat 4 5 6 \r\n", mtime=0))
    vectors = read_word_vectors(path, ["the", "cat", "2"], size=3)
    assert {word: vector.tolist() for word, vector in vectors.items()} == {"the": [1, 2, 3], "cat": [4, 5, 6]}


def test_look_up_falls_back_to_lower_case(file):
    vectors = read_word_vectors(file, ["the", "The", "café"], size=3)
    assert look_up("The", vectors).tolist() == [1, 1, 1]
    assert look_up("CAFÉ", vectors).tolist() == [7, 8, 9]
    assert look_up("dog", vectors) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"the 1 2 3 4\n", "size 4, but 3 was expected"),
        (b"the 1 2\n", "size 2, but 3 was expected"),
        (b"10 4\nthe 1 2 3 4\n", "size 4, but 3 was expected"),
        (b"the 1 2 3\ncat " + b"4" * 2_000_000 + b" 5 6\n", "line 2: more than 1,000,300 bytes"),
        (b"the 1 2 3\ncat 4 5 1e38\n", "line 2: these numbers are too large to compute with: 'cat 4 5 1e38'"),
        (b"the 1 2 3\ncat 4 5 x\n", "line 2: these are not 3 finite numbers: 'cat 4 5 x'"),
        (b"the 1 2 3\ncat 4 5 nan\n", "line 2: these are not 3 finite"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "size 0, but 3"),
    ],
)
def test_files_that_are_no_word_vectors(tmp_path, content, message):
    path = tmp_path / "vectors.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_word_vectors(path, ["cat"], size=3)
    assert str(path) in str(caught.value)


def test_lines_that_are_too_short_are_passed_over(tmp_path):
    """As AllenNLP does, which warns of each: published files have some such lines."""
    path = tmp_path / "vectors.txt"
    path.write_bytes(b"the 1 2 3\n\ncat 4 5\ndog 7 8 9\nend")
    with pytest.warns(UserWarning, match=r"vectors\.txt: 3 of its lines .* line 2") as caught:
        vectors = read_word_vectors(path, ["the", "cat", "dog", "end"], size=3)
    assert len(caught) == 1
    assert {word: vector.tolist() for word, vector in vectors.items()} == {"the": [1, 2, 3], "dog": [7, 8, 9]}


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_word_vectors(tmp_path / "none.txt", ["cat"], size=3)
