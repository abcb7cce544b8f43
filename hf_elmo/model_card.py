"""Model cards: `README.md` of a model folder, in the metadata format of the Hugging Face Hub.

A card is filled in from what the folder holds (configuration, tables of contents of the weights), from what it was
converted from, if anything, and from files of measured results; see `model_card_results` for their format. What none of
these tells is "not stated". The template and the facts of published models lie in `model_cards/`.
"""

from __future__ import annotations

import filecmp
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .configuration_elmo import ElmoConfig
from .model_card_results import SPEED, Result, read_results
from .model_card_usage import usage_of
from .model_origin import FORMATS, Origin, PublishedModel, SourceFile, published_models, read_card_file, recognise
from .weight_files import count_parameters, table_of_contents, weight_files

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

CARD_NAME = "README.md"

#: What every card here has. (The hub itself asks for nothing, and lists a model without them under nothing.)
REQUIRED = ("library_name", "pipeline_tag", "license", "tags")

_TASKS = {
    "ElmoForTokenClassification": "token-classification",
    "ElmoForQuestionAnswering": "question-answering",
    "ElmoForSequenceClassification": "text-classification",
    "ElmoForMultipleChoice": "multiple-choice",
}
_TAGS = ("elmo", "bilm", "character-cnn")
_MOST_LABELS = 60

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*|code|multilingual")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def make_card(
    folder: str | Path,
    *,
    name: str | None = None,
    repo_id: str | None = None,
    origin: Origin | None = None,
    published: str | None = None,
    results: Iterable[Result | str | Path] = (),
    base_model: str | None = None,
    datasets: Sequence[str] = (),
    language: str | None = None,
    license: str | None = None,
) -> ModelCard:
    """The card of a model folder. Nothing is written, and nothing is asked of the network.

    The card of a bundled model, whose weights the folder has, is that of `model_cards/`. If the folder has a card
    already that tells what its weights were converted from, the new one tells it too.

    Args:
        folder: A folder of an ELMo in the format of transformers.
        name: What the model is called; the folder's name, if it is no published one.
        repo_id: The repository on the hub, or the folder, that it is to have, for the lines of code that load it.
        origin: What it was converted from.
        published: The id of the published model that it is (`hf_elmo.model_origin.published_models`), if that cannot
            be recognised by its files.
        results: What was measured with it, or files thereof.
        base_model: The model on the hub that it was fine-tuned from.
        datasets: The data on the hub that it was trained on.
        language: The language of its text, as a code of ISO 639.
        license: The licence of its weights, as the hub calls it.

    Raises:
        ValueError: if the folder holds no whole ELMo; for files of results that are none; and for fields that are
            missing or that the hub would not take, all of them named.
        OSError: if a file cannot be read.
    """
    folder = Path(folder)
    content, config = _configuration(folder)
    measured = [result for each in results for result in ([each] if isinstance(each, Result) else read_results(each))]
    given = {"base_model": base_model, "datasets": list(datasets) or None, "language": language, "license": license}
    if card := _bundled_card(folder):
        if measured or origin or published:
            raise ValueError(
                f"{folder} holds a bundled model, which has a card of its own: nothing can be added to it."
            )
        for key, value in given.items():
            card.data[key] = value or card.data.get(key)
        return check_card(card)
    tensors = table_of_contents(folder)
    parameters = count_parameters(tensors)
    told = _told_by_card(folder) if origin is None else {}
    origin = origin or told.get("origin")
    model, recognised_by = _published(origin, published, parameters["biLM"], _words(config), told)
    architecture = (content.get("architectures") or ["ElmoModel"])[0]
    place = repo_id or folder.resolve().name
    title = name or (model.title if model else place.rsplit("/")[-1])
    facts = model or PublishedModel(id="", title="", formats=())
    data = {
        "language": language or facts.language,
        "license": license or facts.license,
        "library_name": "transformers",
        "pipeline_tag": _TASKS.get(architecture, "feature-extraction"),
        "base_model": base_model,
        "datasets": list(datasets) or list(facts.datasets) or None,
        "metrics": sorted({each.metric for each in measured if each.task != SPEED}) or None,
        "tags": [*_TAGS, *facts.tags],
    }
    if origin or model:
        data["conversion"] = _to_metadata(folder, origin, model, recognised_by)
    if eval_results := [each.to_eval_result() for each in measured if each.task != SPEED]:
        data |= {"eval_results": eval_results, "model_name": title}
    kind, use = _kind_and_use(architecture, config)
    return _filled_in(
        data,
        title=title,
        summary=_summary(model, origin),
        kind=kind,
        use=use,
        published=model,
        recognised_by=recognised_by,
        usage=usage_of(architecture, place, is_protein="protein" in facts.tags),
        has_code=(folder / "elmo_models.py").is_file(),
        words=facts.words,
        mixes_at_start=origin is not None and origin.format in ("hdf5", "tf-checkpoint", "elmoformanylangs"),
        sizes=_sizes(config, parameters, sorted({dtype for _, dtype, _ in tensors})),
        labels=_labels(architecture, config),
        training=facts.training or (", ".join(datasets) if datasets else None),
        language_name=language or facts.language_name,
        licence=license or facts.licence or (facts.license if facts.license != "unknown" else None),
        is_foreign=bool(origin or model),
        base_models=base_model,
        longest_word=_longest_word(config),
        results=[_row(each) for each in measured if each.task != SPEED],
        speed=[_row(each)[1:] for each in measured if each.task == SPEED],
        commands=list(dict.fromkeys(" ".join(each.command.split()) for each in measured)),
        origin=[(f"`{_cell(each.name)}`", f"{each.size:,}", f"`{each.sha256}`") for each in origin.files]
        if origin
        else [],
        origin_format=FORMATS.get(origin.format) if origin else None,
        cite=facts.cite,
    )


