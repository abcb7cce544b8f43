"""Saved folders are complete: they work where hf_elmo is not installed, and so do those saved from there."""

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from amounts import first_of
from isolated import TRAINING, WITH_HF_ELMO, isolated_environment, run_isolated
from places import HELPERS
from saved_code import MODEL, assert_same, code_of, model_code
from small_translator import save_translator, small_translator, two_tokenizers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    pipeline,
)
from transformers.dynamic_module_utils import get_relative_import_files

import hf_elmo
from hf_elmo import ElmoForQuestionAnswering, ElmoModel
from hf_elmo.model import remote_code

PACKAGE = Path(hf_elmo.__file__).parent
# As in remote_code_user.py.
TEXTS = ["A cat sat on the mat .", "Dogs bark"]
QUESTIONS = ["Who sat ?", "What barks ?"]
# What a user of remote code has: transformers with torch. (numpy and tokenizers come with these.)
THIRD_PARTY = {"numpy", "tokenizers", "torch", "transformers"}


MODELS = [name for name in remote_code.AUTO_MAP if name.startswith("AutoModel")]


@pytest.fixture(scope="module", params=first_of([["AutoModel", "AutoModelForQuestionAnswering"], MODELS]), ids=" ".join)
def classes(request):
    """The Auto classes that the user without hf_elmo asks for models."""
    return request.param


@pytest.fixture(scope="module")
def left_by_user(tiny_model_folder, classes, tmp_path_factory):
    """What `remote_code_user.py`, with transformers and torch alone, and `remote_code_trainer.py` left."""
    folder = tmp_path_factory.mktemp("user")
    for name, also in (("remote_code_user.py", ()), ("remote_code_trainer.py", TRAINING)):
        more = () if also else classes
        run_isolated([HELPERS / name, tiny_model_folder, folder, PACKAGE, *more], folder, also=also)
    return folder


_FIND = """
import importlib.util, sys
for name in sys.argv[1:]:
    if importlib.util.find_spec(name):
        print(name)
    else:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            pass
        else:
            print(name, "all the same")
"""


def test_the_package_and_what_comes_with_it_are_really_hidden(tmp_path):
    """Also if Python is told where they are."""
    names = ["hf_elmo", *WITH_HF_ELMO, "transformers"]

    def found(environment):
        environment["PYTHONPATH"] = os.pathsep.join([environment.get("PYTHONPATH", ""), str(PACKAGE.parent)])
        find = [sys.executable, "-c", _FIND, *names]
        return subprocess.run(
            find, check=True, cwd=tmp_path, env=environment, capture_output=True, text=True
        ).stdout.splitlines()

    assert {"hf_elmo", "h5py", "nupunkt", "datasets", "pyarrow", "transformers"} <= set(found(dict(os.environ)))
    assert found(isolated_environment(tmp_path)) == ["transformers"]
    trainers = found(isolated_environment(tmp_path, TRAINING))
    assert set(trainers) == {"transformers", *(name for name in TRAINING if importlib.util.find_spec(name))}


def test_every_folder_has_the_code_of_all_models(tiny_model_folder, classes, left_by_user):
    expected = model_code()
    pipelines = [*(left_by_user / "pipeline").iterdir()]
    assert len(pipelines) == (4 if classes == MODELS else 2)
    folders = [tiny_model_folder, left_by_user / "trainer", *pipelines]
    folders += [left_by_user / "trainer" / f"checkpoint-{step}" for step in (1, 2)]
    folders += [*(left_by_user / "first").iterdir(), *(left_by_user / "second").iterdir()]
    assert len(folders) == 4 + len(pipelines) + 2 * len(classes)
    for folder in folders:
        found = code_of(folder)
        assert sorted(found) == sorted(expected), folder
        assert found == expected, folder
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        assert config["auto_map"] == remote_code.AUTO_MAP, folder
        answers_questions = config["architectures"] == ["ElmoForQuestionAnswering"]
        assert config.get("custom_pipelines", {}).keys() == ({"question-answering"} if answers_questions else set())
        tokenizer_config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        assert tokenizer_config["auto_map"]["AutoTokenizer"][0] == "tokenization_elmo.ElmoTokenizer", folder


