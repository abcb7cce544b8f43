"""All model classes in one place: what `auto_map` names, so that loading any of them brings the code of all."""

from .modeling_elmo import ElmoForPreTraining, ElmoModel, ElmoPreTrainedModel
from .sequence_classification_elmo import ElmoForMultipleChoice, ElmoForSequenceClassification

__all__ = [
    "ElmoForMultipleChoice",
    "ElmoForPreTraining",
    "ElmoForSequenceClassification",
    "ElmoModel",
    "ElmoPreTrainedModel",
]
