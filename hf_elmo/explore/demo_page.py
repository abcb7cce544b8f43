"""What the demo shows, written in HTML: everything that a visitor typed is escaped, and every colour has its number."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence

from .explorer import Exploration, Neighbour

#: For `launch`: cards that stand side by side where there is room, and wide tables that scroll within theirs.
CSS = """
.gradio-container { max-width: 1240px !important; }
#compare { background: #b3460b; border-color: #b3460b; color: #fff; }
#compare:hover { background: #8f3808; border-color: #8f3808; }
.elmo { font-size: 1rem; }
#result, #result > div { padding: 0; }
.elmo h2 { font-size: 1.2rem; font-weight: 600; margin: 1.4rem 0 .3rem; color: var(--body-text-color); }
.elmo h3 { font-size: .95rem; font-weight: 600; margin: 0 0 .4rem; color: var(--body-text-color); }
.elmo p { margin: .2rem 0 .7rem; color: var(--body-text-color); max-width: 75ch; line-height: 1.45; }
.elmo .cards { display: flex; flex-wrap: wrap; gap: .7rem; }
.elmo .card { flex: 1 1 16rem; box-sizing: border-box; min-width: 0; max-width: 100%; overflow-x: auto;
  padding: .7rem; border: 1px solid var(--border-color-primary); border-radius: .5rem;
  background: var(--block-background-fill); color: var(--body-text-color); }
.elmo .card.fit { flex: 0 1 auto; }
.elmo .card:focus-visible { outline: 3px solid var(--color-accent); }
.elmo table { border-collapse: collapse; font-size: .85rem; color: var(--body-text-color); margin: 0; }
.elmo td, .elmo th { border: 0; }
.elmo th { font-weight: 400; text-align: left; }
.elmo .wide { width: 100%; }
.elmo .wide td, .elmo .wide th { padding: .2rem .35rem; vertical-align: top; overflow-wrap: anywhere; }
.elmo .wide tr + tr > * { border-top: 1px solid var(--border-color-primary); }
.elmo .number { text-align: right; font-variant-numeric: tabular-nums; width: 3rem; white-space: nowrap; }
.elmo .name { width: 9rem; }
@media (max-width: 480px) { .elmo .name { width: 6.5rem; } }
.elmo .track { display: block; height: .9rem; margin-top: .15rem; border-radius: .2rem;
  background: var(--border-color-primary); }