def write_card(
    folder: str | Path, *, output: str | Path | None = None, overwrite: bool = False, **arguments: Any
) -> Path:
    """Writes the card of a model folder: whole, or not at all.

    Args:
        folder: The folder.
        output: The file; `README.md` in the folder if None.
        overwrite: Whether a file that is there is replaced. A card that was written by a person would be lost.
        arguments: As for `make_card`.

    Returns:
        The path of the file.

    Raises:
        ValueError: as `make_card`.
        OSError: if the file is there already, or cannot be written.
    """
    path = Path(folder) / CARD_NAME if output is None else Path(output)
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{path} is no file, and cannot be replaced by one.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is there already and is kept; to replace it, overwrite it (--overwrite).")
    text = str(make_card(folder, **arguments)).rstrip() + "\n"
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)
    return path


def check_card(card: ModelCard | str | Path, required: Sequence[str] = REQUIRED) -> ModelCard:
    """Checks the metadata of a card, as far as that goes without the network.

    Args:
        card: A card, or its file.
        required: The fields that must be there.

    Returns:
        The card.

    Raises:
        ValueError: with all fields that are missing, or that the hub would not take.
        OSError: if the file cannot be read.
    """
    name = "The card"
    if isinstance(card, (str, Path)):
        name, card = str(card), _read_card(Path(card))
    data = card.data.to_dict()
    problems = [f"{field} is missing" for field in required if not data.get(field)]
    problems += [
        f"{field} must be {expected}, was {json.dumps(each, default=str)[:80]}"
        for field, expected, is_right in _CHECKS
        for each in _listed(data.get(field))
        if not (isinstance(each, str) and is_right(each))
    ]
    if data.get("license") == "other" and not data.get("license_name"):
        problems.append("license_name is missing, which a license of 'other' needs")
    for result in card.data.eval_results or []:
        for field in ("task_type", "dataset_type", "dataset_name", "metric_type"):
            if not isinstance(getattr(result, field), str) or not getattr(result, field):
                problems.append(f"model-index: {field.replace('_', '.')} must be a text")
        if isinstance(result.metric_value, bool) or not isinstance(result.metric_value, (int, float, str, dict)):
            problems.append(f"model-index: the value of {result.metric_type} must be a number or a text")
    if not card.text.strip():
        problems.append("there is no text below the metadata")
    if problems:
        raise ValueError(f"{name} is not valid: {'; '.join(problems)}.")
    return card


