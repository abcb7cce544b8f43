"""What a saved folder needs so that `trust_remote_code=True` reads it where this package is not installed."""

from __future__ import annotations

import ast
import copy
import functools
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

# Every folder names every class, so that a base model's folder can be fine-tuned with any head.
AUTO_MAP = {
    "AutoConfig": "configuration_elmo.ElmoConfig",
    "AutoModel": "elmo_models.ElmoModel",
    "AutoModelForMultipleChoice": "elmo_models.ElmoForMultipleChoice",
    "AutoModelForPreTraining": "elmo_models.ElmoForPreTraining",
    "AutoModelForQuestionAnswering": "elmo_models.ElmoForQuestionAnswering",
    "AutoModelForSequenceClassification": "elmo_models.ElmoForSequenceClassification",
    "AutoModelForTokenClassification": "elmo_models.ElmoForTokenClassification",
}

# Folders of models that write are not base models' folders too.
ENCODER_DECODER_AUTO_MAP = {
    "AutoConfig": "configuration_encoder_decoder_elmo.ElmoEncoderDecoderConfig",
    "AutoModelForSeq2SeqLM": "elmo_models.ElmoEncoderDecoderModel",
}

# The library removed its own pipelines for these tasks in version 5.3. A folder has the entries for its own model alone
# (`custom_pipelines`): without a task, pipeline() takes the one that it finds there.
CUSTOM_PIPELINES: dict[str, dict[str, Any]] = {
    "question-answering": {
        "impl": "question_answering_pipeline.ElmoQuestionAnsweringPipeline",
        "pt": ["AutoModelForQuestionAnswering"],
    },
}
ENCODER_DECODER_PIPELINES: dict[str, dict[str, Any]] = {
    task: {"impl": "text_to_text_pipeline.ElmoTextToTextPipeline", "pt": ["AutoModelForSeq2SeqLM"]}
    for task in ("translation", "summarization")
}

_ALL_CLASSES = {**AUTO_MAP, **ENCODER_DECODER_AUTO_MAP}


def auto_map(class_names: Iterable[str]) -> dict[str, str]:
    """The classes that a model's folder names: those for its kind of configuration.

    Args:
        class_names: As in `custom_pipelines`.
    """
    writes = {place.rpartition(".")[2] for place in ENCODER_DECODER_AUTO_MAP.values()}
    return dict(ENCODER_DECODER_AUTO_MAP if writes & set(class_names) else AUTO_MAP)


def custom_pipelines(class_names: Iterable[str]) -> dict[str, dict]:
    """The pipelines (`CUSTOM_PIPELINES`, `ENCODER_DECODER_PIPELINES`) that are for a model.

    Args:
        class_names: Names of the model's class and, if any, of its bases; `architectures` of a configuration.
    """
    names = set(class_names)
    return {
        task: copy.deepcopy(entry)
        for task, entry in {**CUSTOM_PIPELINES, **ENCODER_DECODER_PIPELINES}.items()
        if names & {_ALL_CLASSES[auto_class].rpartition(".")[2] for auto_class in entry["pt"]}
    }


# transformers reads the code of a saved folder from that one folder, and only imports like `from .name import`.
_RELATIVE_IMPORT = re.compile(r"^(\s*)from \.+(?:\w+\.)*(\w+) import", re.MULTILINE)


def code(*more: str) -> dict[str, str]:
    """The code of all models as a saved folder holds it: file name -> text.

    That is `elmo_models.py` and every module that it imports, directly or not, with imports rewritten for one flat
    folder. Flat code stays as it is, so a model that was loaded from a saved folder saves the same code again.

    Args:
        more: Names of further files of `hf_elmo/model/` that are wanted, with what they import.
    """
    package = Path(__file__).parent
    waiting = [package / name for name in ("elmo_models.py", *more)]
    files: dict[str, str] = {}
    while waiting:
        source = waiting.pop()
        if source.name in files:
            continue
        text = source.read_text(encoding="utf-8")
        files[source.name] = flattened(text)
        waiting += imported_files(source)
    return dict(sorted(files.items()))


def flattened(text: str) -> str:
    """The text of a module with its relative imports rewritten for one flat folder."""
    return _RELATIVE_IMPORT.sub(r"\1from .\2 import", text)


def imported_files(source: Path) -> list[Path]:
    """The files that a module imports by relative imports, wherever in the module they stand."""
    return [
        source.parents[level - 1].joinpath(*name.split(".")).with_suffix(".py")
        for level, name in _relative_imports(source.read_text(encoding="utf-8"))
    ]


# Every checkpoint of a training has the code; to parse all of it takes longer than to write a small model.
@functools.cache
def _relative_imports(text: str) -> tuple[tuple[int, str], ...]:
    """The number of dots, and the name after them, of the relative imports of a module."""
    nodes = ast.walk(ast.parse(text))
    return tuple((node.level, node.module or "") for node in nodes if isinstance(node, ast.ImportFrom) and node.level)


def add_remote_code(config: PreTrainedConfig, folder: str | os.PathLike, class_names: Iterable[str]) -> None:
    """Writes the code of all models into a folder, and enters it in the configuration that is to be saved there.

    Args:
        config: Gets `auto_map`, and `custom_pipelines` if the model is one that there is a pipeline for; else it loses
            them.
        folder: Made if it is missing.
        class_names: As in `custom_pipelines`.
    """
    class_names = list(class_names)
    config.auto_map = auto_map(class_names)
    # What is there may be another model's: that of the checkpoint, or a pipeline's that is just being saved.
    vars(config).pop("custom_pipelines", None)
    if pipelines := custom_pipelines(class_names):
        config.custom_pipelines = pipelines
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in code().items():
        file = folder / name
        # Where a model is saved to the folder that it was loaded from, the code there is in use, and stays.
        if not (file.is_file() and file.read_text(encoding="utf-8") == text):
            file.write_text(text, encoding="utf-8", newline="\n")
