"""The recipes of models that write, on a few pairs and for two steps."""

import gzip
import json

import pytest
from places import CHECKOUT

ROWS = [
    json.loads(line)
    for name in ("translations", "headlines")
    for line in (CHECKOUT / "examples" / "data" / f"{name}.json").read_text(encoding="utf-8").splitlines()
]


def run(recipe, folder, model, *more):
    arguments = ["--data", folder, "--model", model, "--output", folder / "results.json", "--steps", 2, "--seeds", 0]
    return recipe.main([str(each) for each in [*arguments, *more]])


@pytest.fixture
def small(monkeypatch):
    """The recipe with a small decoder."""
    pytest.importorskip("sacrebleu", reason="needs the extra seq2seq")
    pytest.importorskip("rouge_score", reason="needs the extra seq2seq")
    from benchmarks.quality import headlines, multi30k, writing

    def recipe(**fields):
        sizes = {"width": 16, "layers": 1, "vocabulary": 300, "batch_size": 4, "source_words": 30, "target_tokens": 12}
        return writing.Recipe(**{**fields, **sizes})

    for module in (headlines, multi30k):
        monkeypatch.setattr(module, "Recipe", recipe)
    return multi30k, headlines


def test_multi30k(small, tiny_model_folder, tmp_path):
    recipe, _ = small
    for split in ("train", "test_2016_flickr"):
        for language, side in (("en", "source"), ("de", "target")):
            with gzip.open(tmp_path / f"{split}.{language}.gz", "wt", encoding="utf-8") as file:
                file.writelines(row[side] + "\n" for row in ROWS[:10])
    results = run(recipe, tmp_path, tiny_model_folder, "--test-pairs", 3)
    assert [each["arm"] for each in results["runs"]] == ["elmo", "random", "transformer"]
    assert results["test_pairs"] == 3
    for each in results["runs"]:
        assert 0 <= each["bleu"] <= 100
        assert 0 <= each["chrf"] <= 100
    by_arm = {each["arm"]: each for each in results["runs"]}
    assert by_arm["elmo"]["trained_parameters"] == by_arm["random"]["trained_parameters"]
    assert by_arm["elmo"]["mix"] != by_arm["random"]["mix"]
    # What is there is not run again; other settings do not get mixed with it.
    again = run(recipe, tmp_path, tiny_model_folder, "--test-pairs", 3)
    written = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert again["runs"] == results["runs"] == written["runs"]
    with pytest.raises(SystemExit, match="has results of other settings"):
        run(recipe, tmp_path, tiny_model_folder, "--test-pairs", 2)


def test_headlines(small, tiny_model_folder, tmp_path):
    _, recipe = small
    lines = [f"{number}\t{row['target']}\t{row['source']}\n" for number, row in enumerate(ROWS[10:])]
    (tmp_path / "test.tsv").write_text("".join(lines), encoding="utf-8")
    with gzip.open(tmp_path / "train.tsv.gz", "wt", encoding="utf-8") as file:
        file.writelines(lines)
    results = run(recipe, tmp_path, tiny_model_folder, "--arms", "elmo")
    assert results["summary"]["elmo"].keys() == {"rouge1", "rouge2", "rouge_l"}
    lead, copy = results["baselines"]["lead"], results["baselines"]["copy"]
    assert 0 < lead["rouge1"] < 100
    # A paragraph has most words of its headline, and many more.
    assert copy["rouge1"] > 0


def test_scores(small):
    """Of texts whose scores are known: all right, and one word in two."""
    translation, headlines = small
    texts = ["Ein Hund rennt im Park .", "Zwei Katzen schlafen auf dem Sofa ."]
    assert translation.score(texts, texts) == {"bleu": 100, "chrf": 100}
    assert headlines.score(["a b"], ["a c"]) == {"rouge1": 50, "rouge2": 0, "rouge_l": 50}


def test_summary():
    from benchmarks.quality.writing import summary

    runs = [{"arm": "elmo", "seed": seed, "bleu": bleu, "mix": []} for seed, bleu in enumerate((10.0, 12.0, 14.0))]
    assert summary([*runs, {"arm": "random", "seed": 0, "bleu": 3.0}]) == {
        "elmo": {"bleu": [12, 2]},
        "random": {"bleu": [3, 0]},
    }
