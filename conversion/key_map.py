"""Two-way maps between the arrays of a foreign format and the parameters of a model.

A format is a list of `Entry`: a foreign key, our parameters and a reversible change of layout. From that one list come
the reading, the writing, the shapes to expect, and the account of every key (`check_arrays`).
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..model.model_files import LARGEST_WEIGHT
from .errors import ConversionError

# A file of another kind may hold millions of keys; a message is to be read.
_MOST_LISTED = 50


class Transform(NamedTuple):
    """A reversible change of layout, in torch operations: on meta tensors it tells the shapes.

    Attributes:
        to_ours: The foreign array to our parameters.
        to_foreign: Our parameters to the foreign array; `to_foreign(*to_ours(array))` is `array`, bit for bit. Raises
            ValueError for values that the foreign array cannot hold. None: the format is only read.
    """

    to_ours: Callable[[Tensor], tuple[Tensor, ...]]
    to_foreign: Callable[..., Tensor] | None

    def written(self, *parameters: Tensor) -> Tensor:
        """The foreign array of our parameters."""
        assert self.to_foreign is not None, "a format that is only read is not written"
        return self.to_foreign(*parameters)


SAME = Transform(lambda array: (array,), lambda parameter: parameter)

#: Matrices that multiply from the right, ``(in, out)``, and ours, which multiply from the left, ``(out, in)``.
TRANSPOSED = Transform(lambda array: (array.T,), lambda parameter: parameter.T)


@dataclass(frozen=True)
class Entry:
    """One line of a key map. `{i}`, `{layer}` ... stand for the same number on both sides.

    Attributes:
        foreign: Key in the foreign format.
        ours: Name of our parameter, or names of several that the foreign array holds together.
        transform: How the one becomes the other.
    """

    foreign: str
    ours: str | tuple[str, ...]
    transform: Transform = SAME


class Link(NamedTuple):
    """An `Entry` with its numbers filled in.

    Attributes:
        foreign: Key in the foreign format.
        ours: Names of our parameters.
        shape: Shape of the foreign array.
        transform: How the one becomes the other.
    """

    foreign: str
    ours: tuple[str, ...]
    shape: tuple[int, ...]
    transform: Transform


def resolve(key_map: Iterable[Entry], parameters: Mapping[str, Tensor]) -> list[Link]:
    """Fills in a key map's numbers for the parameters of a model.

    Args:
        key_map: The format.
        parameters: Every parameter that the format is to hold, by name; only shapes are read (meta tensors will do).

    Raises:
        LookupError: if a parameter has no entry, or more than one: the map or the model is wrong, not a file.
    """
    links: list[Link] = []
    for entry in key_map:
        ours = (entry.ours,) if isinstance(entry.ours, str) else entry.ours
        pattern = _pattern(ours[0])
        for name in parameters:
            if found := pattern.fullmatch(name):
                names = tuple(template.format(**found.groupdict()) for template in ours)
                shape = tuple(entry.transform.written(*(parameters[each].to("meta") for each in names)).shape)
                links.append(Link(entry.foreign.format(**found.groupdict()), names, shape, entry.transform))
    covered = [name for link in links for name in link.ours]
    if sorted(covered) != sorted(parameters) or len({link.foreign for link in links}) < len(links):
        wrong = sorted(set(covered) ^ set(parameters)) or sorted(name for name in covered if covered.count(name) > 1)
        raise LookupError(f"The key map does not cover every parameter once: {', '.join(wrong)}.")
    return links


def _pattern(template: str) -> re.Pattern[str]:
    parts = string.Formatter().parse(template)
    return re.compile("".join(re.escape(text) + (rf"(?P<{field}>\d+)" if field else "") for text, field, _, _ in parts))


class ArrayInfo(NamedTuple):
    """What a foreign file says about an array before its values are read.

    Attributes:
        shape: Its shape; None for what is no array.
        dtype: Name of its dtype (numpy's).
        fault: Why it cannot be read, in words; None if it can.
    """

    shape: tuple[int, ...] | None
    dtype: str
    fault: str | None = None


def check_arrays(
    file: object, links: Iterable[Link], found: Mapping[str, ArrayInfo], dtype: str = "float32", hint: str = ""
) -> None:
    """Accounts for every key, shape and dtype of a foreign file.

    Args:
        file: The file, as messages are to name it.
        links: What is expected.
        found: What is there.
        dtype: Name of the expected dtype.
        hint: Sentence to end the message with.

    Raises:
        ConversionError: with sorted lists of all that is missing, surplus, unreadable, of another shape or dtype.
    """
    shapes = {link.foreign: link.shape for link in links}
    present = sorted(shapes.keys() & found.keys())
    readable = [key for key in present if found[key].fault is None]
    problems = {
        "missing": [show_key(key) for key in sorted(shapes.keys() - found.keys())],
        "surplus": [show_key(key) for key in sorted(found.keys() - shapes.keys())],
        "unreadable": [f"{show_key(key)} ({info.fault})" for key, info in sorted(found.items()) if info.fault],
        "of another shape": [
            f"{key} (is {found[key].shape}, expected {shapes[key]})"
            for key in readable
            if found[key].shape != shapes[key]
        ],
        f"not {dtype}": [f"{key} (is {found[key].dtype})" for key in readable if found[key].dtype != dtype],
    }
    raise_problems(f"{file} does not hold the arrays of the model that its options describe", problems, hint)


#: A kind of problem for `raise_problems`.
TOO_LARGE = f"above {LARGEST_WEIGHT:.0e}, with which nothing can be computed"


def raise_problems(summary: str, problems: Mapping[str, list[str]], hint: str = "") -> None:
    """Raises one ConversionError that lists all problems by kind, if there are any."""
    lines = [f"  {kind}: {_listed(keys)}" for kind, keys in problems.items() if keys]
    if lines:
        raise ConversionError("\n".join([f"{summary}:", *lines, *([hint] if hint else [])]))


def _listed(keys: list[str]) -> str:
    rest = len(keys) - _MOST_LISTED
    return ", ".join(keys[:_MOST_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def show_key(key: str) -> str:
    """A foreign key as it may be printed on any terminal."""
    return key if key.isprintable() and key else ascii(key)


def to_ours(link: Link, array: Tensor) -> dict[str, Tensor]:
    """Our parameters from a foreign array, with memory of their own where the layout differs."""
    return {name: part.contiguous() for name, part in zip(link.ours, link.transform.to_ours(array), strict=True)}


def to_foreign(link: Link, parameters: Mapping[str, Tensor]) -> Tensor:
    """The foreign array from our parameters.

    Raises:
        ConversionError: for values that are not finite, not exact in float32, or that the format cannot hold.
    """
    parts = []
    for name in link.ours:
        part = parameters[name].detach().cpu()
        single = part.float()
        if not torch.isfinite(single).all():
            raise ConversionError(f"The parameter {name} holds values that are not finite: it cannot be written.")
        if not torch.equal(single.to(part.dtype), part):
            raise ConversionError(
                f"The parameter {name} is {part.dtype}, and its values are not exact in float32, which the format "
                "holds: call model.float() first if rounding is acceptable."
            )
        parts.append(single)
    try:
        return link.transform.written(*parts).contiguous()
    except ValueError as error:
        raise ConversionError(
            f"The parameter {', '.join(link.ours)} cannot be written as {link.foreign}: {error}"
        ) from None
