"""A part of a foreign configuration of which every key is to be accounted for."""

from __future__ import annotations

from typing import Any

from .errors import ConversionError

_REQUIRED = object()
_MOST_VALUES = 1000
_KINDS = {bool: "true or false", int: "a whole number", str: "a text", dict: "a JSON object", list: "a list"}


class Section:
    """A JSON object, from which keys are taken until none is left.

    Args:
        file: The file, as messages are to name it.
        path: Where in the file the object stands.
        content: The object.

    Raises:
        ConversionError: if it is no object.
    """

    def __init__(self, file: object, path: str, content: Any):
        if not isinstance(content, dict):
            raise ConversionError(f"{file}: {path} must be a JSON object, was: {content!r:.80}.")
        self.file, self.path = file, path
        self._rest = dict(content)

    def take(self, key: str, kind: type, default: Any = _REQUIRED) -> Any:
        """The value of a key, which is then accounted for. null is the same as no key.

        Raises:
            ConversionError: if it is missing without a default, or of another kind.
        """
        value = self._rest.pop(key, None)
        if value is None:
            if default is _REQUIRED:
                raise ConversionError(f"{self.file}: the key {self.path}.{key} is missing.")
            return default
        numbers = (int, float) if kind is float else (kind,)
        if not isinstance(value, numbers) or (isinstance(value, bool) and kind is not bool):
            expected = _KINDS.get(kind, "a number")
            raise ConversionError(f"{self.file}: {self.path}.{key} must be {expected}, was: {value!r:.80}.")
        return value

    def take_each(self, key: str, count: int) -> list[Any]:
        """A list of so many values, or one value that stands for all of them, as AllenNLP writes either.

        Raises:
            ConversionError: if it is a list of another length, or missing.
        """
        if count > _MOST_VALUES:
            raise ConversionError(
                f"{self.file}: {self.path} asks for {count:,} values of {key}, at most {_MOST_VALUES:,}."
            )
        value = self._rest.pop(key, None)
        values = value if isinstance(value, list) else [value] * count
        if value is None or len(values) != count:
            raise ConversionError(f"{self.file}: {self.path}.{key} must be {count} values, or one, was: {value!r:.80}.")
        return values

    def take_rest(self) -> dict[str, Any]:
        """All keys that are left, which are then accounted for."""
        rest, self._rest = self._rest, {}
        return rest

    def section(self, key: str, default: Any = _REQUIRED) -> Section:
        """A key whose value is an object."""
        return Section(self.file, f"{self.path}.{key}", self.take(key, dict, default))

    def ignore(self, *keys: str) -> None:
        """Accounts for keys that make no difference to what a trained model computes."""
        for key in keys:
            self._rest.pop(key, None)

    def expect(self, key: str, default: Any, *allowed: Any) -> None:
        """Accounts for a key of which only the default, or what else is allowed, can be converted.

        Raises:
            ConversionError: for any other value, with what is supported.
        """
        value = self._rest.pop(key, None)
        if value is None:
            value = default
        if value not in (default, *allowed):
            supported = " or ".join(dict.fromkeys(repr(entry) for entry in (default, *allowed)))
            raise ConversionError(
                f"{self.file}: {self.path}.{key} is {value!r:.80}, of which there is nothing here that computes the "
                f"same; supported is {supported}."
            )

    def close(self) -> None:
        """Raises a ConversionError if keys are left that nobody asked for."""
        if self._rest:
            raise ConversionError(
                f"{self.file}: {self.path} has options that are not known here, and may change what the model "
                f"computes: {', '.join(sorted(self._rest))}."
            )
