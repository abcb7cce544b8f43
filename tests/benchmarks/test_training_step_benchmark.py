"""benchmarks/training_step.py on a small batch: its contestants' gradients agree, AllenNLP's among them."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import warm
from places import CHECKOUT

sys.path.insert(0, str(CHECKOUT))

from benchmarks import training_step

OWN = ["plain", "hf_elmo", "checkpointing"]


def run(folder, size, *contestants):
    text, output = folder / "text.txt", folder / "results.json"
    text.write_text(
        "Too short .\n" + "".join(f"Sentence {i} has six words , no less .\n" for i in range(4)), encoding="utf-8"
    )
    options = ["--size", size, "--batch", "3", "--words", "6", "--rounds", "1", "--threads", "1"]
    training_step.main([*options, "--text", str(text), "--output", str(output), "--contestants", *contestants])
    return json.loads(output.read_text(encoding="utf-8"))


def check(results, contestants):
    assert list(results["contestants"]) == contestants
    for row in results["contestants"].values():
        assert row["step"] == pytest.approx(row["forward"] + row["backward"])
        assert row["gradients_differ_by"] < 1e-5


@pytest.mark.slow
def test_three_ways_to_one_gradient(tmp_path, capsys, monkeypatch):
    processes = SimpleNamespace(Popen=lambda command, **o: warm.Popen(command[1:], **o), PIPE=subprocess.PIPE)
    monkeypatch.setattr(training_step, "subprocess", processes)
    check(run(tmp_path, "mini", *OWN), OWN)
    assert "checkpointing" in capsys.readouterr().out


@pytest.mark.skipif(
    "HF_ELMO_ALLENNLP_PYTHON" not in os.environ, reason="HF_ELMO_ALLENNLP_PYTHON names no Python that has AllenNLP"
)
def test_the_gradients_of_allennlp(tmp_path):
    check(run(tmp_path, "small", "hf_elmo", "AllenNLP"), ["hf_elmo", "AllenNLP"])


def test_a_text_with_too_few_sentences(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("Only one sentence .\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="only 1 lines of 3 words"):
        training_step.main(["--size", "mini", "--batch", "2", "--words", "3", "--text", str(text)])
