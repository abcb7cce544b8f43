"""The comparison with peers, whole, with a tiny model; and its arithmetic by hand."""

import itertools
import json
import platform
import sys

import numpy as np
import pytest
import torch
from places import CHECKOUT

from hf_elmo import ElmoConfig

sys.path.insert(0, str(CHECKOUT))

from benchmarks import breakdown, run, scaling
from benchmarks.harness import machine, peers, report
from benchmarks.harness.floor import Shape, floor
from benchmarks.harness.material import make_model, make_sentences, python_paragraphs, text_of

# No skip connections: AllenNLP has none without them. All else is as small as it can be.
CONFIG = {
    "char_embed_dim": 4,
    "filters": [[1, 4], [2, 4], [3, 8]],
    "num_highway_layers": 1,
    "cell_size": 24,
    "projection_dim": 8,
}
TEXT = "The sentence has seven words in it. " * 3 + "\n" + "Another one has these nine words and no more.\n" * 20


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    make_sentences(folder / "sentences.json", folder / "text.txt")
    make_model(folder / "tiny", ElmoConfig(**CONFIG))
    return folder


@pytest.mark.slow
def test_a_comparison(work):
    rows = [
        run.Row("in batches", "tiny", "batch", 2, 4, 1, ("fp32", "bf16")),
        run.Row("corpus", "tiny", "corpus", 4, 8, 1, ("fp32",)),
        run.Row("words", "tiny", "tokenize", 4, 8, 1, ("fp32",)),
        run.Row("training", "tiny", "train", 2, 2, 1, ("fp32",), 5),
    ]
    python = peers.python_of("allennlp")
    comparison = run.Comparison(work, 1, {"allennlp": python} if python else {})
    results = {"machine": run.facts(), "threads": 1, "short": True, "absent": {"simple_elmo": "not asked"}}
    results["rows"] = comparison.measure_rows(rows)
    results["text"] = text_of(work)
    results |= {
        "memory": comparison.measure_memory("tiny", 8, 1, ("fp32",)),
        "versions": comparison.versions,
        "minutes": 0,
    }
    results["notes"] = list(comparison.notes)
    results = json.loads(json.dumps(results))
    batches, corpus, words, training = results["rows"]
    assert {"hf_elmo fp32", "hf_elmo bf16"} <= set(batches["columns"])
    # The text goes on from turn to turn: three times four sentences, and the eight of a warming turn, came before.
    sentences = comparison.sentences * 2
    assert [each["words"] for each in corpus["rounds"]] == [sum(map(len, sentences[20:28]))]
    for row in results["rows"]:
        for each in row["rounds"]:
            assert all(seconds > 0 for seconds in each["seconds"].values())
    for row in (batches, corpus, training):
        assert all(share > 0 for share in report.shares(row, "fp32"))
    assert not report.shares(words, "fp32")
    bf16 = batches["exactness"]["hf_elmo bf16"]
    assert bf16["of"] == "hf_elmo fp32"
    assert 1e-6 < bf16["largest"] < 0.1
    assert bf16["mean_cosine"] > 0.999
    if python:
        assert batches["exactness"]["hf_elmo fp32"]["largest"] < 1e-5
        assert training["exactness"]["hf_elmo fp32"]["largest_relative"] < 1e-4
        assert report.ratios(corpus, "hf_elmo fp32")
    memory = {each["column"]: each for each in results["memory"]}
    assert memory["hf_elmo fp32"]["done"]["peak"] >= memory["hf_elmo fp32"]["imports"]["peak"] > 0
    text = report.text(results)
    for piece in (
        "Text: text.txt, 23 sentences",
        "in batches",
        "training",
        "% of the floor",
        "simple_elmo: not asked",
        "GFLOP/s",
    ):
        assert piece in text
    assert not any("error" in note for note in results["notes"])


