"""Files of vectors, read back with the plain libraries; and files that must not be left behind."""

import json
import os
import textwrap

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import warm
from amounts import first_of

from hf_elmo.vectors import writers as vector_writers
from hf_elmo.vectors.embedding import EmbeddedSentence
from hf_elmo.vectors.files import FORMATS, format_of, open_vector_file
from hf_elmo.vectors.hdf5_output import Hdf5Output
from hf_elmo.whole_files import check_target

DIM = 8
WORDS = [["I", "read", "it", "."], [], ["Ärger", "in", "東京", "a\u00a0b", '"'], ["one"], [], ["I", "read", "it", "."]]


def make_sentences(num_layers=None, seed=0):
    generator = np.random.default_rng(seed)
    leading = () if num_layers is None else (num_layers,)
    return [
        EmbeddedSentence(words, generator.standard_normal((*leading, len(words), DIM)).astype(np.float32), [])
        for words in WORDS
    ]


def save(path, sentences, format=None, num_layers=None, **options):
    with open_vector_file(path, format, dim=DIM, num_layers=num_layers, **options) as writer:
        for sentence in sentences:
            writer.write(sentence)


def read_words(lines):
    return [json.loads(line) for line in bytes(lines).decode().splitlines()]


def check_arrays(arrays, sentences):
    for number, sentence in enumerate(sentences):
        array = np.asarray(arrays[str(number)])
        assert array.dtype == np.float32
        assert array.shape == sentence.vectors.shape
        np.testing.assert_array_equal(array, sentence.vectors)


@pytest.mark.parametrize("num_layers", [None, 3])
def test_npz(tmp_path, num_layers):
    sentences = make_sentences(num_layers)
    save(tmp_path / "x.npz", sentences, num_layers=num_layers)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as archive:
        assert sorted(archive.files) == ["0", "1", "2", "3", "4", "5", "words"]
        check_arrays(archive, sentences)
        assert read_words(archive["words"]) == WORDS


@pytest.mark.parametrize("num_layers", [None, 3])
def test_safetensors(tmp_path, num_layers):
    sentences = make_sentences(num_layers)
    save(tmp_path / "x.safetensors", sentences, num_layers=num_layers)
    arrays = safetensors.numpy.load_file(tmp_path / "x.safetensors")
    assert len(arrays) == len(WORDS) + 1
    check_arrays(arrays, sentences)
    assert read_words(arrays["words"]) == WORDS


@pytest.mark.parametrize("num_layers", [None, 3])
@pytest.mark.parametrize("name", ["x.hdf5", "x.h5"])
def test_hdf5_as_allennlps_readers_read_it(tmp_path, num_layers, name):
    sentences = make_sentences(num_layers)
    save(tmp_path / name, sentences, num_layers=num_layers)
    with h5py.File(tmp_path / name, "r") as file:
        assert sorted(file) == ["0", "1", "2", "3", "4", "5", "sentence_to_index"]
        check_arrays(file, sentences)
        # From AllenNLP's tutorial on ELMo: the index is the first element of a dataset of strings.
        index = json.loads(file["sentence_to_index"][0])
    assert index == {"I read it .": "5", "": "4", 'Ärger in 東京 a\u00a0b "': "2", "one": "3"}
    assert all(isinstance(key, str) for key in index.values())


def test_hdf5_as_bilm_tf_writes_it(tmp_path):
    sentences = make_sentences(3)
    save(tmp_path / "x.hdf5", sentences, "bilm-hdf5", num_layers=3)
    with h5py.File(tmp_path / "x.hdf5", "r") as file:
        assert sorted(file) == ["0", "1", "2", "3", "4", "5"]
        check_arrays(file, sentences)


@pytest.mark.parametrize("num_layers", [None, 3])
@pytest.mark.parametrize("bytes_per_group", [2**20, 1])
def test_parquet(tmp_path, monkeypatch, num_layers, bytes_per_group):
    monkeypatch.setattr(vector_writers, "_ROW_GROUP_BYTES", bytes_per_group)
    sentences = make_sentences(num_layers)
    path = tmp_path / "x.parquet"
    save(path, sentences, num_layers=num_layers)
    assert pq.ParquetFile(path).num_row_groups == (1 if bytes_per_group > 1 else len(WORDS))
    rows = pq.read_table(path).to_pylist()
    assert [row["sentence"] for row in rows] == list(range(len(WORDS)))
    assert [row["words"] for row in rows] == WORDS
    for row, sentence in zip(rows, sentences, strict=True):
        vectors = np.array(row["vectors"], dtype=np.float32).reshape(sentence.vectors.shape)
        np.testing.assert_array_equal(vectors, sentence.vectors)
        assert len(row["vectors"]) == (num_layers or len(sentence.words))


