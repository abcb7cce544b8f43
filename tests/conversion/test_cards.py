"""The model card of a converted folder: which one it is, and what it says of the files that it was made from."""

import dataclasses
import hashlib
import json
import shutil
import sys
import tarfile
import zipfile

import pytest
from allennlp_format import elmo_state, members_of, write_archive
from huggingface_hub import ModelCard
from manylangs_original import dictionaries, random_tensors, write_manylangs
from numpy_elmo import random_weights
from original_format import OPTIONS, write_original
from tensorflow_process import TensorFlowProcess, find_python
from test_elmoformanylangs import OPTIONS as MANYLANGS
from test_tf_checkpoint import random_softmax, training_options, variables, write_beside
from typer.testing import CliRunner

from hf_elmo import ElmoForTokenClassification, model_origin
from hf_elmo.cli import app
from hf_elmo.conversion import ConversionError, convert_to_folder
from hf_elmo.model_card import check_card
from hf_elmo.model_origin import PublishedModel


def convert(source, destination, *options):
    """Converts with the command, and reads the card."""
    result = CliRunner().invoke(app, ["convert", *map(str, (source, destination, *options))])
    assert result.exit_code == 0, result.output
    assert "README.md" in result.stderr
    card = check_card(destination / "README.md")
    assert f'from_pretrained("{destination.name}"' in card.text or f'model="{destination.name}"' in card.text
    return card


def files_of(card):
    """The files that it names, in its metadata and in its table, which agree."""
    files = {file["name"]: (file["size"], file["sha256"]) for file in card.data["conversion"]["files"]}
    for name, (size, sha256) in files.items():
        assert f"| `{name}` | {size:,} | `{sha256}` |" in card.text
    return files


def facts(path):
    content = path.read_bytes()
    return len(content), hashlib.sha256(content).hexdigest()


@pytest.fixture
def original(tmp_path):
    """A folder in the original format, under AllenNLP's names for the Portuguese model."""
    return write_original(
        tmp_path / "source", OPTIONS, random_weights(OPTIONS, seed=7), "elmo_pt_weights.hdf5", "elmo_pt_options.json"
    )


def test_by_name(original, tmp_path):
    card = convert(original / "elmo_pt_weights.hdf5", tmp_path / "elmo-pt")
    assert files_of(card) == {entry.name: facts(entry) for entry in original.iterdir()}
    assert card.text.startswith("\n# Portuguese ELMo (Wikipedia)\n")
    assert card.data.language == "pt"
    assert "recognised as it by\nthe name of a file" in card.text
    assert str(tmp_path) not in (tmp_path / "elmo-pt" / "README.md").read_text(encoding="utf-8")


def test_by_checksum(original, tmp_path, monkeypatch):
    """Whatever the file is called."""
    weights = (original / "elmo_pt_weights.hdf5").rename(original / "weights.hdf5")
    (original / "elmo_pt_options.json").rename(original / "options.json")
    md5 = hashlib.md5(weights.read_bytes()).hexdigest()
    model = PublishedModel("known", "A known one", ("hdf5",), checksums=(f"md5:{md5}",), language="la")
    monkeypatch.setattr(model_origin, "published_models", lambda: {"known": model})
    card = convert(original, tmp_path / "out")
    assert card.text.startswith("\n# A known one\n")
    assert "recognised as it by\nthe checksum of a file" in card.text


def test_strangers_get_a_card_of_their_own(original, tmp_path):
    """Of generic names, and of the names of a published model whose sizes these are not."""
    for name, stem in (("one", ""), ("two", "elmo_2x4096_512_2048cnn_2xhighway_5.5B_")):
        source = tmp_path / name
        source.mkdir()
        shutil.copy(original / "elmo_pt_weights.hdf5", source / f"{stem}weights.hdf5")
        shutil.copy(original / "elmo_pt_options.json", source / f"{stem}options.json")
        card = convert(source, tmp_path / f"{name}-out")
        assert card.text.startswith(f"\n# {name}-out\n")
        assert "published" not in card.data["conversion"]
        assert (card.data.license, card.data.language) == ("unknown", None)
        assert "- Text: not stated\n" in card.text
        assert set(files_of(card)) == {f"{stem}weights.hdf5", f"{stem}options.json"}


