"""Model cards: the README.md of a model folder, with metadata that the hub reads.

A card is made of what the folder holds, of where it comes from (`Origin`, which a conversion knows), and of measured
results.
"""

from __future__ import annotations

import filecmp
import json
import os
import re
import secrets
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .measured_results import Result, read_results
from .published_models import Origin, published_models

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

CARD_NAME = "README.md"
# The field of metadata in which a card remembers its origin, to be made anew one day.
ORIGIN_FIELD = "elmo_origin"
PETERS = "Peters et al. 2018, https://arxiv.org/abs/1802.05365"

_PIPELINES = {
    "ElmoModel": ("AutoModel", "feature-extraction"),
    "ElmoForPreTraining": ("AutoModelForPreTraining", "feature-extraction"),
    "ElmoForTokenClassification": ("AutoModelForTokenClassification", "token-classification"),
    "ElmoForSequenceClassification": ("AutoModelForSequenceClassification", "text-classification"),
    "ElmoForQuestionAnswering": ("AutoModelForQuestionAnswering", "question-answering"),
    "ElmoForMultipleChoice": ("AutoModelForMultipleChoice", "multiple-choice"),
}
_FORMATS = {
    "bilm-hdf5": "HDF5 weights and options.json (bilm-tf, AllenNLP)",
    "bilm-tf-checkpoint": "a checkpoint of bilm-tf's training in TensorFlow",
    "allennlp-archive": "an archive of AllenNLP",
    "elmoformanylangs": "ELMoForManyLangs",
}


def make_card(
    folder: str | Path,
    *,
    origin: Origin | None = None,
    results: Iterable[str | Path | Result] = (),
    name: str | None = None,
    base_model: str | None = None,
) -> ModelCard:
    """The card of a model folder.

    A bundled model has its ready card. Language, licence, corpora, base model and results that the metadata of a
    README.md in the folder states, such as a Trainer's, are taken from there if nothing else tells them; so is the
    origin.

    Args:
        folder: The model folder.
        origin: Where it comes from.
        results: Files of results (`hf_elmo.measured_results`), or results.
        name: What to call it; the folder's name by default.
        base_model: The id of the model on the hub that it was fine-tuned from.

    Returns:
        `huggingface_hub.ModelCard`, checked with `check_card`.

    Raises:
        ValueError: if the folder holds no ELMo, a file of results is none, or README.md's metadata cannot be read.
        OSError: if a file cannot be read.
    """
    from huggingface_hub import ModelCard, ModelCardData

    from .commands.info import describe
    from .commands.models import find_folder

    folder = find_folder(str(folder))
    measured = read_results(results)
    if origin is None and base_model is None and (ready := _ready_card(folder)) is not None:
        return check_card(_with_results(ready, measured))
    facts = describe(folder)
    before = _metadata(folder)
    measured = _kept_results(before, measured) + measured
    origin = origin or origin_in(folder)
    published = None
    if origin is not None and origin.published is not None:
        if origin.published not in published_models():
            raise ValueError(f"No published model is called {origin.published!r}.")
        published = published_models()[origin.published]
    is_other = published is not None and published.parameters not in (None, facts["parameters"]["biLM"])
    known = None if is_other else published
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    auto_class, pipeline_tag = _PIPELINES.get(facts["model"], _PIPELINES["ElmoModel"])
    use_name = _title(name or folder.resolve().name)
    title = known.title if known else use_name
    data = ModelCardData(
        language=(known.language if known else None) or before.get("language"),
        license=(known.license if known and known.license != "unknown" else None) or before.get("license") or "unknown",
        library_name="transformers",
        pipeline_tag=pipeline_tag,
        base_model=base_model or before.get("base_model"),
        datasets=(list(known.datasets) if known else None) or before.get("datasets"),
        tags=["elmo", "bilm", "character-cnn"],
        model_name=title,
        eval_results=[result.as_eval_result() for result in measured if not result.is_speed] or None,
    )
    if origin is not None:
        data[ORIGIN_FIELD] = origin.as_dict()
    if data.eval_results is None:
        # Without results there is no model-index whose name it would be.
        data.model_name = None
    card = ModelCard.from_template(
        data,
        template_str=_resource("template.md"),
        name=title,
        use_name=use_name,
        facts=facts,
        sizes=facts["sizes and switches"],
        labels=", ".join(_code(str(label)) for label in (config.get("id2label") or {}).values()),
        auto_class=auto_class,
        origin=origin,
        format=_FORMATS.get(origin.format, origin.format) if origin else None,
        published=published,
        known=known,
        is_other=is_other,
        citations=[citation for citation in (known.citations if known else ()) if citation != PETERS],
        results_table=_table([result for result in measured if not result.is_speed]),
        speeds_table=_table([result for result in measured if result.is_speed]),
        code=_code,
        metadata=data,
    )
    return check_card(card)


