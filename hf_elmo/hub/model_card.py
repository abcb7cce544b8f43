"""Model cards: the README.md of a model folder, with metadata that the hub reads.

A card is made of what the folder holds, of where it comes from (`Origin`, which a conversion knows), and of measured
results.
"""

from __future__ import annotations

import filecmp
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..model.model_files import read_json_object
from ..whole_files import new_file
from .folders import READS, WRITES, bundled, describe, find_folder
from .measured_results import Result, read_results
from .published_models import Origin, find_published

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

CARD_NAME = "README.md"
# The field of metadata in which a card remembers its origin, to be made anew one day.
ORIGIN_FIELD = "elmo_origin"
PETERS = "Peters et al. 2018, https://arxiv.org/abs/1802.05365"
# The owner in the ids of ready cards, which know the model's name but not where it will lie.
_SOMEBODY = "user/"
# transformers' card of a model that is pushed, which leaves all to be filled in.
_UNFILLED = "This model card has been automatically generated."

_PIPELINES = {
    "ElmoModel": ("AutoModel", "feature-extraction"),
    "ElmoForPreTraining": ("AutoModelForPreTraining", "feature-extraction"),
    "ElmoForTokenClassification": ("AutoModelForTokenClassification", "token-classification"),
    "ElmoForSequenceClassification": ("AutoModelForSequenceClassification", "text-classification"),
    "ElmoForQuestionAnswering": ("AutoModelForQuestionAnswering", "question-answering"),
    "ElmoForMultipleChoice": ("AutoModelForMultipleChoice", "multiple-choice"),
    # Whether it translates or summarises, a folder does not say; a card that is there may.
    "ElmoEncoderDecoderModel": ("AutoModelForSeq2SeqLM", "text2text-generation"),
}
_WRITING_TASKS = ("translation", "summarization")
_EXAMPLE_TOKENS = 60
_FORMATS = {
    "bilm-hdf5": "HDF5 weights and options.json (bilm-tf, AllenNLP)",
    "bilm-tf-checkpoint": "a checkpoint of bilm-tf's training in TensorFlow",
    "allennlp-archive": "an archive of AllenNLP",
    "allennlp-state-dict": "a state dict of AllenNLP's Elmo",
    "tfhub-module": "a module of TensorFlow Hub",
    "elmoformanylangs": "ELMoForManyLangs",
}