def _is_repo_id(text: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return True


_CHECKS = (
    ("library_name", "a name", str.strip),
    (
        "pipeline_tag",
        "a task of the hub, such as 'feature-extraction'",
        re.compile(r"[a-z0-9]+(-[a-z0-9]+)*").fullmatch,
    ),
    ("language", "a code of ISO 639, such as 'en'", _LANGUAGE.fullmatch),
    ("license", "an identifier of the hub, such as 'apache-2.0', or 'unknown'", _LICENSE.fullmatch),
    ("base_model", "a repository on the hub, such as 'owner/name'", _is_repo_id),
    ("datasets", "data on the hub, such as 'owner/name'", _is_repo_id),
    ("tags", "words", str.strip),
    ("metrics", "names of metrics", str.strip),
)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _filled_in(data: dict[str, Any], **values: Any) -> ModelCard:
    from huggingface_hub import ModelCard, ModelCardData

    card = ModelCard.from_template(ModelCardData(**data), template_str=read_card_file("template.md"), **values)
    return check_card(card)


def _read_card(path: Path) -> ModelCard:
    import yaml
    from huggingface_hub import ModelCard

    try:
        return ModelCard.load(path)
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is no model card: {' '.join(str(error).split())}") from None


def _configuration(folder: Path) -> tuple[dict[str, Any], ElmoConfig]:
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} is no model folder: there is no config.json in it.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kind = content.get("model_type")
        config = ElmoConfig.from_pretrained(folder, local_files_only=True) if kind == "elmo" else None
    except Exception as error:  # the library has many errors for what is wrong with a file
        raise ValueError(f"{path} describes no ELMo: {error}") from None
    if config is None:
        raise ValueError(f"{path} has the model_type {kind!r}, expected 'elmo': this is another kind of model.")
    return content, config


def _bundled_card(folder: Path) -> ModelCard | None:
    """The card of the bundled model whose weights these are."""
    from huggingface_hub import ModelCard

    weights = folder / "model.safetensors"
    for bundled in sorted((Path(__file__).parent / "pretrained").glob("*/model.safetensors")):
        if weights.is_file() and filecmp.cmp(weights, bundled, shallow=False):
            return ModelCard(read_card_file(f"{bundled.parent.name}.md"))
    return None


def _published(
    origin: Origin | None, asked_for: str | None, parameters: int, words: int, told: Mapping[str, Any]
) -> tuple[PublishedModel | None, str | None]:
    """The published model that this is, and by what it is known."""
    if asked_for is None and told.get("published") in published_models():
        return published_models()[told["published"]], told["recognised_by"]
    if asked_for is None:
        return (origin and recognise(origin, parameters, words)) or (None, None)
    known = published_models()
    if asked_for not in known:
        raise ValueError(f"There is no published model {asked_for!r}; there are: {', '.join(known)}.")
    model = known[asked_for]
    if not model.fits(parameters, words):
        expected = [f"{model.parameters:,} parameters"] if model.parameters else []
        expected += [f"{model.vocabulary:,} words"] if model.vocabulary else []
        raise ValueError(
            f"The model is not {asked_for}: it has {parameters:,} parameters and a vocabulary of {words:,} words, "
            f"expected {' and '.join(expected)}."
        )
    return model, "whoever had this card made"


def _to_metadata(
    folder: Path, origin: Origin | None, model: PublishedModel | None, recognised_by: str | None
) -> dict[str, Any]:
    """What a later card of the same weights is told by this one."""
    metadata: dict[str, Any] = {"published": model.id, "recognised_by": recognised_by} if model else {}
    if origin:
        files = [{"name": each.name, "size": each.size, "sha256": each.sha256} for each in origin.files]
        metadata |= {"format": origin.format, "source": origin.source, "files": files}
    return {**{key: value for key, value in metadata.items() if value}, "weights": _weights(folder)}


def _weights(folder: Path) -> dict[str, str]:
    return {path.name: SourceFile.read(path).sha256 for path in weight_files(folder)}


