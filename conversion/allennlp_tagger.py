"""Whole taggers of AllenNLP, `simple_tagger` and `crf_tagger` (the published ner-elmo is one), as our tagger.

What there is nothing for here is refused by name: a tagger that computes something else than the original is none.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..model.configuration_elmo import ElmoConfig
from ..model.heads.crf import tag_constraints
from ..model.heads.token_classification_elmo import ElmoForTokenClassification
from ..model.tokenization_elmo import SPECIAL_WORDS, ElmoTokenizer
from .allennlp_archive import VOCABULARY_FOLDER, Archive, ElmoInside, find_elmo, opened_archive, read_parameters
from .bilm_files import OptionsSource
from .errors import ConversionError
from .files import InputFile
from .json_section import Section
from .key_map import SAME, Link, Transform, raise_problems
from .torch_file import sound_tensor, tensor_info
from .vocabulary import read_text

#: The types of models in `config.json` that are read here.
TAGGERS = ("crf_tagger", "simple_tagger")

# Of training and of what is printed, not of the model.
_OF_TRAINING = ("type", "initializer", "regularizer", "verbose_metrics", "calculate_span_f1", "top_k")

_PADDING, _UNKNOWN = "@@PADDING@@", "@@UNKNOWN@@"
_NON_PADDED = "non_padded_namespaces.txt"
_EMBEDDER = "text_field_embedder.token_embedder_"
# What our tokenizer's vocabulary cannot hold, beside special words.
_RESERVED = "\U0010ffff"


@dataclass
class _Part:
    """One of the embedders whose vectors stand side by side: its name, its size, and its arrays."""

    name: str
    size: int
    links: list[Link]


def load_allennlp_tagger(
    source: str | Path, *, options: OptionsSource | None = None
) -> tuple[ElmoForTokenClassification, ElmoTokenizer]:
    """The tagger in an archive, and the tokenizer that gives it what the original's token indexers would.

    It tags like the original, given the same words (`is_split_into_words=True`), but for: state (AllenNLP's ELMo goes
    on from one batch to the next until it is loaded again, ours reads every sentence afresh); words of over 48 bytes,
    of which the character CNN sees the part that ELMo sees; character CNNs of versions before 1.1, in which a word's
    features depended on the longest word of the batch. Dropouts are as in the configuration where ours has a place for
    them.

    Args:
        source: The archive, or the folder of an unpacked one.
        options: As in `load_allennlp_elmo`.

    Returns:
        The tagger, in evaluation mode, float32, and the tokenizer.

    Raises:
        ConversionError: as `load_allennlp_elmo`, and for a tagger of which some part has no counterpart here.
        OSError: if a file cannot be read.
    """
    with opened_archive(source) as archive:
        if archive.model_type not in TAGGERS:
            raise ConversionError(
                f"{archive.config_file}: model.type is {archive.model_type!r}, expected {' or '.join(TAGGERS)}. "
                "load_allennlp_elmo takes the ELMo out of a model of any type."
            )
        return tagger_of(archive, options)


def tagger_of(archive: Archive, options: OptionsSource | None) -> tuple[ElmoForTokenClassification, ElmoTokenizer]:
    """As `load_allennlp_tagger`, from an open archive."""
    elmo = find_elmo(archive, options)
    model = Section(archive.config_file, "model", archive.config.get("model"))
    model.ignore(*_OF_TRAINING)
    has_crf = archive.model_type == "crf_tagger"
    labels = _labels(archive, model.take("label_namespace", str, "labels"))
    fields: dict[str, Any] = {"use_crf": has_crf, "output_tags": has_crf, "num_labels": len(labels)}
    fields |= {"id2label": dict(enumerate(labels)), "label2id": {label: number for number, label in enumerate(labels)}}
    links: list[Link] = []
    states: dict[str, Tensor] = {}
    encoding = model.take("label_encoding", str, None)
    dropout = 0.0
    if has_crf:
        dropout = model.take("dropout", float, 0.0)
        for key in ("label_weights", "weight_strategy"):
            model.expect(key, None)
        model.ignore("ignore_loss_on_o_tags", "constrain_crf_decoding")
        has_ends = model.take("include_start_end_transitions", bool, True)
        links += _crf_links(len(labels), has_ends)
        fields["crf_constraints"] = _are_constrained(archive, labels, encoding)
        if not has_ends:
            states |= {f"crf.{end}": torch.zeros(len(labels)) for end in ("start", "end")}
    words, parts, ours = _embedders(archive, elmo, model.section("text_field_embedder"))
    fields |= ours
    sizes = {part.name: part.size for part in parts}
    encoder_links, ours, zeros = _encoder(archive, model.section("encoder"), parts, sum(sizes.values()), dropout)
    fields |= ours
    states |= zeros
    further = model.take("feedforward", dict, None) if has_crf else None
    encoder_links += _scores_links(archive, further, ours, sum(sizes.values()), _columns(parts), len(labels), fields)
    model.close()
    config = _tagger_config(archive, elmo.config, fields)
    links += [link for part in parts for link in part.links] + encoder_links
    rest = {key: value for key, value in archive.state.items() if key not in elmo.keys and key != _MASK}
    states |= read_parameters(archive.weights_file, links, rest)
    states |= {f"elmo.{name}": value for name, value in elmo.parameters.items()}
    with torch.device("meta"):
        tagger = ElmoForTokenClassification(config)
    try:
        tagger.load_state_dict(states, strict=True, assign=True)
    except RuntimeError as error:
        raise ConversionError(f"{archive.weights_file} does not fit {archive.config_file}: {error}") from None
    tokenizer = ElmoTokenizer.create(
        words.known, config.max_characters_per_token, lowercase_word_ids=words.are_lowercase
    )
    return tagger.eval(), tokenizer


def _tagger_config(archive: Archive, elmo: ElmoConfig, fields: Mapping[str, Any]) -> ElmoConfig:
    values = {key: value for key, value in elmo.to_dict().items() if key in _ELMO_FIELDS}
    try:
        return ElmoConfig(**values, **fields)
    except (ValueError, TypeError) as error:
        raise ConversionError(f"{archive.config_file}: {error}") from None


_ELMO_FIELDS = {
    *("char_vocab_size", "char_embed_dim", "filters", "num_highway_layers", "activation", "max_characters_per_token"),
    *("cell_size", "projection_dim", "num_layers", "use_skip_connections", "cell_clip", "proj_clip", "forget_bias"),
    *("num_representations", "do_layer_norm", "scalar_mix_parameters", "representation_dropout", "freeze_bilm"),
    *("dropout", "original_options"),
}


# --- vocabulary ---


@dataclass
class _Words:
    """The vocabulary of the tokenizer to be: words in their order, and whether they are looked up in lower case."""

    known: list[str] | None = None
    are_lowercase: bool = False


def _namespace(archive: Archive, namespace: str) -> dict[str, int]:
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


def _labels(archive: Archive, namespace: str) -> list[str]:
    numbers = _namespace(archive, namespace)
    return sorted(numbers, key=numbers.__getitem__)


# --- the CRF ---

_MASK = "crf._constraint_mask"


def _crf_links(num_labels: int, has_ends: bool) -> list[Link]:
    links = [Link("crf.transitions", ("crf.transitions",), (num_labels, num_labels), SAME)]
    if has_ends:
        links += [Link(f"crf.{end}_transitions", (f"crf.{end}",), (num_labels,), SAME) for end in ("start", "end")]
    return links


def _are_constrained(archive: Archive, labels: Sequence[str], encoding: str | None) -> bool:
    """Whether the CRF keeps to the scheme of the labels; the archive's own mask has the last word.

    Raises:
        ConversionError: if there is no mask, or it is neither that of the labels' scheme nor without constraints.
    """
    count = len(labels)
    info = tensor_info(archive.state[_MASK]) if _MASK in archive.state else None
    if info is None or info.fault or info.shape != (count + 2, count + 2):
        found = "missing" if info is None else info.fault or f"of shape {info.shape}, expected {(count + 2, count + 2)}"
        raise ConversionError(f"{archive.weights_file}: {_MASK} is {found}. (There are {count} labels.)")
    allowed = sound_tensor(archive.state[_MASK]) == 1
    start, transitions, end = allowed[count, :count], allowed[:count, :count], allowed[:count, count + 1]
    if start.all() and transitions.all() and end.all():
        return False
    remedy = f"Its label_encoding is {encoding!r}; BIO and BIOUL can be converted, IOB1 and BMES not."
    try:
        ours = tag_constraints(tuple(labels))
    except ValueError as error:
        raise ConversionError(
            f"{archive.weights_file}: {_MASK} follows no scheme known here. {remedy} {error}"
        ) from None
    if ours is None:
        raise ConversionError(f"{archive.weights_file}: {_MASK} follows no scheme known here. {remedy}")
    different = [f"{labels[i]} to {labels[j]}" for i, j in (transitions != torch.tensor(ours.transitions)).nonzero()]
    different += [f"the start to {labels[i]}" for (i,) in (start != torch.tensor(ours.start)).nonzero()]
    different += [f"{labels[i]} to the end" for (i,) in (end != torch.tensor(ours.end)).nonzero()]
    problem = f"{archive.weights_file}: {_MASK} is not that of the labels' scheme. {remedy} It differs"
    raise_problems(problem, {"in the transitions": different})
    return True


# --- what vectors are made of ---


def _embedders(archive: Archive, elmo: ElmoInside, section: Section) -> tuple[_Words, list[_Part], dict[str, Any]]:
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
    words, fields = _Words(), {"vocab_size": 4}
    parts: dict[str, tuple[str, _Part]] = {}
    for name in sorted(named):
        path = f"{section.path}.{name}"
        embedder = Section(archive.config_file, path, named[name])
        kind = embedder.take("type", str, "embedding")
        if kind in _KINDS and kind in {part for part, _ in parts.values()}:
            raise ConversionError(f"{archive.config_file}: {path} is a second {kind}, and there is place for one only.")
        indexer = Section(archive.config_file, f"dataset_reader.token_indexers.{name}", indexers.get(name))
        indexer.expect("token_min_padding_length", 0, *range(1, 1000))
        if kind == "elmo_token_embedder":
            part = _elmo_part(name, embedder, indexer, elmo)
        elif kind == "embedding":
            part = _word_part(archive, name, embedder, indexer, words, fields)
        elif kind == "character_encoding":
            part = _character_part(archive, name, embedder, indexer, elmo.config.activation, fields)
        else:
            raise ConversionError(
                f"{archive.config_file}: {path}.type is {kind!r}, of which there is nothing here that computes the "
                f"same; supported are {', '.join(_KINDS)}. (The ELMo alone can be taken: only_elmo, --only-elmo.)"
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


def _elmo_part(name: str, embedder: Section, indexer: Section, elmo: ElmoInside) -> _Part:
    embedder.ignore("options_file", "weight_file", "requires_grad", "dropout", "do_layer_norm", "scalar_mix_parameters")
    embedder.ignore("vocab_to_cache", "namespace_to_cache")
    embedder.expect("projection_dim", None)
    indexer.expect("type", "elmo_characters")
    indexer.ignore("namespace")
    indexer.expect("tokens_to_add", None)
    return _Part(name, elmo.config.hidden_size, [])


def _word_part(
    archive: Archive, name: str, embedder: Section, indexer: Section, words: _Words, fields: dict[str, Any]
) -> _Part:
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
    numbers = _namespace(archive, namespace)
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
    return _Part(name, size, [_rows_link(archive, key, "word_vectors.weight", rows, len(numbers), size)])


def _character_part(
    archive: Archive, name: str, embedder: Section, indexer: Section, activation: str, fields: dict[str, Any]
) -> _Part:
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
    numbers = _namespace(archive, indexer.take("namespace", str, "token_characters"))
    if _UNKNOWN not in numbers:
        raise ConversionError(f"{archive.name}: the namespace of characters has no entry for unknown ones.")
    alphabet = sorted((entry for entry in numbers if len(entry) == 1), key=numbers.__getitem__)
    rows = torch.tensor([0, numbers[_UNKNOWN], *(numbers[character] for character in alphabet)])
    fields |= {"char_cnn_embed_dim": dim, "char_cnn_characters": "".join(alphabet)}
    key = f"{place}_embedding._module.weight"
    links.append(_rows_link(archive, key, "char_cnn.char_embedding.weight", rows, len(numbers), dim))
    return _Part(name, size, links)


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
        for name, shape in _lstm_shapes(dim, size):
            links.append(Link(f"{prefix}_module.{name}_l0", (f"char_cnn.lstm.{name}_l0",), shape, SAME))
        return size, links, {"char_lstm_size": size}
    if kind != "cnn":
        raise ConversionError(
            f"{encoder.file}: {encoder.path}.type is {kind!r}, of which there is nothing here that computes the same; "
            "supported are 'cnn' and 'lstm'. (The ELMo alone can be taken: only_elmo, --only-elmo.)"
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


def _lstm_shapes(read: int, size: int, gates: int = 4) -> list[tuple[str, tuple[int, ...]]]:
    shapes = [("weight_ih", (gates * size, read)), ("weight_hh", (gates * size, size))]
    return [*shapes, ("bias_ih", (gates * size,)), ("bias_hh", (gates * size,))]


def _rows_link(archive: Archive, key: str, ours: str, rows: Tensor, least: int, size: int) -> Link:
    """Rows of an embedding, in our order; the first, padding, becomes zeros, as nothing reads it in the original."""

    def chosen(weight: Tensor) -> tuple[Tensor]:
        weight = weight[rows]
        weight[0] = 0
        return (weight,)

    info = tensor_info(archive.state[key]) if key in archive.state else None
    there = info.shape[0] if info is not None and info.shape else least
    return Link(key, (ours,), (max(least, there), size), Transform(chosen, None))


# --- what reads them ---

# The layers of torch that there are, and how many blocks of rows their matrices have.
_GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def _encoder(
    archive: Archive, section: Section, parts: Sequence[_Part], width: int, dropout: float
) -> tuple[list[Link], dict[str, Any], dict[str, Tensor]]:
    """The arrays of the encoder, its fields of the configuration, and what ours has beyond those of the original."""
    kind = section.take("type", str)
    if kind == "pass_through":
        section.expect("input_dim", width)
        section.close()
        return [], {"task_encoder_layers": 0, "task_dropout": dropout}, {}
    if kind not in (*_GATES, "stacked_bidirectional_lstm"):
        raise ConversionError(
            f"{section.file}: {section.path}.type is {kind!r}, of which there is nothing here that computes the same; "
            "supported are 'lstm', 'gru', 'rnn', 'stacked_bidirectional_lstm' and 'pass_through'. (The ELMo alone can "
            "be taken: only_elmo, --only-elmo.)"
        )
    section.expect("input_size", width)
    section.expect("stateful", False)
    size, layers = section.take("hidden_size", int), section.take("num_layers", int, 1)
    fields = {"task_encoder_layers": layers, "task_encoder_size": size, "task_encoder_bidirectional": True}
    if kind in _GATES:
        fields["task_encoder_kind"] = kind
        fields["task_encoder_bidirectional"] = section.take("bidirectional", bool, False)
        if kind == "rnn":
            section.expect("nonlinearity", "tanh")
        section.expect("bias", True)
        own_dropout = section.take("dropout", float, 0.0)
        links = _torch_links(_GATES[kind], width, size, layers, fields["task_encoder_bidirectional"], _columns(parts))
        zeros: dict[str, Tensor] = {}
    else:
        fields["task_encoder_highways"] = section.take("use_highway", bool, True)
        section.ignore("recurrent_dropout_probability")
        own_dropout = section.take("layer_dropout_probability", float, 0.0)
        links, zeros = _stacked_links(archive, width, size, layers, fields["task_encoder_highways"], _columns(parts))
    section.close()
    return links, {**fields, "task_dropout": dropout or own_dropout}, zeros


def _scores_links(
    archive: Archive,
    further: dict[str, Any] | None,
    encoder: Mapping[str, Any],
    width: int,
    columns: Transform,
    num_labels: int,
    fields: dict[str, Any],
) -> list[Link]:
    """The arrays between the encoder and the scores of tags, feed-forward layers included."""
    read, first = width, columns
    if encoder["task_encoder_layers"]:
        read, first = (1 + encoder["task_encoder_bidirectional"]) * encoder["task_encoder_size"], SAME
    links = []
    if further is not None:
        section = Section(archive.config_file, "model.feedforward", further)
        section.expect("input_dim", read)
        count = section.take("num_layers", int)
        sizes, activations = section.take_each("hidden_dims", count), section.take_each("activations", count)
        section.ignore("dropout")
        section.close()
        if not all(isinstance(size, int) for size in sizes) or activations not in (["relu"] * count, ["tanh"] * count):
            raise ConversionError(
                f"{archive.config_file}: model.feedforward has the hidden_dims {sizes!r:.80} and the activations "
                f"{activations!r:.80}; expected whole numbers, and either 'relu' or 'tanh' for all layers."
            )
        fields |= {"task_feedforward_sizes": sizes, "task_feedforward_activation": activations[0]}
        for number, size in enumerate(sizes):
            theirs, ours = f"_feedforward._linear_layers.{number}", f"feedforward.{number}"
            links.append(Link(f"{theirs}.weight", (f"{ours}.weight",), (size, read), first))
            links.append(Link(f"{theirs}.bias", (f"{ours}.bias",), (size,), SAME))
            read, first = size, SAME
    layer = "tag_projection_layer._module"
    links.append(Link(f"{layer}.weight", ("classifier.weight",), (num_labels, read), first))
    links.append(Link(f"{layer}.bias", ("classifier.bias",), (num_labels,), SAME))
    return links


def _stacked_links(
    archive: Archive, width: int, size: int, layers: int, has_highways: bool, columns: Transform
) -> tuple[list[Link], dict[str, Tensor]]:
    """Of AllenNLP's own stacked LSTM (`stacked_bidirectional_lstm.py`), whose input has no bias."""
    # Since version 1.3 the cell is a module of its own.
    cell = "cell." if any(key.startswith("encoder._module.forward_layer_0.cell.") for key in archive.state) else ""
    gates = 5 if has_highways else 4
    links, zeros = [], {}
    for layer in range(layers):
        read, transform = (2 * size, SAME) if layer else (width, columns)
        for direction, suffix in (("forward", ""), ("backward", "_reverse")):
            theirs = f"encoder._module.{direction}_layer_{layer}.{cell}"
            if has_highways:
                ours = [f"task_encoder.lstm.{direction}_layers.{layer}.{name}" for name in _HIGHWAY_NAMES]
            else:
                ours = [f"task_encoder.lstm.{name}_l{layer}{suffix}" for name in ("weight_ih", "weight_hh", "bias_hh")]
                zeros[f"task_encoder.lstm.bias_ih_l{layer}{suffix}"] = torch.zeros(4 * size)
            rows = (gates + has_highways) * size
            links.append(Link(f"{theirs}input_linearity.weight", (ours[0],), (rows, read), transform))
            links.append(Link(f"{theirs}state_linearity.weight", (ours[1],), (gates * size, size), SAME))
            links.append(Link(f"{theirs}state_linearity.bias", (ours[2],), (gates * size,), SAME))
    return links, zeros