def make_card(
    folder: str | Path,
    *,
    origin: Origin | None = None,
    results: Iterable[str | Path | Result] = (),
    name: str | None = None,
    base_model: str | None = None,
    remote_code: bool | None = None,
) -> ModelCard:
    """The card of a model folder.

    A bundled model has its ready card. Language, licence, corpora, base model and results that the metadata of a
    README.md in the folder states, such as a Trainer's, are taken from there if nothing else tells them; so is the
    origin.

    Args:
        folder: The model folder.
        origin: Where it comes from.
        results: Files of results (`hf_elmo.hub.measured_results`), or results.
        name: What to call it: a name, or the id `"user/name"` that it has on the hub; the folder's name by default.
        base_model: The id of the model on the hub that it was fine-tuned from.
        remote_code: Whether the code for `trust_remote_code` lies beside the weights where the card is read; None:
            whether it does in the folder.

    Returns:
        `huggingface_hub.ModelCard`, checked with `check_card`.

    Raises:
        ValueError: if the folder does not hold an ELMo, a file of results is not one, or README.md's metadata cannot be
            read.
        OSError: if a file cannot be read.
    """
    from huggingface_hub import ModelCard, ModelCardData

    from ..model.modeling_elmo import ElmoPreTrainedModel

    folder = find_folder(str(folder), (READS, WRITES))
    measured = read_results(results)
    if origin is None and base_model is None and (ready := _ready_card(folder, name)) is not None:
        return check_card(_with_results(ready, measured))
    facts = describe(folder)
    if remote_code is not None:
        facts["remote code"] = "yes" if remote_code else "no"
    before = _metadata(folder)
    measured = _kept_results(before, measured) + measured
    origin = origin or origin_in(folder)
    published = None
    if origin is not None and origin.published is not None:
        published = find_published(origin.published)
    is_other = published is not None and published.parameters not in (None, facts["parameters"]["biLM"])
    known = None if is_other else published
    config = read_json_object(folder / "config.json")
    auto_class, pipeline_tag = _PIPELINES.get(facts["model"], _PIPELINES["ElmoModel"])
    if "decoder" in facts and before.get("pipeline_tag") in _WRITING_TASKS:
        pipeline_tag = before["pipeline_tag"]
    use_name = _title(name or folder.resolve().name)
    title = known.title if known else use_name.rpartition("/")[2]
    data = ModelCardData(
        language=(known.language if known else None) or before.get("language"),
        license=(known.license if known and known.license != "unknown" else None) or before.get("license") or "unknown",
        library_name="transformers",
        pipeline_tag=pipeline_tag,
        base_model=base_model or before.get("base_model"),
        datasets=(list(known.datasets) if known else None) or before.get("datasets"),
        tags=list(ElmoPreTrainedModel.model_tags),
        model_name=title,
        eval_results=[result.as_eval_result() for result in measured if not result.is_speed] or None,
    )
    if origin is not None:
        data[ORIGIN_FIELD] = origin.as_dict()
    if data.eval_results is None:
        # The name is that of the model-index, which a card without results does not have.
        data.model_name = None
    card = ModelCard.from_template(
        data,
        template_str=_resource("template.md"),
        name=title,
        use_name=use_name,
        facts=facts,
        sizes=facts["sizes and switches"],
        decoder=facts.get("decoder"),
        max_new_tokens=_max_new_tokens(facts.get("decoder")),
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
    with new_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(str(card), encoding="utf-8", newline="\n")
    return path


def origin_in(folder: str | Path) -> Origin | None:
    """The origin that the card in a folder remembers.

    Raises:
        ValueError: if the card cannot be read.
    """
    before = _metadata(Path(folder))
    return Origin.from_dict(before[ORIGIN_FIELD]) if ORIGIN_FIELD in before else None


def fill_generated_card(folder: str | Path, repo: str, base_model: str | None) -> None:
    """Puts the card of a folder in the place of the one that transformers makes of a model that it pushes.

    A card that somebody wrote, or of a Trainer, stays.

    Args:
        folder: Of the model, as it is to be uploaded.
        repo: Its id on the hub.
        base_model: Where the model was loaded from.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    path = Path(folder) / CARD_NAME
    before = _read_card(path)
    if before.data.get("license") or _UNFILLED not in before.text:
        return
    try:
        validate_repo_id(base_model)
    except HFValidationError:
        # It is a path.
        base_model = None
    if base_model is not None and (base_model == repo or Path(base_model).exists()):
        base_model = None
    card = make_card(folder, name=repo, base_model=base_model)
    card.data["tags"] = list(dict.fromkeys([*(card.data.get("tags") or []), *(before.data.get("tags") or [])]))
    path.write_text(str(card), encoding="utf-8", newline="\n")


def check_card(card: ModelCard | str | Path) -> ModelCard:
    """Checks that a card tells the hub, and people, what it is: more than the hub itself asks for.

    Args:
        card: The card, or its file.

    Returns:
        The card.

    Raises:
        ValueError: as `check_metadata`; naming the fields of metadata that are missing; or if the text is empty.
        OSError: if the file cannot be read.
    """
    place = str(card) if isinstance(card, (str, Path)) else "the card"
    # What counts is what is there after writing and reading.
    content = Path(card).read_bytes() if isinstance(card, (str, Path)) else str(card).encode()
    if missing := check_metadata(content, place):
        raise ValueError(f"{'; '.join(missing)}.")
    card = _parsed(content, place)
    if not card.text.strip():
        raise ValueError(f"{place} has no text.")
    return card


_TEXTS = ("library_name", "license", "license_link", "license_name", "pipeline_tag")
_TEXTS_OR_LISTS = ("base_model", "datasets", "language", "metrics", "tags")


def check_metadata(content: bytes, place: str) -> list[str]:
    """Checks a card's metadata as far as this can be done without the hub.

    Args:
        content: The card.
        place: What to call it in messages.

    Returns:
        What is allowed, but makes the model hard to find or to use.

    Raises:
        ValueError: for metadata that is missing, or not what the hub takes.
    """
    from huggingface_hub.utils import validate_repo_id

    data = _parsed(content, place).data.to_dict()
    for field in (*_TEXTS, *_TEXTS_OR_LISTS):
        value = data.get(field, "")
        each = value if isinstance(value, list) and field in _TEXTS_OR_LISTS else [value]
        if not all(isinstance(text, str) for text in each):
            expected = "text" if field in _TEXTS else "text, or a list of texts"
            raise ValueError(f"The metadata of {place} has {field}: {value!r}, expected {expected} (in quotes).")
    for field in ("base_model", "datasets"):
        for each in [data[field]] if isinstance(data.get(field), str) else data.get(field) or []:
            try:
                validate_repo_id(each)
            except ValueError as error:
                raise _not_taken(place, error) from None
    if not data.get("library_name"):
        raise ValueError(
            f"The metadata of {place} has no library_name: begin the file with a line ---, a line library_name: "
            "transformers, further fields of the hub's model cards, and a line ---."
        )
    return [f"{place} has no {field}" for field in ("license", "pipeline_tag", "tags") if not data.get(field)]


def _parsed(content: bytes, place: str) -> ModelCard:
    import yaml
    from huggingface_hub import ModelCard

    try:
        return ModelCard(content.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"{place} is not text in UTF-8: byte {error.start} is {content[error.start]:#x}.") from None
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise _not_taken(place, error) from None


def _not_taken(place: str, error: Exception) -> ValueError:
    return ValueError(f"The metadata of {place} is not what the hub takes: {' '.join(str(error).split())}")


def _read_card(path: Path) -> ModelCard:
    return _parsed(path.read_bytes(), str(path))


def _metadata(folder: Path) -> dict[str, Any]:
    """What a card in the folder says."""
    path = folder / CARD_NAME
    # The library would complain of a page that is not a card.
    has_fields = path.is_file() and path.read_bytes().startswith(b"---")
    return _read_card(path).data.to_dict() if has_fields else {}


def _ready_card(folder: Path, repo: str | None) -> ModelCard | None:
    """The card of the bundled model that these weights are, if they are one's; with the id of its repository."""
    from huggingface_hub import ModelCard

    theirs = folder / "model.safetensors"
    for entry in resources.files("hf_elmo.model_cards").iterdir():
        name = entry.name.removesuffix(".md")
        if name == entry.name or name == "template":
            continue
        ours = Path(bundled(name)) / "model.safetensors"
        if theirs.is_file() and filecmp.cmp(ours, theirs, shallow=False):
            text = entry.read_text(encoding="utf-8")
            is_id = repo is not None and "/" in repo
            return ModelCard(text.replace(f'"{_SOMEBODY}{name}"', f'"{repo}"') if is_id else text)
    return None


def _kept_results(before: dict[str, Any], measured: list[Result]) -> list[Result]:
    """The results that a card's metadata holds, without those that were measured anew."""
    from huggingface_hub.repocard_data import model_index_to_eval_results

    new = [result.as_eval_result() for result in measured]
    kept = model_index_to_eval_results(before["model-index"])[1] if "model-index" in before else []
    return [Result.from_eval_result(result) for result in kept if not any(map(result.is_equal_except_value, new))]


def _with_results(card: ModelCard, measured: list[Result]) -> ModelCard:
    new = [result.as_eval_result() for result in measured if not result.is_speed]
    card.data["eval_results"] = [*(card.data.get("eval_results") or []), *new] or None
    if measured:
        card.text = f"{card.text.rstrip()}\n\n## Further results\n\n{_table(measured)}\n"
    return card


def _max_new_tokens(decoder: dict[str, Any] | None) -> int:
    """How long the text of the card's example may get."""
    positions = None if decoder is None else decoder["max_position_embeddings"]
    return _EXAMPLE_TOKENS if positions is None else min(_EXAMPLE_TOKENS, positions - 1)


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