def test_parquet_is_a_dataset(tmp_path):
    import datasets

    sentences = make_sentences(2)
    save(tmp_path / "x.parquet", sentences, num_layers=2)
    dataset = datasets.Dataset.from_parquet(str(tmp_path / "x.parquet"), cache_dir=str(tmp_path / "cache"))
    np.testing.assert_array_equal(np.array(dataset[2]["vectors"], dtype=np.float32), sentences[2].vectors)
    assert dataset[2]["words"] == WORDS[2]


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_without_sentences_can_be_read(tmp_path, format):
    save(tmp_path / "x", [], format, num_layers=3)
    if "hdf5" in format:
        with h5py.File(tmp_path / "x", "r") as file:
            assert set(file) <= {"sentence_to_index"}
    elif format == "parquet":
        assert pq.read_table(tmp_path / "x").num_rows == 0
    elif format == "npz":
        with np.load(tmp_path / "x") as archive:
            assert archive["words"].shape == (0,)
    else:
        assert safetensors.numpy.load_file(tmp_path / "x")["words"].shape == (0,)


@pytest.mark.parametrize("format", FORMATS)
def test_lone_surrogates_in_words_are_no_obstacle(tmp_path, format):
    vectors = np.ones((2, 1, DIM), dtype=np.float32)
    save(tmp_path / "x", [EmbeddedSentence(["a\ud800b"], vectors, [])], format, num_layers=2)
    if format == "parquet":
        assert pq.read_table(tmp_path / "x").to_pylist()[0]["words"] == ["a?b"]
    elif format == "npz":
        with np.load(tmp_path / "x") as archive:
            assert read_words(archive["words"]) == [["a\ud800b"]]