def test_a_pipeline_without_a_task_takes_question_answerers_alone_for_such(tiny_model_folder, tmp_path):
    """Without a task the library takes the one of `custom_pipelines`: every ELMo was a question answerer to it."""

    def pipelines_of(folder):
        return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("custom_pipelines")

    answerer = ElmoForQuestionAnswering.from_pretrained(tiny_model_folder)
    answerer.save_pretrained(tmp_path / "answerer")
    expected = {
        "question-answering": {
            "impl": "question_answering_pipeline.ElmoQuestionAnsweringPipeline",
            "pt": ["AutoModelForQuestionAnswering"],
        }
    }
    assert pipelines_of(tmp_path / "answerer") == expected
    again = ElmoForQuestionAnswering.from_pretrained(tmp_path / "answerer")
    again.save_pretrained(tmp_path / "again")
    assert pipelines_of(tmp_path / "again") == expected
    # Its base model is none, nor is what is made of that; nor what an older version saved with an entry.
    ElmoModel.from_pretrained(tmp_path / "answerer").save_pretrained(tmp_path / "base")
    older = tmp_path / "older"
    ElmoModel.from_pretrained(tiny_model_folder).save_pretrained(older)
    config = json.loads((older / "config.json").read_text(encoding="utf-8"))
    (older / "config.json").write_text(json.dumps({**config, "custom_pipelines": expected}), encoding="utf-8")
    for source in ("base", "older"):
        for auto_class in (AutoModel, AutoModelForPreTraining, AutoModelForTokenClassification):
            auto_class.from_pretrained(tmp_path / source).save_pretrained(tmp_path / auto_class.__name__)
            assert pipelines_of(tmp_path / auto_class.__name__) is None
    with pytest.raises(RuntimeError, match=r"without a task set raised an error|cannot infer task automatically"):
        pipeline(model=str(tmp_path / "AutoModelForTokenClassification"), trust_remote_code=True)


def test_every_model_of_the_package_is_named(tiny_model_folder):
    """A class that `Auto*` knows here must be found there."""
    config = AutoConfig.from_pretrained(tiny_model_folder)
    known, writers = {}, {}
    for name in dir(transformers):
        auto_class = getattr(transformers, name) if name.startswith("AutoModel") else None
        mapping = getattr(auto_class, "_model_mapping", None)
        if mapping is not None and type(config) in mapping._extra_content:
            known[name] = f"elmo_models.{mapping[type(config)].__name__}"
        if mapping is not None and hf_elmo.ElmoEncoderDecoderConfig in mapping._extra_content:
            writers[name] = f"elmo_models.{mapping[hf_elmo.ElmoEncoderDecoderConfig].__name__}"
    both = {**known, **writers}
    named = {**remote_code.AUTO_MAP, **remote_code.ENCODER_DECODER_AUTO_MAP}
    assert both == {name: entry for name, entry in named.items() if name.startswith("AutoModel")}
    assert writers.keys() == {"AutoModelForSeq2SeqLM"}
    assert known == {name: entry for name, entry in remote_code.AUTO_MAP.items() if name.startswith("AutoModel")}
    assert "AutoModelForSequenceClassification" in known


def test_the_code_needs_nothing_but_transformers_and_torch():
    for name, source in model_code().items():
        tree = ast.parse(source)
        # What is tried is not needed (Triton).
        tried = {inner for node in ast.walk(tree) if isinstance(node, ast.Try) for inner in ast.walk(node)}
        for node in set(ast.walk(tree)) - tried:
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            for module in modules:
                top = module.partition(".")[0]
                assert top in THIRD_PARTY or top in sys.stdlib_module_names, f"{name} imports {module}"


def test_the_library_sees_the_imports_that_python_sees(tmp_path):
    """It searches for them line by line, and misses `from . import x` or an import behind a semicolon."""
    for name, text in remote_code.code().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    seen = {Path(path).name for path in get_relative_import_files(tmp_path / "elmo_models.py")}
    assert seen | {"elmo_models.py", "tokenization_elmo.py"} == set(model_code())


def test_flat_code_stays_as_it_is():
    assert {name: text.encode() for name, text in remote_code.code().items()} == model_code()
    for text in remote_code.code().values():
        assert remote_code.flattened(text) == text


def test_base_names_are_unique():
    """A saved folder has all of them side by side."""
    names = [path.name for path in MODEL.rglob("*.py") if path.name != "__init__.py"]
    assert sorted(set(names)) == sorted(names)


def test_what_the_library_copies_raw_imports_only_what_lies_beside_it():
    """transformers copies the file of a tokenizer or a pipeline as it is, nested imports and all."""
    pipelines = {**remote_code.CUSTOM_PIPELINES, **remote_code.ENCODER_DECODER_PIPELINES}
    raw = {"tokenization_elmo", "tokenization_encoder_decoder_elmo"}
    raw |= {entry["impl"].partition(".")[0] for entry in pipelines.values()}
    raw |= {place.partition(".")[0] for auto, place in remote_code.AUTO_MAP.items() if "Tokenizer" in auto}
    files = {path.stem: path for path in MODEL.rglob("*.py")}
    waiting = list(raw)
    while waiting:
        source = files[waiting.pop()]
        text = source.read_text(encoding="utf-8")
        assert remote_code.flattened(text) == text, source
        waiting += [path.stem for path in remote_code.imported_files(source)]


