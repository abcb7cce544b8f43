"""The page of all tables is what the JSON files say; the quick mode makes all of them."""

import json
import subprocess
import sys

import pytest
from places import CHECKOUT

sys.path.insert(0, str(CHECKOUT))

from benchmarks.quality import __main__ as quality
from benchmarks.quality import noise, optimizers, page, tables

SCORE = {"mean": 40.25, "spread": 1.5, "runs": 3}
ARMS = {arm: {"dev": SCORE, "test": SCORE} for arm in ("ELMo", "from scratch")}
LAYERS = {name: {"mean": 0.5, "spread": 0.0, "runs": 1} for name in ("layer 0", "layer 1", "layer 2", "average")}
ROWS = {
    "tasks": {"wnut17": {"1.0": {"arms": ARMS, "error reduction": 12.34}}},
    "efficiency": {"sst5": {share: {"arms": ARMS, "error reduction": None} for share in ("0.1", "1.0")}},
    "layers": {"pos": {"model": LAYERS, "random": LAYERS}, "mix": {"last": SCORE}},
    "read": {
        "tense": {
            "counts": {"past": 2, "present": 3},
            "share": {"layer 0": dict.fromkeys(("nearest", "triples", "probe"), 0.5)},
        }
    },
    "words": {
        "words": 12000,
        "kinds": {
            "misspelling": {
                "by spelling": {"median rank": 1.5, "first": 0.25, "first ten": 1.0, "pairs": 4},
                "by use": None,
            }
        },
    },
    "state": {
        "elmo": {
            "perplexity": {"zeros": {"forward": 57.44, "backward": 58.0}},
            "clips": {"forward": [{"cells": 0.0432, "outputs": 0.0}]},
        }
    },
    "noise": {"ELMo": {task: {"clean": SCORE} for task in ("pos", "ner")}},
    "finetuning": {
        name: {"perplexity": {"forward": 300.0, "backward": 310.0}, "dev": SCORE, "test": SCORE}
        for name in ("before", "after")
    },
    "optimizers": {"AdamW 0.004": [{"updates": 1100, "cpu_seconds": 90, "forward": 150.0, "backward": 151.0}]},
}


@pytest.fixture
def results(tmp_path):
    for name, rows in ROWS.items():
        made = {
            "command": f"python -m benchmarks.quality.{name}",
            "quick": name == "noise",
            "seeds": [1, 2],
            "model": {"name": "elmo-mini", "weights_sha256": "abc"},
            "versions": {"torch": "2.13"},
            "machine": {"processor": "P", "date": "2026-11-29T00:00:00"},
            "cpu_seconds": 90,
            "rows": rows,
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(made), encoding="utf-8")
    return tmp_path


def test_every_figure_is_on_the_page(results):
    text = page.make_page(results)
    for line in [
        "| wnut17 | 100 | ELMo | 40.2 ± 1.5 | 40.2 ± 1.5 | 12.3 |",
        "| sst5 | 10 | from scratch | 40.2 ± 1.5 | 40.2 ± 1.5 |  |",
        "| parts of speech, English, % | random ELMo | 50.0 | 50.0 | 50.0 | 50.0 |",
        "| last | 40.2 ± 1.5 |",
        "| misspelling | by spelling | 1.5 | 25 | 100 | 4 |",
        "| elmo | zeros | 57.4 | 58.0 |",
        "| elmo | forward | 1 | 4.32 | 0.00 |",
        "| entities, F1 | clean | 40.2 ± 1.5 |",
        "| before | 300.0 | 310.0 | 40.2 ± 1.5 | 40.2 ± 1.5 |",
        "| AdamW 0.004 | 1,100 | 1.5 | 150.0 | 151.0 |",
    ]:
        assert line in text.splitlines()
    assert "Tense (2 past, 3 present), in %:" in text
    assert text.count("Quick mode: a test of the machinery") == 1
    assert "1.5 minutes of CPU time, P, torch 2.13, 2026-11-29." in text


def test_what_is_not_measured_says_its_command(tmp_path):
    text = page.make_page(tmp_path)
    assert text.count("Not measured yet") == len(page.SECTIONS)
    assert "`python -m benchmarks.quality.read_occurrences`" in text


