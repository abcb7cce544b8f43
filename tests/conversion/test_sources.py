"""The page of sources: each of its commands is run on files that are laid out as that source's, with small weights."""

import json
import re
import shlex
import sys
import tarfile
import warnings
import zipfile

import pytest
from allennlp_format import members_of, write_archive
from manylangs_original import OPTIONS as MANYLANGS_OPTIONS
from manylangs_original import dictionaries, random_tensors, write_manylangs
from numpy_elmo import random_weights
from original_format import OPTIONS, write_original
from places import CHECKOUT
from tfhub_format import module_variables, stand_in, write_module
from typer.testing import CliRunner
from word_input_format import LINES, random_softmax, variables

from hf_elmo.commands.app import app

PAGE = (CHECKOUT / "conversion" / "SOURCES.md").read_text(encoding="utf-8")
COMMANDS = [
    command
    for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    for command in re.findall(r"hf-elmo .*", block.replace("\\\n", ""))
]
ARRAYS = random_weights(OPTIONS, seed=3)
# What TensorFlow reads, by the names of the files that it is asked for.
SOFTMAX = variables(OPTIONS, ARRAYS) | random_softmax(OPTIONS, len(LINES))


def weights(source, options_name):
    write_original(source.parent, OPTIONS, ARRAYS, source.name, options_name)


def vocabulary(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*LINES, ""]), encoding="utf-8")


def checkpoint(folder, name):
    folder.mkdir(parents=True)
    for ending in ("index", "meta", "data-00000-of-00001"):
        (folder / f"{name}.{ending}").write_bytes(b"x")
    state = f'model_checkpoint_path: "/home/user/{name}"\nall_model_checkpoint_paths: "/home/user/{name}"\n'
    (folder / "checkpoint").write_text(state, encoding="utf-8")


def tar(source, inside, **contents):
    """An archive of the files of a folder, whose names may be others in it."""
    with tarfile.open(source, "w:gz") as archive:
        for path in sorted((source.parent / "files").rglob("*")):
            if path.is_file():
                name = path.relative_to(source.parent / "files").as_posix()
                archive.add(path, inside + contents.get(path.stem, name))


def authors(place):
    weights(
        place / "elmo_2x4096_512_2048cnn_2xhighway_5.5B_weights.hdf5",
        "elmo_2x4096_512_2048cnn_2xhighway_5.5B_options.json",
    )


def authors_checkpoint(place):
    folder = place / "2x4096_512_2048cnn_2xhighway_tf_checkpoint"
    checkpoint(folder, "model.ckpt-935588")
    (folder / "options.json").write_text(json.dumps(OPTIONS), encoding="utf-8")
    vocabulary(place / "vocab-2016-09-10.txt")


def pubmed(place):
    name = "elmo_2x4096_512_2048cnn_2xhighway"
    weights(place / f"{name}_weights_PubMed_only.hdf5", f"{name}_options.json")


def german(place):
    write_original(place / "files", OPTIONS, ARRAYS)
    vocabulary(place / "files" / "vocab-train.txt")
    for ending in ("index", "meta", "data-00000-of-00001"):
        (place / "files" / f"model.ckpt-5265680.{ending}").write_bytes(b"x")
    tar(place / "bilm-output-result.tgz", "")
    vocabulary(place / "vocab-train.txt")


def slovenian(place):
    write_original(place / "files" / "slovenian", OPTIONS, ARRAYS, "slovenian-elmo-weights.hdf5")
    tar(place / "slovenian-elmo.tar.gz", "")


def nlpl(place):
    write_original(place / "files", OPTIONS, ARRAYS, "model.hdf5")
    vocabulary(place / "files" / "vocab.txt")
    (place / "files" / "meta.json").write_text('{"id": 218}', encoding="utf-8")
    with zipfile.ZipFile(place / "218.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (place / "files").iterdir():
            archive.write(path, path.name)


def manylangs(place):
    characters, words = dictionaries([["the", "cat"], ["sat"]])
    tensors = random_tensors(MANYLANGS_OPTIONS, len(characters), len(words))
    write_manylangs(place / "files", MANYLANGS_OPTIONS, characters, words, tensors)
    with zipfile.ZipFile(place / "144.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (place / "files").iterdir():
            archive.write(path, path.name)


def russian(place):
    write_module(place / "files")
    tar(place / "elmo_ru-news_wmt11-16_1.5M_steps.tar.gz", "./")


def russian_softmax(place):
    folder = place / "elmo-lm-ready4fine-tuning-ru-news"
    checkpoint(folder / "saves" / "epochs" / "0", "model.ckpt-0000000")
    (folder / "options.json").write_text(json.dumps(OPTIONS), encoding="utf-8")
    vocabulary(folder / "vocab.txt")


def tfhub(place):
    write_module(place / "files")
    tar(place / "elmo_3.tar.gz", "./")


def tagger(place):
    write_archive(place / "ner-elmo.tar.gz", members_of())


def seqvec(place):
    write_original(place, OPTIONS, ARRAYS)


# By the first argument, with what TensorFlow reads there.
LAYOUTS = {
    "elmo_2x4096_512_2048cnn_2xhighway_5.5B_weights.hdf5": (authors, None),
    "2x4096_512_2048cnn_2xhighway_tf_checkpoint": (authors_checkpoint, SOFTMAX),
    "elmo_2x4096_512_2048cnn_2xhighway_weights_PubMed_only.hdf5": (pubmed, None),
    "bilm-output-result.tgz": (german, None),
    "slovenian-elmo.tar.gz": (slovenian, None),
    "218.zip": (nlpl, None),
    "144.zip": (manylangs, None),
    "elmo_ru-news_wmt11-16_1.5M_steps.tar.gz": (russian, module_variables(ARRAYS)),
    "elmo-lm-ready4fine-tuning-ru-news/saves/epochs/0": (russian_softmax, SOFTMAX),
    "elmo_3.tar.gz": (tfhub, module_variables(ARRAYS)),
    "ner-elmo.tar.gz": (tagger, None),
    "weights.hdf5": (seqvec, None),
}


def test_every_section_has_its_command():
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    without = [section.splitlines()[0] for section in sections if "```bash" not in section]
    assert not without
    assert len(COMMANDS) >= len(sections)


@pytest.mark.parametrize("command", COMMANDS)
def test_without_the_files(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, shlex.split(command, comments=True)[1:])
    # What is said is about the files, not about the command.
    assert result.exit_code == 1
    assert "does not exist" in result.output or "is not a file" in result.output
    assert "Traceback" not in result.output


CONVERSIONS = [shlex.split(command, comments=True)[1:] for command in COMMANDS if " convert " in command]


@pytest.mark.parametrize("arguments", CONVERSIONS, ids=lambda arguments: arguments[1])
def test_commands(arguments, tmp_path, monkeypatch):
    make, read_by_tensorflow = LAYOUTS[arguments[1]]
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    if read_by_tensorflow is not None:
        monkeypatch.setitem(sys.modules, "tensorflow", stand_in(read_by_tensorflow))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    folder = tmp_path / arguments[2]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    has_softmax = "ForPreTraining" in config["architectures"][0]
    assert has_softmax == (read_by_tensorflow is SOFTMAX)
    assert (folder / "model.safetensors").is_file()
    assert (folder / "README.md").is_file()