def test_files_from_elsewhere(original, tmp_path):
    options = (original / "elmo_pt_options.json").rename(tmp_path / "sizes.json")
    (tmp_path / "words.txt").write_text("the\nof\n")
    card = convert(original, tmp_path / "out", "--options", options, "--vocabulary", tmp_path / "words.txt")
    weights = original / "elmo_pt_weights.hdf5"
    assert files_of(card) == {path.name: facts(path) for path in (weights, options, tmp_path / "words.txt")}
    assert "| vocabulary | 2 words |" in card.text


def test_given_values_are_no_files(original, tmp_path):
    convert_to_folder(original, tmp_path / "out", options=OPTIONS, vocabulary=["the"])
    assert set(files_of(check_card(tmp_path / "out" / "README.md"))) == {"elmo_pt_weights.hdf5"}


def test_zip(original, tmp_path):
    """The archive first, by whose number in the NLPL repository it is known; then what was read of it."""
    with zipfile.ZipFile(tmp_path / "218.zip", "w") as archive:
        archive.write(original / "elmo_pt_weights.hdf5", "model.hdf5")
        archive.write(original / "elmo_pt_options.json", "options.json")
        archive.writestr("meta.json", "{}")
    card = convert(tmp_path / "218.zip", tmp_path / "out")
    weights, options = (facts(original / f"elmo_pt_{name}") for name in ("weights.hdf5", "options.json"))
    expected = {"218.zip": facts(tmp_path / "218.zip"), "model.hdf5": weights, "options.json": options}
    assert files_of(card) == expected
    assert list(files_of(card)) == list(expected)
    assert card.data["conversion"]["published"] == "norelmo-218"


@pytest.mark.parametrize("zipped", [True, False])
def test_elmoformanylangs(tmp_path, zipped):
    characters, words = dictionaries([["Ho", "las"], ["我们"]])
    tensors = random_tensors(MANYLANGS, len(characters), len(words))
    source = write_manylangs(tmp_path / "179", MANYLANGS, characters, words, tensors)
    (source / "notes.json").write_text("{}")
    expected = {entry.name: facts(entry) for entry in source.iterdir() if entry.name != "notes.json"}
    if zipped:
        with zipfile.ZipFile(tmp_path / "179.zip", "w") as archive:
            for entry in source.iterdir():
                archive.write(entry, entry.name)
        source = tmp_path / "179.zip"
        expected["179.zip"] = facts(source)
    card = convert(source, tmp_path / "out")
    assert files_of(card) == expected
    assert card.text.startswith("\n# Chinese (traditional) ELMo (ELMoForManyLangs)\n")
    assert card.data.language == "zh"
    assert "characters of a word" in card.text


@pytest.mark.parametrize("unpacked", [True, False])
def test_allennlp_taggers(tmp_path, unpacked):
    members = members_of()
    source = write_archive(tmp_path / "ner-elmo.2018.tar.gz", members)
    files = {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in members.items()}
    del files["vocabulary/.lock"]
    if unpacked:
        source = tmp_path / "ner-elmo"
        for name, content in members.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(content)
    else:
        files[source.name] = facts(source)
    card = convert(source, tmp_path / "tagger")
    assert files_of(card) == files
    assert card.data["conversion"]["published"] == "allennlp-ner-elmo"
    assert card.data.pipeline_tag == "token-classification"
    labels = ElmoForTokenClassification.from_pretrained(tmp_path / "tagger").config.id2label.values()
    assert all(f"`{label}`" in card.text for label in labels)


def test_elmo_of_another_allennlp_model(tmp_path):
    state = elmo_state("e.")
    source = write_archive(tmp_path / "model.tar.gz", members_of({"model": {"type": "x"}}, state))
    card = convert(source, tmp_path / "out")
    assert card.text.startswith("\n# out\n")
    assert card.data.pipeline_tag == "feature-extraction"
    # Its mix has been trained.
    assert "plain\nmean" not in card.text


