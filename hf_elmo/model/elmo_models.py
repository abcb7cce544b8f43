"""All model classes in one place: what `auto_map` names, so that loading any of them brings the code of all."""

from .heads.question_answering_elmo import ElmoForQuestionAnswering
from .heads.question_answering_pipeline import ElmoQuestionAnsweringPipeline
from .heads.sequence_classification_elmo import ElmoForMultipleChoice, ElmoForSequenceClassification
from .heads.token_classification_elmo import ElmoForTokenClassification
from .modeling_elmo import ElmoForPreTraining, ElmoModel, ElmoPreTrainedModel

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
