"""The floor: how long a machine takes at least for an ELMo's work, from what it was measured to do and to read.

The work is that of a program which leaves out all that can be left out:

- each distinct word goes through the character CNN once, over the windows that touch its characters and one that sees
  padding alone, and through the highways, the projection and the first layer's input weights once;
- padding between sentences is not computed, and `<S>` and `</S>` are words like others;
- the recurrent product of a sentence's first word, whose state is zero, is left out;
- products count two operations for each weight, and everything else counts nothing.

Each part then takes the longer of two times: its operations over the machine's fastest matrix product, and the bytes
of its weights, read once, over the bandwidth. A step of a direction of a layer is a part; the bandwidth is that of
reading a block of that size over and over, so that caches count. Weights in bfloat16 may be multiplied as float32 where
that is faster. The input weights of a layer are one part of a batch, and so are those of the character encoder.

The backward pass of a training step has twice the operations of the forward pass.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BYTES = {"fp32": 4, "bf16": 2, "int8": 1}


@dataclass(frozen=True)
class Shape:
    """The sizes of an ELMo that its work depends on, as `ElmoConfig` calls them."""

    char_embed_dim: int
    filters: tuple[tuple[int, int], ...]
    num_highway_layers: int
    max_characters_per_token: int
    cell_size: int
    projection_dim: int
    num_layers: int

    @classmethod
    def of(cls, folder: Path) -> Shape:
        """The sizes of the model in a folder."""
        fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        values = {name: fields[name] for name in cls.__dataclass_fields__}
        return cls(**{**values, "filters": tuple(map(tuple, values["filters"]))})

    @property
    def features(self) -> int:
        return sum(count for _, count in self.filters)

    @property
    def step_weights(self) -> tuple[int, int]:
        """The weights of a step of a direction of a layer: recurrent ones, and the projection's."""
        return 4 * self.cell_size * self.projection_dim, self.cell_size * self.projection_dim

    @property
    def character_weights(self) -> int:
        """The weights of the character encoder, its embedding aside."""
        convolutions = sum(width * self.char_embed_dim * count for width, count in self.filters)
        return convolutions + self._dense_weights

    @property
    def _dense_weights(self) -> int:
        return self.num_highway_layers * 2 * self.features**2 + self.features * self.projection_dim

    def word_operations(self, characters: int) -> int:
        """The operations of a word of this many bytes in the character encoder."""
        used = min(characters + 2, self.max_characters_per_token)
        windows = sum(
            width * count * min(used + 1, self.max_characters_per_token - width + 1) for width, count in self.filters
        )
        return 2 * (self.char_embed_dim * windows + self._dense_weights)


@dataclass
class Floor:
    """The least time of some work, and where it comes from.

    Attributes:
        seconds: The least time.
        operations: Of all products.
        weight_bytes: What is read, each time that it is.
    """

    seconds: float = 0.0
    operations: float = 0.0
    weight_bytes: float = 0.0


def floor(
    shape: Shape,
    batches: list[list[list[str]]],
    kind: str,
    operations_per_second: float,
    bytes_per_second: Callable[[int], float],
    trained: bool = False,
) -> Floor:
    """The floor of reading batches of sentences.

    Args:
        shape: Sizes of the model.
        batches: Batches of sentences of words. A word is computed once for all batches of the list.
        kind: `"fp32"`, `"bf16"` or `"int8"`: the bytes of a weight.
        operations_per_second: The fastest matrix product.
        bytes_per_second: Bandwidth of reading a block of this many bytes over and over.
        trained: Whether there is a backward pass.
    """
    result = Floor()

    def part(operations: float, weights: float) -> None:
        size = weights * BYTES[kind]
        result.operations += operations
        result.weight_bytes += size
        result.seconds += max(operations / operations_per_second, size / bytes_per_second(size))

    recurrent, projection = shape.step_weights
    known: set[str] = set()
    for batch in batches:
        new = set().union(*batch, ("<S>", "</S>")) - known
        known |= new
        lengths = [len(sentence) + 2 for sentence in batch]
        positions = sum(lengths)
        part(sum(shape.word_operations(len(word.encode("utf-8", "ignore"))) for word in new), shape.character_weights)
        for layer in range(shape.num_layers):
            # There are as many input weights as recurrent ones; both directions.
            inputs = len(new) if layer == 0 else positions
            part(2 * 2 * recurrent * inputs, 2 * recurrent)
            for step in range(max(lengths)):
                reading = sum(length > step for length in lengths)
                weights = projection + (recurrent if step else 0)
                for _ in range(2):
                    part(2 * weights * reading, weights)
    if trained:
        result.seconds += 2 * result.operations / operations_per_second
        result.operations *= 3
    return result
