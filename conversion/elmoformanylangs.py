"""The format of ELMoForManyLangs (Che et al. 2018, https://aclanthology.org/K18-2005), of 40 languages and more.

A folder, or a zip archive of one (the NLPL repository's 136 to 179): `config.json` names a second file of JSON with the
sizes; `char.dic` and `word.dic` are dictionaries; `token_embedder.pkl`, `encoder.pkl` and sometimes `classifier.pkl`
are state dicts. The facts are those of that program's `elmo.py`, `frontend.py`, `biLM.py` and `modules/`.

The model reads Unicode characters instead of bytes, and a vector of the word itself beside them. Its special words
`<bos>`, `<eos>` and `<oov>` become `<S>`, `</S>` and `[UNK]`; its special characters become our marks, of which that
program takes `<eow>` for the beginning of a word and `<bow>` for its end.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..hub.published_models import origin_of
from ..model.configuration_elmo import ElmoConfig
from ..model.modeling_elmo import ElmoForPreTraining, ElmoModel, ElmoPreTrainedModel
from ..model.tokenization_elmo import (
    BEGIN_SENTENCE,
    BEGIN_WORD,
    END_SENTENCE,
    END_WORD,
    PAD_CHARACTER,
    SPECIAL_WORDS,
    UNKNOWN_CHARACTER,
    ElmoTokenizer,
    character_numbers,
)
from .allennlp_archive import allennlp_lstms
from .bilm_hdf5 import initial_mixes, read_parameters
from .errors import ConversionError
from .files import ZIP_DAMAGE, InputFile, check_new_folder, files_of_folder, paths_of, read_json_object, unpacked_zip
from .json_section import Section
from .key_map import SAME, Entry, Link, Transform, check_arrays, resolve
from .model_folder import write_model_folder
from .torch_file import load_tensors, sound_tensor, tensor_info

_CHARACTERS, _WORDS = "char.dic", "word.dic"
_TOKEN_EMBEDDER, _ENCODER, _CLASSIFIER = "token_embedder.pkl", "encoder.pkl", "classifier.pkl"
_MARKS = (_CHARACTERS, _TOKEN_EMBEDDER, _ENCODER)

# All published models are of these sizes. Their config.json names a file that only its authors have, by one of two
# names; the program takes the file of that name that comes with it, and both hold the same.
_PUBLISHED_NAMES = ("cnn_50_100_512_4096_sample.json", "cnn_0_100_512_4096_sample.json")
_PUBLISHED: dict[str, Any] = {
    "encoder": {"name": "elmo", "projection_dim": 512, "cell_clip": 3, "proj_clip": 3, "dim": 4096, "n_layers": 2},
    "token_embedder": {
        "name": "cnn",
        "activation": "relu",
        "filters": [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]],
        "n_highway": 2,
        "word_dim": 100,
        "char_dim": 50,
        "max_characters_per_token": 50,
    },
    "dropout": 0.1,
}

# What a line of a dictionary is filed under whose entry is white space: its reader strips lines (elmo.py).
_WHITE_SPACE = "\u3000"

# Words that our tokenizer does not take for ordinary ones.
_NOT_ORDINARY = {*SPECIAL_WORDS, "<UNK>"}
_LARGEST_DICTIONARY = 256 * 1024**2
_LARGEST_OPTIONS = 1024**2
_MOST_LAYERS, _LARGEST_SIZE = 1000, 1_000_000


class _Dictionary(NamedTuple):
    """A dictionary as the original reads it.

    Attributes:
        file: Where it comes from.
        ids: The id of each entry. Two entries may have the same id.
        size: How many rows the embedding has: one for each line, or (`with_rows_of`) one for each distinct entry.
    """

    file: InputFile
    ids: dict[str, int]
    size: int

    def with_rows_of(self, embedding: object) -> _Dictionary:
        """The dictionary with the `size` of an embedding that has a row for each distinct entry, as the original makes.

        Training numbers lines before white space is stripped from them, and so may count more rows.

        Raises:
            ConversionError: for an id that has no row then.
        """
        shape = getattr(embedding, "shape", ())
        if self.size == len(self.ids) or not shape or shape[0] != len(self.ids):
            return self
        entry = max(self.ids, key=self.ids.__getitem__)
        if self.ids[entry] >= len(self.ids):
            raise ConversionError(
                f"{self.file}: the number of {entry!a}, {self.ids[entry]}, is too large for the {len(self.ids)} rows "
                f"of {_TOKEN_EMBEDDER}."
            )
        return self._replace(size=len(self.ids))

    def require(self, entry: str) -> int:
        """The id of a special entry.

        Raises:
            ConversionError: if there is none.
        """
        if entry not in self.ids:
            raise ConversionError(f"{self.file} has no line for {entry}, which every such dictionary has.")
        return self.ids[entry]

    def ordered(self) -> list[str]:
        """The entries in the order of their ids."""
        return sorted(self.ids, key=self.ids.__getitem__)


def is_elmoformanylangs(source: str | Path) -> bool:
    """Whether a folder or a zip archive looks like an ELMo of this format."""
    source = Path(source)
    if source.is_dir():
        return any((source / name).is_file() for name in _MARKS)
    if not source.is_file():
        return False
    try:
        with zipfile.ZipFile(source) as archive:
            return any(PurePosixPath(name).name in _MARKS for name in archive.namelist())
    except ZIP_DAMAGE:
        return False


def load_elmoformanylangs(
    source: str | Path, *, options: str | Path | Mapping[str, Any] | None = None
) -> tuple[ElmoPreTrainedModel, ElmoTokenizer]:
    """Reads an ELMo of ELMoForManyLangs.

    Pickles are read as data (`torch.load(weights_only=True)`); nothing in them is run.

    Args:
        source: The folder or the zip archive. The file that `config.json` names as its `config_path` is looked for
            beside it by its base name alone. If it is not there, but of the name of one that comes with the original
            program, its values are known (with a warning).
        options: That second file, or its content, if it is elsewhere.

    Returns:
        The model, float32, in evaluation mode: an `ElmoModel`, or with a `classifier.pkl` an `ElmoForPreTraining` whose
        softmax is that classifier. And its tokenizer, with both dictionaries.

    Raises:
        ConversionError: if anything is missing, surplus, damaged or contradictory (file, key, what was expected), or
            of a variant that our model has no place for.
        OSError: if a file cannot be read.
    """
    with _files(Path(source)) as files:
        return _load(source, files, options)


def _load(
    source: str | Path, files: Mapping[str, InputFile], options: str | Path | Mapping[str, Any] | None
) -> tuple[ElmoPreTrainedModel, ElmoTokenizer]:
    for name in _MARKS:
        if name not in files:
            raise ConversionError(f"{source} has no {name}. It has: {', '.join(sorted(files)) or 'no file'}.")
    content, options_name = _options(source, files, options)
    config = _config(content, options_name)
    if config.word_embed_dim and _WORDS not in files:
        raise ConversionError(f"{source} has no {_WORDS}, although {options_name} has a token_embedder.word_dim.")
    characters = _read_dictionary(files[_CHARACTERS])
    words = _read_dictionary(files[_WORDS]) if _WORDS in files else None
    embedder = load_tensors(files[_TOKEN_EMBEDDER])
    characters = characters.with_rows_of(embedder.get("char_emb_layer.embedding.weight"))
    if words is not None:
        words = words.with_rows_of(embedder.get("word_emb_layer.embedding.weight"))
    tokenizer, character_rows, word_rows = _tokenizer(config, characters, words)
    config.char_vocab_size, config.vocab_size = len(character_rows), len(tokenizer)
    with torch.device("meta"):
        skeleton = ElmoModel(config)
    state = initial_mixes(config)
    for name, tensors, key_map, part in (
        (_TOKEN_EMBEDDER, embedder, _embedder_map(characters, character_rows, words, word_rows), "character_encoder."),
        (_ENCODER, load_tensors(files[_ENCODER]), _ENCODER_MAP, "bilstm."),
    ):
        parameters = {name: value for name, value in skeleton.state_dict().items() if name.startswith(part)}
        state |= _parameters(files[name], tensors, resolve(key_map, parameters), options_name)
    model: ElmoPreTrainedModel = skeleton
    if _CLASSIFIER in files and (softmax := _softmax(files[_CLASSIFIER], config, words, word_rows)):
        with torch.device("meta"):
            model = ElmoForPreTraining(config)
        state = {f"elmo.{name}": value for name, value in state.items()} | softmax
    # The arrays become the parameters: there is never a second copy of the whole model.
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval(), tokenizer


def convert_elmoformanylangs(
    source: str | Path,
    destination: str | Path,
    *,
    options: str | Path | Mapping[str, Any] | None = None,
    published: str | None = None,
) -> None:
    """Makes a model folder (configuration, safetensors, tokenizer) of an ELMo of ELMoForManyLangs.

    Args:
        source: As in `load_elmoformanylangs`, like `options`.
        destination: The folder, which must not exist yet, or be empty.
        published: The name of the published model that it is, for its card, where neither checksum nor name of a file
            says so (`hf_elmo.hub.published_models`).

    Raises:
        ConversionError: as `load_elmoformanylangs`, or if there is something at `destination`.
        ValueError: if there is no published model of that name.
        OSError: if a file cannot be read or written. Nothing is left of the folder then.
    """
    check_new_folder(destination)
    with _files(Path(source)) as files:
        model, tokenizer = _load(source, files, options)
        read = paths_of(source, _read_files(files, options))
    origin = origin_of("elmoformanylangs", read, published)
    write_model_folder(model, None, destination, tokenizer=tokenizer, origin=origin)


def _read_files(files: Mapping[str, InputFile], options: str | Path | Mapping[str, Any] | None) -> list[InputFile]:
    """The files of which a model was made, after it was."""
    names = [_TOKEN_EMBEDDER, _ENCODER, _CLASSIFIER, _CHARACTERS, _WORDS]
    if options is None:
        config_path = read_json_object(files["config.json"])["config_path"]
        names += ["config.json", PureWindowsPath(config_path).name]
    read = [files[name] for name in names if name in files]
    return [*read, InputFile.at(options)] if isinstance(options, (str, Path)) else read


@contextmanager
def _files(source: Path) -> Iterator[Mapping[str, InputFile]]:
    if source.is_dir():
        yield files_of_folder(source)
    elif not source.is_file():
        raise ConversionError(f"{source} does not exist, or is neither a file nor a folder.")
    else:
        wanted = {_CHARACTERS, _WORDS, _TOKEN_EMBEDDER, _ENCODER, _CLASSIFIER}
        with unpacked_zip(source, lambda name: name in wanted or name.endswith(".json")) as files:
            yield files


def _options(
    source: str | Path, files: Mapping[str, InputFile], options: str | Path | Mapping[str, Any] | None
) -> tuple[Mapping[str, Any], str]:
    """The sizes of the model, and what messages call their source."""
    if isinstance(options, (str, Path)):
        return read_json_object(InputFile.at(options)), str(options)
    if options is not None:
        return options, "The options"
    remedy = "Put that file beside it, or give its path (options=...)."
    if "config.json" not in files:
        raise ConversionError(f"{source} has no config.json, which names the file of the model's sizes. {remedy}")
    file = files["config.json"]
    path = read_json_object(file).get("config_path")
    if not isinstance(path, str) or not path:
        raise ConversionError(f"{file}: config_path must be the path of a JSON file, was: {path!a}. {remedy}")
    # The path is one on the machine of those who trained it, and may lead anywhere on this one.
    name = PureWindowsPath(path).name
    if name in files and name != "config.json":
        return read_json_object(files[name]), str(files[name])
    elsewhere = _named_file(source, path)
    if elsewhere is not None and elsewhere.path.is_relative_to(Path(source).resolve()) and name != "config.json":
        return read_json_object(elsewhere), str(elsewhere)
    if name not in _PUBLISHED_NAMES:
        raise ConversionError(
            f"{file}: its config_path is {path!a}, but there is no {name!a} beside it (files outside of the folder are "
            f"not read), nor is it one that comes with ELMoForManyLangs ({', '.join(_PUBLISHED_NAMES)}). {remedy}"
        )
    outside = f"{file}: its config_path, {path!a}, lies outside of {source}, and is not read (it may name any file)"
    if elsewhere is None:
        found = f"{file}: its config_path, {path!a}, is not there; taken are the values of the {name} that comes with "
        warnings.warn(f"{found}ELMoForManyLangs.", stacklevel=3)
    elif _says_the_published(elsewhere):
        warnings.warn(f"{outside}; it holds the values that come with ELMoForManyLangs, which are taken.", stacklevel=3)
    else:
        raise ConversionError(
            f"{outside}; but it differs from the {name} that comes with ELMoForManyLangs. Put the right one beside "
            "config.json, or give its path (options=...)."
        )
    return _PUBLISHED, f"{name} (as published)"


def _named_file(source: str | Path, path: str) -> InputFile | None:
    """The file that `config_path` names, resolved, if it is there: from the folder on, as the original reads it."""
    # On Windows, looking at a share of another machine would already tell it who is looking.
    if path.startswith(("\\\\", "//")) or "\0" in path or not (Path(source).is_dir() or Path(path).is_absolute()):
        return None
    try:
        found = (Path(source) / path).resolve()
        return InputFile(found, str(found)) if found.is_file() else None
    except (OSError, RuntimeError, ValueError):
        return None


def _says_the_published(file: InputFile) -> bool:
    """Whether a file of sizes says what `_PUBLISHED` says."""
    try:
        if file.path.stat().st_size > _LARGEST_OPTIONS:
            return False
        content = read_json_object(file)
    except (ConversionError, OSError):
        return False
    return all(content.get(key) == value for key, value in _PUBLISHED.items())


def _read_dictionary(file: InputFile) -> _Dictionary:
    """A dictionary of lines `entry<TAB>id`.

    Raises:
        ConversionError: for a file that is not UTF-8 text, is empty or huge, and for a line that is not such a line or
            whose id is larger than the dictionary.
    """
    with file.path.open("rb") as stream:
        data = stream.read(_LARGEST_DICTIONARY + 1)
    if len(data) > _LARGEST_DICTIONARY:
        raise ConversionError(f"{file} holds more than {_LARGEST_DICTIONARY:,} bytes: that is no dictionary of words.")
    try:
        lines = data.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise ConversionError(
            f"{file}, line {number}: the byte {data[error.start]:#x} is no UTF-8. Expected lines of an entry, a tab "
            "and a number, in UTF-8."
        ) from None
    if lines == [""]:
        raise ConversionError(f"{file} is empty.")
    ids: dict[str, int] = {}
    owners: dict[int, str] = {}
    # What the original's dict makes of it (elmo.py), which takes every line.
    repeated, shared = [], []
    for number, line in enumerate(lines, start=1):
        fields = line.strip().split("\t")
        entry = _WHITE_SPACE if len(fields) == 1 else fields[0]
        if len(fields) > 2 or not re.fullmatch(r"\d{1,9}", fields[-1]):
            raise ConversionError(f"{file}, line {number}: expected an entry, a tab and a number, was: {line[:80]!a}.")
        identity = int(fields[-1])
        if identity >= len(lines):
            raise ConversionError(
                f"{file}, line {number}: the number {identity} is too large for a dictionary of {len(lines)} lines, "
                "which are numbered from 0 on."
            )
        if entry in ids:
            repeated.append((number, entry))
        elif identity in owners:
            shared.append((number, entry, owners[identity]))
        owners[identity] = entry
        ids[entry] = identity
    if repeated:
        number, entry = repeated[0]
        warnings.warn(
            f"{file}: {len(repeated)} of its lines have an entry that was there before, of which the last line counts, "
            f"as in the original program (line {number}, "
            f"{'white space' if entry == _WHITE_SPACE else ascii(entry[:80])}).",
            stacklevel=4,
        )
    if shared:
        number, entry, other = shared[0]
        warnings.warn(
            f"{file}: {len(shared)} of its lines have the number of another entry, whose row they share, as in the "
            f"original program (line {number}, {entry[:80]!a}, that of {other[:80]!a}).",
            stacklevel=4,
        )
    return _Dictionary(file, ids, len(lines))


def _tokenizer(
    config: ElmoConfig, characters: _Dictionary, words: _Dictionary | None
) -> tuple[ElmoTokenizer, Tensor, Tensor]:
    """The tokenizer, and for each of our ids of characters, and of words, theirs; -1 where they have none."""
    specials = {
        UNKNOWN_CHARACTER: "<oov>",
        BEGIN_SENTENCE: "<bos>",
        END_SENTENCE: "<eos>",
        # The original has them this way round (frontend.py and biLM.py, create_one_batch).
        BEGIN_WORD: "<eow>",
        END_WORD: "<bow>",
        PAD_CHARACTER: "<pad>",
    }
    known = [entry for entry in characters.ordered() if len(entry) == 1]
    if not known:
        raise ConversionError(f"{characters.file} has no characters, only other entries.")
    numbers = character_numbers(len(known)).tolist()
    character_rows = torch.full((max(PAD_CHARACTER, numbers[-1]) + 1,), -1)
    character_rows[numbers] = torch.tensor([characters.ids[entry] for entry in known])
    for number, entry in specials.items():
        character_rows[number] = characters.require(entry)
    if unreachable := set(characters.ids) - set(known) - set(specials.values()):
        warnings.warn(
            f"{characters.file}: {len(unreachable)} of its entries are no single characters, which nothing can be "
            f"looked up as; they are left out (such as {min(unreachable)!a}).",
            stacklevel=3,
        )
    vocabulary = None if words is None else _vocabulary(words)
    tokenizer = ElmoTokenizer.create(
        vocabulary,
        config.max_characters_per_token,
        characters="".join(known),
        word_ids_in_rows=config.word_embed_dim > 0,
    )
    word_rows = torch.full((len(tokenizer),), -1)
    if words is not None:
        unknown = words.require("<oov>")
        special_rows = [words.ids.get(entry, unknown) for entry in ("<oov>", "<bos>", "<eos>")]
        word_rows[1:] = torch.tensor([*special_rows, *(words.ids[word] for word in vocabulary or ())])
    return tokenizer, character_rows, word_rows


def _vocabulary(words: _Dictionary) -> list[str]:
    """The ordinary words; `<pad>` is one, for whoever writes it in a text."""
    entries = [entry for entry in words.ordered() if entry not in ("<oov>", "<bos>", "<eos>")]
    ordinary = [entry for entry in entries if entry not in _NOT_ORDINARY and "\U0010ffff" not in entry]
    if len(ordinary) < len(entries):
        left_out = sorted(set(entries) - set(ordinary))
        warnings.warn(
            f"{words.file}: {len(left_out)} of its words mean something else here, and are left out "
            f"({', '.join(left_out[:5])}).",
            stacklevel=4,
        )
    return ordinary


def _config(content: Mapping[str, Any], name: str) -> ElmoConfig:
    """The configuration, but for the sizes of the two vocabularies.

    Raises:
        ConversionError: for missing, unknown or impossible values, and for the variants that are not read.
    """
    encoder, embedder = (Section(name, key, content.get(key)) for key in ("encoder", "token_embedder"))
    for section, expected in ((encoder, "elmo"), (embedder, "cnn")):
        kind = section.take("name", str)
        if kind.lower() != expected:
            raise ConversionError(
                f"{name}: {section.path}.name is {kind!a}, expected {expected!r}, which all published models have. An "
                "LSTM in its place is another network, which cannot be computed here."
            )
    sizes: dict[str, Any] = {
        "cell_size": _size(encoder, "dim"),
        "projection_dim": _size(encoder, "projection_dim"),
        "num_layers": _size(encoder, "n_layers", most=_MOST_LAYERS),
        "char_embed_dim": _size(embedder, "char_dim"),
        "word_embed_dim": _size(embedder, "word_dim"),
        "num_highway_layers": _size(embedder, "n_highway", most=_MOST_LAYERS),
        "max_characters_per_token": _size(embedder, "max_characters_per_token"),
    }
    if sizes["char_embed_dim"] == 0:
        raise ConversionError(f"{name}: token_embedder.char_dim is 0, but an ELMo reads characters.")
    switches = {
        "filters": embedder.take("filters", list),
        "activation": embedder.take("activation", str),
        # A bound of 0 is none (lstm_cell_with_projection.py).
        "cell_clip": encoder.take("cell_clip", float, None) or None,
        "proj_clip": encoder.take("proj_clip", float, None) or None,
        "dropout": content.get("dropout", 0.1),
    }
    encoder.close()
    embedder.close()
    try:
        # What is added to the forget gate is part of the biases already.
        config = ElmoConfig(byte_characters=False, forget_bias=0.0, **sizes, **switches)
    except (ValueError, TypeError) as error:
        raise ConversionError(f"{name}: {error}") from None
    if len(config.filters) > _MOST_LAYERS or config.num_filters > _LARGEST_SIZE:
        raise ConversionError(f"{name}: token_embedder.filters are too many, or too large, for any ELMo.")
    if not config.has_lstm_projection or not config.has_character_projection:
        raise ConversionError(
            f"{name}: encoder.projection_dim is {config.projection_dim}, the size of what is projected to it; the "
            "format has a projection there all the same, for which our model has no place."
        )
    return config


def _size(section: Section, key: str, most: int = _LARGEST_SIZE) -> int:
    value = section.take(key, int)
    if not 0 <= value <= most:
        raise ConversionError(
            f"{section.file}: {section.path}.{key} must be a whole number from 0 to {most:,}, was: {value}."
        )
    return value


def _rows(rows: Tensor, size: int) -> Transform:
    """Rows in our order from `size` rows in theirs; those that they lack are zeros here, and the other way round."""
    here = (rows >= 0).nonzero().squeeze(1)
    there = rows[here]

    def to_ours(array: Tensor) -> tuple[Tensor]:
        return (array.new_zeros(len(rows), *array.shape[1:]).index_copy(0, here, array.index_select(0, there)),)

    def to_foreign(parameter: Tensor) -> Tensor:
        known = parameter.index_select(0, here.to(parameter.device))
        return parameter.new_zeros(size, *parameter.shape[1:]).index_copy(0, there.to(parameter.device), known)

    return Transform(to_ours, to_foreign)


#: AllenNLP's highway layer: what is transformed above, and the gate of what is not, which is ours with the sign turned.
_HIGHWAY = Transform(
    lambda both: (both.chunk(2)[0], -both.chunk(2)[1]), lambda transform, carry: torch.cat([transform, -carry])
)


def _embedder_map(
    characters: _Dictionary, character_rows: Tensor, words: _Dictionary | None, word_rows: Tensor
) -> list[Entry]:
    ours = "character_encoder"
    highway = [
        Entry(
            f"highways._layers.{{i}}.{kind}",
            (f"{ours}.highways.{{i}}.transform.{kind}", f"{ours}.highways.{{i}}.carry.{kind}"),
            _HIGHWAY,
        )
        for kind in ("weight", "bias")
    ]
    return [
        Entry(
            "char_emb_layer.embedding.weight", f"{ours}.char_embedding.weight", _rows(character_rows, characters.size)
        ),
        Entry(
            "word_emb_layer.embedding.weight",
            f"{ours}.word_embedding.weight",
            _rows(word_rows, words.size) if words else SAME,
        ),
        Entry("convolutions.{i}.weight", f"{ours}.convolutions.{{i}}.weight"),
        Entry("convolutions.{i}.bias", f"{ours}.convolutions.{{i}}.bias"),
        *highway,
        Entry("projection.weight", f"{ours}.projection.weight"),
        Entry("projection.bias", f"{ours}.projection.bias"),
    ]


_ENCODER_MAP = allennlp_lstms()


def _parameters(
    file: InputFile, tensors: Mapping[str, Any], links: Sequence[Link], options_name: str
) -> dict[str, Tensor]:
    hint = f"The sizes expected come from {options_name} and the dictionaries."
    check_arrays(file, links, {key: tensor_info(value) for key, value in tensors.items()}, hint=hint)
    return read_parameters(file, links, lambda key: sound_tensor(tensors[key]).numpy())


def _softmax(
    file: InputFile, config: ElmoConfig, words: _Dictionary | None, word_rows: Tensor
) -> dict[str, Tensor] | None:
    """The softmax over words, of either kind that is one; None, with a warning, for one that is computed from words."""
    tensors = load_tensors(file)
    if "corr.weight" in tensors:
        warnings.warn(
            f"{file} is left out: it is a cnn_softmax, whose rows are computed from words' characters.", stacklevel=3
        )
        return None
    if words is None:
        raise ConversionError(f"{file} is a softmax over words, but there is no {_WORDS} beside it that names them.")
    size, order = words.size, _rows(word_rows, words.size)
    weight, bias = "softmax.weight", "softmax.bias"
    if "hidden2tag.weight" in tensors:
        links = [
            Link("hidden2tag.weight", (weight,), (size, config.projection_dim), order),
            Link("hidden2tag.bias", (bias,), (size,), order),
        ]
    else:
        column = Transform(lambda array: order.to_ours(array.squeeze(1)), lambda bias: order.written(bias)[:, None])
        # A start of something that the program never made use of.
        unused = Transform(lambda array: (), lambda: torch.zeros(config.projection_dim, 1))
        links = [
            Link("column_emb.weight", (weight,), (size, config.projection_dim), order),
            Link("column_bias.weight", (bias,), (size, 1), column),
            Link("oov_column", (), (config.projection_dim, 1), unused),
        ]
    check_arrays(file, links, {key: tensor_info(value) for key, value in tensors.items()})
    return read_parameters(file, links, lambda key: sound_tensor(tensors[key]).numpy())
