"""Model cards: what is in them, what of it the library of the hub reads, and what stands in the way of one."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import jinja2
import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from small_models import small_config
from transformers import AutoModelForTokenClassification, DataCollatorForTokenClassification, Trainer, TrainingArguments
from typer.testing import CliRunner

import hf_elmo
from hf_elmo import ElmoForPreTraining, ElmoForTokenClassification, ElmoModel, ElmoTokenizer
from hf_elmo.cli import app
from hf_elmo.commands.info import describe
from hf_elmo.model_card import check_card, make_card, write_card
from hf_elmo.model_card_results import Result, read_results
from hf_elmo.model_origin import Origin, PublishedModel, SourceFile, published_models, read_card_file, recognise

ROOT = Path(__file__).parents[1]
SOURCES = (ROOT / "conversion" / "SOURCES.md").read_text(encoding="utf-8")
F1 = {
    "task": "token-classification",
    "dataset": "WNUT-17",
    "metric": "f1",
    "value": 27.32,
    "command": "python benchmarks/wnut17.py --threads 1",
    "machine": "one core | of a server",
    "dataset_id": "wnut_17",
    "dataset_split": "test",
    "deviation": 1.1,
    "runs": 3,
}
SPEED = {
    "task": "speed",
    "dataset": "news",
    "metric": "words_per_second",
    "value": 12345,
    "command": "python speed.py",
    "machine": "two cores",
}
HEADS = {
    "ElmoModel": "feature-extraction",
    "ElmoForPreTraining": "feature-extraction",
    "ElmoForTokenClassification": "token-classification",
    "ElmoForSequenceClassification": "text-classification",
    "ElmoForQuestionAnswering": "question-answering",
    "ElmoForMultipleChoice": "multiple-choice",
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of a small model of each kind. To be read, not changed."""
    folders = {}
    for name in HEADS:
        fields = {"vocab_size": 7} if name == "ElmoForPreTraining" else {}
        labels = {"id2label": {0: "O", 1: "B-a|b"}, "label2id": {"O": 0, "B-a|b": 1}} if "Token" in name else {}
        folders[name] = tmp_path_factory.mktemp("heads") / name
        getattr(hf_elmo, name)(small_config(**fields, **labels)).save_pretrained(folders[name])
        words = ["left", "for", "the"] if fields else None
        ElmoTokenizer.create(words, max_characters_per_token=8).save_pretrained(folders[name])
    return folders


@pytest.fixture
def folder(saved, tmp_path):
    """A folder of a small biLM, to be changed."""
    return shutil.copytree(saved["ElmoModel"], tmp_path / "my-elmo")


def results_file(path, *results):
    path.write_text(json.dumps(list(results)), encoding="utf-8")
    return path


def parsed(path):
    """A card as the library reads it, after one more round through it."""
    card = ModelCard.load(path)
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict()
    return card


# --- what is in a card


@pytest.mark.parametrize("name", HEADS)
def test_every_number_is_what_the_folder_holds(saved, name):
    card = make_card(saved[name])
    facts = describe(saved[name])
    rows = dict(re.findall(r"^\| ([\w: ]+) \| (.+) \|$", card.text, re.MULTILINE))
    counts = {key.removeprefix("parameters: "): value for key, value in rows.items() if key.startswith("parameters: ")}
    assert counts == {part: f"{count:,}" for part, count in facts["parameters"].items()}
    total = sum(parameter.numel() for parameter in getattr(hf_elmo, name).from_pretrained(saved[name]).parameters())
    assert counts["all"] == f"{total:,}"
    assert rows["stored as"] == "F32"
    assert rows["character CNN"] == "3 numbers per character; filters: 4 of width 1, 6 of width 3"
    assert rows["biLSTM"] == "2 layers of 7 cells, projected to 5"
    assert rows["vectors"] == "10 numbers per word, 3 layers"
    assert rows["vocabulary"] == ("3 words" if name == "ElmoForPreTraining" else "none")
    assert "the first 6 bytes of a word" in card.text
    assert card.data.pipeline_tag == HEADS[name]
    assert card.data.library_name == "transformers"
    assert card.data.license == "unknown"
    assert card.data.language is None


