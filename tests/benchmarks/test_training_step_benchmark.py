"""benchmarks/training_step.py on a small batch: its contestants' gradients agree, AllenNLP's among them."""

import importlib.util
import json
import os

import pytest
from places import CHECKOUT

BENCHMARK = CHECKOUT / "benchmarks" / "training_step.py"
OWN = ["plain", "hf_elmo", "checkpointing"]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("training_step", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(benchmark, folder, size, *contestants):
    text, output = folder / "text.txt", folder / "results.json"
    text.write_text(
        "Too short .\n" + "".join(f"Sentence {i} has six words , no less .\n" for i in range(4)), encoding="utf-8"
    )
    options = ["--size", size, "--batch", "3", "--words", "6", "--rounds", "1", "--threads", "1"]
    benchmark.main([*options, "--text", str(text), "--output", str(output), "--contestants", *contestants])
    return json.loads(output.read_text(encoding="utf-8"))


def check(results, contestants):
    assert list(results["contestants"]) == contestants
    for row in results["contestants"].values():
        assert row["step"] == pytest.approx(row["forward"] + row["backward"])
        assert row["gradients_differ_by"] < 1e-5


def test_three_ways_to_one_gradient(benchmark, tmp_path, capsys):
    check(run(benchmark, tmp_path, "mini", *OWN), OWN)
    assert "checkpointing" in capsys.readouterr().out


@pytest.mark.skipif(
    "HF_ELMO_ALLENNLP_PYTHON" not in os.environ, reason="HF_ELMO_ALLENNLP_PYTHON names no Python that has AllenNLP"
)
def test_the_gradients_of_allennlp(benchmark, tmp_path):
    check(run(benchmark, tmp_path, "small", "hf_elmo", "AllenNLP"), ["hf_elmo", "AllenNLP"])


def test_a_text_with_too_few_sentences(benchmark, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("Only one sentence .\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="only 1 lines of 3 words"):
        benchmark.main(["--batch", "2", "--words", "3", "--text", str(text)])
