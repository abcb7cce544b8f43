"""Model cards: read by the hub's own library, and compared with the folders and files that they tell of."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from allennlp_format import members_of, write_archive
from datasets import Dataset
from huggingface_hub import ModelCard
from places import CHECKOUT
from published_elmo import PublishedElmo
from safetensors.torch import load_file
from small_models import fill, small_config
from transformers import DataCollatorForTokenClassification, Trainer, TrainingArguments
from typer.testing import CliRunner

import hf_elmo
from hf_elmo import ElmoForTokenClassification, ElmoTokenizer
from hf_elmo.commands.app import app
from hf_elmo.conversion import convert_to_folder
from hf_elmo.hub import measured_results, published_models
from hf_elmo.hub.measured_results import read_results
from hf_elmo.hub.model_card import check_card, make_card, write_card
from hf_elmo.hub.published_models import Origin, Published, SourceFile, origin_of

PUBLISHED = published_models.published_models()
SOURCES = (CHECKOUT / "conversion" / "SOURCES.md").read_text(encoding="utf-8")
RESULT = {
    "task": {"type": "token-classification", "name": "Entities"},
    "dataset": {"type": "leondz/wnut_17", "name": "WNUT-17", "split": "test"},
    "metric": "f1",
    "value": 27.32,
    "command": "python -m benchmarks.quality.wnut17 | tee log",
    "machine": "AMD EPYC, one core",
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A tiny ELMo in the published format; its weights are called as no published ones are."""
    return PublishedElmo(tmp_path_factory.mktemp("published"))


