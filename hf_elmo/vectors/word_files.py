"""Files whose words stand apart already: CoNLL-U, words between tabs, and proteins in FASTA, where a word is a letter.

The first two are what `python -m elmoformanylangs test` reads (`--input_format`), the last what SeqVec does. Of CoNLL-U
one column is read, and of FASTA less than that: libraries for them would read files past what `text_files` looks
after (packed files, encodings, lines without end), to do no more than these few lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple


class NamedSentence(NamedTuple):
    """A sentence of a file.

    Attributes:
        words: Its words, which may have spaces in them.
        name: What the file calls it: `sent_id` of CoNLL-U, the first word of a FASTA header; None for none.
    """

    words: list[str]
    name: str | None = None


def read_word_file(lines: Iterable[str], kind: str, file: str) -> Iterator[NamedSentence]:
    """The sentences of a file, in their order, while it is read.

    Args:
        lines: Its lines, as `TextFile.lines` gives them.
        kind: One of `KINDS`. `"tabs"`: a sentence per line, its words between tabs (elmoformanylangs' `plain`).
            `"conllu"`: the second column, without the lines of several words (`1-2`) and of words that are not written
            (`1.1`) (its `conll`). `"conllu-characters"`: the characters of these words (`conll_char`).
            `"conllu-parts"`: what stands between spaces in them, as syllables of Vietnamese do (`conll_char_vi`).
            `"fasta"`: the letters of each sequence, as capitals.
        file: The file, as messages are to name it.

    Raises:
        ValueError: for another kind, and for a line that such a file has not: its number, what was expected.

    Examples:
        >>> [sentence] = read_word_file([">P1 a protein", "MKV", "la"], "fasta", "proteins.fasta")
        >>> sentence.name, sentence.words
        ('P1', ['M', 'K', 'V', 'L', 'A'])
    """
    if kind not in KINDS:
        raise ValueError(f"There is no format {kind!r} of sentences; there are {', '.join(KINDS)}.")
    return KINDS[kind](lines, file)


def _tabs(lines: Iterable[str], file: str) -> Iterator[NamedSentence]:
    for line in lines:
        yield NamedSentence(line.split("\t") if line else [])


def _conllu(lines: Iterable[str], file: str) -> Iterator[NamedSentence]:
    words: list[str] = []
    name: str | None = None
    is_open = False
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            if is_open:
                yield NamedSentence(words, name)
            words, name, is_open = [], None, False
        elif line.startswith("#"):
            key, _, value = line[1:].partition("=")
            name = value.strip() if key.strip() == "sent_id" else name
        else:
            fields = line.split("\t")
            if len(fields) < 2 or not fields[0].replace("-", "").replace(".", "").isdigit():
                raise ValueError(
                    f"{file}, line {number}: expected a word of CoNLL-U, its number, a tab and its form first, was: "
                    f"{line!r:.60}."
                )
            is_open = True
            if fields[0].isdigit():
                words.append(fields[1])
    if is_open:
        yield NamedSentence(words, name)


def _parts(split: Callable[[str], list[str]]) -> Callable[[Iterable[str], str], Iterator[NamedSentence]]:
    def read(lines: Iterable[str], file: str) -> Iterator[NamedSentence]:
        for words, name in _conllu(lines, file):
            yield NamedSentence([part for word in words for part in split(word)], name)

    return read


def _fasta(lines: Iterable[str], file: str) -> Iterator[NamedSentence]:
    letters: list[str] = []
    name: str | None = None
    is_open = False
    for number, line in enumerate(lines, start=1):
        if line.startswith(">"):
            if is_open:
                yield NamedSentence(letters, name)
            letters, name, is_open = [], next(iter(line[1:].split()), None), True
        elif line.strip() and not is_open:
            raise ValueError(
                f"{file}, line {number}: expected a header of FASTA, > and a name, before the first sequence, was: "
                f"{line!r:.60}."
            )
        else:
            letters += "".join(line.split()).upper()
    if is_open:
        yield NamedSentence(letters, name)


#: The formats by their names.
KINDS: dict[str, Callable[[Iterable[str], str], Iterator[NamedSentence]]] = {
    "tabs": _tabs,
    "conllu": _conllu,
    "conllu-characters": _parts(list),
    "conllu-parts": _parts(str.split),
    "fasta": _fasta,
}