def _told_by_card(folder: Path) -> dict[str, Any]:
    """What a folder's card tells of its origin, if the weights are still those that it speaks of."""
    try:
        metadata = _read_card(folder / CARD_NAME).data.get("conversion")
        if metadata is None or metadata["weights"] != _weights(folder):
            return {}
        files = [
            SourceFile(str(each["name"]), int(each["size"]), str(each["sha256"])) for each in metadata.get("files", ())
        ]
        told = {"origin": Origin(metadata.get("format"), tuple(files), metadata.get("source")) if files else None}
        return told | {key: metadata.get(key) for key in ("published", "recognised_by")}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        # There is no card, or none of ours.
        return {}


def _words(config: ElmoConfig) -> int:
    """The words of the vocabulary, the four special ones left out."""
    return config.vocab_size - 4


def _summary(model: PublishedModel | None, origin: Origin | None) -> str:
    language = f"{model.language_name} " if model and model.language_name else ""
    paper = "([Peters et al. 2018](https://arxiv.org/abs/1802.05365))"
    if model is None and origin is None:
        return f"An ELMo {paper} of hf_elmo."
    article = "An" if not language or language[0] in "AEIOU" else "A"
    return f"{article} {language}ELMo {paper}, converted to the format of transformers with hf_elmo."


def _kind_and_use(architecture: str, config: ElmoConfig) -> tuple[str, str]:
    reader = (
        "A character CNN reads each word, so that no word is unknown, and "
        f"{config.num_layers} layers of forward and backward LSTM language models read the sentence."
    )
    kinds = {
        "ElmoForPreTraining": (
            f"{reader} The softmax over {_words(config):,} words is there, too: it is a whole language model.",
            "Vectors of words in their sentences, substitutes for words, perplexity, further training on other text.",
        ),
        "ElmoForTokenClassification": (f"{reader} On it stands a tagger.", "Tagging words."),
        "ElmoForQuestionAnswering": (
            f"{reader} On it stands a model that finds the answer to a question in a text.",
            "Finding answers in texts.",
        ),
        "ElmoForSequenceClassification": (f"{reader} On it stands a classifier of texts.", "Classifying texts."),
        "ElmoForMultipleChoice": (f"{reader} On it stands a model that chooses among answers.", "Choosing answers."),
    }
    return kinds.get(architecture, (reader, "Vectors of words in their sentences."))


def _sizes(config: ElmoConfig, parameters: dict[str, int], dtypes: list[str]) -> list[tuple[str, str]]:
    parts = [(f"parameters: {part}", f"{count:,}") for part, count in parameters.items()]
    filters = ", ".join(f"{count} of width {width}" for width, count in config.filters)
    return [
        *parts,
        ("stored as", ", ".join(dtypes)),
        ("character CNN", f"{config.char_embed_dim} numbers per character; filters: {filters}"),
        ("highway layers", str(config.num_highway_layers)),
        ("biLSTM", f"{config.num_layers} layers of {config.cell_size} cells, projected to {config.projection_dim}"),
        ("vectors", f"{config.hidden_size} numbers per word, {config.num_layers + 1} layers"),
        ("vocabulary", f"{_words(config):,} words" if _words(config) else "none"),
    ]


def _labels(architecture: str, config: ElmoConfig) -> str | None:
    if architecture not in ("ElmoForTokenClassification", "ElmoForSequenceClassification"):
        return None
    labels = [f"`{_cell(str(label))}`" for _, label in sorted(config.id2label.items())]
    more = f" and {len(labels) - _MOST_LABELS} more" if len(labels) > _MOST_LABELS else ""
    return ", ".join(labels[:_MOST_LABELS]) + more


def _longest_word(config: ElmoConfig) -> str:
    # The marks for the beginning and the end of a word take two places.
    most = config.max_characters_per_token - 2
    if config.byte_characters:
        return f"It reads the first {most} bytes of a word (UTF-8) and none behind them, as the original."
    return f"It reads the first {most} characters of a word and none behind them, as the original."


def _row(result: Result) -> tuple[str, ...]:
    split = f" ({result.dataset_split})" if result.dataset_split else ""
    cells = (result.task_name or result.task, result.dataset + split, result.metric_name or result.metric)
    return tuple(map(_cell, (*cells, result.figure, result.machine)))


def _cell(text: str) -> str:
    """Text that stays in its cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'")
