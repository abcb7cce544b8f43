"""What a saved folder needs so that `trust_remote_code=True` reads it where this package is not installed."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

from transformers.dynamic_module_utils import get_relative_import_files

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

# The library removed its own pipeline of this name in version 5.3.
CUSTOM_PIPELINES: dict[str, dict] = {
    "question-answering": {
        "impl": "question_answering_pipeline.ElmoQuestionAnsweringPipeline",
        "pt": ["AutoModelForQuestionAnswering"],
    },
}


def code_files() -> list[Path]:
    """The code of all models: `elmo_models.py` and what it imports, directly or not, flat in one folder."""
    entry = Path(__file__).with_name("elmo_models.py")
    return sorted({entry, *map(Path, get_relative_import_files(entry))})


def add_remote_code(config, folder: str | Path) -> None:
    """Copies the code of all models into a folder, and enters it in the configuration that is to be saved there.

    Args:
        config: Gets `auto_map` and `custom_pipelines`.
        folder: Is made if it is missing.
    """
    config.auto_map = dict(AUTO_MAP)
    config.custom_pipelines = copy.deepcopy(CUSTOM_PIPELINES)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for source in code_files():
        if source.resolve() != (folder / source.name).resolve():
            shutil.copyfile(source, folder / source.name)
