"""The TF-Hub module google/elmo (https://tfhub.dev/google/elmo/3), without TensorFlow: its inputs and its outputs.

    from hf_elmo.compat import tfhub as hub

    elmo = hub.Module("elmo-original", trainable=True)
    elmo(["the cat is on the mat", "dogs are in the fog"], signature="default", as_dict=True)["elmo"]

What differs: a model is a local folder or file, tensors are torch's, and each sentence begins with a fresh LSTM state,
so that no sentence changes another one's vectors. Rows behind a sentence are zeros in all outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..model.modeling_elmo import ElmoModel
from ..model.scalar_mix import ScalarMix
from .allennlp import _ElmoBiLm, batch_to_ids, remove_sentence_boundaries
from .loading import load_model

SIGNATURES = ("default", "tokens")


class Module(nn.Module):
    """The module, of any ELMo; `torch.nn.Module` in all else.

    Args:
        spec: A model folder; or weights in the original format: a file with the options.json beside it, a folder, a
            zip archive.
        trainable: Whether the mix of the layers (three weights and gamma) is trained, as in versions 2 and 3 of the
            original. The biLM never is.

    Raises:
        ConversionError: (a ValueError) for files that are no ELMo, and for an address: nothing is downloaded.
    """

    def __init__(self, spec: str | Path | ElmoModel, trainable: bool = False):
        super().__init__()
        model = load_model(spec)
        self.bilm = _ElmoBiLm(None, model)
        self.aggregation = cast("ScalarMix", model.scalar_mixes[0]).requires_grad_(trainable)

    @property
    def signatures(self) -> dict[str, Callable[..., dict[str, Tensor]]]:
        """As of `hub.load(...)`: functions by name; `default(texts)`, and `tokens(tokens=..., sequence_len=...)`."""
        return {
            "default": lambda text: self(text, as_dict=True),
            "tokens": lambda tokens, sequence_len: self(
                {"tokens": tokens, "sequence_len": sequence_len}, signature="tokens", as_dict=True
            ),
        }

    def get_output_info_dict(self) -> dict[str, int]:
        """The outputs that have vectors, and the vectors' sizes."""
        dim = self.bilm.get_output_dim()
        layers = {f"lstm_outputs{depth}": dim for depth in range(1, self.bilm.num_layers)}
        return {"word_emb": dim // 2, **layers, "elmo": dim, "default": dim}

    def forward(
        self,
        inputs: Sequence[str] | Mapping[str, Sequence],
        signature: str = "default",
        as_dict: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        """Reads sentences.

        Args:
            inputs: For "default": texts, whose words stand between spaces. For "tokens": `tokens`, words ``(batch,
                max_length)``, padded with anything, and `sequence_len` ``(batch,)``. Strings may be bytes in UTF-8.
            signature: "default" or "tokens".
            as_dict: Return all outputs, not the one called "default" alone.

        Returns:
            `word_emb` ``(batch, max_length, projection_dim)``, the context-free vectors; `lstm_outputs1`,
            `lstm_outputs2` (one for each layer) ``(batch, max_length, 2 * projection_dim)``; `elmo`
            ``(batch, max_length, 2 * projection_dim)``, the weighted sum of all; `default`
            ``(batch, 2 * projection_dim)``, the mean of `elmo` over the words of the sentence, zeros if it has none;
            and `sequence_len` ``(batch,)``, int32, which the original gives besides.

        Raises:
            ValueError: for another signature, inputs that do not fit it, and lengths that are not.
        """
        if signature not in SIGNATURES:
            raise ValueError(f"signature must be one of {', '.join(SIGNATURES)}, was: {signature!r}.")
        if signature == "default":
            if isinstance(inputs, (str, bytes, Mapping)):
                raise ValueError(f"The signature default takes a list of texts, was: {type(inputs).__name__}.")
            sentences = [[word for word in _text(each).split(" ") if word] for each in inputs]
            width = max(map(len, sentences), default=0)
        else:
            sentences, width = _sentences_of_tokens(inputs)
        lengths = torch.tensor(list(map(len, sentences)), dtype=torch.int32)
        device = self.aggregation.gamma.device
        ids = batch_to_ids(sentences, self.bilm.max_characters_per_token).to(device)
        output = self.bilm(nn.functional.pad(ids, (0, 0, 0, width - ids.shape[1])))
        layers, mask = output["activations"], output["mask"]
        mixed, kept = remove_sentence_boundaries(self.aggregation(layers, mask), mask)
        mean = mixed.sum(dim=1) / kept.sum(dim=1, keepdim=True).clamp(min=1)
        if not as_dict:
            return mean
        words, *contextual = (remove_sentence_boundaries(layer, mask)[0] for layer in layers)
        return {
            "word_emb": words.chunk(2, dim=-1)[0],
            **{f"lstm_outputs{depth}": layer for depth, layer in enumerate(contextual, start=1)},
            "elmo": mixed,
            "default": mean,
            "sequence_len": lengths.to(device),
        }


def load(handle: str | Path) -> Module:
    """The module, as `hub.load` gave it: call its `signatures`."""
    return Module(handle)


def _text(value: str | bytes) -> str:
    if not isinstance(value, (str, bytes)):
        raise ValueError(f"A text or word must be str or bytes, was: {type(value).__name__} {value!r:.60}.")
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _sentences_of_tokens(inputs: Sequence[str] | Mapping[str, Sequence[Any]]) -> tuple[list[list[str]], int]:
    """The words of each row without its padding, and the width of the rows."""
    if not isinstance(inputs, Mapping) or set(inputs) != {"tokens", "sequence_len"}:
        found = sorted(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__
        raise ValueError(f"The signature tokens takes a dictionary with tokens and sequence_len, was: {found}.")
    rows = [list(row) for row in inputs["tokens"]]
    lengths = np.asarray(inputs["sequence_len"])
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise ValueError(f"tokens must be rows of one length, padded with anything, was: rows of {sorted(widths)}.")
    width = widths.pop() if widths else 0
    if lengths.shape != (len(rows),) or not np.issubdtype(lengths.dtype, np.integer):
        raise ValueError(
            f"sequence_len must be {len(rows)} integers, one for each row of tokens, was: {lengths.dtype} "
            f"{lengths.shape}."
        )
    if len(rows) and not 0 <= lengths.min() <= lengths.max() <= width:
        raise ValueError(f"sequence_len must be from 0 to {width}, the width of tokens, was: {lengths.tolist()}.")
    return [[_text(word) for word in row[:length]] for row, length in zip(rows, lengths, strict=True)], width
