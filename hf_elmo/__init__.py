"""ELMo for the Hugging Face ecosystem. Importing this package makes `Auto*` classes and pipelines know ELMo."""

from functools import partial
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from . import commands, compat, explore, hub, integrations, language_model, model, training, vectors
from .registration import register
from .version import __version__ as __version__

if TYPE_CHECKING:
    from . import conversion as conversion
    from . import export as export
    from . import model_cards as model_cards
    from .hub.folders import bundled
    from .language_model.fill_mask_pipeline import ElmoFillMaskPipeline
    from .language_model.generation import ForwardReader, generate, stream
    from .language_model.scoring import Perplexity, perplexity, score_sentences
    from .language_model.substitution import substitutes
    from .model.configuration_elmo import ElmoConfig
    from .model.fingerprint import forget_weights
    from .model.heads.configuration_encoder_decoder_elmo import ElmoEncoderDecoderConfig
    from .model.heads.encoder_decoder_elmo import ElmoEncoderDecoderModel
    from .model.heads.question_answering_elmo import ElmoForQuestionAnswering
    from .model.heads.question_answering_pipeline import ElmoQuestionAnsweringPipeline
    from .model.heads.sequence_classification_elmo import ElmoForMultipleChoice, ElmoForSequenceClassification
    from .model.heads.text_to_text_pipeline import ElmoTextToTextPipeline
    from .model.heads.token_classification_elmo import ElmoForTokenClassification
    from .model.lstm.lstm_layer import ElmoState
    from .model.modeling_elmo import ElmoForPreTraining, ElmoModel, ElmoPreTrainedModel
    from .model.quantization import quantize
    from .model.tokenization_elmo import ElmoTokenizer
    from .model.tokenization_encoder_decoder_elmo import ElmoEncoderDecoderTokenizer
    from .training.target_tokenizer import train_target_tokenizer
    from .training.trainer import LanguageModelTrainer, LanguageModelTrainingArguments, train
    from .vectors.bulk.bulk_embedding import embed_corpus
    from .vectors.documents import embed_document
    from .vectors.embedder import Embedder
    from .vectors.embedding import embed_sentences
    from .vectors.layer_store import precompute_layers
    from .vectors.word_cache import remember_words

# Where the public names are. Each is imported when it is first asked for, as are the parts of transformers: all of them
# together take seconds, and nobody needs all.
_MODULES = {
    "ElmoConfig": "model.configuration_elmo",
    "ElmoEncoderDecoderConfig": "model.heads.configuration_encoder_decoder_elmo",
    "ElmoEncoderDecoderModel": "model.heads.encoder_decoder_elmo",
    "ElmoEncoderDecoderTokenizer": "model.tokenization_encoder_decoder_elmo",
    "ElmoFillMaskPipeline": "language_model.fill_mask_pipeline",
    "ElmoForMultipleChoice": "model.heads.sequence_classification_elmo",
    "ElmoForPreTraining": "model.modeling_elmo",
    "ElmoForQuestionAnswering": "model.heads.question_answering_elmo",
    "ElmoForSequenceClassification": "model.heads.sequence_classification_elmo",
    "ElmoForTokenClassification": "model.heads.token_classification_elmo",
    "ElmoModel": "model.modeling_elmo",
    "ElmoPreTrainedModel": "model.modeling_elmo",
    "ElmoQuestionAnsweringPipeline": "model.heads.question_answering_pipeline",
    "ElmoState": "model.lstm.lstm_layer",
    "ElmoTextToTextPipeline": "model.heads.text_to_text_pipeline",
    "ElmoTokenizer": "model.tokenization_elmo",
    "Embedder": "vectors.embedder",
    "ForwardReader": "language_model.generation",
    "LanguageModelTrainer": "training.trainer",
    "LanguageModelTrainingArguments": "training.trainer",
    "Perplexity": "language_model.scoring",
    "bundled": "hub.folders",
    "embed_corpus": "vectors.bulk.bulk_embedding",
    "embed_document": "vectors.documents",
    "embed_sentences": "vectors.embedding",
    "forget_weights": "model.fingerprint",
    "generate": "language_model.generation",
    "perplexity": "language_model.scoring",
    "precompute_layers": "vectors.layer_store",
    "quantize": "model.quantization",
    "remember_words": "vectors.word_cache",
    "score_sentences": "language_model.scoring",
    "stream": "language_model.generation",
    "substitutes": "language_model.substitution",
    "train": "training.trainer",
    "train_target_tokenizer": "training.target_tokenizer",
}
# Rooms whose own import takes no time, though that of their modules does; the others are imported when asked for.
_ROOMS = (commands, compat, explore, hub, integrations, language_model, model, training, vectors)
_LATER = ("conversion", "export", "model_cards")

register()


def _module_of(package: str, name: str) -> ModuleType:
    """The module of a room, imported now: after `import hf_elmo` there is `hf_elmo.vectors.embedding`."""
    module = f"{package}.{name}"
    if not name.startswith("__"):
        try:
            return import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
    raise AttributeError(f"module {package!r} has no attribute {name!r}")


for _room in _ROOMS:
    vars(_room)["__getattr__"] = partial(_module_of, _room.__name__)
del _room


def __getattr__(name: str) -> object:
    if name in _MODULES:
        value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    elif name in _LATER:
        value = import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_LATER})


__all__ = [
    "ElmoConfig",
    "ElmoEncoderDecoderConfig",
    "ElmoEncoderDecoderModel",
    "ElmoEncoderDecoderTokenizer",
    "ElmoFillMaskPipeline",
    "ElmoForMultipleChoice",
    "ElmoForPreTraining",
    "ElmoForQuestionAnswering",
    "ElmoForSequenceClassification",
    "ElmoForTokenClassification",
    "ElmoModel",
    "ElmoPreTrainedModel",
    "ElmoQuestionAnsweringPipeline",
    "ElmoState",
    "ElmoTextToTextPipeline",
    "ElmoTokenizer",
    "Embedder",
    "ForwardReader",
    "LanguageModelTrainer",
    "LanguageModelTrainingArguments",
    "Perplexity",
    "bundled",
    "embed_corpus",
    "embed_document",
    "embed_sentences",
    "forget_weights",
    "generate",
    "perplexity",
    "precompute_layers",
    "quantize",
    "remember_words",
    "score_sentences",
    "stream",
    "substitutes",
    "train",
    "train_target_tokenizer",
]