def test_tf_checkpoint(tmp_path, monkeypatch):
    python = find_python()
    if python is None:
        pytest.skip("no TensorFlow: see test_tf_checkpoint.py")
    process = TensorFlowProcess(python, tmp_path)
    options = training_options()
    source = write_beside(tmp_path / "save_dir", options)
    arrays = variables(options, random_weights(options, seed=7)) | random_softmax(options)
    process.write(source / "model.ckpt", arrays, step=1250)
    monkeypatch.setitem(sys.modules, "tensorflow", process.stand_in())
    card = convert(source, tmp_path / "out")
    process.close()
    names = ["model.ckpt-1250.index", "model.ckpt-1250.data-00000-of-00001", "options.json"]
    files = files_of(card)
    assert set(names) < set(files)
    assert len(files) == 4
    assert files == {name: facts(source / name) for name in files}
    assert "it is a whole language model" in card.text


def test_nothing_is_left_if_the_card_fails(original, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_elmo.model_card.read_card_file", lambda name: "no metadata {{ card_data[0:0] }}")
    with pytest.raises(ValueError, match="library_name is missing"):
        convert_to_folder(original, tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


def test_back_to_the_original_format_there_is_no_card(original, tmp_path):
    convert(original, tmp_path / "out")
    result = CliRunner().invoke(app, ["convert", str(tmp_path / "out"), str(tmp_path / "back")])
    assert result.exit_code == 0
    assert sorted(entry.name for entry in (tmp_path / "back").iterdir()) == ["options.json", "weights.hdf5"]
    # And the folder with a card is a model folder like any other.
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "elmo"
    assert ModelCard.load(tmp_path / "out" / "README.md").data["conversion"]["format"] == "hdf5"


@pytest.mark.parametrize("inside", ["", "./", "slovenian/"])
@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_tar(original, tmp_path, inside, mode):
    """The original format in a tar archive, by whose name it is known."""
    source = tmp_path / "slovenian-elmo.tar.gz"
    weights, options = original / "elmo_pt_weights.hdf5", original / "elmo_pt_options.json"
    with tarfile.open(source, mode) as archive:
        archive.add(options, inside + "options.json")
        archive.add(weights, inside + "slovenian-elmo-weights.hdf5")
        archive.add(options, inside + "deeper/options.json")
        archive.add(options, inside + "._options.json")
    card = convert(source, tmp_path / "out")
    prefix = inside.removeprefix("./")
    expected = [facts(source), facts(options), facts(weights)]
    names = [source.name, f"{prefix}options.json", f"{prefix}slovenian-elmo-weights.hdf5"]
    assert files_of(card) == dict(zip(names, expected))
    assert card.data["conversion"]["published"] == "elmo-embeddia-sl"
    convert_to_folder(original, tmp_path / "plain")
    same = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "plain")]
    assert same[0] == same[1]


def test_tar_by_checksum(original, tmp_path, monkeypatch):
    """As the German model is published: the archive's checksum is known, the names inside are those of any model."""
    source = tmp_path / "renamed.tgz"
    with tarfile.open(source, "w:gz") as archive:
        archive.add(original / "elmo_pt_weights.hdf5", "weights.hdf5")
        archive.add(original / "elmo_pt_options.json", "options.json")
        archive.add(original / "elmo_pt_options.json", "model.ckpt-5265680.index")
    german = model_origin.published_models()["elmo-de"]
    checksum = "sha1:" + hashlib.sha1(source.read_bytes()).hexdigest()
    assert convert(source, tmp_path / "before").data.language is None
    known = {"elmo-de": dataclasses.replace(german, checksums=(checksum,))}
    monkeypatch.setattr(model_origin, "published_models", lambda: known)
    card = convert(source, tmp_path / "after")
    assert card.text.startswith("\n# German ELMo (T-Systems)\n")
    assert "the checksum of a file" in card.text


def test_tar_with_weights_twice(original, tmp_path):
    source = tmp_path / "two.tar.gz"
    with tarfile.open(source, "w:gz") as archive:
        for folder in ("a", "b"):
            archive.add(original / "elmo_pt_weights.hdf5", f"{folder}/weights.hdf5")
            archive.add(original / "elmo_pt_options.json", f"{folder}/options.json")
    with pytest.raises(ConversionError, match="has weights in several folders: a, b"):
        convert_to_folder(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
