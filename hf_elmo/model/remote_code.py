"""Saved folders: how models are loaded, saved and pushed, and the code by which `trust_remote_code=True` reads them."""

from __future__ import annotations

import ast
import copy
import functools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast, overload

from transformers import PreTrainedConfig, PreTrainedModel

from .lstm.bilstm import BiLstm
from .lstm.lstm_layer import is_quantized
from .model_files import check_local_weights, check_numbers

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


# Every checkpoint of a training has the code, and it is that of the classes in use even if the package is replaced.
@functools.cache
def code(*more: str) -> Mapping[str, str]:
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
    return MappingProxyType(dict(sorted(files.items())))


def flattened(text: str) -> str:
    """The text of a module with its relative imports rewritten for one flat folder."""
    return _RELATIVE_IMPORT.sub(r"\1from .\2 import", text)


def imported_files(source: Path) -> list[Path]:
    """The files that a module imports by relative imports, wherever in the module they stand."""
    nodes = ast.walk(ast.parse(source.read_text(encoding="utf-8")))
    return [
        source.parents[node.level - 1].joinpath(*(node.module or "").split(".")).with_suffix(".py")
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.level
    ]


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


class SavedElmo(PreTrainedModel):
    """A `PreTrainedModel` whose folders are checked, and hold the code of all ELMo models; to be a class's first base.

    A subclass says where its LSTMs are (`_bilstm`), and what is to be done with a loaded model (`_after_loading`).
    """

    if TYPE_CHECKING:
        # The library hides the signature of torch.nn.Module's method.
        def to(self, *args: Any, **kwargs: Any) -> Self: ...  # type: ignore[override]

    # Called with the folder, the repository and the model's name before a push: where hf_elmo is installed, its
    # registration puts a function here that fills in the model card.
    fill_card: ClassVar[Callable[[str, str, str], None] | None] = None

    @property
    def _bilstm(self) -> BiLstm:
        raise NotImplementedError

    def _after_loading(self, source: str | os.PathLike | None, report: dict[str, Any]) -> None:
        """Checks what was loaded, and freezes what is not trained.

        Args:
            source: The folder or the name.
            report: What `output_loading_info` returns.
        """
        raise NotImplementedError

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *args: Any,
        output_loading_info: Literal[True],
        **kwargs: Any,
    ) -> tuple[Self, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *args: Any,
        output_loading_info: Literal[False] = False,
        **kwargs: Any,
    ) -> Self: ...

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *args: Any,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Self | tuple[Self, dict[str, Any]]:
        """As in `transformers.PreTrainedModel`; parameters that are not to be trained stay frozen.

        Raises:
            ValueError: for a folder with the configuration or the weights of another model or task, or with a part of
                the weights alone; for one whose weights lie elsewhere, in what is not a regular file, or are not
                floating-point numbers; and for weights with which nothing can be computed.
        """
        if pretrained_model_name_or_path is not None and kwargs.get("state_dict") is None:
            check_local_weights(pretrained_model_name_or_path, kwargs.get("subfolder") or "", kwargs.get("variant"))
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        # The library's annotation leaves out the pair that output_loading_info asks for.
        model, report = cast("tuple[Self, dict[str, Any]]", loaded)
        check_numbers(model, pretrained_model_name_or_path)
        # Loading makes new parameters, all of which require gradients.
        model._after_loading(pretrained_model_name_or_path, report)
        return (model, report) if output_loading_info else model

    def save_pretrained(
        self, save_directory: str | os.PathLike, is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """As in `transformers.PreTrainedModel`; the folder also gets the code of all ELMo models."""
        if any(map(is_quantized, self._bilstm.forward_layers)):
            raise ValueError("A quantised model has no weights to save: save the model that it was made of.")
        if is_main_process and not os.path.isfile(save_directory):
            add_remote_code(self.config, save_directory, [each.__name__ for each in type(self).__mro__])
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)

    def _upload_modified_files(self, working_dir: str | os.PathLike, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        """As in the library, which uploads through this; a card that the library left to be filled in is filled in."""
        fill_card = type(self).fill_card
        if fill_card is not None:
            fill_card(os.fspath(working_dir), repo_id, self.name_or_path or "")
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: str | type = "AutoModel") -> None:
        """As in `transformers.PreTrainedModel`; without effect on the models of this package."""
        # The library calls this on loading remote code. The library would then save the one file of this class, and the
        # next model loaded from there could not save the others any more.
        if not cls.__module__.startswith(__name__.rpartition(".")[0] + "."):
            super().register_for_auto_class(auto_class)