@pytest.fixture
def folder(tiny_model_folder, tmp_path):
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "my model"))


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write_results(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def files_listed(card):
    rows = re.findall(r"^\| `+ ?(.+?) ?`+ \| ([\d,]+) \| `([0-9a-f]{64})` \|$", card.text, re.MULTILINE)
    return {name: (int(size.replace(",", "")), digest) for name, size, digest in rows}


def as_they_are(*paths):
    return {path.name: (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths}


class TestReadyCards:
    def test_the_bundled_one(self):
        text = resources.files("hf_elmo.model_cards").joinpath("elmo-mini.md").read_text(encoding="utf-8")
        card = check_card(ModelCard(text))
        assert card.data.license == "apache-2.0"
        assert card.data.datasets == ["wikimedia/wikipedia"]
        for result in card.data.eval_results:
            # Every figure of the metadata stands in a table of the text.
            assert re.search(rf"\| {re.escape(str(result.metric_value))}( ±| %|\s\|)", card.text), result
        sizes = load_file(Path(hf_elmo.bundled()) / "model.safetensors")
        assert f"{sum(t.numel() for n, t in sizes.items() if 'softmax' in n):,} parameters, over" in card.text
        assert str(make_card(hf_elmo.bundled())) == str(card)
        assert str(make_card(hf_elmo.bundled(), name="my-mini")) == str(card)

    def test_the_examples_of_the_bundled_one_run(self, tmp_path):
        folder = tmp_path / "elmo-mini"
        hf_elmo.ElmoModel.from_pretrained(hf_elmo.bundled()).save_pretrained(folder)
        ElmoTokenizer.from_pretrained(hf_elmo.bundled()).save_pretrained(folder)
        card = make_card(hf_elmo.bundled(), name="somebody/small")
        hub, installed, state = re.findall(r"```python\n(.*?)```", card.text, flags=re.DOTALL)
        assert "user/" not in card.text
        assert hub.count('"somebody/small", trust_remote_code=True') == 2
        names = {}
        exec(hub.replace("somebody/small", folder.as_posix()), names)
        first = names["outputs"].last_hidden_state
        assert first.shape == (1, 8, 384)
        exec(installed, names)
        assert torch.equal(names["model"](**names["inputs"]).last_hidden_state, first)
        exec(state, names)
        assert not torch.allclose(names["outputs"].last_hidden_state, first, atol=1e-3)

    @pytest.mark.parametrize("name", PUBLISHED)
    def test_every_published_one(self, name, tiny_model_folder):
        model = PUBLISHED[name]
        card = make_card(tiny_model_folder, origin=Origin("a format", (), name, "statement"))
        metadata = card.data.to_dict()
        assert metadata["license"] == model.license
        if model.parameters is None:
            assert f"# {model.title}\n" in card.text
            assert metadata.get("language") == model.language
            assert all(address in card.text for address in model.where)
            assert all(citation in card.text for citation in model.citations if "1802.05365" not in citation)
            assert model.training_data is None or model.training_data in card.text
        else:
            # This tiny model is none of those whose size is known.
            assert f"{model.parameters:,}\nparameters: this one has another number" in card.text
            assert "language" not in metadata
            assert f"# {model.title}\n" not in card.text

    def test_they_say_what_the_page_of_sources_says(self):
        page = re.sub(r"\s+", " ", SOURCES)
        for model in PUBLISHED.values():
            # On the hub, a corpus without an owner is none.
            assert all(re.fullmatch(r"[\w-]+/[\w-]+", name) for name in model.datasets)
            if model.parameters:
                assert f"{model.parameters:,}" in page
            for entry in model.checksums:
                assert entry["md5"] in page
                assert entry["sha1"] in page
            for number in re.findall(r"[\d,.]{3,}", model.training_data or ""):
                assert number.strip(",.") in page
            for citation in model.citations:
                address = re.search(r"https?://\S+", citation)
                assert address is None or address[0] in page
        numbered = " ".join(line[2:] for line in SOURCES.splitlines() if line.startswith("> "))
        languages = dict(re.findall(r"(\d+) ([^,]+)", numbered))
        ours = {name: model for name, model in PUBLISHED.items() if re.fullmatch(r"manylangs-\d+", name)}
        assert len(ours) == len(languages) == 44
        for name, model in ours.items():
            assert model.title == f"ELMoForManyLangs {languages[name.removeprefix('manylangs-')]}"

    def test_fields_that_are_missing_are_named(self):
        entry = {"name": "x", "title": "x", "names": [], "where": [], "license": "mit", "citations": [], "colour": 1}
        with pytest.raises(ValueError, match="x has fields missing or unknown: colour, formats, license_text"):
            published_models.published_model(entry)


class TestCards:
    def test_the_numbers_are_those_of_the_folder(self, folder):
        card = ModelCard(str(make_card(folder)))
        tensors = load_file(folder / "model.safetensors")
        for part, beginnings in {
            "biLM": ("character_encoder.", "bilstm."),
            "biLSTM": ("bilstm.",),
            "character encoder": ("character_encoder.",),
            "all": ("",),
        }.items():
            count = sum(tensor.numel() for name, tensor in tensors.items() if name.startswith(beginnings))
            assert f"| {part} | {count:,} |" in card.text
        assert card.data.to_dict() == {
            "library_name": "transformers",
            "license": "unknown",
            "pipeline_tag": "feature-extraction",
            "tags": ["elmo", "bilm", "character-cnn"],
        }
        assert "Source files" not in card.text
        assert "## Speed" not in card.text
        assert "{{" not in card.text
        assert "after number 48 are not read" in card.text

    def test_its_examples_run(self, folder, monkeypatch):
        monkeypatch.chdir(folder.parent)
        blocks = re.findall(r"```python\n(.*?)```", make_card(folder).text, flags=re.DOTALL)
        assert len(blocks) == 3
        names = {}
        exec(blocks[0], names)
        first = names["outputs"].last_hidden_state
        exec(blocks[2], names)
        assert names["outputs"].last_hidden_state.shape == first.shape == (1, 8, 32)
        assert not torch.allclose(names["outputs"].last_hidden_state, first, atol=1e-3)
        assert "trust_remote_code=True" in blocks[1]
        assert "trust_remote_code" not in make_card(folder, remote_code=False).text

    def test_results(self, folder, tmp_path):
        speed = {**RESULT, "task": "speed", "metric": "words_per_second", "value": 3200, "machine": "one core | of two"}
        path = write_results(tmp_path / "results.json", [RESULT, speed])
        card = ModelCard(str(make_card(folder, results=[path])))
        (result,) = card.data.eval_results
        assert (result.task_type, result.task_name, result.dataset_split) == (
            "token-classification",
            "Entities",
            "test",
        )
        assert (result.metric_type, result.metric_value, result.dataset_name) == ("f1", 27.32, "WNUT-17")
        assert card.data.model_name == "my model"
        before, _, after = card.text.partition("## Speed")
        assert r"| Entities | WNUT-17 test | f1 | 27.32 | `python -m benchmarks.quality.wnut17 \| tee log` |" in before
        assert r"| words\_per\_second | 3200 |" in after
        assert r"one core \| of two" in after

    def test_results_beside_those_of_a_ready_card(self, tmp_path):
        path = write_results(tmp_path / "results.json", RESULT)
        ready, card = (ModelCard(str(make_card(hf_elmo.bundled(), results=given))) for given in ([], [path]))
        assert len(card.data.eval_results) == len(ready.data.eval_results) + 1
        assert card.text.startswith(ready.text.rstrip())
        assert "## Further results" in card.text

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({**RESULT, "value": "27"}, "result 1: value must be a finite number"),
            ({**RESULT, "value": float("nan")}, "result 1: value must be a finite number"),
            ([RESULT, {"task": "speed", "value": 1}], "result 2 has fields missing: dataset, metric, command, machine"),
            ({**RESULT, "colour": 1}, "unknown: colour"),
            ({**RESULT, "dataset": {"name": "WNUT-17"}}, "result 1, dataset must be a text, or an object with type"),
            ({**RESULT, "machine": ""}, "machine must be a line of text"),
            ({**RESULT, "metric": "a\nb"}, "metric: type must be a line of text"),
            ([], "has no results"),
            ([3], "must be a JSON object"),
        ],
    )
    def test_bad_results(self, folder, tmp_path, content, message):
        path = write_results(tmp_path / "results.json", content)
        with pytest.raises(ValueError, match=re.escape(message)):
            read_results([path])
        result = run("card", folder, "--results", path)
        assert result.exit_code == 1
        assert str(path) in result.output
        assert not (folder / "README.md").exists()

    def test_results_are_written_as_they_are_read(self, tmp_path):
        path = tmp_path / "results.json"
        results = read_results([write_results(tmp_path / "given.json", [RESULT, {**RESULT, "value": 1}])])
        measured_results.write_results(results, path)
        assert read_results([path]) == results
        before = path.read_bytes()
        with pytest.raises(ValueError, match=r"Result 1 for .*: value must be a finite number"):
            measured_results.write_results([dataclasses.replace(results[0], value=float("nan"))], path)
        assert path.read_bytes() == before
        assert {each.name for each in tmp_path.iterdir()} == {"results.json", "given.json"}

    def test_results_that_are_no_json(self, tmp_path):
        path = tmp_path / "results.json"
        path.write_text("{", encoding="utf-8")
        with pytest.raises(ValueError, match=r"results\.json is not a JSON file"):
            read_results([path])

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ("license: mit\ntags: [elmo]\n", "has no library_name"),
            ("license: mit\nlibrary_name: a\n", r"has no pipeline_tag; .* has no tags"),
            ("license: [mit]\ntags: [elmo]\nlibrary_name: a\npipeline_tag: b\n", r"license: \['mit'\], expected text"),
            ("library_name: a\ndatasets: [3]\n", r"datasets: \[3\], expected text, or a list"),
            ("library_name: a\ndatasets: [two words]\n", "two words"),
            ("license: mit\nmodel-index: 3\n", "not what the hub takes"),
            ("license: 'mit\n", "not what the hub takes"),
        ],
    )
    def test_fields_that_are_missing_or_wrong_are_named(self, tmp_path, fields, message):
        path = tmp_path / "README.md"
        path.write_text(f"---\n{fields}---\n\n# A model\n", encoding="utf-8")
        with pytest.raises(ValueError, match=message) as error:
            check_card(path)
        assert str(path) in str(error.value)

    def test_a_card_that_is_no_text(self, folder):
        path = folder / "README.md"
        path.write_bytes("---\nlicense: mit\n---\nÄrger".encode("cp1252"))
        for read in (check_card, lambda path: make_card(path.parent)):
            with pytest.raises(ValueError, match=r"README\.md is not text in UTF-8: byte 21 is 0xc4") as error:
                read(path)
            assert str(path) in str(error.value)

    def test_a_name_that_is_no_plain_text(self, tiny_model_folder, tmp_path):
        name = "a {{ 7 * 7 }} `b` #c [d]" if os.name != "nt" else "a {{ 7 }} #c"
        folder = shutil.copytree(tiny_model_folder, tmp_path / name)
        card = make_card(folder, results=[write_results(tmp_path / "results.json", RESULT)])
        assert card.data.model_name.startswith("a __ 7")
        assert "49" not in card.data.model_name


