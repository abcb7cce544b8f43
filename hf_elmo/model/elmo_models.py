"""All model classes in one place: what `auto_map` names, so that loading any of them brings the code of all."""

from .heads.configuration_encoder_decoder_elmo import ElmoEncoderDecoderConfig
from .heads.encoder_decoder_elmo import ElmoEncoderDecoderModel
from .heads.question_answering_elmo import ElmoForQuestionAnswering
from .heads.question_answering_pipeline import ElmoQuestionAnsweringPipeline
from .heads.sequence_classification_elmo import ElmoForMultipleChoice, ElmoForSequenceClassification
from .heads.text_to_text_pipeline import ElmoTextToTextPipeline
from .heads.token_classification_elmo import ElmoForTokenClassification
from .modeling_elmo import ElmoForPreTraining, ElmoModel, ElmoPreTrainedModel

__all__ = [
    "ElmoEncoderDecoderConfig",
    "ElmoEncoderDecoderModel",
    "ElmoForMultipleChoice",
    "ElmoForPreTraining",
    "ElmoForQuestionAnswering",
    "ElmoForSequenceClassification",
    "ElmoForTokenClassification",
    "ElmoModel",
    "ElmoPreTrainedModel",
    "ElmoQuestionAnsweringPipeline",
    "ElmoTextToTextPipeline",
]
