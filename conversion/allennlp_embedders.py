"""What the words' vectors of an AllenNLP tagger are made of: ELMo, word vectors, a network over characters.

And the vocabulary in which words and characters are looked up.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..model.tokenization_elmo import SPECIAL_WORDS
from .allennlp_archive import VOCABULARY_FOLDER, Archive, ElmoInside
from .allennlp_encoders import linear_links, torch_shapes
from .errors import ConversionError
from .files import InputFile
from .json_section import Section
from .key_map import SAME, Link, Transform
from .torch_file import tensor_info
from .vocabulary import read_text

_PADDING, _UNKNOWN = "@@PADDING@@", "@@UNKNOWN@@"
_NON_PADDED = "non_padded_namespaces.txt"
_EMBEDDER = "text_field_embedder.token_embedder_"
# What our tokenizer's vocabulary cannot hold, beside special words.
_RESERVED = "\U0010ffff"


@dataclass
class Part:
    """One of the embedders whose vectors stand side by side: its name, its size, and its arrays."""

    name: str
    size: int
    links: list[Link]


@dataclass
class Words:
    """The vocabulary of the tokenizer to be: words in their order, and whether they are looked up in lower case."""

    known: list[str] | None = None
    are_lowercase: bool = False


def read_embedders(archive: Archive, elmo: ElmoInside, section: Section) -> tuple[Words, list[Part], dict[str, Any]]:
    """The embedders of a tagger in the order in which AllenNLP puts their vectors side by side: by name."""
    section.expect("type", "basic")
    section.ignore("allow_unmatched_keys")
    section.expect("embedder_to_indexer_map", None)
    named = section.take("token_embedders", dict, None)
    if named is None:
        # Version 0.8 and before had the embedders here.
        named = section.take_rest()
    section.close()
    indexers = _indexers(archive)
    words, fields = Words(), {"vocab_size": 4}
    parts: dict[str, tuple[str, Part]] = {}
    for name in sorted(named):
        path = f"{section.path}.{name}"
        embedder = Section(archive.config_file, path, named[name])
        kind = embedder.take("type", str, "embedding")
        if kind in _KINDS and kind in {part for part, _ in parts.values()}:
            raise ConversionError(f"{archive.config_file}: {path} is a second {kind}, and there is place for one only.")
        indexer = Section(archive.config_file, f"dataset_reader.token_indexers.{name}", indexers.get(name))
        indexer.expect("token_min_padding_length", 0, *range(1, 1000))
        if kind == "elmo_token_embedder":
            part = _elmo_part(name, embedder, indexer, elmo, fields)
        elif kind == "embedding":
            part = _word_part(archive, name, embedder, indexer, words, fields)
        elif kind == "character_encoding":
            part = _character_part(archive, name, embedder, indexer, elmo.config.activation, fields)
        else:
            raise ConversionError(
                f"{archive.config_file}: {path}.type is {kind!r}, of which there is nothing here that computes the "
                f"same; supported are {', '.join(_KINDS)}. The ELMo alone can be taken (only_elmo=True)."
            )
        embedder.close()
        indexer.close()
        parts[name] = kind, part
    if "elmo_token_embedder" not in {kind for kind, _ in parts.values()}:
        raise ConversionError(f"{archive.config_file}: {section.path} has no elmo_token_embedder: {', '.join(parts)}.")
    return words, [part for _, part in parts.values()], fields


# In the order of the parts of our tagger's input.
_KINDS = ("elmo_token_embedder", "character_encoding", "embedding")


def _indexers(archive: Archive) -> dict[str, Any]:
    reader = archive.config.get("validation_dataset_reader") or archive.config.get("dataset_reader")
    indexers = reader.get("token_indexers") if isinstance(reader, dict) else None
    if not isinstance(indexers, dict):
        raise ConversionError(
            f"{archive.config_file}: dataset_reader.token_indexers must be a JSON object, which tells how words are "
            f"looked up, was: {indexers!r:.80}."
        )
    return indexers


def _elmo_part(name: str, embedder: Section, indexer: Section, elmo: ElmoInside, fields: dict[str, Any]) -> Part:
    embedder.ignore("options_file", "weight_file", "requires_grad", "dropout", "do_layer_norm", "scalar_mix_parameters")
    embedder.ignore("vocab_to_cache", "namespace_to_cache")
    indexer.expect("type", "elmo_characters")
    indexer.ignore("namespace")
    indexer.expect("tokens_to_add", None)
    size, width = embedder.take("projection_dim", int, 0), elmo.config.hidden_size
    if not size:
        return Part(name, width, [])
    fields["elmo_projection_size"] = size
    return Part(name, size, linear_links(f"{_EMBEDDER}{name}._projection", "elmo_projection", size, width))


def _word_part(
    archive: Archive, name: str, embedder: Section, indexer: Section, words: Words, fields: dict[str, Any]
) -> Part:
    embedder.ignore("pretrained_file", "num_embeddings", "padding_index", "norm_type", "scale_grad_by_freq", "sparse")
    for key in ("projection_dim", "max_norm", "weight"):
        embedder.expect(key, None)
    size = embedder.take("embedding_dim", int)
    fields["freeze_word_vectors"] = not embedder.take("trainable", bool, True)
    indexer.expect("type", "single_id")
    indexer.expect("feature_name", "text")
    indexer.ignore("default_value")
    for key in ("start_tokens", "end_tokens"):
        indexer.expect(key, None, [])
    words.are_lowercase = indexer.take("lowercase_tokens", bool, False)
    namespace = indexer.take("namespace", str, "tokens")
    embedder.expect("vocab_namespace", "tokens", namespace)
    numbers = namespace_of(archive, namespace)
    unknown = numbers.get(_UNKNOWN)
    if unknown is None:
        raise ConversionError(f"{archive.name}: the namespace {namespace!r} has no entry for unknown words.")
    known = sorted(numbers.keys() - {_PADDING, _UNKNOWN}, key=numbers.__getitem__)
    impossible = [word for word in known if not word or word in (*SPECIAL_WORDS, "<UNK>") or _RESERVED in word]
    if impossible:
        warnings.warn(
            f"{archive.name}: {len(impossible)} entries of the namespace {namespace!r} cannot be words here, and are "
            f"unknown from now on (the first is {impossible[0]!a}).",
            stacklevel=2,
        )
    words.known = [word for word in known if word not in set(impossible)]
    of_special = [numbers.get(word.lower() if words.are_lowercase else word, unknown) for word in SPECIAL_WORDS[2:]]
    rows = torch.tensor([0, unknown, *of_special, *(numbers[word] for word in words.known)])
    fields |= {"vocab_size": len(rows), "word_vector_size": size}
    key = f"{_EMBEDDER}{name}.weight"
    return Part(name, size, [_rows_link(archive, key, "word_vectors.weight", rows, len(numbers), size)])


def _character_part(
    archive: Archive, name: str, embedder: Section, indexer: Section, activation: str, fields: dict[str, Any]
) -> Part:
    embedder.ignore("dropout")
    embedding = embedder.section("embedding")
    # Without `vocab_namespace` AllenNLP makes a row for each word, of which those of characters are used.
    embedding.ignore("vocab_namespace", "num_embeddings", "trainable", "padding_index", "sparse", "norm_type", "type")
    embedding.ignore("scale_grad_by_freq", "pretrained_file")
    for key in ("projection_dim", "max_norm", "weight"):
        embedding.expect(key, None)
    dim = embedding.take("embedding_dim", int)
    embedding.close()
    place = f"{_EMBEDDER}{name}."
    size, links, ours = _character_encoder(embedder.section("encoder"), dim, activation, f"{place}_encoder._module.")
    fields |= ours
    indexer.expect("type", "characters")
    indexer.ignore("min_padding_length")
    for key in ("start_tokens", "end_tokens"):
        indexer.expect(key, None, [])
    tokenizer = indexer.section("character_tokenizer", {})
    for key, default in (("type", "character"), ("byte_encoding", None), ("lowercase_characters", False)):
        tokenizer.expect(key, default)
    for key in ("start_tokens", "end_tokens"):
        tokenizer.expect(key, None, [])
    tokenizer.close()
    numbers = namespace_of(archive, indexer.take("namespace", str, "token_characters"))
    if _UNKNOWN not in numbers:
        raise ConversionError(f"{archive.name}: the namespace of characters has no entry for unknown ones.")
    alphabet = sorted((entry for entry in numbers if len(entry) == 1), key=numbers.__getitem__)
    rows = torch.tensor([0, numbers[_UNKNOWN], *(numbers[character] for character in alphabet)])
    fields |= {"char_cnn_embed_dim": dim, "char_cnn_characters": "".join(alphabet)}
    key = f"{place}_embedding._module.weight"
    links.append(_rows_link(archive, key, "char_cnn.char_embedding.weight", rows, len(numbers), dim))
    return Part(name, size, links)


def _character_encoder(
    encoder: Section, dim: int, activation: str, prefix: str
) -> tuple[int, list[Link], dict[str, Any]]:
    """The size, the arrays and the fields of what makes a word's vector of those of its characters."""
    kind = encoder.take("type", str)
    links = []
    if kind == "lstm":
        encoder.expect("input_size", dim)
        size = encoder.take("hidden_size", int)
        for option, default in (("num_layers", 1), ("bidirectional", False), ("bias", True)):
            encoder.expect(option, default)
        encoder.ignore("dropout")
        encoder.close()
        for name, shape in torch_shapes(dim, size):
            links.append(Link(f"{prefix}_module.{name}_l0", (f"char_cnn.lstm.{name}_l0",), shape, SAME))
        return size, links, {"char_lstm_size": size}
    if kind != "cnn":
        raise ConversionError(
            f"{encoder.file}: {encoder.path}.type is {kind!r}, of which there is nothing here that computes the same; "
            "supported are 'cnn' and 'lstm'. The ELMo alone can be taken (only_elmo=True)."
        )
    encoder.expect("embedding_dim", dim)
    encoder.expect("output_dim", None)
    count = encoder.take("num_filters", int)
    widths = encoder.take("ngram_filter_sizes", list, [2, 3, 4, 5])
    given = encoder.take("conv_layer_activation", str, "relu")
    if given != activation:
        raise ConversionError(
            f"{encoder.file}: {encoder.path}.conv_layer_activation is {given!r}, but the ELMo's activation is "
            f"{activation!r}, and both must be the same here."
        )
    encoder.close()
    for number, width in enumerate(widths):
        theirs, ours = f"{prefix}conv_layer_{number}", f"char_cnn.convolutions.{number}"
        links.append(Link(f"{theirs}.weight", (f"{ours}.weight",), (count, dim, width), SAME))
        links.append(Link(f"{theirs}.bias", (f"{ours}.bias",), (count,), SAME))
    return count * len(widths), links, {"char_cnn_filters": [[width, count] for width in widths]}


