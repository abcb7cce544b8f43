"""The one error of all conversions."""


class ConversionError(ValueError):
    """A foreign file that cannot be read as what it should be, or a model that cannot be written in a foreign format.

    The message names the file and, where there is one, the key in it; says what was found and what was expected.
    """