@pytest.mark.parametrize("name", HEADS)
def test_its_code_runs(saved, name):
    """With hf_elmo; `test_remote_code.py` shows that what the other code calls runs without."""
    text = make_card(saved[name], repo_id=str(saved[name])).text
    own, remote, state = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {}
    exec(own, names)
    compile(remote, "remote", "exec")
    assert remote.count("trust_remote_code=True") >= 1
    if name in ("ElmoModel", "ElmoForPreTraining"):
        names["state"] = None
        exec(state, names)
        assert isinstance(names["state"], hf_elmo.ElmoState)


def test_code_without_the_package(saved, tmp_path):
    from isolated import run_isolated

    script = tmp_path / "remote.py"
    texts = [
        make_card(saved[name], repo_id=str(saved[name])).text for name in ("ElmoModel", "ElmoForQuestionAnswering")
    ]
    script.write_text("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[1] for text in texts))
    run_isolated([script], tmp_path)


def test_labels_stay_in_their_line(saved):
    assert "Labels: `O`, `B-a\\|b`." in make_card(saved["ElmoForTokenClassification"]).text


def test_results(folder, tmp_path):
    write_card(folder, results=[results_file(tmp_path / "r.json", F1, SPEED)])
    card = parsed(folder / "README.md")
    [result] = card.data.eval_results
    assert (result.task_type, result.dataset_type, result.dataset_name) == (
        "token-classification",
        "wnut_17",
        "WNUT-17",
    )
    assert (result.dataset_split, result.metric_type, result.metric_value) == ("test", "f1", 27.32)
    assert card.data.model_name == "my-elmo"
    assert card.data.metrics == ["f1"]
    assert (
        "| token-classification | WNUT-17 (test) | f1 | 27.32 ± 1.1 (3 runs) | one core \\| of a server |" in card.text
    )
    assert "| news | words_per_second | 12,345 | two cores |" in card.text
    assert "```bash\npython benchmarks/wnut17.py --threads 1\npython speed.py\n```" in card.text
    bare = make_card(folder).text
    assert "## Results" not in bare
    assert "## Speed" not in bare


def test_what_a_person_adds(folder):
    card = make_card(
        folder, repo_id="me/elmo", base_model="they/elmo", datasets=["they/data"], language="grc", license="mit"
    )
    assert card.text.startswith("\n# elmo\n")
    assert 'from_pretrained("me/elmo")' in card.text
    assert (card.data.base_model, card.data.datasets) == ("they/elmo", ["they/data"])
    assert (card.data.language, card.data.license) == ("grc", "mit")
    assert "Fine-tuned from: they/elmo" in card.text


def test_no_variable_of_the_template_is_forgotten(folder, monkeypatch):
    """The library fills in nothing for them, silently."""
    plain = jinja2.Template
    monkeypatch.setattr(jinja2, "Template", lambda text: plain(text, undefined=jinja2.StrictUndefined))
    make_card(folder, published="seqvec", origin=Origin("hdf5", (SourceFile("w", 1, "0"),)), results=[Result(**F1)])


def test_names_do_not_break_out_of_their_places(folder, tmp_path):
    name = 'a"b\\'
    shutil.copytree(folder, tmp_path / name)
    origin = Origin("hdf5", (SourceFile("w|`x`\n---\nlicense: mit.hdf5", 1, "0" * 64),), "w")
    write_card(tmp_path / name, origin=origin)
    card = parsed(tmp_path / name / "README.md")
    assert card.data.license == "unknown"
    assert f'from_pretrained("a{chr(92)}"b{chr(92) * 2}")' in card.text
    assert "| `w\\|'x' --- license: mit.hdf5` | 1 |" in card.text


# --- published models


@pytest.mark.parametrize("id", published_models())
def test_ready_cards(folder, id, monkeypatch):
    model = published_models()[id]
    if model.parameters or model.vocabulary:
        with pytest.raises(
            ValueError, match=rf"is not {re.escape(id)}: it has [\d,]+ parameters and a vocabulary of 0"
        ):
            make_card(folder, published=id)
        monkeypatch.setattr(PublishedModel, "fits", lambda self, parameters, words: True)
    write_card(folder, published=id)
    card = parsed(folder / "README.md")
    check_card(card)
    assert card.text.startswith(f"\n# {model.title}\n")
    assert (card.data.language, card.data.license) == (model.language, model.license)
    assert card.data["conversion"]["published"] == id
    for fact in (model.where, model.training, model.words, model.figures, *model.cite):
        assert fact is None or fact in card.text
    assert f"Text: {model.training or 'not stated'}\n" in card.text
    assert "{" not in re.sub(r"```.*?```", "", card.text, flags=re.DOTALL)


def test_facts_are_those_of_the_page_of_sources():
    """Every name, checksum and address stands there; languages of ELMoForManyLangs under their numbers."""
    models = published_models()
    for model in models.values():
        for checksum in model.checksums:
            assert f"`{checksum.partition(':')[2]}`" in SOURCES
        if model.parameters:
            assert f"{model.parameters:,}" in SOURCES or model.id == "elmo-pubmed"
        if model.vocabulary:
            assert f"{model.vocabulary:,} words" in SOURCES
    manylangs = [model for model in models.values() if model.formats == ("elmoformanylangs",)]
    assert len(manylangs) == 44
    listed = dict(re.findall(r"(1[3-7]\d) ([^,\n]+?)(?=,|\n)", SOURCES[SOURCES.index("> 136") :].replace("\n> ", " ")))
    assert {model.names[1]: model.language_name for model in manylangs} == listed
    flat = " ".join(SOURCES.split())
    for id in ("elmo-pubmed", "elmo-pt-wikipedia", "elmo-pt-brwac", "seqvec"):
        assert all(name in flat for name in models[id].names)
    for id in ("elmo-small", "elmo-medium", "elmo-original", "elmo-5.5B"):
        stem = models[id].names[0].removeprefix("elmo_").removesuffix("_weights.hdf5")
        assert f"`{stem}`" in SOURCES


def test_the_whole_list_is_there():
    wanted = ["elmo-small", "elmo-medium", "elmo-original", "elmo-5.5B", "elmo-pt-wikipedia", "elmo-pt-brwac"]
    wanted += ["elmo-de", "elmo-eu", "elmo-ja", "elmo-pubmed", "elmoformanylangs-zh", "seqvec", "elmo-ru-news"]
    assert set(wanted) <= set(published_models())


def origin_named(name, format="hdf5"):
    return Origin(format, (SourceFile(name, 1, "0" * 64),), name)


@pytest.mark.parametrize(
    ("name", "format", "parameters", "words", "expected"),
    [
        ("elmo_2x4096_512_2048cnn_2xhighway_5.5B_weights.hdf5", "hdf5", 93_600_864, 0, "elmo-5.5B"),
        ("elmo_2x4096_512_2048cnn_2xhighway_weights.hdf5", "hdf5", 93_600_864, 0, "elmo-original"),
        ("elmo_2x4096_512_2048cnn_2xhighway_weights.hdf5", "hdf5", 93_600_865, 0, None),
        ("model.ckpt-935588.index", "tf-checkpoint", 93_600_864, 793_468, "elmo-original"),
        ("vocab-train.txt", "hdf5", 1, 799_998, "elmo-de"),
        ("vocab-train.txt", "hdf5", 1, 1000, None),
        ("144.zip", "elmoformanylangs", 1, 5, "elmoformanylangs-en"),
        ("144.zip", "hdf5", 1, 5, None),
        ("218.zip", "hdf5", 1, 5, "norelmo-218"),
        ("slovenian-elmo-weights.hdf5", "hdf5", 1, 0, "elmo-embeddia-sl"),
        ("weights.hdf5", "hdf5", 93_600_864, 0, None),
        ("model.tar.gz", "allennlp-archive", 1, 0, None),
    ],
)
def test_recognised_by_name(name, format, parameters, words, expected):
    found = recognise(origin_named(name, format), parameters, words)
    assert (found and (found[0].id, found[1])) == (expected and (expected, "the name of a file"))


def test_recognised_by_checksum(tmp_path):
    """Of whatever name; and the German model's by the checksums that are published."""
    # Of "abc", as RFC 1321 and FIPS 180 have them.
    for checksum in ("md5:900150983cd24fb0d6963f7d28e17f72", "sha1:a9993e364706816aba3e25717850c26c9cd0d89d"):
        (tmp_path / "abc").write_bytes(b"abc")
        model = PublishedModel("abc", "Abc", ("hdf5",), checksums=(checksum,))
        origin = Origin(None, (SourceFile.read(tmp_path / "abc"),))
        assert recognise(origin, 1, 1, [model]) == (model, "the checksum of a file")
        (tmp_path / "abc").write_bytes(b"abd")
        assert recognise(Origin(None, (SourceFile.read(tmp_path / "abc"),)), 1, 1, [model]) is None
    german = SourceFile("renamed", 1, "0", frozenset({"md5:2aa41bbc32d42eae052a7ddf37909443"}))
    assert recognise(Origin(None, (german,)), 1, 1)[0].id == "elmo-de"


def test_names_of_several_are_of_none():
    one, other = (PublishedModel(id, id, ("hdf5",), names=("w*",)) for id in "ab")
    assert recognise(origin_named("w"), 1, 1, [one])[0] is one
    assert recognise(origin_named("w"), 1, 1, [one, other]) is None


def test_a_new_card_tells_what_the_old_one_told(folder, tmp_path):
    (tmp_path / "elmo_pt_weights.hdf5").write_bytes(b"1")
    first = make_card(folder, origin=Origin.read("hdf5", tmp_path / "elmo_pt_weights.hdf5"))
    first.save(folder / "README.md")
    write_card(folder, results=[results_file(tmp_path / "r.json", F1)], overwrite=True)
    second = parsed(folder / "README.md")
    assert second.data["conversion"] == first.data["conversion"]
    assert "recognised as it by\nthe name of a file" in second.text
    assert second.data.model_name == "Portuguese ELMo (Wikipedia)"
    # Of other weights it tells nothing.
    ElmoModel(small_config()).save_pretrained(folder)
    assert "conversion" not in make_card(folder).data


# --- bundled models


def test_the_bundled_model_has_its_own_card(tmp_path):
    text = (ROOT / "model_cards" / "elmo-mini.md").read_text(encoding="utf-8")
    copy = shutil.copytree(hf_elmo.bundled("elmo-mini"), tmp_path / "copy")
    write_card(copy)
    card = parsed(copy / "README.md")
    assert card.text.strip() == text.partition("\n---\n")[2].strip()
    assert (card.data.license, card.data.language) == ("apache-2.0", "en")
    assert len(card.data.eval_results) == 4
    for result in card.data.eval_results:
        assert re.search(rf"\| {re.escape(str(result.metric_value))} [|±%]", card.text), result
    assert {result.metric_type for result in card.data.eval_results} == set(card.data.metrics)
    parameters = describe(copy)["parameters"]
    assert all(f"{parameters[part]:,}" in card.text for part in ("biLM", "character encoder", "biLSTM", "softmax"))
    with pytest.raises(ValueError, match="a card of its own"):
        make_card(copy, results=[Result(**F1)])


def test_another_save_of_the_bundled_model_is_no_bundled_model(tmp_path):
    model = ElmoForPreTraining.from_pretrained(hf_elmo.bundled())
    with torch.no_grad():
        model.elmo.scalar_mixes[0].gamma.fill_(2.0)
    model.save_pretrained(tmp_path / "changed")
    assert "12,000 words is there" in make_card(tmp_path / "changed").text
    assert make_card(tmp_path / "changed").data.license == "unknown"


# --- Trainer


@pytest.fixture
def trainer(saved, tmp_path):
    """A tagger that was fine-tuned a little, with the real Trainer, and evaluated."""
    words = ["George", "left", "for", "Rome"]
    tokenizer = ElmoTokenizer.from_pretrained(saved["ElmoModel"])
    rows = [{**tokenizer(words, is_split_into_words=True), "labels": [-100, 1, 0, 0, 1, -100]}] * 4
    model = AutoModelForTokenClassification.from_pretrained(saved["ElmoModel"], num_labels=2, task_encoder_size=4)
    arguments = TrainingArguments(
        str(tmp_path / "ner"), max_steps=2, report_to="none", use_cpu=True, save_strategy="no", disable_tqdm=True
    )
    data = Dataset.from_list([dict(row) for row in rows])
    trainer = Trainer(
        model,
        arguments,
        train_dataset=data,
        eval_dataset=data,
        data_collator=DataCollatorForTokenClassification(tokenizer),
        processing_class=tokenizer,
        compute_metrics=lambda results: {"f1": 0.25},
    )
    trainer.train()
    trainer.evaluate()
    return trainer


def test_cards_of_trainer_are_valid(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    trainer.create_model_card()
    trainer.save_model()
    path = tmp_path / "ner" / "README.md"
    card = check_card(path, required=("library_name", "tags"))
    assert parsed(path).data.base_model is None  # a folder's path is no model on the hub
    assert card.data.library_name == "transformers"
    trainer.create_model_card(
        language="en",
        license="mit",
        finetuned_from="they/elmo",
        tasks="token-classification",
        dataset_tags="wnut_17",
        dataset="WNUT-17",
        tags=["elmo"],
    )
    data = parsed(path).data
    assert (data.base_model, data.license, data.language, data.datasets) == ("they/elmo", "mit", ["en"], ["wnut_17"])
    [result] = data.eval_results
    assert (result.task_type, result.dataset_name, result.metric_value) == ("token-classification", "WNUT-17", 0.25)
    before = path.read_text(encoding="utf-8")
    trainer.save_model()
    model = ElmoForTokenClassification.from_pretrained(tmp_path / "ner")
    model.save_pretrained(tmp_path / "ner")
    assert path.read_text(encoding="utf-8") == before
    with pytest.raises(FileExistsError, match=r"README\.md is there already"):
        write_card(tmp_path / "ner")
    assert path.read_text(encoding="utf-8") == before


def test_the_model_that_trainer_was_given_by_its_name_on_the_hub(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    trainer.model.config.name_or_path = "they/elmo"
    trainer.create_model_card()
    assert parsed(tmp_path / "ner" / "README.md").data.base_model == "they/elmo"


def test_our_card_of_what_trainer_saved(trainer, tmp_path):
    trainer.save_model()
    write_card(tmp_path / "ner", base_model="they/elmo", license="mit")
    card = parsed(tmp_path / "ner" / "README.md")
    assert (card.data.pipeline_tag, card.data.base_model) == ("token-classification", "they/elmo")
    assert "task head" in card.text
    # Trainer's goes over it, and takes its tags along.
    trainer.create_model_card(tags="ner", license="mit")
    assert {"elmo", "ner", "generated_from_trainer"} <= set(parsed(tmp_path / "ner" / "README.md").data.tags)


# --- what stands in the way


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("{", ["is no JSON file"]),
        ("[]", ["holds no results"]),
        ("[1]", ["result 1: a result must be a JSON object, was 1"]),
        (json.dumps({"task": "x"}), ["missing: dataset, metric, value, command, machine."]),
        (json.dumps([F1, {**F1, "valeu": 1}]), ["result 2: not known: 'valeu'", "there are: task, dataset"]),
        (json.dumps({**F1, "value": "27.3"}), ['value must be a finite number, was "27.3"']),
        (json.dumps({**F1, "value": True}), ["value must be a finite number, was true"]),
        (json.dumps({**F1, "value": float("nan")}), ["value must be a finite number, was NaN"]),
        (json.dumps({**F1, "metric": " ", "runs": 2.5}), ['metric must be a text, was " "; runs must be a whole']),
        (json.dumps({**F1, "deviation": -1}), ["deviation must be a finite number, 0 or more, was -1"]),
    ],
)
def test_bad_files_of_results(folder, tmp_path, content, parts):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(ValueError) as caught:
        write_card(folder, results=[tmp_path / "r.json"])
    assert str(caught.value).startswith(str(tmp_path / "r.json"))
    for part in parts:
        assert part in str(caught.value)
    assert not (folder / "README.md").exists()


def test_a_single_result_needs_no_list(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(SPEED))
    assert read_results(tmp_path / "r.json") == [Result(**SPEED)]


def test_fields_that_the_hub_would_not_take_are_all_named(folder):
    with pytest.raises(ValueError) as caught:
        make_card(folder, language="English", license="Apache 2", base_model="a/b/c", datasets=["no good"])
    for part in ("language must be", '"English"', '"Apache 2"', "base_model must be", '"a/b/c"', '"no good"'):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("# A model\n", ["library_name is missing; pipeline_tag is missing; license is missing; tags is missing"]),
        ("---\n- a\n---\ntext", ["is no model card", "should be a dict"]),
        ("---\na: [\n---\ntext", ["is no model card"]),
        ("---\nlicense: other\n---\ntext", ["license_name is missing"]),
        ("---\nlicense: mit\n---\n", ["there is no text below the metadata"]),
        ("---\nmodel-index:\n- name: x\n---\ntext", ["is no model card", "model_index"]),
        (
            "---\nmodel-index:\n- name: x\n  results:\n  - task: {type: t}\n    dataset: {type: d, name: ''}\n"
            "    metrics: [{type: f1, value: true}]\n---\ntext",
            ["model-index: dataset.name must be a text", "the value of f1 must be a number"],
        ),
    ],
)
def test_cards_that_are_none(tmp_path, text, parts):
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(ValueError) as caught:
        check_card(tmp_path / "README.md")
    for part in ("README.md", *parts):
        assert part in str(caught.value)


