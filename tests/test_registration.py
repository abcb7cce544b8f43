"""Importing hf_elmo is light, and transformers knows ELMo however and in whatever order things are imported."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from amounts import first_of
from places import CHECKOUT

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


#: What a command that reads a sentence does not import either, though transformers' models do.
NOT_FOR_READING = (
    "datasets",
    "h5py",
    "matplotlib",
    "pandas",
    "pyarrow",
    "scipy",
    "sklearn",
    "sympy",
    "torch._dynamo",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "transformers.pipelines",
    "transformers.trainer",
)

EMBED = """
import json, sys
sys.argv = ["hf-elmo", "embed", "I read the book."]
from hf_elmo.commands.app import main
try:
    main()
except SystemExit as end:
    assert not end.code
print(json.dumps(sorted(sys.modules)))
import torch._dynamo
from transformers import masking_utils
print(torch._dynamo.__file__)
print(type(masking_utils.TransformGetItemToIndex()).__module__)
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


def test_reading_a_sentence_is_light():
    """The command says what it says in a process that has imported everything; the compiler is there afterwards."""
    *table, imported, compiler, masks = lines_of(EMBED, run_anew)
    assert not set(json.loads(imported)) & set(NOT_FOR_READING)
    assert Path(compiler).name == "__init__.py"
    assert masks == "torch._dynamo._trace_wrapped_higher_order_op"
    whole = warm.run(["-m", "hf_elmo", "embed", "I read the book."], capture_output=True, text=True, timeout=200)
    assert whole.returncode == 0, whole.stderr[-3000:]
    assert table == whole.stdout.splitlines()


@pytest.mark.parametrize(
    "first",
    first_of(
        [
            "import hf_elmo; from transformers import pipeline",
            "from transformers import AutoModel, AutoTokenizer, pipeline; import hf_elmo",
            "from hf_elmo import *",
            "import hf_elmo",
            "import hf_elmo.model.heads.question_answering_pipeline",
            "from hf_elmo import ElmoEncoderDecoderConfig",
            "from hf_elmo import ElmoModel",
            "import hf_elmo.model.elmo_models",
            "from hf_elmo import ElmoEncoderDecoderTokenizer",
        ],
    ),
)
def test_whatever_is_imported_first(first):
    names, details = map(json.loads, lines_of(first + USE)[-2:])
    expected = ["ElmoConfig", "ElmoTokenizer", "ElmoModel", "ElmoForTokenClassification", "ElmoFillMaskPipeline"]
    assert names == expected
    auto_class, tasks, modules = details
    assert auto_class == "AutoTokenizer"
    assert tasks == ["elmo-fill-mask", "elmo-question-answering"]
    assert all(module.startswith("hf_elmo.") for module in modules)


#: Modules of the rooms that only another package would bring.
EXTRAS = {"plot": "matplotlib", "demo": "gradio", "demo_page": "gradio"}
EXTRAS |= {name: name for name in ("sentence_transformers", "sklearn", "spacy")}


def test_modules_are_there_without_a_further_import():
    """In a process that has imported nothing else of the package."""
    root = Path(hf_elmo.__file__).parent
    names = ["hf_elmo.conversion", "hf_elmo.export"]
    for path in sorted(root.glob("*/*.py")):
        # (model is in other tests; __main__ runs.)
        if path.stem != "__init__" and importlib.util.find_spec(EXTRAS.get(path.stem, "json")) is not None:
            names.append(f"hf_elmo.{path.parent.name}.{path.stem}")
    code = f"import hf_elmo, sys; print([name for name in {names} if eval(name) is not sys.modules[name]])"
    assert lines_of(code) == ["[]"]


def test_a_module_that_a_room_does_not_have():
    with pytest.raises(AttributeError, match=r"module 'hf_elmo\.vectors' has no attribute 'nothing'"):
        _ = hf_elmo.vectors.nothing
    with pytest.raises(ImportError, match="nothing"):
        from hf_elmo.vectors import nothing  # noqa: F401
    assert not hasattr(hf_elmo.vectors, "__wrapped__")


PAGES = sorted([*CHECKOUT.glob("README.md"), *CHECKOUT.glob("docs/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_the_pages_name_is_there(page):
    names = set(re.findall(r"\bhf_elmo(?:\.[A-Za-z]\w*)+", page.read_text(encoding="utf-8")))
    for name in sorted(names):
        value = hf_elmo
        for part in name.split(".")[1:]:
            if importlib.util.find_spec(EXTRAS.get(part, "json")) is None:
                break
            value = getattr(value, part)


def test_public_names():
    assert set(hf_elmo.__all__) <= set(dir(hf_elmo))
    for name in hf_elmo.__all__:
        assert getattr(hf_elmo, name) is not None
    assert list(hf_elmo._MODULES) == sorted(hf_elmo.__all__) == hf_elmo.__all__
    assert hf_elmo.model.modeling_elmo.ElmoModel is hf_elmo.ElmoModel
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hf_elmo.nothing