def write_card(
    folder: str | Path,
    *,
    origin: Origin | None = None,
    results: Iterable[str | Path | Result] = (),
    overwrite: bool = False,
    name: str | None = None,
    base_model: str | None = None,
    output: str | Path | None = None,
) -> Path:
    """Writes the card of a model folder, whole or not at all.

    Args:
        folder: As in `make_card`, like `origin`, `results`, `name` and `base_model`.
        overwrite: Replace a card that is there. Otherwise it is kept, and nothing is written.
        output: The file; README.md in the folder by default.

    Returns:
        The path of the card.

    Raises:
        ValueError: as `make_card`.
        OSError: if it cannot be written.
    """
    path = Path(folder) / CARD_NAME if output is None else Path(output)
    if path.exists() and not overwrite:
        return path
    card = make_card(folder, origin=origin, results=results, name=name, base_model=base_model)
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        temporary.write_text(str(card), encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    finally:
        # Where it could not be made it cannot be removed either, and the first error is the one to tell.
        if temporary.exists():
            temporary.unlink()
    return path


def origin_in(folder: str | Path) -> Origin | None:
    """The origin that the card in a folder remembers.

    Raises:
        ValueError: if the card cannot be read.
    """
    before = _metadata(Path(folder))
    return Origin.from_dict(before[ORIGIN_FIELD]) if ORIGIN_FIELD in before else None


def check_card(card: ModelCard | str | Path) -> ModelCard:
    """Checks that a card tells the hub what it is.

    Args:
        card: The card, or its file.

    Returns:
        The card.

    Raises:
        ValueError: naming the fields of metadata that are missing or impossible, or if there is no text.
        OSError: if the file cannot be read.
    """
    from huggingface_hub import ModelCard

    place = "The card"
    if isinstance(card, (str, Path)):
        place, card = str(card), _parsed(Path(card).read_text(encoding="utf-8"), str(card))
    else:
        # What counts is what is there after writing and reading.
        card = ModelCard(str(card))
    fields = card.data.to_dict()
    missing = [name for name in ("library_name", "license", "pipeline_tag", "tags") if not fields.get(name)]
    wrong = [name for name in ("library_name", "license", "pipeline_tag") if not isinstance(fields.get(name, ""), str)]
    for field in ("language", "base_model", "datasets", "tags"):
        value = fields.get(field, [])
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str) and item for item in items):
            wrong.append(field)
    if missing or wrong:
        problems = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"wrong: {', '.join(wrong)}"] * bool(wrong)
        raise ValueError(f"{place} has fields of metadata {'; '.join(problems)}.")
    if not card.text.strip():
        raise ValueError(f"{place} has no text.")
    return card


def _parsed(text: str, place: str) -> ModelCard:
    import yaml
    from huggingface_hub import ModelCard

    try:
        return ModelCard(text)
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"The metadata of {place} cannot be read: {error}") from None


def _metadata(folder: Path) -> dict[str, Any]:
    """What a card in the folder says."""
    path = folder / CARD_NAME
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    return _parsed(text, str(path)).data.to_dict() if text.startswith("---") else {}


def _ready_card(folder: Path) -> ModelCard | None:
    """The card of the bundled model that these weights are, if they are one's."""
    from huggingface_hub import ModelCard

    from . import bundled

    theirs = folder / "model.safetensors"
    for entry in resources.files("hf_elmo.model_cards").iterdir():
        name = entry.name.removesuffix(".md")
        if name == entry.name or name == "template":
            continue
        ours = Path(bundled(name)) / "model.safetensors"
        if theirs.is_file() and filecmp.cmp(ours, theirs, shallow=False):
            return ModelCard(entry.read_text(encoding="utf-8"))
    return None


def _kept_results(before: dict[str, Any], measured: list[Result]) -> list[Result]:
    """The results that a card's metadata holds, without those that were measured anew."""
    from huggingface_hub.repocard_data import model_index_to_eval_results

    new = [result.as_eval_result() for result in measured]
    kept = model_index_to_eval_results(before["model-index"])[1] if "model-index" in before else []
    return [Result.from_eval_result(result) for result in kept if not any(map(result.is_equal_except_value, new))]


def _with_results(card: ModelCard, measured: list[Result]) -> ModelCard:
    new = [result.as_eval_result() for result in measured if not result.is_speed]
    card.data.eval_results = [*(card.data.eval_results or []), *new] or None
    if measured:
        card.text = f"{card.text.rstrip()}\n\n## Further results\n\n{_table(measured)}\n"
    return card


def _table(results: list[Result]) -> str:
    """A table of results; empty without any."""
    if not results:
        return ""
    lines = ["| task | data | metric | value | command | machine |", "|---|---|---|---|---|---|"]
    for result in results:
        data = " ".join(filter(None, (result.dataset.get("name", result.dataset["type"]), result.dataset.get("split"))))
        task, metric = (part.get("name", part["type"]) for part in (result.task, result.metric))
        command = _code(result.command) if result.command else "not stated"
        machine = _cell(result.machine) or "not stated"
        cells = [_cell(task), _cell(data), _cell(metric), str(result.value), command, machine]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return re.sub(r"([\\|`<*_\[])", r"\\\1", text)


def _code(text: str) -> str:
    """A text as code in a table, whatever is in it."""
    text = "".join(letter if letter.isprintable() else "\ufffd" for letter in text).replace("|", "\\|")
    marks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{marks}{text}{marks}" if len(marks) == 1 else f"{marks} {text} {marks}"


def _resource(name: str) -> str:
    return resources.files("hf_elmo.model_cards").joinpath(name).read_text(encoding="utf-8")


def _title(text: str) -> str:
    """A folder's name as a heading: it may hold what Markdown or YAML would read."""
    return re.sub(r"[^\w .,:()/+-]", "_", text).strip() or "ELMo"
