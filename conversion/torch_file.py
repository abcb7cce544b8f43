"""Reading files of `torch.save` that others made: tensors alone, and nothing in them is run."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .errors import ConversionError
from .files import ZIP_DAMAGE, InputFile
from .foreign_files import describe_beginning, describe_class
from .key_map import ArrayInfo


def load_tensors(file: InputFile) -> dict[str, object]:
    """The content of a file that holds a state dict, of any version of torch, on the CPU.

    Returns:
        Everything in it by its key; what is no tensor is a fault in `tensor_info`.

    Raises:
        ConversionError: if it is another kind of file, damaged, or asks for anything but tensors to be made.
    """
    _check_zip(file)
    try:
        content = torch.load(file.path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # The library's own message goes on to tell how to run what is in there.
        if wanted := re.search(r"GLOBAL (\S+)|whitelist (\S+)|Trying to (?:load|instantiate) (\S+)", str(error)):
            name = next(filter(None, wanted.groups()))
            advice = describe_class(name) or "Do not trust it."
            raise ConversionError(
                f"{file} holds more than tensors: it wants to call {name!a}, which was not done. {advice}"
            ) from None
        raise ConversionError(f"{file} is not a whole file of torch.save. {_what_it_is(file)}".strip()) from None
    # The library promises no kinds of errors for damaged files, and raises all.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        message = f"{file} is not a whole file of torch.save ({reason[:200]}). {_what_it_is(file)}"
        raise ConversionError(message.strip()) from None
    if not isinstance(content, Mapping):
        raise ConversionError(f"{file} must hold a state dict, tensors by name, but holds a {type(content).__name__}.")
    return {key if isinstance(key, str) else repr(key): value for key, value in content.items()}


def _what_it_is(file: InputFile) -> str:
    with file.path.open("rb") as stream:
        begin = stream.read(64)
    # A pickle or a zip is what such a file is to be.
    return "" if begin.startswith((b"\x80", b"PK")) else describe_beginning(begin)


def tensor_info(value: object) -> ArrayInfo:
    """What there is to know about an entry of a state dict before its values are used."""
    if not isinstance(value, Tensor) or type(value) not in (Tensor, nn.Parameter):
        return ArrayInfo(None, "", f"a {type(value).__name__}, not a tensor")
    fault = None
    if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
        fault = "its values are not stored one by one"
    # One stored number may pretend to be any number of them.
    elif value.numel() * value.element_size() > value.untyped_storage().nbytes():
        fault = f"claims {value.numel():,} values, of which fewer are stored"
    return ArrayInfo(tuple(value.shape), str(value.dtype).removeprefix("torch."), fault)


def sound_tensor(value: object) -> Tensor:
    """An entry of a state dict that `tensor_info` found sound, without gradient."""
    assert isinstance(value, Tensor), "tensor_info refuses anything else"
    return value.detach()


def _check_zip(file: InputFile) -> None:
    """Raises for an archive whose content is packed: torch never packs it, and would unpack any amount of it."""
    if not file.path.stat().st_size:
        raise ConversionError(f"{file} is empty.")
    try:
        with zipfile.ZipFile(file.path) as archive:
            members = archive.infolist()
    except ZIP_DAMAGE:
        # Files of torch before 1.6 are none; the loader tells damaged ones.
        return
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise ConversionError(
                f"{file}: its part {member.filename!a} is packed ({member.file_size:,} bytes), which torch.save never "
                "does. Do not trust it."
            )
