"""The benchmark of bulk embedding, on a tiny model: what it measures is there, and what differs is found."""

import pytest

from benchmarks import bulk, bulk_on_paper

TEXT = "I read the book .\n\nTwo words\n" * 20


@pytest.fixture
def options(tmp_path, tiny_model_folder):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return ["--words", "60", "--shard-rows", "10", "--model", str(tiny_model_folder), "--text",
            str(tmp_path / "text.txt"), "--folder", str(tmp_path / "work")]  # fmt: skip


def test_rate(tmp_path, options, capsys):
    results = bulk.main(["rate", "--rounds", "2", *options])
    assert all(len(values) == 2 and min(values) > 0 for values in results.values())
    assert "% of the rate in memory" in capsys.readouterr().out
    assert list((tmp_path / "work").iterdir()) == []


def test_sizes(tmp_path, options, capsys):
    results = bulk.main(["sizes", *options])
    # Of three rows with 7 words the first one more; 17 of all have words.
    assert (results["rows"], results["words"]) == (25, 61)
    for (layers, pooling, _, dtype), size in results["sizes"].items():
        least = (17 if pooling else 61) * 32 * (3 if layers == "all" else 1) * int(dtype[-2:]) // 8
        assert size > least
    assert "parquet, float16" in capsys.readouterr().out
    assert list((tmp_path / "work").iterdir()) == []


def test_other_files_are_found(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data" / "00000.parquet").write_bytes(b"1")
    expected = bulk.contents(tmp_path / "one")
    bulk.check_same(expected, tmp_path / "two", "two processes")
    (tmp_path / "two" / "left.part").write_bytes(b"")
    with pytest.raises(SystemExit, match=r"two processes: these files .*: left\.part$"):
        bulk.check_same(expected, tmp_path / "two", "two processes")


def test_on_paper():
    """By hand: 384 numbers of 2 bytes and 10 others; 64 cores of 250 us a word; a GPU and the cores beside it."""
    options = ["--words", "2e9", "--us-a-word", "250", "--other-bytes", "10", "--gpu-rate", "1e6", "--gpu-price", "3"]
    tables = bulk_on_paper.main([*options, "--core-price", "0.05"])
    assert ["elmo-mini, one layer, or the mix, float16", "778", "1.6"] in tables["storage"]
    assert tables["machines"][0] == ["elmo-mini, 64 cores", "256,000", "2.2", "0.0", "199", "6.9"]
    assert tables["machines"][2] == ["original, a GPU (LSTMs alone)", "1,000,000", "0.6", "0.0", "2,058", "1.7"]
