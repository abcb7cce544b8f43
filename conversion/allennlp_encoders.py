"""What reads the words' vectors in an AllenNLP tagger: its encoder (a `Seq2SeqEncoder`), and feed-forward layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from ..model.configuration_elmo import FEEDFORWARD_ACTIVATIONS
from .allennlp_archive import Archive
from .errors import ConversionError
from .json_section import Section
from .key_map import SAME, Link, Transform

# The layers of torch that there are, and how many blocks of rows their matrices have.
_GATES = {"lstm": 4, "gru": 3, "rnn": 1}
_OTHERS = ("augmented_lstm", "alternating_lstm", "stacked_bidirectional_lstm", "feedforward", "pass_through")


class Encoder(NamedTuple):
    """What becomes of an encoder.

    Attributes:
        links: Its arrays.
        fields: Fields of the configuration.
        zeros: The shapes of parameters that ours has beyond those of the original, by name.
        size: Size of what it gives for a word.
        first: How the columns of the matrix that reads its output are ordered.
    """

    links: list[Link]
    fields: dict[str, Any]
    zeros: dict[str, tuple[int, ...]]
    size: int
    first: Transform


def read_encoder(archive: Archive, section: Section, width: int, columns: Transform, dropout: float) -> Encoder:
    """The encoder of a tagger.

    Args:
        archive: The archive.
        section: `model.encoder` of its configuration.
        width: Size of a word's vector.
        columns: How the columns of a matrix that reads words' vectors are ordered.
        dropout: The tagger's own.

    Raises:
        ConversionError: for an encoder of another kind, or one that has what ours has not.
    """
    kind = section.take("type", str)
    if kind in ("pass_through", "feedforward"):
        read, fields = width, {"task_encoder_layers": 0, "task_dropout": dropout}
        links: list[Link] = []
        if kind == "feedforward":
            read, links, ours = feedforward_layers(
                section.section("feedforward"), "encoder._feedforward", width, columns, 0
            )
            fields |= ours
        else:
            section.expect("input_dim", width)
        section.close()
        return Encoder(links, fields, {}, read, SAME if links else columns)
    if kind not in (*_GATES, *_OTHERS):
        raise ConversionError(
            f"{section.file}: {section.path}.type is {kind!r}, of which there is nothing here that computes the same; "
            f"supported are {', '.join(map(repr, (*_GATES, *_OTHERS)))}. The ELMo alone can be taken "
            "(only_elmo=True)."
        )
    section.expect("input_size", width)
    section.expect("stateful", False)
    readers = {"stacked_bidirectional_lstm": _stacked, "augmented_lstm": _alternating, "alternating_lstm": _alternating}
    encoder = readers.get(kind, _torch)(archive, kind, section, width, columns)
    section.close()
    own_dropout = encoder.fields["task_dropout"]
    return encoder._replace(fields={**encoder.fields, "task_dropout": dropout or own_dropout})


def feedforward_layers(
    section: Section, theirs: str, width: int, columns: Transform, number: int
) -> tuple[int, list[Link], dict[str, Any]]:
    """AllenNLP's `FeedForward`: the size of what it gives, its arrays, and its fields of the configuration.

    Args:
        section: Its configuration.
        theirs: What stands before the names of its arrays.
        width: Size of what it reads.
        columns: How the columns of a matrix that reads this are ordered.
        number: The number that its first layer has in our tagger.

    Raises:
        ConversionError: for activations that there are not here, or sizes that are none.
    """
    section.expect("input_dim", width)
    count = section.take("num_layers", int)
    sizes, activations = section.take_each("hidden_dims", count), section.take_each("activations", count)
    section.ignore("dropout")
    section.close()
    if not all(isinstance(size, int) for size in sizes) or any(
        name not in FEEDFORWARD_ACTIVATIONS for name in activations
    ):
        raise ConversionError(
            f"{section.file}: {section.path} has the hidden_dims {sizes!r:.80} and the activations "
            f"{activations!r:.80}; expected whole numbers, and of {', '.join(FEEDFORWARD_ACTIVATIONS)}."
        )
    links = []
    for layer, size in enumerate(sizes):
        names = f"{theirs}._linear_layers.{layer}", f"feedforward.{number + layer}"
        links += linear_links(*names, size, width, columns)
        width, columns = size, SAME
    return width, links, {"task_feedforward_sizes": sizes, "task_feedforward_activation": activations}


def linear_links(theirs: str, ours: str, size: int, width: int, columns: Transform = SAME) -> list[Link]:
    """A linear layer's weight and bias."""
    return [
        Link(f"{theirs}.weight", (f"{ours}.weight",), (size, width), columns),
        Link(f"{theirs}.bias", (f"{ours}.bias",), (size,), SAME),
    ]


def torch_shapes(read: int, size: int, gates: int = 4) -> list[tuple[str, tuple[int, ...]]]:
    """The names and shapes of the arrays of one direction of one layer of torch's."""
    shapes = [("weight_ih", (gates * size, read)), ("weight_hh", (gates * size, size))]
    return [*shapes, ("bias_ih", (gates * size,)), ("bias_hh", (gates * size,))]