def _rows_link(archive: Archive, key: str, ours: str, rows: Tensor, least: int, size: int) -> Link:
    """Rows of an embedding, in our order; the first, padding, becomes zeros, as nothing reads it in the original."""

    def chosen(weight: Tensor) -> tuple[Tensor]:
        weight = weight[rows]
        weight[0] = 0
        return (weight,)

    info = tensor_info(archive.state[key]) if key in archive.state else None
    there = info.shape[0] if info is not None and info.shape else least
    return Link(key, (ours,), (max(least, there), size), Transform(chosen, None))


def columns_of(parts: Sequence[Part]) -> Transform:
    """Columns for our tagger's input (ELMo, character CNN, word vectors) from those of the original."""
    begin, places = 0, {}
    for part in parts:
        kind = _kind_of(part)
        places[kind] = range(begin, begin + part.size)
        begin += part.size
    order = torch.tensor([column for kind in _KINDS for column in places.get(kind, ())])
    return Transform(lambda weight: (weight[:, order],), None)


def _kind_of(part: Part) -> str:
    ours = {link.ours[0].split(".")[0] for link in part.links}
    return "embedding" if "word_vectors" in ours else "character_encoding" if "char_cnn" in ours else _KINDS[0]


# --- the vocabulary ---


def namespace_of(archive: Archive, namespace: str) -> dict[str, int]:
    """The entries of a namespace by their ids (`allennlp/data/vocabulary.py`, `set_from_file`).

    Raises:
        ConversionError: if there is no file for it, it is empty, an entry stands twice, or there is no entry for what
            is unknown though there should be one.
    """
    file = _vocabulary_file(archive, f"{namespace}.txt")
    settings = archive.config.get("vocabulary")
    settings = settings if isinstance(settings, dict) else {}
    unknown = settings.get("oov_token") or _UNKNOWN
    is_padded = not any(_matches(pattern, namespace) for pattern in _lines(archive, _NON_PADDED))
    entries: dict[str, int] = {settings.get("padding_token") or _PADDING: 0} if is_padded else {}
    for number, line in enumerate(_lines(archive, f"{namespace}.txt"), start=1):
        entry = line.replace("@@NEWLINE@@", "\n")
        entry = _UNKNOWN if entry == unknown else entry
        if entry in entries:
            raise ConversionError(f"{file}, line {number}: {entry!a} stands there twice, so that its id is not known.")
        entries[entry] = len(entries)
    if len(entries) <= is_padded:
        raise ConversionError(f"{file} is empty: expected an entry on each line.")
    if is_padded and _UNKNOWN not in entries:
        raise ConversionError(f"{file} has no entry {unknown!r}, which all that is unknown is taken for.")
    return entries


def _vocabulary_file(archive: Archive, name: str) -> InputFile:
    path = f"{VOCABULARY_FOLDER}/{name}"
    if path not in archive.files:
        there = [other for other in archive.files if other.startswith(VOCABULARY_FOLDER)]
        raise ConversionError(f"{archive.name} has no {path}; there is: {', '.join(there[:20]) or 'no vocabulary'}.")
    return archive.files[path]


def _lines(archive: Archive, name: str) -> list[str]:
    lines = read_text(_vocabulary_file(archive, name)).replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _matches(pattern: str, namespace: str) -> bool:
    return namespace.endswith(pattern[1:]) if pattern.startswith("*") else namespace == pattern
