"""Conversions between foreign ELMo formats and model folders, one file per format."""

from .bilm_hdf5 import convert_from_folder, convert_to_folder, load_bilm, save_bilm
from .errors import ConversionError
from .tf_checkpoint import convert_tf_checkpoint, is_tf_checkpoint, load_tf_checkpoint

__all__ = [
    "ConversionError",
    "convert_from_folder",
    "convert_tf_checkpoint",
    "convert_to_folder",
    "is_tf_checkpoint",
    "load_bilm",
    "load_tf_checkpoint",
    "save_bilm",
]
