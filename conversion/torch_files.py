"""Reading files of `torch.save` that others made: tensors alone, and nothing in them is run."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .errors import ConversionError
from .files import InputFile
from .key_map import ArrayInfo


def read_tensors(file: InputFile) -> dict[str, Tensor]:
    """The content of a file that holds a state dict, of any version of torch, on the CPU.

    Entries that are no tensors are left in: `tensor_info` tells them.

    Raises:
        ConversionError: if it is another kind of file, damaged, or asks for anything but tensors to be made.
    """
    _check_archive(file)
    try:
        content = torch.load(file.path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # The library's own message goes on to tell how to run what is in there.
        if wanted := re.search(r"GLOBAL (\S+)|whitelist (\S+)|Trying to (?:load|instantiate) (\S+)", str(error)):
            name = next(filter(None, wanted.groups()))
            raise ConversionError(
                f"{file} holds more than tensors: it wants {name!a} to be called, which was not done. Do not trust this"
                " file."
            ) from None
        raise ConversionError(f"{file} is no whole file of torch.save.") from None
    # The library promises no kinds of errors for damaged files, and raises all.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConversionError(f"{file} is no whole file of torch.save ({reason[:200]}).") from None
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise ConversionError(f"{file} holds a {type(content).__name__}, expected a state dict: tensors by name.")
    return dict(content)


def tensor_info(value: object) -> ArrayInfo:
    """What there is to know about an entry of a state dict before its values are used."""
    if type(value) not in (Tensor, nn.Parameter):
        return ArrayInfo(None, "", f"a {type(value).__name__}, not a tensor")
    fault = None
    if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
        fault = "its values are not stored one by one"
    # One stored number may pretend to be any number of them.
    elif value.numel() * value.element_size() > value.untyped_storage().nbytes():
        fault = f"claims {value.numel():,} values, of which fewer are stored"
    return ArrayInfo(tuple(value.shape), str(value.dtype).removeprefix("torch."), fault)


def _check_archive(file: InputFile) -> None:
    """Raises for an archive whose content is packed: torch never packs it, and would unpack any amount of it."""
    if not file.path.stat().st_size:
        raise ConversionError(f"{file} is empty.")
    try:
        with zipfile.ZipFile(file.path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError):
        # Files of torch before 1.6 are none; the loader tells damaged ones.
        return
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise ConversionError(
                f"{file}: its part {member.filename!a} is packed ({member.file_size:,} bytes), which torch.save never "
                "does. Do not trust this file."
            )
