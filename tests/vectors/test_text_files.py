"""Text as every command reads it: plain, packed, from standard input; what is wrong with it is said with the line."""

import gzip
import io
import sys
import tracemalloc

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_elmo.vectors.text_files import MAX_LINE_BYTES, TextFile, lines_of_files, open_text

TEXT = "I read a book .\n\nÄrger in 東京\r\nc\u2028d\u0085e\x0bf\rlast\r"
LINES = ["I read a book .", "", "Ärger in 東京", "c\u2028d\u0085e\x0bf", "last"]
PACKED = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "two gzip members": lambda data: gzip.compress(data[:10], mtime=0) + gzip.compress(data[10:], mtime=0),
    "zstd": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


def read(path, **options):
    with open_text(path) as text:
        return list(text.lines(**options))


@pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)
@pytest.mark.parametrize("name", ["text", "text.gz", "text.zst", "text.txt"])
def test_lines_are_those_of_the_original_programs(tmp_path, monkeypatch, pack, name):
    """Whatever the name says, and as Python's own text mode reads them, which bilm-tf and AllenNLP use."""
    content = pack(TEXT.encode("utf-8-sig"))
    (tmp_path / name).write_bytes(content)
    matches = {".gz": content[:2] == b"\x1f\x8b", ".zst": content[:2] == b"\x28\xb5"}
    if not matches.get((tmp_path / name).suffix, True):
        with pytest.raises(ValueError, match=f"{name} is not a sound .* file: it does not begin as one"):
            read(tmp_path / name)
        return
    assert read(tmp_path / name) == LINES == [line.rstrip("\n") for line in io.StringIO(TEXT, newline=None)]
    for buffer in (io.BytesIO(content), io.BufferedReader(io.BytesIO(content))):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(buffer))
        assert read("-") == LINES
    assert list(lines_of_files([tmp_path / name] * 2)) == LINES * 2


@pytest.mark.parametrize(("kind", "damage"), [("gzip", "cut"), ("gzip", "changed"), ("zstd", "cut")])
def test_damaged_packed_files(tmp_path, kind, damage):
    content = bytearray(PACKED[kind]("".join(f"line {n * n}\n" for n in range(3000)).encode()))
    if damage == "cut":
        del content[-20:]
    else:
        content[len(content) // 2 : len(content) // 2 + 8] = b"\xff" * 8
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(ValueError, match="text is not a sound"):
        read(tmp_path / "text")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\rb\n\xff\n", "line 3: the byte 0xff is no UTF-8"),
        (b"a\n\0b\n", "line 2: a zero byte"),
        ("words".encode("utf-16"), "line 1: a zero byte"),
        ("Wörter".encode("latin-1"), "line 1: the byte 0xf6 is no UTF-8"),
        (b"good\n" + b"x" * 101 + b"\n", r"line 2: more than 100 bytes.*\(max_line_bytes=\.\.\.\)"),
        (b"x" * 150, "line 1: more than 100 bytes"),
        (b"a\r" + b"x" * 150, "line 2: more than 100 bytes"),
    ],
)
def test_what_is_not_text(tmp_path, content, message):
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(ValueError, match=f"text, {message}"):
        read(tmp_path / "text", max_line_bytes=100)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_line_of_just_the_most_bytes(tmp_path, end):
    (tmp_path / "text").write_bytes(b"x" * 100 + end + b"y" * 100 if end else b"x" * 100)
    assert read(tmp_path / "text", max_line_bytes=100) == ["x" * 100, "y" * 100][: 1 + bool(end)]


@pytest.mark.parametrize("pack", [PACKED["plain"], PACKED["gzip"]])
def test_a_line_of_a_hundred_megabytes_is_refused_before_it_is_in_memory(tmp_path, pack):
    (tmp_path / "text").write_bytes(pack(b"word " * 20_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f"text, line 1: more than {MAX_LINE_BYTES:,} bytes"):
            read(tmp_path / "text")
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()


@given(st.text(st.sampled_from("ab\r\n"), max_size=30), st.integers(5, 12))
def test_ends_of_lines_wherever_they_are_read(text, most):
    expected = [line.rstrip("\n") for line in io.StringIO(text, newline=None)]
    opened = TextFile(io.BytesIO(text.encode()), "text", False)
    if any(len(line) > most for line in expected):
        with pytest.raises(ValueError, match="more than"):
            list(opened.lines(max_line_bytes=most))
    else:
        assert list(opened.lines(max_line_bytes=most)) == expected


def test_a_folder_and_a_missing_file(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"), open_text(tmp_path):
        pass
    with pytest.raises(FileNotFoundError, match="absent"), open_text(tmp_path / "absent"):
        pass
