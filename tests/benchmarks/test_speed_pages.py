"""The tables of speed on the pages are what the files of results say, of ready tables and of rounds."""

import json
import sys

import pytest
from places import CHECKOUT

sys.path.insert(0, str(CHECKOUT))

from benchmarks.harness import origin, pages

MACHINE = {
    "processor": "AMD EPYC 9R14 96-Core Processor",
    "cores": 2,
    "flags": ["avx512f"],
    "date": "2026-11-30T01:02:03",
}
ROUND = {
    "words": 100,
    "seconds": {"allennlp": 4.0, "fast_elmo": 2.0, "hf_elmo fp32": 1.0},
    "floors": {"fp32": {"seconds": 0.5, "operations": 1e9, "weight_bytes": 1e8}},
}
MEASURED = {
    "machine": MACHINE | {"load_average": [0.25, 0, 0]},
    "threads": 2,
    "command": "python -m benchmarks.run --short",
    "commit": "abc1234",
    "text": {"text": "some text", "sentences": 2, "words": 20},
    "versions": {"hf_elmo fp32": {"torch": "2.13.0", "transformers": "5.23.0"}, "machine": {"torch": "2.13.0"}},
    "rows": [
        {
            "row": {"name": "original, batch 1", "kinds": ["fp32"]},
            "columns": ["allennlp", "fast_elmo", "hf_elmo fp32"],
            "rounds": [ROUND, ROUND | {"seconds": {"allennlp": 4.0, "fast_elmo": 2.0, "hf_elmo fp32": 2.0}}],
            "exactness": {
                "hf_elmo fp32": {"of": "allennlp", "largest": 1e-6, "lowest_cosine": 1.0, "mean_cosine": 1.0}
            },
        }
    ],
    "memory": [],
}
READY = {
    "machine": {"processor": "Intel Xeon", "cores": 2, "flags": [], "date": None, "note": "quiet"},
    "transcribed": "transcribed from a letter",
    "versions": {},
    "tables": {
        "speed": {
            "command": None,
            "heads": ["", "AllenNLP, words/s", "int8, x"],
            "lines": [["original, batch 1", "113", "3.9 (3.8..4.1)"], ["small, batch 1", "7", "1.0"]],
        }
    },
}


@pytest.fixture
def results(tmp_path):
    for name, content in (("amd", MEASURED), ("intel", READY)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def page_of(results, name: str) -> str:
    text = f"Before.\n\n<!-- figures: {name} -->\nold\n<!-- end of figures -->\n\nAfter.\n"
    return pages.make_page(text, pages.read_files(results))


def test_one_table_for_each_machine(results):
    lines = page_of(results, "speed").splitlines()
    first = lines.index(
        "AMD EPYC 9R14 96-Core Processor, 2026-11-30, torch 2.13.0, transformers 5.23.0, hf_elmo abc1234 "
        "(`python -m benchmarks.run --short`):"
    )
    assert lines[first + 2] == "|  | AllenNLP, words/s | pytorch-fast-elmo, x | exact fp32, x |"
    assert lines[first + 4] == "| original, batch 1 | 25 (25..25) | 2.0 (2.0..2.0) | 3.0 (2.0..4.0) |"
    second = lines.index("Intel Xeon, day not stated, versions not stated:")
    assert second > first
    assert "| original, batch 1 | 113 | 3.9 (3.8..4.1) |" in lines[second:]
    assert lines[0] == "Before."
    assert lines[-1] == "After."
    assert "old" not in lines


def test_other_tables(results):
    assert "| original, batch 1 | fp32 | 75 (50..100) | 200 (200..200) | 10 | 1.0 | 38 (25..50) |" in page_of(
        results, "floor"
    )
    assert "| original, batch 1 | exact fp32 | AllenNLP | 1.0e-06 | 1.000000 | 1.000000 |" in page_of(
        results, "exactness"
    )
    short = page_of(results, "short").splitlines()
    assert "|  | AllenNLP, words/s | pytorch-fast-elmo, x | exact fp32, x | int8, x |" in short
    assert "| AMD EPYC 9R14 96-Core Processor, 1 sentence | 25 | 2.0 | 3.0 |  |" in short
    assert "| Intel Xeon, 1 sentence | 113 |  |  | 3.9 |" in short
    listed = page_of(results, "machines")
    assert (
        "- **AMD EPYC 9R14 96-Core Processor**, 2 cores, avx512f: 2026-11-30; load average 0.2; text: some text."
        in listed
    )
    assert "- **Intel Xeon**, 2 cores: day not stated; quiet; transcribed from a letter." in listed
    # Nobody has measured it.
    with pytest.raises(ValueError, match="No file of results has a table 'memory'"):
        page_of(results, "memory")


def test_a_file_may_have_figures_of_other_commands_beside_its_rounds(results):
    where = {"command": "python -m benchmarks.breakdown", "heads": ["", "% products"], "lines": [["a row", "88"]]}
    (results / "amd.json").write_text(json.dumps(MEASURED | {"tables": {"where": where}}), encoding="utf-8")
    assert "| a row | 88 |" in page_of(results, "where")
    assert "(`python -m benchmarks.breakdown`):" in page_of(results, "where")
    assert "| original, batch 1 | 25 (25..25) | 2.0 (2.0..2.0) | 3.0 (2.0..4.0) |" in page_of(results, "speed")
    assert "| AMD EPYC 9R14 96-Core Processor, 1 sentence | 25 | 2.0 | 3.0 |  |" in page_of(results, "short")


def test_a_page_of_other_figures_is_found(results, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- figures: speed -->\n<!-- end of figures -->\n", encoding="utf-8")
    arguments = ["--results", str(results), "--pages", str(page)]
    pages.main(arguments)
    pages.main([*arguments, "--check"])
    page.write_text(page.read_text(encoding="utf-8").replace("3.9", "9.9"), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"run python -m benchmarks\.harness\.pages"):
        pages.main([*arguments, "--check"])


def test_the_pages_of_the_checkout_are_those_of_its_files():
    pages.main(["--check"])


def test_every_table_of_the_page_is_in_a_block():
    """No figure stands on the page without its file."""
    text = pages.BLOCK.sub("", (CHECKOUT / "docs" / "performance.md").read_text(encoding="utf-8"))
    assert not [line for line in text.splitlines() if line.startswith("|")]


def test_names_and_commands():
    assert origin.file_name(MACHINE) == "amd-epyc-9r14-2026-11-30.json"
    intel = {"processor": "Intel(R) Xeon(R) Platinum 8488C CPU @ 2.40GHz", "date": "2026-12-01T00:00:00"}
    assert origin.file_name(intel) == "intel-xeon-platinum-8488c-2026-12-01.json"
    command = origin.command_of("benchmarks.run", ["--short", "--output", "/a/b", "--work=/c", "--threads", "2"])
    assert command == "python -m benchmarks.run --short --threads 2"
