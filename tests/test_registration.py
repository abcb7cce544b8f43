"""Importing hf_elmo is light, and transformers knows ELMo however and in whatever order things are imported."""

import importlib.util
import json
import subprocess
import sys

import pytest
import warm

import hf_elmo

HEAVY = (
    "datasets",
    "h5py",
    "hf_elmo.model.modeling_elmo",
    "matplotlib",
    "pandas",
    "scipy",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.pipelines",
    "transformers.trainer",
    "typer",
)

USE = """
import json
from transformers import AutoConfig, AutoModel, AutoModelForTokenClassification, AutoTokenizer, pipeline
from transformers.pipelines import PIPELINE_REGISTRY
import hf_elmo
folder = hf_elmo.bundled()
made = [
    AutoConfig.from_pretrained(folder),
    AutoTokenizer.from_pretrained(folder),
    AutoModel.from_pretrained(folder),
    AutoModelForTokenClassification.from_pretrained(folder),
    pipeline("elmo-fill-mask", model=folder),
]
print(json.dumps([type(each).__name__ for each in made]))
print(json.dumps([
    hf_elmo.ElmoTokenizer._auto_class,
    sorted(set(PIPELINE_REGISTRY.supported_tasks) & {"elmo-question-answering", "elmo-fill-mask"}),
    [type(each).__module__ for each in made],
]))
"""


def run_anew(arguments, **options):
    return subprocess.run([sys.executable, *arguments], **options)


def run_on_top(arguments, **options):
    """A process in which what transformers imports is imported, and transformers is not."""
    return warm.run(arguments, warm.BELOW, **options)


def lines_of(script: str, start=run_on_top) -> list[str]:
    done = start(["-c", script], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "already registered" not in done.stderr
    return done.stdout.splitlines()


def test_importing_is_light():
    script = "import sys, torch, transformers; before = set(sys.modules); import hf_elmo"
    (line,) = lines_of(
        script + "; import json; print(json.dumps(sorted(set(sys.modules) - before - {'json'})))", run_anew
    )
    imported = set(json.loads(line))
    assert "hf_elmo" in imported
    assert not imported & set(HEAVY)
    # None of transformers' own modules.
    assert not [name for name in imported if name.startswith("transformers.")]


@pytest.mark.parametrize(
    "first",
    [
        "import hf_elmo",
        "from hf_elmo import ElmoModel",
        "import hf_elmo.model.heads.question_answering_pipeline",
        "import hf_elmo.model.elmo_models",
        "from hf_elmo import *",
        "from transformers import AutoModel, AutoTokenizer, pipeline; import hf_elmo",
    ],
)
def test_whatever_is_imported_first(first):
    names, details = map(json.loads, lines_of(first + USE)[-2:])
    expected = ["ElmoConfig", "ElmoTokenizer", "ElmoModel", "ElmoForTokenClassification", "ElmoFillMaskPipeline"]
    assert names == expected
    auto_class, tasks, modules = details
    assert auto_class == "AutoTokenizer"
    assert tasks == ["elmo-fill-mask", "elmo-question-answering"]
    assert all(module.startswith("hf_elmo.") for module in modules)


def test_modules_are_there_without_a_further_import():
    """In a process that has imported nothing else of the package."""
    names = list(hf_elmo._PUBLIC_MODULES)
    assert set(names) <= set(dir(hf_elmo))
    if importlib.util.find_spec("matplotlib") is None:
        names.remove("plot")
    code = f"import hf_elmo, sys; print([getattr(hf_elmo, name) is sys.modules['hf_elmo.' + name] for name in {names}])"
    assert lines_of(code) == [str([True] * len(names))]


def test_public_names():
    assert set(hf_elmo.__all__) <= set(dir(hf_elmo))
    for name in hf_elmo.__all__:
        assert getattr(hf_elmo, name) is not None
    assert set(hf_elmo._MODULES) | {"bundled", "export"} == set(hf_elmo.__all__)
    assert hf_elmo.model.modeling_elmo.ElmoModel is hf_elmo.ElmoModel
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hf_elmo.nothing