def _torch(archive: Archive, kind: str, section: Section, width: int, columns: Transform) -> Encoder:
    size, layers = section.take("hidden_size", int), section.take("num_layers", int, 1)
    is_bidirectional, has_bias = section.take("bidirectional", bool, False), section.take("bias", bool, True)
    fields = {
        "task_encoder_kind": kind,
        "task_encoder_layers": layers,
        "task_encoder_size": size,
        "task_encoder_bidirectional": is_bidirectional,
        "task_dropout": section.take("dropout", float, 0.0),
    }
    if kind == "rnn":
        bend = section.take("nonlinearity", str, "tanh")
        if bend not in ("tanh", "relu"):
            raise ConversionError(f"{section.file}: {section.path}.nonlinearity must be tanh or relu, was: {bend!r}.")
        fields["task_encoder_kind"] = "rnn" if bend == "tanh" else "relu_rnn"
    links: list[Link] = []
    zeros: dict[str, tuple[int, ...]] = {}
    gates, output = _GATES[kind], (1 + is_bidirectional) * size
    for layer in _numbers(section, layers):
        for suffix in ("", "_reverse")[: 1 + is_bidirectional]:
            for name, shape in torch_shapes(output if layer else width, size, gates):
                key = f"{name}_l{layer}{suffix}"
                if name.startswith("bias") and not has_bias:
                    zeros[f"task_encoder.lstm.{key}"] = shape
                    continue
                transform = columns if name == "weight_ih" and layer == 0 else SAME
                links.append(Link(f"encoder._module.{key}", (f"task_encoder.lstm.{key}",), shape, transform))
    return Encoder(links, fields, zeros, output, SAME)


def _stacked(archive: Archive, kind: str, section: Section, width: int, columns: Transform) -> Encoder:
    """AllenNLP's own stacked biLSTM (`stacked_bidirectional_lstm.py`), whose input has no bias."""
    size, layers = section.take("hidden_size", int), section.take("num_layers", int)
    has_highways = section.take("use_highway", bool, True)
    section.ignore("recurrent_dropout_probability")
    fields = {
        "task_encoder_layers": layers,
        "task_encoder_size": size,
        "task_encoder_bidirectional": True,
        "task_encoder_highways": has_highways,
        "task_dropout": section.take("layer_dropout_probability", float, 0.0),
    }
    links: list[Link] = []
    zeros: dict[str, tuple[int, ...]] = {}
    for layer in _numbers(section, layers):
        for direction, suffix in (("forward", ""), ("backward", "_reverse")):
            if has_highways:
                ours = [f"task_encoder.lstm.{direction}_layers.{layer}.{name}" for name in _OWN_NAMES]
            else:
                ours = [f"task_encoder.lstm.{name}_l{layer}{suffix}" for name in ("weight_ih", "weight_hh", "bias_hh")]
                zeros[f"task_encoder.lstm.bias_ih_l{layer}{suffix}"] = (4 * size,)
            theirs = f"encoder._module.{direction}_layer_{layer}."
            read, first = (2 * size, SAME) if layer else (width, columns)
            links += _cell_links(archive, theirs, ours, read, size, has_highways, first)
    return Encoder(links, fields, zeros, 2 * size, SAME)


def _alternating(archive: Archive, kind: str, section: Section, width: int, columns: Transform) -> Encoder:
    """AllenNLP's `stacked_alternating_lstm.py`, and the one layer of `augmented_lstm.py`."""
    is_one = kind == "augmented_lstm"
    size, layers = section.take("hidden_size", int), 1 if is_one else section.take("num_layers", int)
    has_highways, has_bias = (section.take(f"use_{key}", bool, True) for key in ("highway", "input_projection_bias"))
    section.ignore("recurrent_dropout_probability")
    fields = {
        "task_encoder_kind": "alternating_lstm",
        "task_encoder_layers": layers,
        "task_encoder_size": size,
        "task_encoder_bidirectional": False,
        "task_encoder_begins_backward": is_one and not section.take("go_forward", bool, True),
        "task_encoder_highways": has_highways,
        "task_dropout": 0.0,
    }
    links: list[Link] = []
    zeros: dict[str, tuple[int, ...]] = {}
    for layer in _numbers(section, layers):
        ours = [f"task_encoder.lstm.layers.{layer}.{name}" for name in (*_OWN_NAMES, "input_bias")]
        if not has_bias:
            zeros[ours.pop()] = ((6 if has_highways else 4) * size,)
        theirs = "encoder._module." if is_one else f"encoder._module.layer_{layer}."
        read, first = (size, SAME) if layer else (width, columns)
        links += _cell_links(archive, theirs, ours, read, size, has_highways, first)
    return Encoder(links, fields, zeros, size, SAME)


_OWN_NAMES = ("weight_ih", "weight_hh", "bias")


def _cell_links(
    archive: Archive, theirs: str, ours: list[str], read: int, size: int, has_highway: bool, columns: Transform
) -> Iterable[Link]:
    """AllenNLP's LSTM cell (`augmented_lstm.py`); our fourth name, if there is one, is that of its input's bias."""
    # Since version 1.3 the cell is a module of its own.
    cell = f"{theirs}cell." if any(key.startswith(f"{theirs}cell.") for key in archive.state) else theirs
    gates = 5 if has_highway else 4
    rows = (gates + has_highway) * size
    yield Link(f"{cell}input_linearity.weight", (ours[0],), (rows, read), columns)
    yield Link(f"{cell}state_linearity.weight", (ours[1],), (gates * size, size), SAME)
    yield Link(f"{cell}state_linearity.bias", (ours[2],), (gates * size,), SAME)
    if len(ours) > 3:
        yield Link(f"{cell}input_linearity.bias", (ours[3],), (rows,), SAME)


def _numbers(section: Section, layers: int) -> range:
    if not 1 <= layers <= _MOST_LAYERS:
        raise ConversionError(
            f"{section.file}: {section.path}.num_layers is {layers:,}, expected 1 to {_MOST_LAYERS:,}."
        )
    return range(layers)


# More than any tagger has.
_MOST_LAYERS = 100
