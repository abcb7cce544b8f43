"""ELMo for the Hugging Face ecosystem. Importing this package makes `Auto*` classes and pipelines know ELMo."""

from pathlib import Path
from typing import TYPE_CHECKING

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMultipleChoice,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .bilstm import ElmoState
from .configuration_elmo import ElmoConfig
from .fill_mask_pipeline import ElmoFillMaskPipeline
from .incremental import ForwardReader, generate, stream
from .language_model import Perplexity, perplexity, score_sentences
from .modeling_elmo import ElmoForPreTraining, ElmoModel, ElmoPreTrainedModel
from .question_answering_elmo import ElmoForQuestionAnswering
from .question_answering_pipeline import ElmoQuestionAnsweringPipeline
from .sequence_classification_elmo import ElmoForMultipleChoice, ElmoForSequenceClassification
from .substitution import substitutes
from .token_classification_elmo import ElmoForTokenClassification
from .tokenization_elmo import ElmoTokenizer

if TYPE_CHECKING:
    from . import export
    from .layer_store import precompute_layers

__version__ = "0.1.0"

AutoConfig.register("elmo", ElmoConfig)
AutoTokenizer.register(ElmoConfig, tokenizer_class=ElmoTokenizer)
# Folders that it is saved to then hold its code, for trust_remote_code=True.
ElmoTokenizer.register_for_auto_class()
AutoModel.register(ElmoConfig, ElmoModel)
AutoModelForMultipleChoice.register(ElmoConfig, ElmoForMultipleChoice)
AutoModelForPreTraining.register(ElmoConfig, ElmoForPreTraining)
AutoModelForQuestionAnswering.register(ElmoConfig, ElmoForQuestionAnswering)
AutoModelForSequenceClassification.register(ElmoConfig, ElmoForSequenceClassification)
AutoModelForTokenClassification.register(ElmoConfig, ElmoForTokenClassification)
# The name "question-answering" itself is refused by the library, which keeps it among the tasks that it has removed.
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
    # The library of datasets takes a second to import, which most users of a model have no need to wait for.
    if name == "precompute_layers":
        from .layer_store import precompute_layers

        return precompute_layers
    if name == "export":
        from importlib import import_module

        return import_module(".export", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
    "score_sentences",
    "stream",
    "substitutes",
]
