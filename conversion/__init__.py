"""Conversions between foreign ELMo formats and model folders, one file per format."""

from .bilm_hdf5 import convert_from_folder, convert_to_folder, load_bilm, save_bilm
from .errors import ConversionError

__all__ = ["ConversionError", "convert_from_folder", "convert_to_folder", "load_bilm", "save_bilm"]
