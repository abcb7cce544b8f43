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

    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    try:
        config = ElmoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise ValueError(f"{folder / 'config.json'} describes no ELMo: {error}") from None
    tensors = [tensor for path in _weight_files(folder) for tensor in _table_of_contents(path)]
    files = sorted(folder.iterdir())
    switches = {name: getattr(config, name) for name in _SIZES_AND_SWITCHES}
    return {
        "folder": str(folder),
        "model": ", ".join(content.get("architectures") or ["ElmoModel"]),
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


def _weight_files(folder: Path) -> list[Path]:
    """The file of weights, or the several that a large model is saved in.

    Raises:
        ValueError: if one is missing.
    """
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{index} is no index of files of weights: {error!r}") from None
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no weights: {name} is missing.")
    return [folder / name for name in names]


def _table_of_contents(path: Path) -> list[tuple[str, str, int]]:
    """Name, dtype and number of elements of every tensor in a safetensors file.

    Raises:
        ValueError: if the file is damaged.
        OSError: if it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    # The library says of a file that may not be read that there is none.
    path.open("rb").close()
    try:
        with safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            return [(name, each.get_dtype(), math.prod(each.get_shape())) for name, each in slices.items()]
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _for_people(title: str, value: Any) -> str:
    if title == "files":
        return in_bytes(value)
    return f"{value:,}" if title == "parameters" else printable(str(value), 200)
