"""`hf-elmo info`: what a model folder holds, without loading its weights."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import in_bytes, printable, say


def info(
    folder: Annotated[
        str | None, typer.Argument(help="Model folder, or a bundled model. [default: elmo-mini]", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the sizes and switches of a model, its parameters, vocabulary and files."""
    from ..hub.folders import find_folder

    facts = describe(find_folder(folder))
    if as_json:
        say(json.dumps(facts, indent=2))
        return
    for title, values in facts.items():
        if not isinstance(values, dict):
            say(f"{title}: {printable(str(values), 200)}")
            continue
        say(f"{title}:")
        width = max(map(len, values), default=0)
        for name, value in values.items():
            say(f"  {name:<{width}}  {_for_people(title, value)}")


def describe(folder: Path) -> dict[str, Any]:
    """What there is to know about a model folder from its configuration and the tables of contents of its weights.

    Raises:
        ValueError: if the configuration is impossible, or a file of weights is missing or damaged.
    """
    from .. import ElmoConfig
    from ..hub.folders import architectures
    from ..model.model_files import read_json_object, stored_tensors

    content = read_json_object(folder / "config.json")
    try:
        config = ElmoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise ValueError(f"{folder / 'config.json'} describes no ELMo: {error}") from None
    tensors = [(name, each.dtype, math.prod(each.shape)) for name, each in stored_tensors(folder).items()]
    files = sorted(folder.iterdir())
    switches = {name: getattr(config, name) for name in _SIZES_AND_SWITCHES}
    return {
        "folder": str(folder),
        "model": ", ".join(architectures(content) or ["ElmoModel"]),
        "sizes and switches": {**switches, "hidden_size": config.hidden_size},
        "parameters": _count_parameters(tensors),
        "dtype": ", ".join(sorted({dtype for _, dtype, _ in tensors})),
        "vocabulary": f"{config.vocab_size:,} words, special ones included" if config.vocab_size > 4 else "none",
        "origin": "options.json and HDF5 (bilm-tf, AllenNLP)" if config.original_options else "transformers",
        "remote code": "yes" if any(folder.glob("modeling_*.py")) else "no",
        "files": {path.name: path.stat().st_size for path in files if path.is_file() and path.suffix != ".py"},
    }


_SIZES_AND_SWITCHES = (
    "char_vocab_size",
    "byte_characters",
    "word_embed_dim",
    "char_embed_dim",
    "filters",
    "num_highway_layers",
    "activation",
    "max_characters_per_token",
    "cell_size",
    "projection_dim",
    "num_layers",
    "use_skip_connections",
    "cell_clip",
    "proj_clip",
    "forget_bias",
    "num_representations",
    "do_layer_norm",
    "scalar_mix_parameters",
)

# Beginnings of parameters' names (in a model on top of the biLM, "elmo." comes before the first three).
_PARTS = {
    "character_encoder.": "character encoder",
    "bilstm.": "biLSTM",
    "scalar_mixes.": "scalar mixes",
    "softmax.": "softmax",
}


def _count_parameters(tensors: list[tuple[str, str, int]]) -> dict[str, int]:
    """Parameters of each part. The biLM's, mixes and softmax left out, is the number that is published for an ELMo."""
    counts: Counter[str] = Counter()
    for name, _, size in tensors:
        name = name.removeprefix("elmo.")
        counts[next((part for start, part in _PARTS.items() if name.startswith(start)), "task head")] += size
    parts = {part: counts[part] for part in (*_PARTS.values(), "task head") if part in counts}
    return {"biLM": counts["character encoder"] + counts["biLSTM"], **parts, "all": counts.total()}


def _for_people(title: str, value: Any) -> str:
    if title == "files":
        return in_bytes(value)
    return f"{value:,}" if title == "parameters" else printable(str(value), 200)
