"""Files that people take for an ELMo, and that are not read: what each is, and what to do, in one sentence."""

from __future__ import annotations

from collections.abc import Iterable

_BEGINNINGS = (
    (
        b"version https://git-lfs",
        "It is a pointer of Git LFS, which stands for the file: fetch the file itself with git lfs pull, or from the "
        "page of its repository.",
    ),
    (
        b"\x12\x01\0\0\0\0\0\0",
        "It is a file of MXNet's parameters, as GluonNLP has them, which are not read: GluonNLP's ELMos were made from "
        "AllenNLP's published ones, so take those (conversion/SOURCES.md).",
    ),
    (b"<", "It is a web page or XML, as a download leaves that was refused: download the file again."),
    (b'{"', "It is JSON, perhaps the options of the model: give the file of its weights."),
    (
        b"\x80",
        "It is a pickle, which may run anything, and is not read: save tensors alone where you trust it, with "
        "torch.save(model.state_dict(), file).",
    ),
    (b"PK", "It is a zip archive, in which there are no weights of an ELMo."),
)

# Programs whose saved models are pickles of their own classes, with an ELMo inside or without.
_PROGRAMS = {
    "flair": (
        "It is a model of Flair, which saves its own classes: Flair's ELMos are AllenNLP's published ones, so take "
        "those (conversion/SOURCES.md)."
    ),
    "allennlp": "It is a whole object of AllenNLP: save its state_dict() there, which is read here.",
    "elmoformanylangs": "It is a whole object of ELMoForManyLangs: give the folder of the model.",
}


def describe_beginning(begin: bytes) -> str:
    """What a file that begins so is, and what to do; the empty text if that is not known."""
    return next(
        (sentence for start, sentence in _BEGINNINGS if begin.lstrip(b"\xef\xbb\xbf \r\n").startswith(start)), ""
    )


def describe_class(name: str) -> str:
    """What a pickle is that asks for a class of that name; the empty text if that is not known."""
    return _PROGRAMS.get(name.strip("'\"").split(".")[0], "")


def describe_dtypes(dtypes: Iterable[str]) -> str:
    """What to do about weights of other dtypes than float32; the empty text if there is nothing to say."""
    others = {dtype for dtype in dtypes if dtype in ("float16", "bfloat16", "float64")}
    if not others:
        return ""
    return (
        f"The weights of all published ELMos are float32, so somebody made these {' and '.join(sorted(others))}: take "
        "the original file, or write a copy in float32 (in h5py, dataset[()].astype('float32')), which does not bring "
        "back what was rounded."
    )
