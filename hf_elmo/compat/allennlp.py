"""AllenNLP's interface to ELMo: what `allennlp.modules.elmo` and `allennlp.commands.elmo` gave, over our model.

Arguments, shapes, keys and masks are those of AllenNLP 2.10.1 (`ElmoEmbedder`: of 0.9, the last one to have it). What
differs, on purpose:

- AllenNLP carries the LSTM state of each row of a batch to the same row of the next batch, so a sentence's vectors
  depend on what was read before. Here each sentence begins afresh, and `stateful=True` reproduces the old numbers.
  `elmo._elmo_lstm._elmo_lstm` has `stateful` and `reset_states()`, as there.
- Files are local: no address is downloaded. `weight_file` may also be a model folder (with None for `options_file`).
- Every published option works, also biLMs without skip connections, which AllenNLP refuses.
- A word that is first in `vocab_to_cache`, and so has the number 0, is not mistaken for padding if its characters are
  given; padding stays zero under `do_layer_norm`; 4-D inputs keep their boundaries if asked to.

Parameters of the mixes have AllenNLP's names, those of the biLM ours. `load_state_dict` takes both: what a script saved
with AllenNLP is loaded as it is.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..conversion.allennlp_archive import KEY_MAP, ROOT_KEY
from ..conversion.key_map import resolve, to_ours
from ..model import scalar_mix
from ..model.character_encoder import check_row_length
from ..model.lstm.bilstm import BiLstm
from ..model.lstm.lstm_layer import ElmoState, LstmLayer
from ..model.lstm.packing import Packing
from ..model.modeling_elmo import ElmoModel
from ..model.tokenization_elmo import BOS, EOS, character_rows
from ..vectors.batching import check_words
from .allennlp_inputs import (
    ELMoCharacterMapper,
    ELMoTokenCharactersIndexer,
    _make_bos_eos,  # noqa: F401 (scripts import it from here)
    add_sentence_boundary_token_ids,
    remove_sentence_boundaries,
    with_boundaries,
)
from .elmo_file import FORMATS, write_elmo_file
from .loading import load_model

__all__ = [
    "DEFAULT_BATCH_SIZE",
    "DEFAULT_OPTIONS_FILE",
    "DEFAULT_WEIGHT_FILE",
    "ELMoCharacterMapper",
    "ELMoTokenCharactersIndexer",
    "Elmo",
    "ElmoEmbedder",
    "ElmoTokenEmbedder",
    "ScalarMix",
    "add_sentence_boundary_token_ids",
    "batch_to_ids",
    "remove_sentence_boundaries",
]

logger = logging.getLogger(__name__)

DEFAULT_BATCH_SIZE = 64
#: Where AllenNLP took the original English model from. Nothing is downloaded here: who gives these as files is told so.
DEFAULT_OPTIONS_FILE = (
    "https://allennlp.s3.amazonaws.com/models/elmo/2x4096_512_2048cnn_2xhighway/"
    "elmo_2x4096_512_2048cnn_2xhighway_options.json"
)
DEFAULT_WEIGHT_FILE = DEFAULT_OPTIONS_FILE.replace("options.json", "weights.hdf5")

# How many words of a vocabulary are computed at once: bounds the memory.
_CACHED_AT_ONCE = 1024


def batch_to_ids(batch: Sequence[Sequence[str]], max_characters_per_token: int = 50) -> Tensor:
    """The characters of sentences, as `Elmo` reads them.

    Args:
        batch: Sentences, each a list of words. The words `<S>` and `</S>` become boundaries; a word is cut behind
            `max_characters_per_token - 2` bytes.
        max_characters_per_token: Length of a word's row, that of the model that reads it; AllenNLP knows 50 only.

    Returns:
        ``(batch, longest sentence, max_characters_per_token)``, int64, on the CPU; zeros behind each sentence.

    Raises:
        ValueError: for something else among the words.
    """
    batch = [check_words(sentence, f"Sentence {number}") for number, sentence in enumerate(batch)]
    longest = max(map(len, batch), default=0)
    padded = [word for sentence in batch for word in (*sentence, *[None] * (longest - len(sentence)))]
    rows, _ = character_rows(padded, max_characters_per_token)
    return torch.from_numpy(rows).view(len(batch), longest, max_characters_per_token)


class Elmo(nn.Module):
    """ELMo representations: mixes of the layers of a biLM, with learned weights.

    Args:
        options_file: Path of the options.json. None: the one beside the weights.
        weight_file: Path of the HDF5 weights; or a folder, a zip archive, a model folder of ours, or an `ElmoModel`
            (whose biLM is then shared, not copied, and has no dropout of its own any more).
        num_output_representations: How many mixes.
        requires_grad: Whether the biLM is trained, too.
        do_layer_norm: Whether a mix normalises each layer first, over all words of the batch (boundaries count).
        dropout: Dropout of the representations, in training mode.
        vocab_to_cache: Words whose context-free vectors are computed now, once. In `forward`, `word_inputs` are their
            numbers in this list. The first is for padding (AllenNLP's vocabularies have `@@PADDING@@` there).
        keep_sentence_boundaries: Keep the representations of `<S>` and `</S>`.
        scalar_mix_parameters: Weights of the mixes before the softmax, one per layer, which then are not trained.
        module: Another biLM in the place of the files, with `num_layers`, `get_output_dim()` and the output of
            `_ElmoBiLm`; then both files are None.
        stateful: Carry the LSTM state from call to call, as AllenNLP does.

    Raises:
        ValueError: for a module together with files, or weights of mixes that are not one per layer.
        ConversionError: (a ValueError) for files that are no ELMo.
    """

    def __init__(
        self,
        options_file: str | Path | None,
        weight_file: str | Path | ElmoModel | None,
        num_output_representations: int,
        requires_grad: bool = False,
        do_layer_norm: bool = False,
        dropout: float = 0.5,
        vocab_to_cache: list[str] | None = None,
        keep_sentence_boundaries: bool = False,
        scalar_mix_parameters: list[float] | None = None,
        module: nn.Module | None = None,
        *,
        stateful: bool = False,
    ):
        super().__init__()
        if module is None:
            module = _ElmoBiLm(options_file, weight_file, requires_grad, vocab_to_cache, stateful=stateful)
        elif options_file is not None or weight_file is not None:
            raise ValueError("Give either a module, or options_file and weight_file, not both.")
        # A module that is given has to have the methods of ours.
        self._elmo_lstm = cast("_ElmoBiLm", module)
        self._has_cached_vocab = vocab_to_cache is not None
        self._keep_sentence_boundaries = keep_sentence_boundaries
        self._dropout = nn.Dropout(p=dropout)
        self._num_mixes = num_output_representations
        for number in range(num_output_representations):
            mix = ScalarMix(
                self._elmo_lstm.num_layers,
                do_layer_norm,
                scalar_mix_parameters,
                trainable=scalar_mix_parameters is None,
            )
            self.add_module(f"scalar_mix_{number}", mix)

    @classmethod
    def from_params(cls, params: Mapping[str, Any], **more: Any) -> Elmo:
        """Makes one of the part of a configuration that AllenNLP calls its parameters.

        Args:
            params: Arguments by name; a dict, or AllenNLP's `Params` (whose `as_dict()` is taken).
            more: Further arguments.

        Raises:
            ValueError: for names that are no arguments of `Elmo`; and as `Elmo`.
        """
        as_dict = getattr(params, "as_dict", None)
        arguments = {**(as_dict() if as_dict is not None else params), **more}
        known = set(inspect.signature(cls.__init__).parameters) - {"self"}
        # What AllenNLP's registry reads, not the class.
        arguments.pop("type", None)
        if unknown := sorted(set(arguments) - known):
            raise ValueError(f"Elmo has no argument {', '.join(unknown)}; it has {', '.join(sorted(known))}.")
        return cls(**arguments)

    def get_output_dim(self) -> int:
        """Size of a representation, `2 * projection_dim`."""
        return self._elmo_lstm.get_output_dim()

    def forward(self, inputs: Tensor | None, word_inputs: Tensor | None = None) -> dict[str, Tensor | list[Tensor]]:
        """Reads a batch.

        Args:
            inputs: ``(batch, ..., words, 50)``, int64, from `batch_to_ids`. With a cached vocabulary it may also be
                None, or hold no characters; words outside of the vocabulary then cannot be read.
            word_inputs: ``(batch, ..., words)``, int64: numbers of words in the cached vocabulary, 0 for padding. If
                any of them is not in it, the characters of all are read.

        Returns:
            `elmo_representations`: a list of `num_output_representations` tensors ``(batch, ..., words, dim)``; zeros
            where there is no word. `mask`: ``(batch, ..., words)``, bool. Two words more with boundaries.

        Raises:
            ValueError: for inputs of a wrong shape, or padding elsewhere than behind a sentence.
        """
        if word_inputs is not None and not self._has_cached_vocab:
            logger.warning("Word inputs were passed to ELMo but it does not have a cached vocab.")
            word_inputs = None
        if inputs is None and word_inputs is None:
            raise ValueError("There is nothing to read: give inputs, as batch_to_ids makes them.")
        # Without characters, the last dimension is that of words already.
        characters: Tensor | None = None
        if inputs is not None and (word_inputs is None or inputs.dim() > word_inputs.dim()):
            if inputs.dim() < 3:
                raise ValueError(
                    f"inputs must be character ids (batch, ..., words, chars), as batch_to_ids makes them, was: "
                    f"{tuple(inputs.shape)}."
                )
            leading, characters = inputs.shape[:-2], inputs.flatten(0, -3)
        if word_inputs is not None:
            leading = word_inputs.shape[:-1] if characters is None else leading
            word_inputs = word_inputs.flatten(0, -2)
        output = self._elmo_lstm(characters, word_inputs)
        layers, mask = output["activations"], output["mask"]
        representations = []
        kept = mask if self._keep_sentence_boundaries else mask[:, 2:]
        for number in range(self._num_mixes):
            representation = getattr(self, f"scalar_mix_{number}")(layers, mask)
            if not self._keep_sentence_boundaries:
                representation, _ = remove_sentence_boundaries(representation, mask)
            representations.append(self._dropout(representation).unflatten(0, leading))
        return {"elmo_representations": representations, "mask": kept.unflatten(0, leading)}


class ElmoTokenEmbedder(nn.Module):
    """One ELMo representation, perhaps projected: arguments as of `Elmo`.

    Args:
        projection_dim: Size to project the representation to, by a linear layer of its own. None: no projection.
    """

    def __init__(
        self,
        options_file: str | Path | None = None,
        weight_file: str | Path | ElmoModel | None = None,
        do_layer_norm: bool = False,
        dropout: float = 0.5,
        requires_grad: bool = False,
        projection_dim: int | None = None,
        vocab_to_cache: list[str] | None = None,
        scalar_mix_parameters: list[float] | None = None,
        *,
        stateful: bool = False,
    ):
        super().__init__()
        self._elmo = Elmo(
            options_file,
            weight_file,
            1,
            requires_grad=requires_grad,
            do_layer_norm=do_layer_norm,
            dropout=dropout,
            vocab_to_cache=vocab_to_cache,
            scalar_mix_parameters=scalar_mix_parameters,
            stateful=stateful,
        )
        size = self._elmo.get_output_dim()
        self._projection = nn.Linear(size, projection_dim) if projection_dim else None
        self.output_dim = projection_dim or size

    def get_output_dim(self) -> int:
        """Size of what `forward` returns."""
        return self.output_dim

    def forward(self, elmo_tokens: Tensor | None, word_inputs: Tensor | None = None) -> Tensor:
        """``(batch, ..., words, 50)``, and perhaps ``(batch, ..., words)``, to ``(batch, ..., words, dim)``."""
        vectors = self._elmo(elmo_tokens, word_inputs)["elmo_representations"][0]
        return vectors if self._projection is None else self._projection(vectors)


class _ElmoCharacterEncoder(nn.Module):
    """The context-free vectors alone; arguments as of `Elmo`."""

    def __init__(
        self,
        options_file: str | Path | None,
        weight_file: str | Path | ElmoModel | None,
        requires_grad: bool = False,
    ):
        super().__init__()
        model = load_model(weight_file, options_file)
        self._token_embedder = model.character_encoder.requires_grad_(requires_grad)
        self._max_characters_per_token = model.config.max_characters_per_token
        self.output_dim = model.config.projection_dim

    def get_output_dim(self) -> int:
        """Size of a word's vector, `projection_dim`."""
        return self.output_dim

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Reads words.

        Args:
            inputs: ``(batch, words, 50)``, as `batch_to_ids` gives them.

        Returns:
            `token_embedding` ``(batch, words + 2, projection_dim)``, boundaries included, zeros for padding, and
            `mask` ``(batch, words + 2)``, bool.
        """
        rows, _ = character_rows([BOS, EOS], self._max_characters_per_token)
        begin, end = torch.from_numpy(rows).to(inputs.device)
        characters, mask = with_boundaries(inputs, (inputs > 0).any(dim=-1), begin, end)
        return {"token_embedding": self._token_embedder(characters) * mask.unsqueeze(-1), "mask": mask}


class _ElmoBiLm(nn.Module):
    """The biLM alone; arguments as of `Elmo`.

    Attributes:
        num_layers: The context-free layer, and one for each layer of the LSTMs.
    """

    def __init__(
        self,
        options_file: str | Path | None,
        weight_file: str | Path | ElmoModel | None,
        requires_grad: bool = False,
        vocab_to_cache: list[str] | None = None,
        *,
        stateful: bool = False,
    ):
        super().__init__()
        model = load_model(weight_file, options_file)
        # AllenNLP fine-tunes the biLM without dropout inside it.
        model.bilstm.dropout.p = 0.0
        self._token_embedder = model.character_encoder.requires_grad_(requires_grad)
        self._elmo_lstm = _CarryingLstm(model.bilstm.requires_grad_(requires_grad), stateful)
        self._requires_grad = requires_grad
        self.max_characters_per_token = model.config.max_characters_per_token
        self._row_length = model.config.row_length
        self.num_layers = model.config.num_layers + 1
        self._output_dim = model.config.hidden_size
        self.register_load_state_dict_pre_hook(_rename_allennlps_parameters)
        self._word_embedding: nn.Embedding | None = None
        self.register_buffer("_bos_embedding", None, persistent=False)
        self.register_buffer("_eos_embedding", None, persistent=False)
        if vocab_to_cache:
            if requires_grad:
                logger.warning(
                    "The biLM is trained and the vectors of words are cached: words of the cache and other words will "
                    "then be encoded differently."
                )
            self.create_cached_cnn_embeddings(vocab_to_cache)

    def get_output_dim(self) -> int:
        """Size of a layer, `2 * projection_dim`."""
        return self._output_dim

    def forward(self, inputs: Tensor | None, word_inputs: Tensor | None = None) -> dict[str, Tensor | list[Tensor]]:
        """Reads a batch, each row as a sentence between `<S>` and `</S>`, also a row without words.

        Args:
            inputs: ``(batch, words, 50)``, int64. None only if all words are in the cache.
            word_inputs: ``(batch, words)``, int64, as in `Elmo`. Not read without a cached vocabulary.

        Returns:
            `activations`: a list of `num_layers` tensors ``(batch, words + 2, 2 * projection_dim)``, the context-free
            layer (twice side by side) first, zeros behind each sentence; `mask`: ``(batch, words + 2)``, bool.

        Raises:
            ValueError: for inputs of a wrong shape, words as rows of another length than the model's
                `max_characters_per_token`, or padding elsewhere than behind a sentence.
        """
        if inputs is not None and inputs.dim() == 3:
            check_row_length(inputs, self._row_length, self._row_length > self.max_characters_per_token)
        cached = self._cached_vectors(inputs, word_inputs)
        if cached is not None:
            rows, mask = with_boundaries(*cached, self._bos_embedding, self._eos_embedding)
        else:
            if inputs is None or inputs.dim() != 3:
                raise ValueError(
                    f"inputs must be character ids (batch, words, chars), as batch_to_ids makes them, was: "
                    f"{None if inputs is None else tuple(inputs.shape)}."
                )
            boundaries, _ = character_rows([BOS, EOS], inputs.shape[-1])
            rows, mask = with_boundaries(inputs, (inputs > 0).any(-1), *torch.from_numpy(boundaries).to(inputs))
        packing = Packing.from_mask(mask)
        words = packing.pack(rows)
        if cached is None:
            words = self._token_embedder(words)
        layers = [torch.cat([words, words], dim=-1), *self._elmo_lstm(words, packing)]
        return {"activations": [packing.unpack(layer) for layer in layers], "mask": mask}

    def _cached_vectors(self, inputs: Tensor | None, word_inputs: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Vectors ``(batch, words, projection_dim)`` and the mask of words; None if characters have to be read."""
        if self._word_embedding is None or word_inputs is None:
            return None
        characters = inputs if inputs is not None and inputs.dim() == 3 else None
        if characters is not None and characters.shape[:-1] != word_inputs.shape:
            raise ValueError(
                f"inputs and word_inputs are of {tuple(characters.shape[:-1])} and {tuple(word_inputs.shape)} words: "
                "they must be of the same sentences."
            )
        size = self._word_embedding.num_embeddings
        if not ((word_inputs >= 0) & (word_inputs < size)).all():
            if characters is not None:
                return None
            raise ValueError(
                f"word_inputs reach from {int(word_inputs.min())} to {int(word_inputs.max())}, but the cached "
                f"vocabulary has {size} words: give the characters, too (inputs=batch_to_ids(...))."
            )
        mask = word_inputs > 0
        if characters is not None:
            mask = mask | (characters > 0).any(-1)
        return self._word_embedding(word_inputs), mask

    @torch.no_grad()
    def create_cached_cnn_embeddings(self, tokens: list[str]) -> None:
        """Computes the context-free vectors of words, which `word_inputs` of `forward` then number, from 0."""
        device = next(self._token_embedder.parameters()).device
        rows, _ = character_rows([BOS, EOS, *tokens], self.max_characters_per_token)
        chunks = torch.from_numpy(rows).split(_CACHED_AT_ONCE)
        vectors = torch.cat([self._token_embedder(chunk.to(device)) for chunk in chunks])
        self._bos_embedding, self._eos_embedding = vectors[0].clone(), vectors[1].clone()
        self._word_embedding = nn.Embedding.from_pretrained(vectors[2:].clone(), freeze=not self._requires_grad)


def _rename_allennlps_parameters(bilm: _ElmoBiLm, state_dict: dict[str, Tensor], prefix: str, *details: Any) -> None:
    """Puts the parameters of AllenNLP's biLM, where a state_dict has them, under our names; the others stay."""
    if prefix + ROOT_KEY not in state_dict:
        return
    lstm = bilm._elmo_lstm.bilstm
    forget_bias = cast("LstmLayer", lstm.forward_layers[0]).forget_bias
    places = {"character_encoder.": "_token_embedder.", "bilstm.": "_elmo_lstm.bilstm."}
    parts = zip(places, (bilm._token_embedder, lstm), strict=True)
    ours = {place + name: value for place, part in parts for name, value in part.named_parameters()}
    for link in resolve(KEY_MAP, ours):
        # What is missing, load_state_dict reports itself, by our names.
        if prefix + link.foreign not in state_dict:
            continue
        for name, value in to_ours(link, state_dict.pop(prefix + link.foreign)).items():
            if name.startswith("bilstm.") and name.endswith(".bias"):
                # AllenNLP's biases hold the forget bias, ours do not.
                i, f, g, o = value.chunk(4)
                value = torch.cat([i, f - forget_bias, g, o])
            place = name[: name.index(".") + 1]
            state_dict[prefix + places[place] + name.removeprefix(place)] = value


class _CarryingLstm(nn.Module):
    """The LSTMs, and the state that they carry from call to call if they are told to.

    Attributes:
        stateful: Whether they do. It may be changed at any time.
    """

    def __init__(self, bilstm: BiLstm, stateful: bool):
        super().__init__()
        self.bilstm = bilstm
        self.stateful = stateful
        self._states: ElmoState | None = None

    def reset_states(self) -> None:
        """Lets the next call start from zeros."""
        self._states = None

    def forward(self, words: Tensor, packing: Packing) -> list[Tensor]:
        """Packed words ``(all words, projection_dim)`` to layers ``(all words, 2 * projection_dim)``.

        Row `i` of a batch goes on where row `i` of the call before ended. Rows that were never there begin with zeros;
        those that are not there now keep their state.
        """
        if not self.stateful:
            return self.bilstm(words, packing)[0]
        rows = packing.shape[0] if self._states is None else max(packing.shape[0], self._states.hidden.shape[2])
        states = self.bilstm.initial_state(rows, words)
        if self._states is not None:
            states = ElmoState(
                *(torch.cat([old.to(new), new[:, :, old.shape[2] :]], 2) for old, new in zip(self._states, states))
            )
        start = ElmoState(*(part.index_select(2, packing.rows) for part in states))
        layers, end = self.bilstm(words, packing, start)
        self._states = ElmoState(
            *(old.index_copy(2, packing.rows, new) for old, new in zip(states, end.detach(), strict=True))
        )
        return layers


class ScalarMix(scalar_mix.ScalarMix):
    """Our scalar mix, its weights under AllenNLP's names: `scalar_parameters`, a list of tensors ``(1,)``."""

    def __init__(
        self,
        mixture_size: int,
        do_layer_norm: bool = False,
        initial_scalar_parameters: Sequence[float] | None = None,
        trainable: bool = True,
    ):
        nn.Module.__init__(self)
        initial = [0.0] * mixture_size if initial_scalar_parameters is None else initial_scalar_parameters
        if len(initial) != mixture_size:
            raise ValueError(f"scalar_mix_parameters must be {mixture_size} numbers, one per layer, was: {initial}.")
        self.mixture_size, self.do_layer_norm = mixture_size, do_layer_norm
        self.scalar_parameters = nn.ParameterList(
            nn.Parameter(torch.tensor([float(value)]), requires_grad=trainable) for value in initial
        )
        self.gamma = nn.Parameter(torch.ones(1), requires_grad=trainable)

    def layer_weights(self) -> Tensor:
        """``(mixture_size,)``, before the softmax."""
        return torch.cat(tuple(self.scalar_parameters))


class ElmoEmbedder:
    """Sentences to arrays of all layers; files as of `Elmo`.

    Args:
        cuda_device: Number of the GPU; -1 for none.
        stateful: Carry the LSTM state from batch to batch, as AllenNLP does.

    Raises:
        ValueError: for a device that is not there; ConversionError (a ValueError) for files that are no ELMo.
    """

    def __init__(
        self,
        options_file: str | Path | None = None,
        weight_file: str | Path | ElmoModel | None = None,
        cuda_device: int = -1,
        *,
        stateful: bool = False,
    ):
        device = torch.device("cuda", cuda_device) if cuda_device >= 0 else torch.device("cpu")
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"The GPU {cuda_device} cannot be used ({reason}): give -1 for the CPU.") from None
        self.elmo_bilm = _ElmoBiLm(options_file, weight_file, stateful=stateful).to(device).eval()
        self.cuda_device = cuda_device
        self._device = device

    @torch.no_grad()
    def batch_to_embeddings(self, batch: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
        """The layers of a batch of sentences (lists of words).

        Returns:
            ``(batch, layers, longest sentence, dim)``, zeros behind each sentence, and the mask of words ``(batch,
            longest sentence)``, int64, both on the device.
        """
        output = self.elmo_bilm(batch_to_ids(batch, self.elmo_bilm.max_characters_per_token).to(self._device))
        layers = [remove_sentence_boundaries(layer, output["mask"]) for layer in output["activations"]]
        return torch.stack([layer for layer, _ in layers], dim=1), layers[0][1].long()

    def embed_sentence(self, sentence: Sequence[str]) -> np.ndarray:
        """The layers of one sentence (a list of words): ``(layers, words, dim)``, float32."""
        return self.embed_batch([sentence])[0]

    def embed_batch(self, batch: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """The layers of each sentence of a batch: ``(layers, words, dim)``, float32, no words for an empty one."""
        layers, mask = self.batch_to_embeddings(batch)
        lengths = mask.sum(dim=1).tolist()
        return [row[:, :length].float().cpu().numpy() for row, length in zip(layers, lengths, strict=True)]

    def embed_sentences(
        self, sentences: Iterable[Sequence[str]], batch_size: int = DEFAULT_BATCH_SIZE
    ) -> Iterator[np.ndarray]:
        """The layers of each sentence, in their order, `batch_size` sentences read at a time."""
        sentences = iter(sentences)
        while batch := list(islice(sentences, batch_size)):
            yield from self.embed_batch(batch)

    def embed_file(
        self,
        input_file: IO[str] | Iterable[str],
        output_file_path: str | Path,
        output_format: str = "all",
        batch_size: int = DEFAULT_BATCH_SIZE,
        forget_sentences: bool = False,
        use_sentence_keys: bool = False,
        *,
        on_sentence: Callable[[np.ndarray], object] = lambda layers: None,
    ) -> None:
        """Writes the vectors of a text to an HDF5 file; one that is there is replaced when all is done.

        Args:
            input_file: An open text file, or lines: one sentence each, its words between white space.
            output_file_path: The file, `{"0": float32 (layers, words, dim), ...}`: the keys are numbers of lines.
            output_format: `"all"` layers, the `"top"` one, or their `"average"`: ``(words, dim)``.
            batch_size: Sentences read at a time.
            forget_sentences: Leave out the dataset `"sentence_to_index"`, which holds one JSON object: each line to its
                key (the last one of equal lines).
            use_sentence_keys: The keys are the lines themselves (and there is no `"sentence_to_index"`).
            on_sentence: Is told the layers of each sentence, when they are computed.

        Raises:
            ValueError: for another format, an empty line, and lines that cannot be keys or are there twice.
            OSError: if the file cannot be written.
        """
        if output_format not in FORMATS:
            raise ValueError(f"output_format must be one of {', '.join(FORMATS)}, was: {output_format!r}.")
        lines = [line.strip() for line in input_file]
        if empty := [number for number, line in enumerate(lines) if not line]:
            shown = ", ".join(map(str, empty[:20])) + (" ..." if len(empty) > 20 else "")
            raise ValueError(f"The input has empty lines, counted from 0: {shown}. Remove them.")

        def layers() -> Iterator[np.ndarray]:
            for each in self.embed_sentences(map(str.split, lines), batch_size):
                on_sentence(each)
                yield each

        write_elmo_file(output_file_path, lines, layers(), output_format, forget_sentences, use_sentence_keys)