def test_a_page_of_other_figures_is_found(results, tmp_path):
    arguments = ["--results", str(results), "--page", str(tmp_path / "quality.md")]
    page.main(arguments)
    assert "<svg" in (results / page.PLOT).read_text(encoding="utf-8")
    page.main([*arguments, "--check"])
    changed = (tmp_path / "quality.md").read_text(encoding="utf-8").replace("57.4", "57.3")
    (tmp_path / "quality.md").write_text(changed, encoding="utf-8")
    with pytest.raises(SystemExit, match=r"is not the page of .*run python -m benchmarks\.quality\.page"):
        page.main([*arguments, "--check"])


def test_the_page_of_the_checkout_is_that_of_its_files():
    page.main(["--check"])


def test_every_table_has_a_command_and_a_section(tmp_path):
    lines = quality.commands(True, "model", tmp_path, tmp_path, 1)
    assert set(lines) == set(page.SECTIONS)
    assert all("--quick" in line for line in lines.values())
    with pytest.raises(SystemExit, match="give --results FOLDER"):
        quality.main(["--quick"])


def test_a_measurement_needs_all_that_it_compares(monkeypatch):
    """Before anything is computed, not after hours of the other arms."""
    monkeypatch.setattr(noise.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="give --ngram-words 0"):
        noise.main([])


def test_processes_that_a_table_waits_for_count_as_its_time():
    before = tables.cpu_seconds()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass"], check=True)
    # The system counts in hundredths, several of which may get lost.
    assert tables.cpu_seconds() - before >= 0.4


def test_an_arm_that_is_whole_is_not_trained_again(tmp_path, monkeypatch):
    started = []

    def run(command, **options):
        started.append(command)
        (tmp_path / "arm" / "model").mkdir()

    monkeypatch.setattr(optimizers.subprocess, "run", run)
    given = (tmp_path / "text.txt", tmp_path / "arm", "small", (0.004, None))
    found = optimizers.train(*given, updates=7, seed=0)
    assert found["updates"] == 7
    assert optimizers.train(*given, updates=7, seed=0) == found
    assert len(started) == 1
    (tmp_path / "arm" / "left").write_text("of other options", encoding="utf-8")
    assert optimizers.train(*given, updates=8, seed=0)["updates"] == 8
    assert len(started) == 2
    assert not (tmp_path / "arm" / "left").exists()


@pytest.mark.slow
def test_the_quick_mode_makes_every_table(shared_data, tmp_path):
    """Shapes and sanity only: slices of 40 to 100 sentences measure nothing."""
    command = [sys.executable, "-m", "benchmarks.quality", "--quick", "--results", str(tmp_path), "--threads", "1"]
    subprocess.run(command, cwd=CHECKOUT, check=True)
    made = {name: json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8")) for name in page.SECTIONS}
    assert all(each["quick"] and each["seeds"] == [1] for each in made.values())
    assert set(made["tasks"]["rows"]) == {"wnut17", "sst5", "snli", "wic"}
    for shares in made["tasks"]["rows"].values():
        for scores in shares["1.0"]["arms"].values():
            assert 0 <= scores["test"]["mean"] <= 100
    arms = made["tasks"]["rows"]["sst5"]["1.0"]["arms"]
    assert {"ELMo", "random ELMo", "from scratch"} <= set(arms)
    pos = made["layers"]["rows"]["pos"]
    assert pos["model"]["layer 1"]["mean"] > pos["random"]["layer 1"]["mean"]
    runs = [run for arm in made["optimizers"]["rows"].values() for run in arm]
    assert len(runs) == 4
    assert all(run["updates"] == 2 and run["forward"] > 1000 for run in runs), "they have learned next to nothing yet"
    (state,) = made["state"]["rows"].values()
    assert state["perplexity"]["zeros"]["forward"] < 500
    misspelt = made["noise"]["rows"]["ELMo"]["pos"]
    assert misspelt["clean"]["mean"] > misspelt["drop 20%"]["mean"] - 5
    tuned = made["finetuning"]["rows"]
    assert tuned["after"]["perplexity"]["forward"] != tuned["before"]["perplexity"]["forward"]
    assert "Not measured yet" not in (tmp_path / "quality.md").read_text(encoding="utf-8")