def test_vectors_and_answers_are_those_of_the_package(tiny_model_folder, classes, left_by_user):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
    inputs = tokenizer(QUESTIONS, TEXTS, padding=True, return_tensors="pt")
    vectors = torch.load(left_by_user / "vectors.pt", weights_only=True)
    assert vectors.keys() == set(classes)
    for name, theirs in vectors.items():
        model = getattr(transformers, name).from_pretrained(left_by_user / "second" / name).eval()
        batch = {key: tensor.unsqueeze(0) for key, tensor in inputs.items()} if "Choice" in name else inputs
        with torch.no_grad():
            torch.testing.assert_close(model(**batch)[0], theirs, atol=1e-6, rtol=1e-6)
    answers = json.loads((left_by_user / "answers.json").read_text(encoding="utf-8"))
    assert len(answers) == (4 if classes == MODELS else 2)
    for task, answer in answers.items():
        own_task = "elmo-question-answering" if task == "question-answering" else task
        own = pipeline(own_task, str(left_by_user / "first" / answer["head"]))(answer["argument"])
        assert_same(json.loads(json.dumps(own, default=float)), answer["result"])


def test_a_model_that_writes(tmp_path):
    """Its folder works by itself, and so does what is saved from there."""
    save_translator(tmp_path / "model")
    run_isolated([HELPERS / "remote_code_writer.py", tmp_path / "model", tmp_path, PACKAGE], tmp_path)
    left = json.loads((tmp_path / "texts.json").read_text(encoding="utf-8"))
    inputs = two_tokenizers()(TEXTS, padding=True, return_tensors="pt")
    written = small_translator().generate(**inputs, num_beams=3, max_new_tokens=8)
    assert left["ids"] == written.tolist()
    texts = [text.strip() for text in two_tokenizers().batch_decode(written, skip_special_tokens=True)]
    assert left["texts"]["translation"] == [{"translation_text": text} for text in texts]
    assert left["texts"]["summarization"] == [{"summary_text": text} for text in texts]
    pipelines = {
        task: {"impl": "text_to_text_pipeline.ElmoTextToTextPipeline", "pt": ["AutoModelForSeq2SeqLM"]}
        for task in ("translation", "summarization")
    }
    tokenizers = {"tokenization_elmo", "tokenization_fast_path", "tokenization_encoder_decoder_elmo"}
    expected = {f"{name}.py" for name in tokenizers} | set(remote_code.code())
    for name in ("model", "again", "pipeline"):
        config = json.loads((tmp_path / name / "config.json").read_text(encoding="utf-8"))
        assert config["auto_map"] == remote_code.ENCODER_DECODER_AUTO_MAP
        assert config["custom_pipelines"] == pipelines
        assert set(code_of(tmp_path / name)) == expected
        assert code_of(tmp_path / name) == code_of(tmp_path / "model")


@pytest.mark.parametrize("trust", [{}, {"trust_remote_code": True}])
def test_the_installed_package_wins_without_asking(tiny_model_folder, trust, monkeypatch):
    def no_questions(*args, **kwargs):
        raise AssertionError("the user was asked")

    monkeypatch.setattr("builtins.input", no_questions)
    assert type(AutoConfig.from_pretrained(tiny_model_folder, **trust)) is hf_elmo.ElmoConfig
    # The library's tokenizers are an exception: told to trust the folder's code, it takes that.
    tokenizer_class = type(AutoTokenizer.from_pretrained(tiny_model_folder, **trust))
    assert tokenizer_class is hf_elmo.ElmoTokenizer or trust
    assert type(AutoModel.from_pretrained(tiny_model_folder, **trust)) is hf_elmo.ElmoModel
    classifier = AutoModelForSequenceClassification.from_pretrained(tiny_model_folder, **trust)
    assert type(classifier) is hf_elmo.ElmoForSequenceClassification
    extractor = pipeline("feature-extraction", str(tiny_model_folder), **trust)
    assert type(extractor.model) is hf_elmo.ElmoModel


def test_the_installed_package_needs_no_code_in_the_folder(tiny_model_folder, tmp_path):
    for path in tiny_model_folder.iterdir():
        if path.suffix != ".py":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is hf_elmo.ElmoTokenizer
    assert type(AutoModel.from_pretrained(tmp_path)) is hf_elmo.ElmoModel
    again = pipeline("feature-extraction", str(tmp_path))
    assert type(again.model) is hf_elmo.ElmoModel


def test_bundled_models_come_without_code():
    """The package is there where they are; copies would grow stale."""
    configurations = sorted((PACKAGE / "pretrained").glob("*/config.json"))
    if not configurations:
        pytest.skip("no model is bundled yet")
    for configuration in configurations:
        assert not list(configuration.parent.glob("*.py"))


def test_saving_replaces_stale_code(tiny_model_folder, tmp_path):
    for name in code_of(tiny_model_folder):
        (tmp_path / name).write_text("raise SystemExit('from an older version')\n", encoding="utf-8")
    AutoModel.from_pretrained(tiny_model_folder).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model_folder).save_pretrained(tmp_path)
    assert code_of(tmp_path) == model_code()


def test_own_subclasses_are_registered_as_always(tmp_path):
    """Only this package's models have their code saved by the package."""

    class OwnHead(hf_elmo.ElmoForSequenceClassification):
        pass

    OwnHead.register_for_auto_class("AutoModelForSequenceClassification")
    hf_elmo.ElmoForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
    assert OwnHead._auto_class == "AutoModelForSequenceClassification"
    assert hf_elmo.ElmoForSequenceClassification._auto_class is None
