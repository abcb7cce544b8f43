"""ELMo for the Hugging Face ecosystem. Importing this package makes `Auto*` classes and pipelines know ELMo."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from .registration import register

if TYPE_CHECKING:
    from . import embedding as embedding
    from . import export as export
    from . import model_card as model_card
    from . import plot as plot
    from . import pretraining as pretraining
    from .bilstm import ElmoState
    from .configuration_elmo import ElmoConfig
    from .fill_mask_pipeline import ElmoFillMaskPipeline
    from .incremental import ForwardReader, generate, stream
    from .language_model import Perplexity, perplexity, score_sentences
    from .layer_store import precompute_layers
    from .modeling_elmo import ElmoForPreTraining, ElmoModel, ElmoPreTrainedModel
    from .quantization import quantize
    from .question_answering_elmo import ElmoForQuestionAnswering
    from .question_answering_pipeline import ElmoQuestionAnsweringPipeline
    from .sequence_classification_elmo import ElmoForMultipleChoice, ElmoForSequenceClassification
    from .substitution import substitutes
    from .token_classification_elmo import ElmoForTokenClassification
    from .tokenization_elmo import ElmoTokenizer
    from .word_cache import remember_words

__version__ = "0.1.0"

# Where the public names are. Each is imported when it is first asked for, as are the parts of transformers: all of them
# together take seconds, and nobody needs all.
_MODULES = {
    "ElmoConfig": "configuration_elmo",
    "ElmoFillMaskPipeline": "fill_mask_pipeline",
    "ElmoForMultipleChoice": "sequence_classification_elmo",
    "ElmoForPreTraining": "modeling_elmo",
    "ElmoForQuestionAnswering": "question_answering_elmo",
    "ElmoForSequenceClassification": "sequence_classification_elmo",
    "ElmoForTokenClassification": "token_classification_elmo",
    "ElmoModel": "modeling_elmo",
    "ElmoPreTrainedModel": "modeling_elmo",
    "ElmoQuestionAnsweringPipeline": "question_answering_pipeline",
    "ElmoState": "bilstm",
    "ElmoTokenizer": "tokenization_elmo",
    "ForwardReader": "incremental",
    "Perplexity": "language_model",
    "generate": "incremental",
    "perplexity": "language_model",
    "precompute_layers": "layer_store",
    "quantize": "quantization",
    "remember_words": "word_cache",
    "score_sentences": "language_model",
    "stream": "incremental",
    "substitutes": "substitution",
}
# What is used by the names of its modules. Some want an extra, so `from hf_elmo import *` leaves them alone.
_PUBLIC_MODULES = ("embedding", "export", "model_card", "plot", "pretraining")

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
    elif name in _MODULES.values() or name in _PUBLIC_MODULES:
        value = import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PUBLIC_MODULES})


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
    "Perplexity",
    "bundled",
    "export",
    "generate",
    "perplexity",
    "precompute_layers",
    "quantize",
    "remember_words",
    "score_sentences",
    "stream",
    "substitutes",
]