@pytest.mark.parametrize("format", FORMATS)
def test_after_an_error_nothing_is_left(tmp_path, format):
    def sentences():
        yield from make_sentences(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "vectors", sentences(), format, num_layers=3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
def test_after_an_error_the_old_file_is_as_it_was(tmp_path, format):
    path = tmp_path / "vectors"
    path.write_text("old", encoding="utf-8")
    wrong = EmbeddedSentence(["a"], np.ones((3, 1, DIM + 1), dtype=np.float32), [])
    with pytest.raises(ValueError, match=r"Sentence 6 must have float32 vectors \(3, 1, 8\), was: float32 \(3, 1, 9\)"):
        save(path, [*make_sentences(3), wrong], format, num_layers=3, overwrite=True)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("vectors", [np.ones((1, DIM)), np.ones((2, DIM), dtype=np.float32), np.ones((3, 1, DIM))])
def test_vectors_of_another_shape_or_dtype_are_refused(tmp_path, vectors):
    with pytest.raises(ValueError, match="Sentence 0 must have float32 vectors"):
        save(tmp_path / "x.npz", [EmbeddedSentence(["a"], vectors, [])])


def test_bilm_tfs_layout_wants_all_layers(tmp_path):
    with pytest.raises(ValueError, match="layers='all'"):
        save(tmp_path / "x.hdf5", [], "bilm-hdf5")
    assert list(tmp_path.iterdir()) == []


def test_more_sentences_than_safetensors_can_list_are_refused(tmp_path, monkeypatch):
    # The real bound, 100 MB, is the library's own.
    monkeypatch.setattr(vector_writers, "_LONGEST_SAFETENSORS_HEADER", 1200)
    with pytest.raises(ValueError, match=r"safetensors cannot hold more than \d sentences: write hdf5 or parquet"):
        save(tmp_path / "x.safetensors", make_sentences())
    assert list(tmp_path.iterdir()) == []


def test_the_library_refuses_the_header_that_is_refused_here(tmp_path):
    path = tmp_path / "x.safetensors"
    length = vector_writers._LONGEST_SAFETENSORS_HEADER
    for size, message in ((length, "invalid JSON"), (length + 8, "header too large")):
        path.write_bytes(size.to_bytes(8, "little") + b"{")
        os.truncate(path, 8 + size)
        with pytest.raises(safetensors.SafetensorError, match=f"(?i){message}"):
            safetensors.numpy.load_file(path)


def test_a_file_is_overwritten_only_on_demand(tmp_path):
    path = tmp_path / "x.npz"
    save(path, make_sentences(seed=1))
    with pytest.raises(FileExistsError, match="exists already"):
        save(path, make_sentences(seed=2))
    with np.load(path) as archive:
        check_arrays(archive, make_sentences(seed=1))
    save(path, make_sentences(seed=2), overwrite=True)
    with np.load(path) as archive:
        check_arrays(archive, make_sentences(seed=2))


def test_targets_that_cannot_be_files(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"):
        check_target(tmp_path, overwrite=True)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        check_target(tmp_path / "missing" / "x.npz")
    with pytest.raises(FileExistsError, match="not a regular file"):
        check_target("/dev/null", overwrite=True)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "vectors.npz"
    target.write_text("old", encoding="utf-8")
    link = tmp_path / "link.npz"
    link.symlink_to(target)
    save(link, make_sentences(), overwrite=True)
    assert link.is_symlink()
    with np.load(target) as archive:
        check_arrays(archive, make_sentences())


@pytest.mark.parametrize("format", FORMATS)
def test_files_have_the_permissions_of_new_files(tmp_path, format):
    (tmp_path / "plain").write_text("", encoding="utf-8")
    save(tmp_path / "x", make_sentences(3), format, num_layers=3)
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a file system that nobody can write to")
@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_that_cannot_be_written_is_told(format):
    with pytest.raises(OSError, match="/proc/vectors cannot be written"):
        save("/proc/vectors", [], format, num_layers=3)


def test_formats_by_name():
    names = {"a.npz": "npz", "a.safetensors": "safetensors", "a.HDF5": "hdf5", "b/a.h5": "hdf5", "a.parquet": "parquet"}
    assert {name: format_of(name) for name in names} == names
    for name in ("a.txt", "npz", "a.npz.gz", ""):
        with pytest.raises(ValueError, match=r"known are \.npz, \.safetensors, \.hdf5, \.h5, \.parquet"):
            format_of(name)
    with pytest.raises(ValueError, match="There is no format 'csv'"):
        save("a.npz", [], "csv")


def run_python(code, *arguments):
    """Runs code in a process of its own; returns what it printed, after checking that it printed no complaint."""
    done = warm.run(["-c", textwrap.dedent(code), *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    pytest.importorskip("resource")
    printed = run_python(
        """
        import resource, sys
        import numpy as np
        from hf_elmo.vectors.embedding import EmbeddedSentence
        from hf_elmo.vectors.files import FORMATS, open_vector_file

        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        vectors = np.random.default_rng(0).random((1, 10, 100), dtype=np.float32)
        for format in FORMATS:
            path = f"{sys.argv[1]}/{format}"
            try:
                with open_vector_file(path, format, dim=100, num_layers=1) as writer:
                    for _ in range(100):
                        vectors += 1
                        writer.write(EmbeddedSentence(["a"] * 10, vectors.copy(), []))
            except OSError as error:
                print(error)
        """,
        tmp_path,
    )
    lines = printed.splitlines()
    assert len(lines) == len(FORMATS)
    for line, format in zip(lines, FORMATS, strict=True):
        assert line.startswith(f"{tmp_path / format} cannot be written: ")
        assert "too large" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is always full")
def test_hdf5_reports_an_error_of_data_that_the_library_held_back(tmp_path):
    # Written after the dataset is closed, where h5py cannot raise.
    output = Hdf5Output(tmp_path / "x.hdf5")
    output._disk._file.close()
    output._disk._file = open("/dev/full", "r+b", buffering=0)  # noqa: SIM115
    output.file.create_dataset("0", data=np.ones(100, dtype=np.float32))
    with pytest.raises(OSError, match="No space left"):
        output.check()
    with pytest.raises(OSError, match="No space left"):
        output.close()


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux, to measure memory")
@pytest.mark.parametrize("format", first_of(FORMATS))
def test_memory_does_not_grow_with_the_file(tmp_path, format):
    printed = run_python(
        """
        import sys
        from pathlib import Path
        import numpy as np
        from hf_elmo.vectors.embedding import EmbeddedSentence
        from hf_elmo.vectors.files import open_vector_file

        def peak():
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024

        def write(count):
            with open_vector_file(sys.argv[1], sys.argv[2], dim=256, num_layers=3, overwrite=True) as writer:
                for _ in range(count):
                    writer.write(EmbeddedSentence(["word"] * 25, generator.random((3, 25, 256), dtype=np.float32), []))

        generator = np.random.default_rng(0)
        for count in (300, 3000):
            Path("/proc/self/clear_refs").write_text("5")
            write(count)
            print(peak())
        """,
        tmp_path / "x",
        format,
    )
    small, large = map(int, printed.split())
    # 23 MB of vectors, and then 230 MB.
    assert large < small + 120
