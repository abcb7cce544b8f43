"""The scripts of examples/, run on their own small data with a tiny model, and the command lines at their top."""

import ast
import importlib.util
import re
import shlex

import numpy as np
import pytest
from places import CHECKOUT

SCRIPTS = sorted((CHECKOUT / "examples").glob("*.py"))


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Runs an example's `main` in an empty folder; its result is returned."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))

    def run(name, *arguments):
        spec = importlib.util.spec_from_file_location(f"example_{name}", CHECKOUT / "examples" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.main(list(map(str, arguments)))

    return run


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_begin_with_their_command_and_are_short(script):
    text = script.read_text(encoding="utf-8")
    assert 40 <= len(text.splitlines()) <= 85
    tree = ast.parse(text)
    command = re.search(r"^    (python examples/.*)$", ast.get_docstring(tree, clean=False), flags=re.MULTILINE)[1]
    given = [word for word in shlex.split(command)[2:] if word.startswith("--")]
    known = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
    }
    assert command.startswith(f"python examples/{script.name} ")
    assert set(given) <= known
    assert f"[`{script.name}`]({script.name})" in (CHECKOUT / "examples" / "README.md").read_text(encoding="utf-8")


def test_compare_words(example, tiny_model_folder):
    cosines = example("compare_words", "--model", tiny_model_folder)
    assert cosines.shape == (4, 4)
    assert cosines.diagonal().numpy() == pytest.approx(np.ones(4), abs=1e-5)
    # The same word in another sentence has another vector; without context it has the same one.
    assert cosines[0, 1] < 0.999
    without_context = example("compare_words", "--model", tiny_model_folder, "--layer", 0)
    assert without_context.numpy() == pytest.approx(np.ones((4, 4)), abs=1e-5)


def test_a_sentence_without_the_word(example, tiny_model_folder, capsys):
    with pytest.raises(SystemExit):
        example("compare_words", "--model", tiny_model_folder, "--word", "read", "I left.")
    assert "'read' is not a word of 'I left.'" in capsys.readouterr().err


def test_embed_corpus(example, tiny_model_folder, tmp_path):
    words = example("embed_corpus", "--model", tiny_model_folder, "--layers", "all")
    with np.load(tmp_path / "vectors.npz") as vectors:
        assert vectors["0"].shape == (3, 11, 32)  # "The ferry leaves the harbour at seven in the morning."
        assert sum(vectors[name].shape[1] for name in vectors.files if name != "words") == words


def test_tag_entities(example, tiny_model_folder, tmp_path):
    f1 = example("tag_entities", "--model", tiny_model_folder, "--epochs", 1)
    assert 0 <= f1 <= 1
    assert (tmp_path / "ner-model" / "model.safetensors").is_file()


def test_answer_questions(example, tiny_model_folder, tmp_path):
    assert 0 <= example("answer_questions", "--model", tiny_model_folder, "--epochs", 1) <= 1
    assert (tmp_path / "qa-model" / "model.safetensors").is_file()


def test_classify_texts(example, tiny_model_folder, tmp_path):
    assert 0 <= example("classify_texts", "--model", tiny_model_folder, "--epochs", 1) <= 1
    assert (tmp_path / "text-model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_train_language_model(example, tmp_path):
    sizes = ["--cell-size", 16, "--projection", 8]
    before = example("train_language_model", "--steps", 2, *sizes, "--output", "short")
    after = example("train_language_model", "--steps", 40, *sizes, "--output", "longer")
    assert after < 0.9 * before
    # As asked for, the same training is found finished.
    assert example("train_language_model", "--steps", 40, *sizes, "--output", "longer", "--resume") == after


def test_convert_and_publish(example, tiny_model_folder, tmp_path, capsys):
    from hf_elmo.conversion import convert_from_folder

    convert_from_folder(tiny_model_folder, tmp_path / "hdf5")
    files = example("convert_and_publish", tmp_path / "hdf5", "new")
    assert {"README.md", "config.json", "model.safetensors", "elmo_models.py", "tokenizer.json"} <= set(files)
    printed = capsys.readouterr().out
    assert "same numbers as the original file: True" in printed
    assert "not sent to user/my-elmo: give --push" in printed


def test_translate(example, tiny_model_folder, tmp_path):
    pairs = ["--model", tiny_model_folder, "--output", tmp_path / "translator", "--steps", 2, "--vocabulary", 300]
    translations = example("translate", *pairs)
    assert len(translations) == 2
    assert all(isinstance(text, str) for text in translations)


def test_write_headlines(example, tiny_model_folder, tmp_path):
    pairs = ["--model", tiny_model_folder, "--output", tmp_path / "writer", "--steps", 2, "--vocabulary", 300]
    (headline,) = example("write_headlines", *pairs)
    assert isinstance(headline, str)