def test_folders_that_are_none(folder, saved, tmp_path):
    with pytest.raises(ValueError, match=r"there is no config\.json"):
        make_card(tmp_path / "absent")
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="is damaged"):
        make_card(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        make_card(folder)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="expected 'elmo'"):
        make_card(folder)
    with pytest.raises(ValueError, match="There is no published model 'elmo-huge'; there are: elmo-small, "):
        make_card(saved["ElmoModel"], published="elmo-huge")


def test_a_card_that_is_there_is_kept(folder):
    (folder / "README.md").write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        write_card(folder)
    assert (folder / "README.md").read_text() == "mine"
    write_card(folder, overwrite=True)
    assert parsed(folder / "README.md").data.library_name == "transformers"


def test_places_that_cannot_be_written(folder, tmp_path, monkeypatch):
    (folder / "README.md").mkdir()
    with pytest.raises(FileExistsError, match="is no file"):
        write_card(folder, overwrite=True)
    with pytest.raises(OSError, match="No such file or directory"):
        write_card(folder, output=tmp_path / "absent" / "card.md")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left") as caught:
        write_card(folder, output=tmp_path / "card.md")
    assert caught.value.filename == str(tmp_path / "card.md")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["my-elmo"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs POSIX, and a user whom permissions bind")
def test_read_only_folders(folder):
    folder.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match=r"README\.md"):
            write_card(folder)
    finally:
        folder.chmod(0o700)