class TestWriting:
    def test_a_card_is_kept_unless_it_is_to_be_replaced(self, folder):
        path = write_card(folder)
        assert path == folder / "README.md"
        path.write_text("---\nlicense: mit\nlanguage: nl\n---\nMine\n", encoding="utf-8")
        before = path.read_bytes()
        assert write_card(folder) == path
        result = run("card", folder)
        assert result.exit_code == 1
        assert "--overwrite" in result.output
        assert path.read_bytes() == before
        assert run("card", folder, "--overwrite", "--base-model", "someone/elmo").exit_code == 0
        data = ModelCard.load(path).data
        # What nobody else knows is taken over.
        assert (data.license, data.language, data.base_model) == ("mit", "nl", "someone/elmo")
        assert not [entry for entry in folder.iterdir() if entry.name.endswith(".part")]

    def test_another_file(self, folder, tmp_path):
        result = run("card", folder, "--output", tmp_path / "card.md", "--published", "ja")
        assert result.exit_code == 0, result.output
        card = check_card(tmp_path / "card.md")
        assert card.data.language == "ja"
        assert "from whoever made this card" in card.text
        assert not (folder / "README.md").exists()

    def test_a_published_model_that_is_not_known(self, folder):
        result = run("card", folder, "--published", "klingon")
        assert result.exit_code == 1
        assert "pt-brwac" in result.output

    def test_no_model(self, tmp_path):
        (tmp_path / "empty").mkdir()
        result = run("card", tmp_path / "empty")
        assert result.exit_code == 1
        assert "is not a model folder" in result.output

    def test_a_write_that_fails_leaves_the_old_card(self, folder, monkeypatch):
        path = write_card(folder)
        before = path.read_bytes()

        def fail(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="No space"):
            write_card(folder, overwrite=True)
        assert path.read_bytes() == before
        assert not [entry for entry in folder.iterdir() if entry.name.endswith(".part")]

    def test_a_place_that_is_not_there(self, folder, tmp_path):
        result = run("card", folder, "--output", tmp_path / "missing" / "card.md")
        assert result.exit_code == 1
        assert "there is no folder" in result.output
        assert "Traceback" not in result.output

    @pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
    def test_a_folder_that_is_read_only(self, folder, tmp_path):
        # Imports all that the command imports: another user may not be able to read Python's own modules.
        assert run("card", folder, "--output", tmp_path / "elsewhere.md").exit_code == 0
        user = os.geteuid()
        try:
            folder.chmod(0o555)
            if user == 0:
                # Who may write everywhere becomes nobody, who is to reach the folder.
                for path in (*folder.iterdir(), *(each for each in folder.parents if each.owner() == "root")):
                    path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
                os.seteuid(65534)
            result = run("card", folder)
        finally:
            os.seteuid(user)
            folder.chmod(0o755)
        assert result.exit_code == 1
        assert "Permission denied" in result.output
        assert not (folder / "README.md").exists()


