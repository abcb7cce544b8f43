"""All model classes in one place: what `auto_map` names, so that loading any of them brings the code of all."""

from .modeling_elmo import ElmoForPreTraining, ElmoModel, ElmoPreTrainedModel
from .question_answering_elmo import ElmoForQuestionAnswering
from .question_answering_pipeline import ElmoQuestionAnsweringPipeline
from .sequence_classification_elmo import ElmoForMultipleChoice, ElmoForSequenceClassification
from .token_classification_elmo import ElmoForTokenClassification

__all__ = [
    "ElmoForMultipleChoice",
    "ElmoForPreTraining",
    "ElmoForQuestionAnswering",
    "ElmoForSequenceClassification",
    "ElmoForTokenClassification",
    "ElmoModel",
    "ElmoPreTrainedModel",
    "ElmoQuestionAnsweringPipeline",
]
