"""All model classes in one place: what `auto_map` names, so that loading any of them brings the code of all."""

from .modeling_elmo import ElmoForPreTraining, ElmoModel, ElmoPreTrainedModel

__all__ = ["ElmoForPreTraining", "ElmoModel", "ElmoPreTrainedModel"]