class TestConversions:
    def convert(self, published, tmp_path, name, *, folder="download"):
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        weights, options = place / name, place / "options.json"
        shutil.copy(published.weights, weights)
        shutil.copy(published.options, options)
        result = run("convert", weights, tmp_path / "converted")
        assert result.exit_code == 0, result.output
        assert "README.md" in result.output
        card = check_card(tmp_path / "converted" / "README.md")
        assert files_listed(card) == as_they_are(weights, options)
        return card

    def test_by_name(self, published, tmp_path):
        card = self.convert(published, tmp_path, "elmo_pt_weights_dgx1.hdf5")
        assert "# ELMo Portuguese, brWaC" in card.text
        assert "by its file name only" in card.text
        assert (card.data.language, card.data.datasets) == ("pt", ["UFRGS/brwac"])

    def test_by_what_is_said(self, published, tmp_path):
        result = run("convert", published.weights, tmp_path / "ja", "--options", published.options, "--published", "ja")
        assert result.exit_code == 0, result.output
        card = check_card(tmp_path / "ja" / "README.md")
        assert "# ELMo Japanese" in card.text
        assert "from whoever made this card" in card.text
        assert card.data.language == "ja"
        assert files_listed(card) == as_they_are(published.weights, published.options)
        # Its size says that it cannot be.
        target = tmp_path / "small"
        assert run("convert", published.weights, target, "--published", "small").exit_code == 0
        assert "It was said to be ELMo small (English)" in check_card(target / "README.md").text
        result = run("convert", published.weights, tmp_path / "none", "--published", "klingon")
        assert result.exit_code == 1
        assert "'klingon'; there are: small, " in result.output
        assert run("convert", target, tmp_path / "none", "--published", "ja").exit_code == 2
        assert not (tmp_path / "none").exists()

    def test_by_name_of_the_folder(self, published, tmp_path):
        card = self.convert(published, tmp_path, "weights.hdf5", folder="seqvec")
        assert "# SeqVec (proteins)" in card.text
        assert "# SeqVec" not in make_card(tmp_path / "converted", origin=Origin("bilm-hdf5")).text

    def test_a_name_that_others_sizes_contradict(self, published, tmp_path):
        card = self.convert(published, tmp_path, "elmo_2x4096_512_2048cnn_2xhighway_5.5B_weights.hdf5")
        assert "so it is another model" in card.text
        assert card.data.language is None
        assert card.data.license == "unknown"

    def test_by_checksum(self, published, tmp_path, monkeypatch):
        digest = hashlib.sha256(published.weights.read_bytes()).hexdigest()
        known = dataclasses.replace(
            PUBLISHED["pt-brwac"], name="known", title="A known one", checksums=({"file": "w", "sha256": digest},)
        )
        monkeypatch.setattr(published_models, "published_models", lambda: {**PUBLISHED, "known": known})
        # The name is that of another, and proves less.
        card = self.convert(published, tmp_path, "elmo_pt_weights.hdf5")
        assert "# A known one" in card.text
        assert "by the checksum of a file" in card.text

    def test_strangers_get_the_generic_card(self, published, tmp_path):
        card = self.convert(published, tmp_path, "somebody.hdf5")
        assert "# converted\n" in card.text
        assert "published" not in card.data["elmo_origin"]
        assert "known" not in card.text.partition("## Use")[0].replace("unknown", "")

    def test_the_origin_outlives_the_card(self, published, tmp_path):
        card = self.convert(published, tmp_path, "elmo_pt_weights.hdf5")
        results = write_results(tmp_path / "results.json", RESULT)
        assert run("card", tmp_path / "converted", "--results", results, "--overwrite").exit_code == 0
        again = ModelCard.load(tmp_path / "converted" / "README.md")
        assert files_listed(again) == files_listed(card)
        assert again.data["elmo_origin"] == card.data["elmo_origin"]
        assert again.data.model_name == "ELMo Portuguese, Wikipedia"

    def test_an_archive(self, tmp_path):
        archive = write_archive(tmp_path / "ner-elmo.2018.12.13.tar.gz", members_of())
        for options in ([], ["--only-elmo"]):
            target = tmp_path / f"converted{len(options)}"
            assert run("convert", archive, target, *options).exit_code == 0
            card = check_card(target / "README.md")
            assert files_listed(card) == as_they_are(archive)
            assert "# AllenNLP: tagger of entities" in card.text
            assert card.data.pipeline_tag == ("feature-extraction" if options else "token-classification")

    def test_whole_or_not_at_all(self, published, tmp_path, monkeypatch):
        def fail(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("hf_elmo.conversion.model_folder.write_card", fail)
        with pytest.raises(OSError, match="No space"):
            convert_to_folder(published.folder, tmp_path / "converted")
        assert list(tmp_path.iterdir()) == []

    def test_published_sums_of_older_kinds(self, tmp_path, monkeypatch):
        path = tmp_path / "w.hdf5"
        path.write_bytes(b"weights")
        entry = {"file": "w.hdf5", "md5": hashlib.md5(b"weights").hexdigest()}
        model = dataclasses.replace(PUBLISHED["eu"], names=("w.hdf5",), checksums=(entry,))
        monkeypatch.setattr(published_models, "published_models", lambda: {"eu": model})
        assert origin_of("bilm-hdf5", [path]).matched == "checksum"
        path.write_bytes(b"others")
        # The name is right, and the published sum says that it is another file.
        assert origin_of("bilm-hdf5", [path]).published is None

    def test_files_that_must_be_there_together(self, tmp_path):
        paths = [tmp_path / name for name in ("weights.hdf5", "options.json", "vocab-train.txt")]
        for path in paths:
            path.write_bytes(b"x")
        assert origin_of("bilm-hdf5", paths).published == "de"
        assert origin_of("bilm-hdf5", paths[:2]).published is None
        assert origin_of("elmoformanylangs", paths).published is None

    def test_an_archive_that_was_unpacked(self, tmp_path):
        (tmp_path / "zhs.model").mkdir()
        (tmp_path / "zhs.model" / "encoder.pkl").write_bytes(b"x")
        assert origin_of("elmoformanylangs", [tmp_path / "zhs.model" / "encoder.pkl"]).published == "manylangs-zhs"

    @pytest.mark.parametrize(("number", "name"), [("144", "manylangs-144"), ("179", "manylangs-179"), ("218", None)])
    def test_numbers_of_archives(self, tmp_path, number, name):
        (tmp_path / f"{number}.zip").write_bytes(b"x")
        assert origin_of("elmoformanylangs", [tmp_path / f"{number}.zip"]).published == name

    def test_an_origin_that_was_damaged(self, folder):
        origin = Origin("bilm-hdf5", (SourceFile("a", 1, "b"),))
        assert Origin.from_dict(origin.as_dict()) == origin
        for damaged in (3, {"files": []}, {"format": "x", "files": [{"name": "a"}]}, {"format": "x", "colour": 1}):
            with pytest.raises(ValueError, match="origin"):
                Origin.from_dict(damaged)

    def test_what_is_published_stays_apart(self):
        patterns = [(model.name, pattern) for model in PUBLISHED.values() for pattern in model.names]
        keys = [(PUBLISHED[name].formats, str(pattern)) for name, pattern in patterns]
        assert len(set(keys)) == len(keys)
        assert all(isinstance(model, Published) for model in PUBLISHED.values())


@pytest.mark.parametrize("base", ["someone/elmo-small", None])
def test_the_trainers_card(tmp_path, base):
    tokenizer = ElmoTokenizer.create(["A", "cat"], max_characters_per_token=8)
    model = fill(ElmoForTokenClassification(small_config(task_encoder_size=6, num_labels=3, vocab_size=6)))
    model.save_pretrained(tmp_path / "base")
    model = ElmoForTokenClassification.from_pretrained(tmp_path / "base")
    if base:
        # As after loading by that id.
        model.config._name_or_path = base
    words = tokenizer([["A", "cat"], ["cat"]] * 4, is_split_into_words=True)
    rows = Dataset.from_dict({**words, "labels": [[-100, 1, 2, -100], [-100, 0, -100]] * 4})
    arguments = TrainingArguments(
        str(tmp_path / "run"), max_steps=2, eval_strategy="steps", eval_steps=1, report_to="none", use_cpu=True
    )
    collator = DataCollatorForTokenClassification(tokenizer)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=collator,
        processing_class=tokenizer,
        compute_metrics=lambda p: {"accuracy": float(np.mean(np.argmax(p.predictions, -1) == p.label_ids))},
    )
    trainer.train()
    trainer.save_model()
    trainer.create_model_card(
        language="en",
        license="apache-2.0",
        tasks="token-classification",
        dataset="WNUT-17",
        dataset_tags="leondz/wnut_17",
    )
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert card.data.base_model == base
    assert card.data.library_name == "transformers"
    assert card.data.license == "apache-2.0"
    # Ours, in its place, keeps what it says.
    ours = ModelCard.load(write_card(tmp_path / "run", overwrite=True))
    assert (ours.data.base_model, ours.data.language) == (base, ["en"])
    assert ours.data.eval_results == card.data.eval_results
    assert [(each.metric_type, each.dataset_type) for each in ours.data.eval_results] == [
        ("accuracy", "leondz/wnut_17")
    ]
    assert f"| {card.data.eval_results[0].metric_value} | not stated | not stated |" in ours.text
    assert ours.data.pipeline_tag == "token-classification"
    assert "AutoModelForTokenClassification" in ours.text