.elmo .bar { display: block; height: 100%; border-radius: .2rem; background: #1d5fa0; }
.elmo .map th { padding: 0 .3rem 0 0; text-align: right; white-space: nowrap; }
.elmo .map thead th { padding: 0 0 .3rem; vertical-align: bottom; text-align: left; }
.elmo .map thead span { writing-mode: vertical-rl; transform: rotate(180deg); }
.elmo .map td { width: 1.65rem; min-width: 1.65rem; height: 1.6rem; padding: 0; text-align: center;
  font-size: .68rem; font-variant-numeric: tabular-nums; border: 1px solid var(--block-background-fill); }
.elmo .map td.picked { outline: 3px solid #d55e00; outline-offset: -2px; }
.elmo .map th.picked { font-weight: 700; }
.elmo .context { opacity: .85; font-size: .8rem; }
.elmo mark { background: #ffe08a; color: #1a1a1a; padding: 0 .15rem; border-radius: .15rem; }
.elmo .tagged { line-height: 2.4; overflow-wrap: anywhere; }
.elmo .tagged span { display: inline-block; margin-right: .35rem; text-align: center; line-height: 1.1; }
.elmo .tagged .entity { border-bottom: 3px solid #d55e00; }
.elmo .tagged small { display: block; font-size: .65rem; min-height: .75rem; }
.elmo .problem { padding: .8rem; border: 2px solid #b3261e; border-radius: .5rem; color: var(--body-text-color);
  max-width: none; }
"""

_LONGEST_WORD = 24
# From low to high cosines; in grey from white to black, too.
_COLORS = ((255, 255, 255), (150, 190, 225), (29, 95, 160), (8, 30, 70))


def render(found: Exploration) -> str:
    """The whole result."""
    words = [found.similarities.first[found.places[0]], found.similarities.second[found.places[1]]]
    layers = [layer_name(number) for number in range(len(found.similarities.layers))]
    parts = [
        _cosines(found, words, [*layers, "mix of layers"]),
        _maps(found, layers),
        _neighbours(found, words, layers),
    ]
    if found.substitutes is not None:
        parts.append(_substitutes(found, words))
    if found.tags is not None:
        parts.append(_tags(found))
    return f'<div class="elmo">{"".join(parts)}</div>'


def render_problem(message: str) -> str:
    """A message in the place of the result."""
    return f'<div class="elmo"><p class="problem" role="alert">{_text(message, 500)}</p></div>'


def layer_name(number: int) -> str:
    """What people call a layer."""
    return "layer 0: word alone" if number == 0 else f"layer {number}"


def _cosines(found: Exploration, words: list[str], names: list[str]) -> str:
    rows = [
        f'<tr><th scope="row" class="name">{name}</th><td>{_bar(cosine)}</td><td class="number">{cosine:.2f}</td></tr>'
        for name, cosine in zip(names, found.cosines, strict=True)
    ]
    same = words[0] == words[1]
    text = (
        f"How alike <b>{_text(words[0])}</b> is in the two sentences: the cosine of its two vectors. "
        "Alone the word is equal to itself; the layers that read its sentence move it."
        if same
        else f"How alike <b>{_text(words[0])}</b> in the first and <b>{_text(words[1])}</b> in the second sentence "
        "are: the cosine of their vectors."
    )
    return _section("How it moves", text, f'<div class="card"><table class="wide">{"".join(rows)}</table></div>')


def _maps(found: Exploration, names: list[str]) -> str:
    cards = []
    for name, matrix in zip([*names, "mix of layers"], [*found.similarities.layers, found.similarities.mix]):
        columns = "".join(
            f'<th scope="col"{_picked(j == found.places[1])}><span>{_text(word, 14)}</span></th>'
            for j, word in enumerate(found.similarities.second)
        )
        rows = []
        for i, word in enumerate(found.similarities.first):
            cells = "".join(
                f'<td style="{_colors(cosine)}"{_picked((i, j) == found.places)}>{_short_number(cosine)}</td>'
                for j, cosine in enumerate(matrix[i])
            )
            rows.append(f'<tr><th scope="row"{_picked(i == found.places[0])}>{_text(word, 14)}</th>{cells}</tr>')
        # Wide maps scroll, which is to be possible with the keyboard, too.
        cards.append(
            f'<div class="card fit" tabindex="0" role="region" aria-label="Heat map, {name}"><h3>{name}</h3>'
            f'<table class="map"><thead><tr><td></td>{columns}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        )
    text = "The cosine of every word of the first sentence (rows) with every word of the second one (columns)."
    return _section("Word by word", text, f'<div class="cards">{"".join(cards)}</div>')


def _neighbours(found: Exploration, words: list[str], names: list[str]) -> str:
    cards = []
    for layer, name in enumerate([*names, "mix of layers"]):
        # Without context it is the same word, wherever it stands.
        sides = (0,) if layer == 0 and words[0] == words[1] else (0, 1)
        lists: list[list[list[Neighbour] | None]] = [[found.neighbours[side][layer] for side in sides]]
        titles = [name]
        if layer == 0 and found.substitutes is not None:
            titles, lists = [f"{name}, by spelling", "by use"], [*lists, [found.by_use[side] for side in sides]]
        for title, of_sides in zip(titles, lists, strict=True):
            tables = [
                f"<h3>{title} · {_text(words[side])}{'' if sides == (0,) else f', sentence {side + 1}'}</h3>"
                f"{_neighbour_table(near)}"
                for side, near in zip(sides, of_sides, strict=True)
            ]
            cards.append(f'<div class="card">{"<br>".join(tables)}</div>')
    text = (
        "The nearest words by cosine. For the word alone among the vocabulary: by spelling (the layer that reads its "
        "characters) and by use (the rows of the softmax, alike for words that are expected in the same places). In "
        "context among the words of your two sentences and of some example sentences."
    )
    return _section("Nearest neighbours", text, f'<div class="cards">{"".join(cards)}</div>')


def _neighbour_table(neighbours: Sequence[Neighbour] | None) -> str:
    if neighbours is None:
        return "<p>The word is not one that the model predicts.</p>"
    if not neighbours:
        return "<p>The model has no vocabulary to look in.</p>"
    rows = "".join(
        f"<tr><td>{_text(each.word) if each.sentence is None else _in_context(each.sentence, each.place)}</td>"
        f'<td class="number">{each.cosine:.2f}</td></tr>'
        for each in neighbours
    )
    return f'<table class="wide">{rows}</table>'


def _in_context(words: Sequence[str], place: int) -> str:
    """A word with some of its sentence around it."""
    start, end = max(0, place - 4), min(len(words), place + 4)
    shown = [f"<mark>{_text(word)}</mark>" if i == place else _text(word) for i, word in enumerate(words)][start:end]
    before, after = ("… " if start else ""), (" …" if end < len(words) else "")
    return f'<span class="context">{before}{" ".join(shown)}{after}</span>'


def _substitutes(found: Exploration, words: list[str]) -> str:
    cards = []
    for side, each in enumerate(found.substitutes or ()):
        rows = "".join(
            f'<tr><th scope="row" class="name">{_text(one["token_str"])}</th><td>{_bar(one["score"])}</td>'
            f'<td class="number">{100 * one["score"]:.1f} %</td></tr>'
            for one in each
        )
        title = f"instead of {_text(words[side])}, sentence {side + 1}"
        cards.append(f'<div class="card"><h3>{title}</h3><table class="wide">{rows}</table></div>')
    text = "What the language model, reading from both sides, expects in the word's place, which it does not see."
    return _section("What would fit", text, f'<div class="cards">{"".join(cards)}</div>')


def _tags(found: Exploration) -> str:
    cards = []
    for number, (words, tags) in enumerate(
        zip((found.similarities.first, found.similarities.second), found.tags or (), strict=True), start=1
    ):
        spans = " ".join(
            f"<span{'' if tag == 'O' else chr(32) + 'class=entity'}>{_text(word)}"
            f"<small>{'' if tag == 'O' else _text(tag, 20)}</small></span>"
            for word, tag in zip(words, tags, strict=True)
        )
        cards.append(f'<div class="card"><h3>sentence {number}</h3><div class="tagged">{spans}</div></div>')
    return _section("Tags", "What the tagger says of each word.", f'<div class="cards">{"".join(cards)}</div>')


def _section(title: str, text: str, content: str) -> str:
    return f"<section><h2>{title}</h2><p>{text}</p>{content}</section>"


def _bar(share: float) -> str:
    return f'<span class="track"><span class="bar" style="width:{100 * min(1.0, max(0.0, share)):.1f}%"></span></span>'


def _picked(is_picked: bool) -> str:
    return ' class="picked"' if is_picked else ""


def _short_number(cosine: float) -> str:
    return f"{round(cosine, 2) + 0.0:.2f}".replace("0.", ".", 1) if abs(cosine) < 0.995 else f"{cosine:.0f}"


def _colors(cosine: float) -> str:
    position = min(1.0, max(0.0, cosine)) * (len(_COLORS) - 1)
    number = min(int(position), len(_COLORS) - 2)
    part = position - number
    red, green, blue = (
        round(low + part * (high - low)) for low, high in zip(_COLORS[number], _COLORS[number + 1], strict=True)
    )
    text = "#000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#fff"
    return f"background:rgb({red},{green},{blue});color:{text}"


def _text(text: str, longest: int = _LONGEST_WORD) -> str:
    """Text as HTML, its middle left out if it is long."""
    # Lone surrogates cannot be sent, and controls or marks of direction could garble what stands beside them.
    cleaned = "".join("�" if unicodedata.category(letter) in ("Cs", "Cc", "Cf") else letter for letter in text)
    if len(cleaned) > longest:
        half = (longest - 1) // 2
        cleaned = f"{cleaned[: longest - 1 - half]}…{cleaned[-half:]}"
    # The component that shows it knows templates: these letters are none of it.
    escaped = html.escape(cleaned)
    return "".join(f"&#{ord(letter)};" if letter in "{}$`\\" else letter for letter in escaped)
