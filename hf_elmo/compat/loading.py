"""The models behind the old interfaces: every path that they took, and model folders besides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..conversion import ConversionError, load_bilm
from ..conversion.model_folder import load_model_folder
from ..model.modeling_elmo import ElmoModel


def load_model(
    weights: str | Path | ElmoModel | None, options: str | Path | Mapping[str, Any] | None = None
) -> ElmoModel:
    """Loads the biLM that an old interface is to run.

    Args:
        weights: A file of weights, a folder or a zip archive in the original format (as `conversion.load_bilm` takes
            them); a model folder of ours; or an `ElmoModel`, which is returned as it is.
        options: The options.json of weights in the original format, or its path. None: the one beside the weights.

    Returns:
        The model, in evaluation mode.

    Raises:
        ConversionError: for an address, which nothing here downloads from; for files that are missing, damaged or
            contradictory; and for a model that reads other characters than UTF-8 bytes.
        OSError: if a file cannot be read.
    """
    for name, path in (("weights", weights), ("options", options)):
        if isinstance(path, str) and path.split("://")[0] in ("http", "https", "s3", "gs", "hf"):
            raise ConversionError(
                f"The {name} are to come from {path}, but nothing is downloaded here: fetch the file (conversion/"
                "SOURCES.md tells where the published models are) and give its path, or give a model folder."
            )
    if weights is None:
        raise ConversionError(
            "No weights are given. (AllenNLP took the original English model from the internet then; nothing is "
            "downloaded here.) Give the path of a file of weights, or of a model folder."
        )
    if isinstance(weights, ElmoModel):
        model = weights
    elif (Path(weights) / "config.json").is_file():
        if options is not None:
            raise ConversionError(f"{weights} is a model folder, which has its own options: give None for options.")
        model, _ = load_model_folder(weights)
    else:
        # The interfaces read no vocabulary; one that is damaged is not to stand in their way.
        model, _ = load_bilm(weights, options=options, vocabulary=())
    if not model.config.byte_characters or model.config.word_embed_dim:
        raise ConversionError(
            f"{weights} is an ELMo that reads characters or words of a dictionary; this interface is for those that "
            "read the bytes of UTF-8. For ELMoForManyLangs there is hf_elmo.compat.elmoformanylangs."
        )
    return model.eval()
