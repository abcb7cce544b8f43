"""Whole taggers of AllenNLP, `simple_tagger` and `crf_tagger` (the published ner-elmo is one), as our tagger.

And archives of any model as a folder: of the whole tagger, or of the ELMo inside (`allennlp_archive`).
What there is nothing for here is refused by name: a tagger that computes something else than the original is none.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..hub.published_models import origin_of
from ..model.configuration_elmo import ElmoConfig
from ..model.heads.crf import tag_constraints
from ..model.heads.token_classification_elmo import ElmoForTokenClassification
from ..model.modeling_elmo import ElmoModel
from ..model.tokenization_elmo import ElmoTokenizer
from .allennlp_archive import (
    OPTIONS_ENDS,
    VOCABULARY_FOLDER,
    Archive,
    find_elmo,
    opened_archive,
    read_parameters,
)
from .allennlp_embedders import columns_of, namespace_of, read_embedders
from .allennlp_encoders import Encoder, feedforward_layers, linear_links, read_encoder
from .bilm_files import OptionsSource
from .errors import ConversionError
from .files import InputFile, check_new_folder, paths_of
from .json_section import Section
from .key_map import SAME, Link, raise_problems
from .model_folder import write_model_folder
from .torch_file import sound_tensor, tensor_info

#: The types of models in `config.json` that are read here.
TAGGERS = ("crf_tagger", "simple_tagger")

# Of training and of what is printed, not of the model.
_OF_TRAINING = ("type", "initializer", "regularizer", "verbose_metrics", "calculate_span_f1", "top_k")


def convert_allennlp_archive(
    source: str | Path,
    destination: str | Path,
    *,
    options: OptionsSource | None = None,
    only_elmo: bool = False,
    published: str | None = None,
) -> None:
    """Makes a model folder of an archive: of a whole tagger, or else of the ELMo inside, with a warning.

    Args:
        source: As in `load_allennlp_elmo`.
        destination: The folder, which must not exist yet, or be empty.
        options: As in `load_allennlp_elmo`.
        only_elmo: Take the ELMo out of a tagger, too, without a projection that follows its mix (`projection_dim`).
        published: The name of the published model that it is, for its card, where neither checksum nor name of a file
            says so (`hf_elmo.hub.published_models`).

    Raises:
        ConversionError: as `load_allennlp_elmo` and `load_allennlp_tagger`, or if there is something at `destination`.
        ValueError: if there is no published model of that name.
        OSError: if a file cannot be read or written. Nothing is left of the folder then.
    """
    check_new_folder(destination)
    with opened_archive(source) as archive:
        if archive.model_type in TAGGERS and not only_elmo:
            tagger = _tagger_of(archive, options)
        else:
            tagger, found = None, find_elmo(archive, options)
            rest = len(archive.state) - len(found.keys)
            if rest and not only_elmo:
                warnings.warn(
                    f"{archive.name} holds a model of type {archive.model_type!r}, of which only the ELMo is taken "
                    f"({found.prefix}...); {rest} arrays of the task's own are left out.",
                    stacklevel=2,
                )
        read = paths_of(source, _read_files(archive, options, with_vocabulary=tagger is not None))
    origin = origin_of("allennlp-archive", read, published)
    if tagger is not None:
        write_model_folder(tagger[0], None, destination, tokenizer=tagger[1], origin=origin)
        return
    with torch.device("meta"):
        model = ElmoModel(found.config)
    model.load_state_dict(found.parameters, strict=True, assign=True)
    write_model_folder(model.eval(), None, destination, origin=origin)


def _read_files(archive: Archive, options: OptionsSource | None, with_vocabulary: bool) -> list[InputFile]:
    read = [archive.config_file, archive.weights_file]
    if isinstance(options, (str, Path)):
        read.append(InputFile.at(options))
    elif options is None:
        read += [file for path, file in archive.files.items() if path.endswith(OPTIONS_ENDS)]
    if with_vocabulary:
        read += [file for path, file in archive.files.items() if path.startswith(VOCABULARY_FOLDER + "/")]
    return read


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
        return _tagger_of(archive, options)


def _tagger_of(archive: Archive, options: OptionsSource | None) -> tuple[ElmoForTokenClassification, ElmoTokenizer]:
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
    words, parts, ours = read_embedders(archive, elmo, model.section("text_field_embedder"))
    fields |= ours
    width = sum(part.size for part in parts)
    encoder = read_encoder(archive, model.section("encoder"), width, columns_of(parts), dropout)
    fields |= encoder.fields
    further = model.take("feedforward", dict, None) if has_crf else None
    links += [link for part in parts for link in part.links] + encoder.links
    links += _scores_links(archive, further, encoder, len(labels), fields)
    model.close()
    config = _tagger_config(archive, elmo.config, fields)
    rest = {key: value for key, value in archive.state.items() if key not in elmo.keys and key != _MASK}
    states |= read_parameters(archive.weights_file, links, rest)
    states |= {name: torch.zeros(shape) for name, shape in encoder.zeros.items()}
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


def _scores_links(
    archive: Archive, further: dict[str, Any] | None, encoder: Encoder, num_labels: int, fields: dict[str, Any]
) -> list[Link]:
    """The arrays between the encoder and the scores of tags, feed-forward layers included."""
    links: list[Link] = []
    read, first = encoder.size, encoder.first
    if further is not None:
        section = Section(archive.config_file, "model.feedforward", further)
        before = fields.get("task_feedforward_sizes", [])
        read, links, ours = feedforward_layers(section, "_feedforward", read, first, len(before))
        # The encoder may be such layers, too.
        for name, values in ours.items():
            fields[name] = [*fields.get(name, []), *values]
        first = SAME if links else first
    return [*links, *linear_links("tag_projection_layer._module", "classifier", num_labels, read, first)]


def _labels(archive: Archive, namespace: str) -> list[str]:
    numbers = namespace_of(archive, namespace)
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
