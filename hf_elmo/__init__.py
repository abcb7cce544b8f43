"""ELMo for the Hugging Face ecosystem. Importing this package makes `Auto*` classes and pipelines know ELMo."""

from pathlib import Path

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMultipleChoice,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from .bilstm import ElmoState
from .configuration_elmo import ElmoConfig
from .modeling_elmo import ElmoForPreTraining, ElmoModel, ElmoPreTrainedModel
from .sequence_classification_elmo import ElmoForMultipleChoice, ElmoForSequenceClassification
from .tokenization_elmo import ElmoTokenizer

__version__ = "0.1.0"

AutoConfig.register("elmo", ElmoConfig)
AutoTokenizer.register(ElmoConfig, tokenizer_class=ElmoTokenizer)
AutoModel.register(ElmoConfig, ElmoModel)
AutoModelForMultipleChoice.register(ElmoConfig, ElmoForMultipleChoice)
AutoModelForPreTraining.register(ElmoConfig, ElmoForPreTraining)
AutoModelForSequenceClassification.register(ElmoConfig, ElmoForSequenceClassification)


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


__all__ = [
    "ElmoConfig",
    "ElmoForMultipleChoice",
    "ElmoForPreTraining",
    "ElmoForSequenceClassification",
    "ElmoModel",
    "ElmoPreTrainedModel",
    "ElmoState",
    "ElmoTokenizer",
    "bundled",
]