# --- the command, and the installed package


def run(*arguments, status=0):
    result = CliRunner().invoke(app, ["card", *map(str, arguments)])
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result


def test_command(folder, tmp_path):
    results = results_file(tmp_path / "r.json", F1)
    run(folder, "--results", results, "--license", "mit", "--language", "en", "--dataset", "a/b", "--dataset", "c")
    card = parsed(folder / "README.md")
    assert (card.data.license, card.data.datasets) == ("mit", ["a/b", "c"])
    assert len(card.data.eval_results) == 1
    assert "--overwrite" in run(folder, status=1).stderr
    (tmp_path / "elmo_pt_weights.hdf5").write_bytes(b"1")
    run(folder, "--overwrite", "--source", tmp_path / "elmo_pt_weights.hdf5")
    assert parsed(folder / "README.md").data.language == "pt"
    run(folder, "--output", tmp_path / "card.md", "--published", "elmo-ja")
    assert parsed(tmp_path / "card.md").data.language == "ja"
    assert "language must be" in run(folder, "--overwrite", "--language", "Klingon", status=1).stderr
    assert "There is no model folder" in run(tmp_path / "absent", status=1).stderr


def test_command_on_a_bundled_model(tmp_path):
    assert "--output" in run("elmo-mini", status=2).stderr
    run("elmo-mini", "--output", tmp_path / "card.md")
    assert parsed(tmp_path / "card.md").data.model_name == "elmo-mini"


def test_importing_the_package_does_not_import_cards():
    names = ["hf_elmo.model_card", "hf_elmo.model_origin"]
    code = f"import sys, hf_elmo; print([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "[]\n"


def test_an_installed_wheel_finds_its_cards(tmp_path):
    if int(version("setuptools").partition(".")[0]) < 77:
        pytest.skip("building needs setuptools 77 or later in this environment")
    source = tmp_path / "source"
    for name in ("hf_elmo", "conversion", "model_cards"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ["--no-deps", "--no-build-isolation", "--quiet", "-w", str(tmp_path), str(source)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options], check=True, timeout=300, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    code = (
        "import hf_elmo; from hf_elmo.model_card import make_card; from hf_elmo.model_origin import published_models; "
        "print(hf_elmo.__file__, len(published_models()), make_card(hf_elmo.bundled()).data.model_name)"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    package = installed / "hf_elmo" / "__init__.py"
    assert done.stdout.split() == [str(package), str(len(published_models())), "elmo-mini"]


def test_cards_are_read_as_resources_of_a_package():
    assert read_card_file("template.md") == (ROOT / "model_cards" / "template.md").read_text(encoding="utf-8")