_HIGHWAY_NAMES = ("weight_ih", "weight_hh", "bias")


def _torch_links(
    gates: int, width: int, size: int, layers: int, is_bidirectional: bool, columns: Transform
) -> list[Link]:
    links = []
    output = (1 + is_bidirectional) * size
    for layer in range(layers):
        for suffix in ("", "_reverse")[: 1 + is_bidirectional]:
            read = width if layer == 0 else output
            for name, shape in _lstm_shapes(read, size, gates):
                key = f"{name}_l{layer}{suffix}"
                transform = columns if name == "weight_ih" and layer == 0 else SAME
                links.append(Link(f"encoder._module.{key}", (f"task_encoder.lstm.{key}",), shape, transform))
    return links


def _columns(parts: Sequence[_Part]) -> Transform:
    """Columns for our tagger's input (ELMo, character CNN, word vectors) from those of the original."""
    begin, places = 0, {}
    for part in parts:
        kind = _kind_of(part)
        places[kind] = range(begin, begin + part.size)
        begin += part.size
    order = torch.tensor([column for kind in _KINDS for column in places.get(kind, ())])
    return Transform(lambda weight: (weight[:, order],), None)


def _kind_of(part: _Part) -> str:
    ours = {link.ours[0].split(".")[0] for link in part.links}
    return "embedding" if "word_vectors" in ours else "character_encoding" if "char_cnn" in ours else _KINDS[0]
