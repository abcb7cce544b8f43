"""Makes the Auto classes and pipelines of transformers know ELMo, without importing either before they are wanted.

transformers imports its parts when they are first used, since they take seconds. So does hf_elmo: a part of
transformers that is not there yet is told of ELMo as soon as it has been imported, and models are imported when a
mapping of the Auto classes is first looked into.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, ItemsView, Iterator, KeysView, Sequence, ValuesView
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model.heads import encoder_decoder_elmo as encoder_decoder_elmo
    from .model.heads import question_answering_elmo as question_answering_elmo
    from .model.heads import sequence_classification_elmo as sequence_classification_elmo
    from .model.heads import token_classification_elmo as token_classification_elmo

#: The Auto classes of models, and our module and class for each.
MODELS = {
    "AutoModel": ("model.modeling_elmo", "ElmoModel"),
    "AutoModelForMultipleChoice": ("model.heads.sequence_classification_elmo", "ElmoForMultipleChoice"),
    "AutoModelForPreTraining": ("model.modeling_elmo", "ElmoForPreTraining"),
    "AutoModelForQuestionAnswering": ("model.heads.question_answering_elmo", "ElmoForQuestionAnswering"),
    "AutoModelForSeq2SeqLM": ("model.heads.encoder_decoder_elmo", "ElmoEncoderDecoderModel"),
    "AutoModelForSequenceClassification": ("model.heads.sequence_classification_elmo", "ElmoForSequenceClassification"),
    "AutoModelForTokenClassification": ("model.heads.token_classification_elmo", "ElmoForTokenClassification"),
}

# Where the configurations, and the tokenizers, of sources and targets are one. Both modules import the part of
# transformers that is to know them.
_TWO_CONFIGURATIONS = f"{__package__}.model.heads.configuration_encoder_decoder_elmo"
_TWO_TOKENIZERS = f"{__package__}.model.tokenization_encoder_decoder_elmo"

# Where our pipelines are.
_PIPELINES = (
    "model.heads.question_answering_pipeline",
    "model.heads.text_to_text_pipeline",
    "language_model.fill_mask_pipeline",
)

# Modules that are there, though Python has not quite done with their import.
_EXECUTED: set[str] = set()


def register() -> None:
    """Makes transformers know ELMo: at once where it has been imported, else when it is."""
    finder = _AfterImport()
    actions = {
        "transformers.models.auto.configuration_auto": _register_configuration,
        "transformers.models.auto.tokenization_auto": _register_tokenizer,
        "transformers.models.auto.modeling_auto": _register_models,
        "transformers.pipelines": _register_pipelines,
        f"{__package__}.model.tokenization_elmo": _name_auto_tokenizer,
        _TWO_CONFIGURATIONS: _register_two_configurations,
        _TWO_TOKENIZERS: _register_two_tokenizers,
        f"{__package__}.model.remote_code": _fill_cards,
        # They import transformers.pipelines, which is told of them when they are there.
        **{f"{__package__}.{module}": _register_pipelines for module in _PIPELINES},
    }
    for name, action in actions.items():
        if _is_imported(name):
            action()
        else:
            finder.actions[name] = action
    if finder.actions:
        sys.meta_path.insert(0, finder)


def _is_imported(name: str) -> bool:
    """Whether a module is there, and not just being imported."""
    module = sys.modules.get(name)
    return module is not None and (name in _EXECUTED or not getattr(module.__spec__, "_initializing", False))


def _import_unless_under_way(name: str) -> None:
    """Imports a module that registers itself; one that is just being imported does so when it is there."""
    if name not in sys.modules or _is_imported(name):
        import_module(name)


class _AfterImport:
    """Runs an action after a module has been imported, which Python's own finder finds."""

    def __init__(self) -> None:
        self.actions: dict[str, Callable[[], None]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        action = self.actions.get(name)
        if action is None:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            self.actions.pop(name, None)
            _EXECUTED.add(name)
            action()

        # A loader is of one module. It stays of its class, so that it still gives sources to those who ask for them.
        vars(spec.loader)["exec_module"] = exec_module
        return spec


def _register_configuration() -> None:
    from transformers.models.auto.configuration_auto import AutoConfig

    from .model.configuration_elmo import ElmoConfig

    AutoConfig.register("elmo", ElmoConfig)
    _import_unless_under_way(_TWO_CONFIGURATIONS)


def _register_two_configurations() -> None:
    from transformers.models.auto.configuration_auto import AutoConfig

    from .model.heads.configuration_encoder_decoder_elmo import ElmoEncoderDecoderConfig

    AutoConfig.register(ElmoEncoderDecoderConfig.model_type, ElmoEncoderDecoderConfig)


def _register_tokenizer() -> None:
    from transformers.models.auto.tokenization_auto import AutoTokenizer

    from .model.configuration_elmo import ElmoConfig
    from .model.tokenization_elmo import ElmoTokenizer

    AutoTokenizer.register(ElmoConfig, tokenizer_class=ElmoTokenizer)
    _import_unless_under_way(_TWO_TOKENIZERS)


def _name_auto_tokenizer() -> None:
    from .model.tokenization_elmo import ElmoTokenizer

    # Folders that it is saved to then hold its code, for trust_remote_code=True.
    ElmoTokenizer.register_for_auto_class()


def _register_two_tokenizers() -> None:
    from transformers.models.auto.tokenization_auto import AutoTokenizer

    from .model.heads.configuration_encoder_decoder_elmo import ElmoEncoderDecoderConfig
    from .model.tokenization_encoder_decoder_elmo import ElmoEncoderDecoderTokenizer

    ElmoEncoderDecoderTokenizer.register_for_auto_class()
    AutoTokenizer.register(ElmoEncoderDecoderConfig, tokenizer_class=ElmoEncoderDecoderTokenizer)


def _fill_cards() -> None:
    from .model.remote_code import SavedElmo

    def fill_card(working_dir: str, repo_id: str, source: str) -> None:
        from .hub.model_card import fill_generated_card

        fill_generated_card(working_dir, repo_id, source)

    SavedElmo.fill_card = staticmethod(fill_card)


def _register_models() -> None:
    from transformers.models.auto import modeling_auto

    for auto_name, place in MODELS.items():
        auto = getattr(modeling_auto, auto_name)
        content = getattr(auto._model_mapping, "_extra_content", None)
        if type(content) is dict:
            # Our models need modeling_auto themselves, by way of the library: not now.
            auto._model_mapping._extra_content = _Content(content, auto, *place)
        else:
            _register_model(auto, *place)


def _register_model(auto: Any, module: str, name: str) -> None:
    model_class = getattr(import_module(f".{module}", __package__), name)
    auto.register(model_class.config_class, model_class, exist_ok=True)


class _Content(dict[Any, Any]):
    """What has been registered with an Auto class; our model is put there before the first look."""

    def __init__(self, content: dict[Any, Any], *waiting: Any):
        super().__init__(content)
        self._waiting: tuple[Any, ...] | None = waiting

    def _fill(self) -> None:
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            _register_model(*waiting)

    def __contains__(self, key: object) -> bool:
        self._fill()
        return super().__contains__(key)

    def __getitem__(self, key: Any) -> Any:
        self._fill()
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[Any]:
        self._fill()
        return super().__iter__()

    def __len__(self) -> int:
        self._fill()
        return super().__len__()

    def get(self, key: Any, default: Any = None) -> Any:
        self._fill()
        return super().get(key, default)

    # The kinds of views that dict gives have no public names.
    def keys(self) -> KeysView[Any]:  # type: ignore[override]
        self._fill()
        return super().keys()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        self._fill()
        return super().values()

    def items(self) -> ItemsView[Any, Any]:  # type: ignore[override]
        self._fill()
        return super().items()


def _register_pipelines() -> None:
    ours = [f"{__package__}.{module}" for module in _PIPELINES]
    if not _is_imported("transformers.pipelines") or any(
        name in sys.modules and not _is_imported(name) for name in ours
    ):
        # What is being imported comes here when it is there.
        return
    from transformers.models.auto.modeling_auto import (
        AutoModelForPreTraining,
        AutoModelForQuestionAnswering,
        AutoModelForSeq2SeqLM,
    )
    from transformers.pipelines import PIPELINE_REGISTRY

    from .language_model.fill_mask_pipeline import ElmoFillMaskPipeline
    from .model.heads.question_answering_pipeline import ElmoQuestionAnsweringPipeline
    from .model.heads.text_to_text_pipeline import ElmoTextToTextPipeline

    # Asked after these imports, which come here themselves when they are done.
    if "elmo-fill-mask" in PIPELINE_REGISTRY.supported_tasks:
        return
    # "question-answering" itself is refused by the library, which keeps it among the tasks that it has removed.
    PIPELINE_REGISTRY.register_pipeline(
        "elmo-question-answering",
        pipeline_class=ElmoQuestionAnsweringPipeline,
        pt_model=AutoModelForQuestionAnswering,
        type="text",
    )
    # The library's own "fill-mask" asks for a mask token, and for a model that predicts from one.
    PIPELINE_REGISTRY.register_pipeline(
        "elmo-fill-mask", pipeline_class=ElmoFillMaskPipeline, pt_model=AutoModelForPreTraining, type="text"
    )
    for task in ("elmo-translation", "elmo-summarization"):
        PIPELINE_REGISTRY.register_pipeline(
            task, pipeline_class=ElmoTextToTextPipeline, pt_model=AutoModelForSeq2SeqLM, type="text"
        )
