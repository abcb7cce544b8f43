"""Conversions between foreign ELMo formats and model folders, one file per format."""

from .allennlp_archive import is_allennlp_archive, load_allennlp_elmo
from .allennlp_tagger import convert_allennlp_archive, load_allennlp_tagger
from .bilm_hdf5 import convert_from_folder, convert_to_folder, load_bilm, save_bilm
from .elmoformanylangs import convert_elmoformanylangs, is_elmoformanylangs, load_elmoformanylangs
from .errors import ConversionError
from .tf_checkpoint import convert_tf_checkpoint, is_tf_checkpoint, load_tf_checkpoint
from .tf_writing import convert_to_tf_checkpoint, save_tf_checkpoint
from .tfhub_module import convert_tfhub_module, is_tfhub_module, load_tfhub_module
from .token_embeddings import load_word_cache, read_token_embeddings, write_token_embeddings
from .torch_state_dict import convert_state_dict, is_state_dict, load_state_dict_elmo

__all__ = [
    "ConversionError",
    "convert_allennlp_archive",
    "convert_elmoformanylangs",
    "convert_from_folder",
    "convert_state_dict",
    "convert_tf_checkpoint",
    "convert_tfhub_module",
    "convert_to_folder",
    "convert_to_tf_checkpoint",
    "is_allennlp_archive",
    "is_elmoformanylangs",
    "is_state_dict",
    "is_tf_checkpoint",
    "is_tfhub_module",
    "load_allennlp_elmo",
    "load_allennlp_tagger",
    "load_bilm",
    "load_elmoformanylangs",
    "load_state_dict_elmo",
    "load_tf_checkpoint",
    "load_tfhub_module",
    "load_word_cache",
    "read_token_embeddings",
    "save_bilm",
    "save_tf_checkpoint",
    "write_token_embeddings",
]
