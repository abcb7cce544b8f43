"""ELMo for the Hugging Face ecosystem. Importing this package makes `Auto*` classes and pipelines know ELMo."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from .registration import register

if TYPE_CHECKING:
    from . import commands as commands
    from . import compat as compat
    from . import conversion as conversion
    from . import explore as explore
    from . import export as export
    from . import hub as hub
    from . import language_model as language_model
    from . import model as model
    from . import training as training
    from . import vectors as vectors
    from .language_model.fill_mask_pipeline import ElmoFillMaskPipeline
    from .language_model.generation import ForwardReader, generate, stream
    from .language_model.scoring import Perplexity, perplexity, score_sentences
    from .language_model.substitution import substitutes
    from .model.configuration_elmo import ElmoConfig
    from .model.fingerprint import forget_weights
    from .model.heads.question_answering_elmo import ElmoForQuestionAnswering
    from .model.heads.question_answering_pipeline import ElmoQuestionAnsweringPipeline
    from .model.heads.sequence_classification_elmo import ElmoForMultipleChoice, ElmoForSequenceClassification
    from .model.heads.token_classification_elmo import ElmoForTokenClassification
    from .model.lstm.lstm_layer import ElmoState
    from .model.modeling_elmo import ElmoForPreTraining, ElmoModel, ElmoPreTrainedModel
    from .model.quantization import quantize
    from .model.tokenization_elmo import ElmoTokenizer
    from .training.trainer import LanguageModelTrainer, LanguageModelTrainingArguments, train
    from .vectors.embedding import embed_sentences
    from .vectors.layer_store import precompute_layers
    from .vectors.word_cache import remember_words

__version__ = "0.1.0"

# Where the public names are. Each is imported when it is first asked for, as are the parts of transformers: all of them
# together take seconds, and nobody needs all.
_MODULES = {
    "ElmoConfig": "model.configuration_elmo",
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
    "ElmoTokenizer": "model.tokenization_elmo",
    "ForwardReader": "language_model.generation",
    "LanguageModelTrainer": "training.trainer",
    "LanguageModelTrainingArguments": "training.trainer",
    "Perplexity": "language_model.scoring",
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
}
# The rooms of the package: `hf_elmo.conversion` works after `import hf_elmo` alone.
_ROOMS = (
    "commands",
    "compat",
    "conversion",
    "explore",
    "export",
    "hub",
    "language_model",
    "model",
    "training",
    "vectors",
)

register()


def bundled(name: str = "elmo-mini") -> str:
    """The folder of a model that comes with the package, for `from_pretrained`.

    Args:
        name: The model's name.

    Raises:
        ValueError: if no such model is bundled.
    """
    folder = Path(__file__).parent / "pretrained" / name
    if not (folder / "config.json").is_file():
        names = sorted(entry.parent.name for entry in (Path(__file__).parent / "pretrained").glob("*/config.json"))
        raise ValueError(f"No model {name!r} comes with hf_elmo; there is: {', '.join(names) or 'none'}.")
    return str(folder)


def __getattr__(name: str):
    if name in _MODULES:
        value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    elif name in _ROOMS:
        value = import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})


__all__ = [
    "ElmoConfig",
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
    "ElmoTokenizer",
    "ForwardReader",
    "LanguageModelTrainer",
    "LanguageModelTrainingArguments",
    "Perplexity",
    "bundled",
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
]
