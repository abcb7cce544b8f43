"""The configuration of an ELMo: every size and switch of the biLM and of the scalar mix on top of it."""

from __future__ import annotations

import copy
import math
from dataclasses import field
from typing import Any

from transformers import PreTrainedConfig

_ORIGINAL_FILTERS = [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]]

#: The published English models (https://allenai.org/allennlp/software/elmo); "original" is also the shape of "5.5B".
PRESETS: dict[str, dict[str, Any]] = {
    "small": {"cell_size": 1024, "projection_dim": 128, "num_highway_layers": 1},
    "medium": {"cell_size": 2048, "projection_dim": 256, "num_highway_layers": 1},
    "original": {"cell_size": 4096, "projection_dim": 512, "num_highway_layers": 2},
}

# options.json (section, key) <-> field of ElmoConfig. Where the original programs read a key with a default, that
# default stands third; a key without one must be there (bilm-tf, bilm/model.py and bilm/training.py).
_REQUIRED = object()
_OPTIONS: list[tuple[tuple[str, ...], str, Any]] = [
    (("char_cnn", "embedding", "dim"), "char_embed_dim", _REQUIRED),
    (("char_cnn", "filters"), "filters", _REQUIRED),
    (("char_cnn", "n_highway"), "num_highway_layers", 0),
    (("char_cnn", "activation"), "activation", _REQUIRED),
    (("char_cnn", "max_characters_per_token"), "max_characters_per_token", _REQUIRED),
    (("lstm", "dim"), "cell_size", _REQUIRED),
    (("lstm", "projection_dim"), "projection_dim", _REQUIRED),
    (("lstm", "n_layers"), "num_layers", 1),
    (("lstm", "use_skip_connections"), "use_skip_connections", False),
    (("lstm", "cell_clip"), "cell_clip", None),
    (("lstm", "proj_clip"), "proj_clip", None),
]

# More than any ELMo has. A damaged or hostile file with larger numbers is refused before memory is asked for.
_MOST_LAYERS, _LARGEST_SIZE, _MOST_CHARACTERS, _MOST_WORDS = 1000, 1_000_000, 2_000_000, 1_000_000_000

_ENCODER_KINDS = ("lstm", "gru", "rnn", "relu_rnn", "alternating_lstm")

#: What may follow a feed-forward layer of a tagger: functions without parameters that transformers and AllenNLP know
#: by one name.
FEEDFORWARD_ACTIVATIONS = (
    "relu",
    "tanh",
    "linear",
    "sigmoid",
    "relu6",
    "leaky_relu",
    "gelu",
    "gelu_new",
    "mish",
    "swish",
)

# Training writes 261 (bytes and five marks); prediction wants 262 (one more, for padding). The weights are the same.
_N_CHARACTERS = (261, 262)


