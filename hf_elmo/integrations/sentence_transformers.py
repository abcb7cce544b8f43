"""sentence-transformers: an ELMo folder as a `SentenceTransformer` that pools words alone, of a layer of choice.

The library loads a folder as it is, too: `SentenceTransformer(folder)` takes the mean of the mix, `<S>` and `</S>`
included.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from ..hub.folders import find_folder


class ElmoWords(Module):
    """A module between `Transformer` and `Pooling`, which then leaves `<S>` and `</S>` out.

    Args:
        boundary_ids: Their numbers in `input_ids`.
    """

    config_keys: ClassVar[list[str]] = ["boundary_ids"]

    def __init__(self, boundary_ids: list[int]):
        super().__init__()
        self.boundary_ids = list(boundary_ids)

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Features whose `attention_mask`, ``(batch, words)``, has the words alone."""
        mask = features["attention_mask"]
        for number in self.boundary_ids:
            mask = torch.where(features["input_ids"] == number, torch.zeros_like(mask), mask)
        features["attention_mask"] = mask
        return features

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Writes the configuration."""
        self.save_config(output_path)


def sentence_transformer(
    model: str | os.PathLike[str] | None = None,
    *,
    layer: int | None = None,
    pooling: str = "mean",
    keep_boundaries: bool = False,
) -> SentenceTransformer:
    """An ELMo as a `SentenceTransformer`.

    What `save` writes has a `modules.json`. `SentenceTransformer(folder, trust_remote_code=True)` loads it where
    hf_elmo is installed; the library asks for this with every module that is not its own.

    Args:
        model: A model folder, or the name of a bundled model; None: the bundled one.
        layer: The layer that is pooled, 0 the context-free one, -1 the top; None: the mix.
        pooling: As the library's `Pooling` calls it: `"mean"`, `"max"` ...
        keep_boundaries: `<S>` and `</S>` are pooled, too.

    Raises:
        ValueError: for a model that is not there, or a layer that it does not have.

    Examples:
        >>> from hf_elmo.integrations.sentence_transformers import sentence_transformer
        >>> model = sentence_transformer(layer=0)
        >>> model.encode(["A sentence.", "Another one."]).shape
        (2, 384)
    """
    from ..model.configuration_elmo import ElmoConfig
    from ..model.tokenization_elmo import ElmoTokenizer

    folder = str(find_folder(None if model is None else os.fspath(model)))
    config = ElmoConfig.from_pretrained(folder, local_files_only=True)
    options: dict[str, Any] = {}
    if layer is not None:
        if not -config.num_layers - 1 <= layer <= config.num_layers:
            raise ValueError(f"The model has layers 0 (context-free) to {config.num_layers}, layer was: {layer}.")
        place = {"method": "forward", "method_output_name": ["hidden_states", layer]}
        options = {"modality_config": {"text": place}, "module_output_name": "token_embeddings"}
    modules: list[torch.nn.Module] = [Transformer(folder, **options)]
    if not keep_boundaries:
        tokenizer = ElmoTokenizer.from_pretrained(folder, local_files_only=True)
        modules.append(ElmoWords([tokenizer.bos_token_id, tokenizer.eos_token_id]))
    modules.append(Pooling(config.hidden_size, pooling_mode=pooling))
    return SentenceTransformer(modules=modules)
