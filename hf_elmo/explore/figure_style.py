"""What all figures share: Matplotlib's figure without pyplot, colours, and fonts for the scripts that words are in."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

try:
    from matplotlib import colormaps, font_manager
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.ft2font import FT2Font
except ImportError as error:
    raise ImportError(
        f'Figures need Matplotlib: install the extra, as in python -m pip install -e ".[plot]". ({error})'
    ) from error

if TYPE_CHECKING:
    from matplotlib.typing import ColorType

#: Okabe and Ito's colours, which people of any colour vision tell apart.
SENSE_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
#: One more or less than colours, so that senses beyond both have a pair of their own.
SENSE_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*")

_FONT = "DejaVu Sans"  # comes with Matplotlib


class NotebookFigure(Figure):
    """A figure that notebooks show as an image, also where pyplot, which teaches them to, was never imported."""

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        self.savefig(data, format="png", dpi=100, facecolor="white")
        return data.getvalue()


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure of this size in inches, which fits its parts to one another when it is drawn."""
    return NotebookFigure(figsize=size, layout="constrained")


def shades(count: int) -> list[tuple[float, float, float, float]]:
    """Colours from light to dark."""
    return [colormaps["YlGnBu"](0.12 + 0.75 * number / max(1, count - 1)) for number in range(count)]


def text_color(background: ColorType) -> str:
    """Black or white: what can be read on a colour."""
    red, green, blue = to_rgb(background)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def shorten(text: str, longest: int) -> str:
    """The text with its middle left out if it is long, and without what cannot be drawn."""
    # Lone surrogates cannot be encoded, controls (line feeds) would tear the line, and "$" would begin a formula.
    cleaned = "".join("�" if unicodedata.category(letter) in ("Cs", "Cc") else letter for letter in text)
    if len(cleaned) > longest:
        half = (longest - 1) // 2
        cleaned = f"{cleaned[: longest - 1 - half]}…{cleaned[-half:]}"
    return cleaned.replace("$", r"\$")


def choose_families(texts: Iterable[str]) -> list[str]:
    """Fonts for texts: the default one, and those of this machine that have the letters that it lacks.

    A letter that no font has is drawn as a box.
    """
    missing = {ord(letter) for text in texts for letter in text if not letter.isspace()} - _letters_of(_FONT)
    families = [_FONT]
    if missing:
        for name in _other_families():
            if found := missing & _letters_of(name):
                families.append(name)
                missing -= found
            if not missing:
                break
    return families


@cache
def _files() -> dict[str, str]:
    """The regular font of every family that has one."""
    plain = [font for font in font_manager.fontManager.ttflist if font.style == "normal" and font.weight == 400]
    return {font.name: font.fname for font in sorted(plain, key=lambda font: font.fname, reverse=True)}


@cache
def _other_families() -> Sequence[str]:
    # Names by the alphabet are the same on every machine with the same fonts. (The last resort has boxes for all.)
    return sorted(name for name in _files() if name != _FONT and not name.startswith("Last Resort"))


@cache
def _letters_of(family: str) -> frozenset[int]:
    return frozenset(FT2Font(_files()[family]).get_charmap())