def test_a_process_that_ends_is_told(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no torch')"]
    with (
        run.Process(command, {}, tmp_path / "log") as process,
        pytest.raises(run.Ended, match=r"'hello'.*no torch"),
    ):
        process.ask("hello")


def test_peers_that_are_absent(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("HF_ELMO_ALLENNLP_PYTHON", raising=False)
    monkeypatch.setenv("HF_ELMO_SIMPLE_ELMO_PYTHON", str(tmp_path / "python"))
    found, absent = run.present_peers()
    assert not found
    assert "names no Python" in absent["allennlp"]
    assert "is not a program" in absent["simple_elmo"]
    (tmp_path / "file").touch()
    assert peers.main(["install", "allennlp", str(tmp_path)]) == 1
    assert "is not empty" in capsys.readouterr().err


def test_a_changed_source(tmp_path):
    (tmp_path / "a.cc").write_text("options.with_bias(true);\n", encoding="utf-8")
    changes = (("a.cc", ".with_bias(true)", ".bias(true)"),)
    peers.change(tmp_path, changes)
    assert (tmp_path / "a.cc").read_text(encoding="utf-8") == "options.bias(true);\n"
    # Another version, in which it does not stand there any more, or not at all.
    for again in (changes, (("b.cc", "x", "y"),)):
        with pytest.raises(ValueError, match=r"has '.*' 0 times, expected once"):
            peers.change(tmp_path, again)
    assert {name for name, peer in peers.PEERS.items() if peer.sources} == {"fast_elmo"}


def test_text_of_python_itself(tmp_path):
    """Where there is no other text; code, grammar and headings are not sentences."""
    topic = 'The "if" statement\n****\n\nThe *if* is\nused so.\n\n   if_stmt ::= x\n\nx ::= y\n\nAnd "so" on.\n'
    assert list(python_paragraphs([topic])) == ["The if is used so.", "And so on."]
    make_sentences(tmp_path / "sentences.json", None)
    sentences = json.loads((tmp_path / "sentences.json").read_text(encoding="utf-8"))
    read = text_of(tmp_path)
    assert read == {
        "text": f"the language reference of Python {platform.python_version()}",
        "sentences": len(sentences),
        "words": sum(map(len, sentences)),
    }
    # As many as the largest row needs in a round, several times over.
    assert len(sentences) > 1000
    assert "statement" in set(itertools.chain.from_iterable(sentences))


def test_the_floor_by_hand():
    shape = Shape(4, ((1, 4), (3, 8)), 1, 50, cell_size=24, projection_dim=8, num_layers=2)
    # Windows of "ab" with its marks: 4 that touch it, and one of padding.
    dense = 2 * 12 * 12 + 12 * 8
    assert shape.word_operations(2) == 2 * (4 * (1 * 4 * 5 + 3 * 8 * 5) + dense)
    # A row that is full has no window of padding.
    assert shape.word_operations(90) == 2 * (4 * (1 * 4 * 50 + 3 * 8 * 48) + dense)
    recurrent, projection = 4 * 24 * 8, 24 * 8
    batch = [["ab", "ab"], ["ab"]]
    # Words: ab, <S>, </S>; positions: 4 and 3. The first position of each sentence has no recurrent product.
    operations = shape.word_operations(2) + shape.word_operations(3) + shape.word_operations(4)
    operations += 2 * 2 * recurrent * (3 + 7) + 2 * 2 * 2 * (recurrent * (7 - 2) + projection * 7)
    result = floor(shape, [batch], "fp32", 1e3, lambda size: 1e30)
    assert result.operations == operations
    assert result.seconds == pytest.approx(operations / 1e3)
    # If only reading takes time: every step reads its weights, whoever is still reading.
    weights = shape.character_weights + 2 * 2 * recurrent + 2 * 2 * (4 * projection + 3 * recurrent)
    result = floor(shape, [batch], "bf16", 1e30, lambda size: 10.0)
    assert result.seconds == pytest.approx(2 * weights / 10)
    # Words that were known before cost nothing; the backward pass has twice the operations.
    twice = floor(shape, [batch, batch], "fp32", 1e3, lambda size: 1e30)
    assert twice.operations < 2 * operations
    trained = floor(shape, [batch], "fp32", 1e3, lambda size: 1e30, trained=True)
    assert trained.operations == 3 * operations
    assert trained.seconds == pytest.approx(3 * operations / 1e3)


def test_products_that_a_processor_has_no_instructions_for_cost_the_floor_little(monkeypatch):
    seconds = {1: 0.01, 10: 0.02, 2: 1.5, 20: 60.0, 3: 0.4, 30: 0.6}
    called = []

    def times(run, _):
        called.append(run)
        return [seconds[run]]

    monkeypatch.setattr(machine, "_times", times)
    kinds = [[(100, 1), (1000, 10)], [(100, 2), (1000, 20)], [(100, 3), (200, 30)]]
    assert machine._fastest(kinds, 0.05) == 1000 / 0.02
    # At the speed of the one before, 20 would take 15 seconds; 30 takes less than one.
    assert called == [1, 10, 2, 3, 30]
    assert machine._fastest([], 0.05) is None


def test_weights_in_bfloat16_may_be_multiplied_as_float32():
    assert run.fastest_product({"fp32": 3.0, "bf16": 2.0, "int8": 9.0}, "bf16") == 3
    assert run.fastest_product({"fp32": 3.0, "bf16": 4.0, "int8": 9.0}, "bf16") == 4
    assert run.fastest_product({"fp32": 3.0, "bf16": 4.0, "int8": 9.0}, "fp32") == 3
    assert run.fastest_product({"fp32": 3.0, "bf16": 4.0, "int8": None}, "int8") is None


def test_ratios_and_spread():
    rounds = [{"words": 10, "seconds": {"allennlp": a, "hf_elmo fp32": b}} for a, b in ((6, 2), (8, 2), (10, 1))]
    row = {"rounds": [*rounds, {"words": 10, "seconds": {"allennlp": 3}}]}
    assert report.ratios(row, "hf_elmo fp32") == [3, 4, 10]
    assert report.speeds(row, "hf_elmo fp32") == [5, 5, 10]
    assert report.spread([3, 4, 10]) == "4.0 (3.0..10.0)"


@pytest.mark.slow
def test_where_time_goes(work, monkeypatch):
    products = machine._products
    # This is about how the time is divided, not about how fast the machine is.
    monkeypatch.setattr(
        machine,
        "_products",
        lambda weight, inputs, square: products(weight[:256], [each[:8] for each in inputs], square[:256, :256]),
    )
    threads = torch.get_num_threads()
    try:
        for task, batch in (("batch", 2), ("corpus", 4), ("train", 2)):
            row = run.Row(task, "tiny", task, batch, 4, 1, ("fp32",), 5 if task == "train" else None)
            result = breakdown.measure(row, "fp32", work, 1)
            assert 0 < result["products"] < result["products"] + result["operators"] < result["seconds"]
            assert result["operations"] > result["weight_bytes"] > 0
            assert len(breakdown.line(result)) == len(breakdown.HEADS)
    finally:
        torch.set_num_threads(threads)


def test_scaling(work):
    results = scaling.measure(work / "tiny", [["the", "words", *map(str, range(400))]], 1, 1, 10)
    axes = {each["axis"] for each in results}
    assert axes == {"words in a sentence", "sentences in a batch", "distinct words in a batch", "threads"}
    assert all(len(each["seconds"]) == 1 and each["seconds"][0] > 0 for each in results)
    assert "| threads | 1 |" in scaling.report(results)
    point = scaling.Point("distinct words in a batch", 40, different=40)
    batch = scaling.batch_of(point, list(map(str, range(400))), scaling.random.Random(1))
    assert np.shape(batch) == (16, 20)
    assert len(set(np.ravel(batch))) == 40