class ElmoConfig(PreTrainedConfig):
    r"""Sizes and switches of an ELMo (Peters et al. 2018, https://arxiv.org/abs/1802.05365).

    The defaults are the published "original" model; `from_preset` gives the others, `from_options` reads the
    `options.json` that accompanies every ELMo trained with bilm-tf.

    Attributes:
        vocab_size: Size of the word vocabulary, four special words (`[PAD]`, `[UNK]`, `<S>`, `</S>`) included. The
            model reads characters: words serve as targets of the language model and as keys, and are read only where
            `word_embed_dim` or `character_inputs` says so.
        character_inputs: Whether the model reads characters. False: it has no characters, and looks each word of the
            vocabulary up in a table of `projection_dim` numbers a word (bilm-tf's word inputs, options without
            `char_cnn`); the fields of the character CNN mean nothing then.
        char_vocab_size: Rows of the character embedding: 256 bytes, five marks and padding; or, around the same marks
            and padding, the characters of the tokenizer's dictionary.
        byte_characters: Whether characters are the bytes of UTF-8, as in bilm-tf and AllenNLP, or the Unicode
            characters of a dictionary that the tokenizer keeps, as in ELMoForManyLangs.
        word_embed_dim: Size of a trained vector for each word of the vocabulary, which stands before the features of
            the character CNN when these are projected (ELMoForManyLangs); 0 for none. Without characters it is the
            word's vector, and is set to `projection_dim`.
        char_embed_dim: Size of a character's vector.
        filters: `[width, count]` of every convolution of the character CNN.
        num_highway_layers: Highway layers on top of the convolutions; 0 for none.
        activation: `"relu"` or `"tanh"`, after the max-pooling over a word's characters.
        max_characters_per_token: Length of a word's row of characters, its two word marks included.
        cell_size: Size of an LSTM's cell.
        projection_dim: Size of a word's vector and of an LSTM's output, per direction. The LSTM projects its output
            down to it where it is smaller than `cell_size`, and has no projection where the two are equal. The
            character CNN likewise has none where its number of filters equals `projection_dim`.
        num_layers: biLSTM layers.
        use_skip_connections: Whether layers above the first add their input to their output.
        cell_clip: Bound of the absolute value of an LSTM's cell; `None` for no bound.
        proj_clip: Bound of the absolute value of an LSTM's projected output; `None` for no bound.
        forget_bias: Added to the forget gate at run time, not part of the weights (as in TensorFlow's `LSTMCell`).
        dropout: Dropout of the biLM while it is trained: on each LSTM layer's input and on the top layer's output.
        num_negative_samples: How many words of the vocabulary, which then has to be sorted by falling frequency, the
            language model scores each word against while it is trained (bilm-tf's `n_negative_samples_batch`); `None`
            for all. Evaluation takes all in any case.
        tie_word_embeddings: Whether the softmax of the language model is the table of words itself (bilm-tf's
            `share_embedding_softmax`); only without characters.
        num_representations: Number of scalar mixes, each with weights of its own (AllenNLP's
            `num_output_representations`).
        do_layer_norm: Whether a mix first normalises each layer, with one mean and variance over all words of the
            batch. A sentence's vectors then depend on its batch, so it is off by default, as in the paper.
        scalar_mix_parameters: Fixed weights of the mixes, before the softmax, one per layer (`num_layers + 1`); then
            neither they nor gamma are trained. `None`: learned, from equal weights.
        representation_dropout: Dropout of the mixed representations (AllenNLP's `Elmo(dropout=0.5)`).
        freeze_bilm: Whether task heads leave the biLM as it is and train only the mix and themselves, as in the paper.
        task_encoder_layers: biLSTM layers between ELMo and a task head; 0 for none.
        task_encoder_size: Size of their output per direction.
        task_encoder_bidirectional: False: in `ElmoForTokenClassification` they read forward only.
        task_encoder_kind: `"lstm"`; or, in `ElmoForTokenClassification`, in their place torch's `"gru"`, its `"rnn"`
            with tanh, the same with relu (`"relu_rnn"`), or `"alternating_lstm"`: LSTMs that read in turns forward and
            backward, `task_encoder_bidirectional` being False (AllenNLP's encoders of these names).
        task_encoder_begins_backward: Whether the first of alternating LSTMs reads backward.
        task_encoder_highways: Whether, in `ElmoForTokenClassification`, a highway leads around each of them (AllenNLP's
            `stacked_bidirectional_lstm`, `alternating_lstm` and `augmented_lstm`).
        task_feedforward_sizes: Sizes of further layers between them and the scores of tags (AllenNLP's `feedforward`).
        task_feedforward_activation: What follows each of these, as transformers names it (`"relu"`, `"tanh"`,
            `"linear"`, ...); a list has one for each.
        elmo_projection_size: Size to which, in `ElmoForTokenClassification`, a linear layer brings ELMo's vectors
            before anything else (AllenNLP's `projection_dim`); 0 for no such layer.
        task_dropout: Dropout before, between and behind them; on ELMo's vectors not a second time, where
            `representation_dropout` falls on them.
        classifier_size: Size of the hidden layer of heads that judge whole texts.
        context_self_attention: Whether the question answering head also compares the context with itself, at a cost
            that grows with the square of its length.
        question_segment: Which segment of a row (`token_type_ids`) is the question, the other being its context: 0, or
            1 where the context comes first.
        scalar_mix_l2: Factor of the sum of the squared mix weights, before the softmax, that
            `ElmoForTokenClassification` adds to its loss in training (the paper's lambda, 0.1 in its NER).
        use_crf: Whether `ElmoForTokenClassification` scores sequences of tags (a CRF) or each word's tag alone.
        crf_constraints: Whether the CRF forbids what the scheme of `id2label` (BIO, BIOES, BILOU) does not allow.
        output_tags: Whether `ElmoForTokenClassification` returns the best tags besides its logits, when not training.
        word_vector_size: Size of a word vector beside ELMo, for which `ElmoForTokenClassification.load_word_vectors`
            reads pretrained ones; 0 for none.
        freeze_word_vectors: Whether they are not trained.
        char_cnn_filters: `[width, count]` of the convolutions of a small character CNN beside ELMo, trained with the
            task (`[[3, 128]]` in the paper's NER); `None` for none.
        char_cnn_embed_dim: Size of its character vectors.
        char_cnn_characters: The Unicode characters that it knows (AllenNLP's `token_characters`), decoded from ELMo's
            bytes; `None`: it reads these bytes themselves, with the marks around them.
        char_lstm_size: Size of the state of an LSTM over these Unicode characters, in place of the CNN; 0 for none.
        initializer_range: Standard deviation of a fresh task head's weights.
        original_options: The `options.json` that the model came from. `to_options` returns it with the values of
            today, so that keys which nothing here uses survive the way back.

    Raises:
        ValueError: for values that contradict each other, with the reason and the remedy.
    """

    model_type = "elmo"
    attribute_map = {"num_hidden_layers": "num_layers"}  # noqa: RUF012 (the library's convention)
    # What `Trainer` does not take for predictions, beside the loss: the parts of a language model's.
    keys_to_ignore_at_inference = ["past_key_values", "forward_loss", "backward_loss"]  # noqa: RUF012

    vocab_size: int = 4
    character_inputs: bool = True
    char_vocab_size: int = 262
    byte_characters: bool = True
    word_embed_dim: int = 0
    char_embed_dim: int = 16
    filters: list[list[int]] = field(default_factory=lambda: copy.deepcopy(_ORIGINAL_FILTERS))
    num_highway_layers: int = 2
    activation: str = "relu"
    max_characters_per_token: int = 50
    cell_size: int = 4096
    projection_dim: int = 512
    num_layers: int = 2
    use_skip_connections: bool = True
    cell_clip: float | None = 3.0
    proj_clip: float | None = 3.0
    forget_bias: float = 1.0
    dropout: float = 0.1
    num_negative_samples: int | None = None
    tie_word_embeddings: bool = False
    num_representations: int = 1
    do_layer_norm: bool = False
    scalar_mix_parameters: list[float] | None = None
    representation_dropout: float = 0.5
    freeze_bilm: bool = True
    task_encoder_layers: int = 2
    task_encoder_size: int = 200
    task_encoder_bidirectional: bool = True
    task_encoder_kind: str = "lstm"
    task_encoder_begins_backward: bool = False
    task_encoder_highways: bool = False
    task_feedforward_sizes: list[int] | None = None
    task_feedforward_activation: str | list[str] = "relu"
    elmo_projection_size: int = 0
    task_dropout: float = 0.5
    classifier_size: int = 512
    context_self_attention: bool = False
    question_segment: int = 0
    scalar_mix_l2: float = 0.0
    use_crf: bool = True
    crf_constraints: bool = True
    output_tags: bool = False
    word_vector_size: int = 0
    freeze_word_vectors: bool = True
    char_cnn_filters: list[list[int]] | None = None
    char_cnn_embed_dim: int = 16
    char_cnn_characters: str | None = None
    char_lstm_size: int = 0
    initializer_range: float = 0.02
    original_options: dict[str, Any] | None = None

    pad_token_id: int | None = 0
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 3

    def __post_init__(self, **kwargs: Any) -> None:
        # hidden_size follows from projection_dim; where both are given, hidden_size has to be right.
        hidden_size = kwargs.pop("hidden_size", None)
        # The base class makes a name for each label.
        _check_whole_number("num_labels", kwargs.get("num_labels") or 0, 0, _LARGEST_SIZE)
        if self.filters is None:  # null in a config.json stands for the default
            self.filters = copy.deepcopy(_ORIGINAL_FILTERS)
        if not self.character_inputs and self.word_embed_dim == 0:
            self.word_embed_dim = self.projection_dim
        super().__post_init__(**kwargs)
        self._check()
        if hidden_size is not None and hidden_size != self.hidden_size:
            raise ValueError(
                f"hidden_size is {hidden_size}, but it is twice projection_dim ({self.projection_dim}), one half per "
                f"direction: leave it out, or set projection_dim to {hidden_size // 2}."
            )

    @property
    def hidden_size(self) -> int:
        """Size of a word's representation: both directions, `2 * projection_dim`."""
        return 2 * self.projection_dim

    @property
    def num_filters(self) -> int:
        """Features that the convolutions give for a word, all widths together."""
        return sum(count for _, count in self.filters)

    @property
    def has_lstm_projection(self) -> bool:
        """Whether the LSTMs project their output: where the output is smaller than the cell."""
        return self.projection_dim != self.cell_size

    @property
    def has_character_projection(self) -> bool:
        """Whether the character encoder ends in a projection: where its features are not of the right size."""
        return self.word_embed_dim + self.num_filters != self.projection_dim

    @property
    def feedforward_activations(self) -> list[str]:
        """The name of the activation behind each layer of `task_feedforward_sizes`."""
        given = self.task_feedforward_activation
        return list(given) if isinstance(given, list) else [given] * len(self.task_feedforward_sizes or ())

    @property
    def row_length(self) -> int:
        """Length of a word's row in `character_ids`: its characters, and its word id if there is a word embedding."""
        if not self.character_inputs:
            return 1
        return self.max_characters_per_token + (self.word_embed_dim > 0)

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> ElmoConfig:
        """The configuration of a published size.

        Args:
            name: `"small"`, `"medium"` or `"original"`: 13,593,312, 28,027,744 and 93,600,864 parameters, scalar mix
                aside.
            overrides: Fields to set otherwise.

        Raises:
            ValueError: for a name that is not one of these.
        """
        if name not in PRESETS:
            raise ValueError(f"There is no preset {name!r}; the presets are {', '.join(PRESETS)}.")
        return cls(**{**PRESETS[name], **overrides})

    @classmethod
    def from_options(cls, options: dict[str, Any], **overrides: Any) -> ElmoConfig:
        """Reads the content of an `options.json` as bilm-tf writes it (see its `bin/train_elmo.py`).

        Args:
            options: The file's content. `n_characters` may be 261 (as training writes it) or 262. Without `char_cnn`
                the model reads words.
            overrides: Fields to set otherwise.

        Raises:
            ValueError: for a missing key, one with an impossible value, or values that contradict each other.
        """
        if not isinstance(options, dict):
            raise ValueError(f"options.json must hold a JSON object, but holds {type(options).__name__}.")
        # As bilm-tf tells the two apart.
        character_inputs = "char_cnn" in options
        fields = {
            name: _read_option(options, path, default)
            for path, name, default in _OPTIONS
            if name not in overrides and (character_inputs or path[0] != "char_cnn")
        }
        is_shared = options.get("share_embedding_softmax", False)
        if not isinstance(is_shared, bool) or (is_shared and character_inputs):
            raise ValueError(
                f"options.json: share_embedding_softmax is {is_shared!r}; expected true or false, and true only in a "
                "model that reads words (without char_cnn)."
            )
        fields |= {"character_inputs": character_inputs, "tie_word_embeddings": is_shared}
        n_characters = _read_option(options, ("char_cnn", "n_characters"), 262) if character_inputs else 262
        if n_characters not in _N_CHARACTERS:
            raise ValueError(
                f"options.json: char_cnn.n_characters is {n_characters!r}; an ELMo of UTF-8 bytes has 261 (in "
                "training) or 262 (in prediction)."
            )
        if fields.get("use_skip_connections") is None:
            fields["use_skip_connections"] = False
        if fields.get("num_highway_layers") is None:
            fields["num_highway_layers"] = 0
        if options.get("dropout") is not None:
            fields["dropout"] = options["dropout"]
        fields["num_negative_samples"] = _negative_samples(options)
        return cls(**{**fields, "original_options": copy.deepcopy(options), **overrides})

    def to_options(self) -> dict[str, Any]:
        """The `options.json` of this configuration: the one that it was read from, if any, with the present values.

        Raises:
            ValueError: if the model reads neither UTF-8 bytes nor words alone, which is all that the format can say.
        """
        if self.character_inputs and (self.char_vocab_size != 262 or not self.byte_characters or self.word_embed_dim):
            kind = "" if self.byte_characters else " of a dictionary"
            words = f", word vectors of {self.word_embed_dim}" if self.word_embed_dim else ""
            raise ValueError(
                f"An options.json describes ELMos over UTF-8 bytes, with 262 characters; this one has "
                f"{self.char_vocab_size}{kind}{words}, and cannot be written in that format."
            )
        options = copy.deepcopy(self.original_options or {})
        for path, name, default in _OPTIONS:
            if path[0] == "char_cnn" and not self.character_inputs:
                continue
            value = getattr(self, name)
            section = options
            for key in path[:-1]:
                section = section.setdefault(key, {})
            # What is absent means its default: only a value that differs from it has to be added.
            if path[-1] in section or default is _REQUIRED or value != default:
                section[path[-1]] = copy.deepcopy(_as_written(section.get(path[-1]), value))
        if self.character_inputs:
            options["char_cnn"].setdefault("n_characters", 262)
        elif self.tie_word_embeddings or "share_embedding_softmax" in options:
            options["share_embedding_softmax"] = self.tie_word_embeddings
        if options.get("dropout") is not None:
            options["dropout"] = _as_written(options["dropout"], self.dropout)
        if self.num_negative_samples != _negative_samples(options):
            if self.num_negative_samples is not None:
                options["n_negative_samples_batch"] = self.num_negative_samples
            if "sample_softmax" in options or self.num_negative_samples is None:
                options["sample_softmax"] = self.num_negative_samples is not None
        return options

    def _check(self) -> None:
        """Raises ValueError, with the reason and the remedy, for sizes and switches that cannot be."""
        for name, least, most in (
            ("vocab_size", 1, _MOST_WORDS),
            ("char_vocab_size", 1, _MOST_CHARACTERS),
            ("char_embed_dim", 1, _LARGEST_SIZE),
            ("word_embed_dim", 0, _LARGEST_SIZE),
            ("num_highway_layers", 0, _MOST_LAYERS),
            ("max_characters_per_token", 3, _LARGEST_SIZE),
            ("cell_size", 1, _LARGEST_SIZE),
            ("projection_dim", 1, _LARGEST_SIZE),
            ("num_layers", 1, _MOST_LAYERS),
            ("num_representations", 1, _MOST_LAYERS),
            ("task_encoder_layers", 0, _MOST_LAYERS),
            ("task_encoder_size", 1, _LARGEST_SIZE),
            ("classifier_size", 1, _LARGEST_SIZE),
            ("word_vector_size", 0, _LARGEST_SIZE),
            ("elmo_projection_size", 0, _LARGEST_SIZE),
            ("char_cnn_embed_dim", 1, _LARGEST_SIZE),
            ("char_lstm_size", 0, _LARGEST_SIZE),
        ):
            _check_whole_number(name, getattr(self, name), least, most)
        self._check_word_inputs()
        if self.num_negative_samples is not None:
            _check_whole_number("num_negative_samples", self.num_negative_samples, 1, _MOST_WORDS)
        self.filters = self._checked_filters("filters")
        if self.char_cnn_filters is not None:
            self.char_cnn_filters = self._checked_filters("char_cnn_filters")
        self._check_task_encoder()
        if self.char_lstm_size and (self.char_cnn_filters is not None or self.char_cnn_characters is None):
            raise ValueError(
                "char_lstm_size takes the place of char_cnn_filters, and needs char_cnn_characters: leave "
                "char_cnn_filters out, and give char_cnn_characters."
            )
        characters = self.char_cnn_characters
        if characters is not None and not (isinstance(characters, str) and len(set(characters)) == len(characters)):
            raise ValueError(f"char_cnn_characters must be a str of different characters, was: {characters!r}.")
        if characters is not None and not self.byte_characters:
            raise ValueError(
                "char_cnn_characters are decoded from bytes, but this model reads characters of a dictionary "
                "(byte_characters is False): leave them out."
            )
        if self.activation not in ("relu", "tanh"):
            raise ValueError(f"activation must be 'relu' or 'tanh', was: {self.activation!r}.")
        if self.projection_dim > self.cell_size:
            raise ValueError(
                f"projection_dim ({self.projection_dim}) is larger than cell_size ({self.cell_size}), but an LSTM's "
                "projection only makes its output smaller: lower projection_dim, or make the two equal for an LSTM "
                "without projection."
            )
        for name in ("cell_clip", "proj_clip"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and value > 0):
                raise ValueError(f"{name} must be a number above 0, or None for no clipping, was: {value!r}.")
        for name in ("dropout", "representation_dropout", "task_dropout"):
            value = getattr(self, name)
            if not (_is_number(value) and 0 <= value < 1):
                raise ValueError(f"{name} must be at least 0 and below 1, was: {value!r}.")
        if self.question_segment not in (0, 1):
            raise ValueError(f"question_segment must be 0 or 1, was: {self.question_segment!r}.")
        if not (_is_number(self.scalar_mix_l2) and self.scalar_mix_l2 >= 0):
            raise ValueError(f"scalar_mix_l2 must be a number of at least 0, was: {self.scalar_mix_l2!r}.")
        if not _is_number(self.forget_bias):
            raise ValueError(f"forget_bias must be a finite number, was: {self.forget_bias!r}.")
        weights = self.scalar_mix_parameters
        if weights is not None and not (
            isinstance(weights, (list, tuple)) and len(weights) == self.num_layers + 1 and all(map(_is_number, weights))
        ):
            raise ValueError(
                f"scalar_mix_parameters must be {self.num_layers + 1} numbers, one for the word layer and one for each "
                f"of the {self.num_layers} biLSTM layers, was: {weights!r}."
            )

    def _check_task_encoder(self) -> None:
        if len(self.task_feedforward_sizes or ()) > _MOST_LAYERS:
            raise ValueError(f"task_feedforward_sizes must be at most {_MOST_LAYERS:,} sizes.")
        for size in self.task_feedforward_sizes or ():
            _check_whole_number("a size of task_feedforward_sizes", size, 1, _LARGEST_SIZE)
        activations = self.feedforward_activations
        if len(activations) != len(self.task_feedforward_sizes or ()):
            raise ValueError(
                f"task_feedforward_activation has {len(activations)} names, but task_feedforward_sizes has "
                f"{len(self.task_feedforward_sizes or ())} layers: give one name for all, or one for each."
            )
        given = self.task_feedforward_activation
        for name in given if isinstance(given, list) else [given]:
            if name not in FEEDFORWARD_ACTIVATIONS:
                raise ValueError(
                    f"task_feedforward_activation must be one of {', '.join(FEEDFORWARD_ACTIVATIONS)}, was: {name!r}."
                )
        kind = self.task_encoder_kind
        if kind not in _ENCODER_KINDS:
            raise ValueError(f"task_encoder_kind must be {' or '.join(map(repr, _ENCODER_KINDS))}, was: {kind!r}.")
        if self.task_encoder_highways and kind not in ("lstm", "alternating_lstm"):
            raise ValueError(
                f"Highways lead around LSTMs alone, but task_encoder_kind is {kind!r}: set task_encoder_highways to "
                "False."
            )
        if kind == "alternating_lstm" and self.task_encoder_bidirectional:
            raise ValueError(
                "Alternating LSTMs read in one direction each, but task_encoder_bidirectional is True: set it to False."
            )
        if self.task_encoder_begins_backward and kind != "alternating_lstm":
            raise ValueError(
                f"task_encoder_begins_backward is for alternating LSTMs, but task_encoder_kind is {kind!r}: leave it "
                "out."
            )

    def _check_word_inputs(self) -> None:
        if self.character_inputs:
            if self.tie_word_embeddings:
                raise ValueError(
                    "tie_word_embeddings is for models that read words: this one reads characters, and has no table of "
                    "words to share with the softmax. Set it to False, or character_inputs to False."
                )
            return
        if self.word_embed_dim != self.projection_dim:
            raise ValueError(
                f"Without characters (character_inputs is False) a word's vector has projection_dim "
                f"({self.projection_dim}) numbers, but word_embed_dim is {self.word_embed_dim}: leave word_embed_dim "
                "out."
            )
        if self.char_cnn_filters is not None or self.char_lstm_size or self.char_cnn_characters is not None:
            raise ValueError(
                "A network over characters beside ELMo (char_cnn_filters, char_lstm_size) has nothing to read where "
                "the model reads words (character_inputs is False): leave it out."
            )

    def _checked_filters(self, name: str) -> list[list[int]]:
        filters = getattr(self, name)
        if not isinstance(filters, (list, tuple)) or not filters:
            raise ValueError(f"{name} must be a list of [width, count] pairs, was: {filters!r}.")
        if len(filters) > _MOST_LAYERS:
            raise ValueError(f"{name} must be at most {_MOST_LAYERS:,} pairs, were: {len(filters):,}.")
        filters = [list(entry) if isinstance(entry, tuple) else entry for entry in filters]
        for entry in filters:
            if not isinstance(entry, list) or len(entry) != 2:
                raise ValueError(f"{name} must be a list of [width, count] pairs, but one entry is {entry!r}.")
            _check_whole_number("a filter's width", entry[0], 1, _LARGEST_SIZE)
            _check_whole_number("a filter's count", entry[1], 1, _LARGEST_SIZE)
            if entry[0] > self.max_characters_per_token:
                raise ValueError(
                    f"A filter of width {entry[0]} does not fit into a word of {self.max_characters_per_token} "
                    "characters: raise max_characters_per_token or take narrower filters."
                )
        if sum(count for _, count in filters) > _LARGEST_SIZE:
            raise ValueError(f"The counts of {name} must be {_LARGEST_SIZE:,} together at most.")
        return filters


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_whole_number(name: str, value: Any, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, was: {value!r:.80}.")
    if value > most:
        raise ValueError(f"{name} must be at most {most:,}, which is more than any ELMo has, was: {value}.")


def _read_option(options: dict[str, Any], path: tuple[str, ...], default: Any) -> Any:
    section: Any = options
    for depth, key in enumerate(path):
        if not isinstance(section, dict):
            raise ValueError(f"options.json: {'.'.join(path[:depth])} must be a JSON object, was: {section!r}.")
        if key not in section:
            if default is _REQUIRED:
                raise ValueError(f"options.json: the key {'.'.join(path)} is missing.")
            return default
        section = section[key]
    return section


def _negative_samples(options: dict[str, Any]) -> int | None:
    """The number of samples that bilm-tf reads for training: bilm-tf samples unless `sample_softmax` is false."""
    return options.get("n_negative_samples_batch") if options.get("sample_softmax", True) else None


def _as_written(written: Any, value: Any) -> Any:
    """The value as the file writes it: 3 is not rewritten as 3.0, nor null as false."""
    if written == value or (written is None and not value):
        return written
    return value
