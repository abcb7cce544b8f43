"""Experiments with tagged words: files of words and tags, training of one model per seed, entity scores, tables.

`wnut17.py` and `conll2003.py` are recipes on top of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from datasets import Dataset
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.scheme import IOB2
from transformers import (
    DataCollatorForTokenClassification,
    EarlyStoppingCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

import hf_elmo
from hf_elmo.vectors.layer_store import precompute_layers
from hf_elmo.whole_files import new_file

from ..harness.card_results import write_card_results

Sentence = tuple[list[str], list[str]]

# ELMo with a frozen biLM, and the same head on a character encoder that is trained from scratch.
ARMS = ("elmo", "characters")
ELMO = "ELMo, frozen"


@dataclass
class Recipe:
    """Sizes and training of a tagger.

    Attributes:
        head: Fields of `ElmoConfig`.
        baseline_learning_rate: Of the character encoder from scratch; None: as for ELMo.
        patience: Epochs without a better F1 of the development set after which training ends.
        scheme: `"BIO"` or `"BIOES"`, in which the tags are learned; they are scored as BIO.
        word_vectors: File of word vectors, if `head` has any.
    """

    head: dict
    batch_size: int = 32
    learning_rate: float = 1e-3
    baseline_learning_rate: float | None = None
    schedule: str = "constant"
    max_grad_norm: float = 5.0
    max_epochs: int = 20
    patience: int = 5
    scheme: str = "BIOES"
    word_vectors: str | None = None


@dataclass
class Arm:
    """One of the compared models: how it is made with some fields of its configuration, and trained on what."""

    name: str
    make: Callable[[dict], hf_elmo.ElmoForTokenClassification]
    data: dict[str, Dataset]
    learning_rate: float


class CharacterTagger(hf_elmo.ElmoForTokenClassification):
    """The same head on a character encoder alone, which is trained with it: what words are without a biLM.

    All layers of the mix are the word layer, so the mix is that layer times gamma.
    """

    # Trainer keeps the columns that are named here.
    def forward(self, input_ids=None, character_ids=None, attention_mask=None, labels=None, **options):
        vectors = self.elmo.character_encoder(character_ids)
        layers = torch.cat([vectors, vectors], dim=-1).unsqueeze(1).expand(-1, self.config.num_layers + 1, -1, -1)
        return super().forward(input_ids, character_ids, attention_mask, None, layers, labels, **options)

    def _freeze(self):
        super()._freeze()
        self.elmo.character_encoder.requires_grad_(True)
        self.elmo.bilstm.requires_grad_(False)
        self.train(self.training)


def read_columns(path: Path, limit: int | None = None) -> list[Sentence]:
    """Reads words and tags, the first and the last column of each line; lines without a word end sentences.

    Columns are parted by tabs if there are any (WNUT), else by spaces (CoNLL-2003, whose `-DOCSTART-` lines are passed
    over). Tags of IOB1 and BIO alike become BIO.

    Args:
        path: The file, UTF-8.
        limit: Most sentences to read.

    Raises:
        ValueError: for a line with a word but no tag, or with a tag that is neither `O` nor `B-...` nor `I-...`.
    """
    sentences: list[Sentence] = []
    words, tags = [], []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate([*lines, ""], start=1):
            columns = line.strip().split("\t") if "\t" in line else line.split()
            if not columns or not columns[0] or columns[0] == "-DOCSTART-":
                if words:
                    sentences.append((words, to_bio(tags)))
                words, tags = [], []
                if len(sentences) == limit:
                    break
                continue
            if len(columns) < 2 or not (columns[-1] == "O" or columns[-1][:2] in ("B-", "I-")):
                raise ValueError(
                    f"{path}, line {number}: a word and its tag (O, B-, I-) were expected: {line.strip()!r}."
                )
            words.append(columns[0])
            tags.append(columns[-1])
    return sentences


def to_bio(tags: list[str]) -> list[str]:
    """Tags of IOB1, BIO or BIOES as BIO; an entity that begins with another letter than B begins there all the same."""
    plain = [{"E": "I", "S": "B"}.get(tag[0], tag[0]) + tag[1:] for tag in tags]
    before = ["O", *plain][: len(plain)]
    return [
        "B" + tag[1:] if tag[0] == "I" and last[1:] != tag[1:] else tag for last, tag in zip(before, plain, strict=True)
    ]


def to_bioes(tags: list[str]) -> list[str]:
    """BIO as BIOES: the last word of an entity is E, an only one S."""
    goes_on = [following.startswith("I-") for following in [*tags, "O"][1:]]
    return [
        tag if more or tag == "O" else {"B": "S", "I": "E"}[tag[0]] + tag[1:]
        for tag, more in zip(tags, goes_on, strict=True)
    ]


def label_names(sentences: Iterable[Sentence], scheme: str) -> list[str]:
    """All labels of a scheme for the types of entities in the sentences, `O` first."""
    types = sorted({tag[2:] for _, tags in sentences for tag in tags if tag != "O"})
    return ["O", *(f"{letter}-{kind}" for kind in types for letter in scheme.replace("O", ""))]


def tokenize(sentences: list[Sentence], tokenizer, names: list[str], scheme: str) -> Dataset:
    """Sentences as a dataset that `Trainer` takes; -100 labels BOS and EOS."""
    numbers = {name: number for number, name in enumerate(names)}
    convert = to_bioes if scheme == "BIOES" else list
    # A type of entity that training does not have cannot be learned; it counts as missed in the scores.
    labels = [[numbers.get(tag, 0) for tag in convert(tags)] for _, tags in sentences]
    encoded = tokenizer([words for words, _ in sentences], is_split_into_words=True)
    data = {name: encoded[name] for name in ("input_ids", "character_ids", "attention_mask")}
    return Dataset.from_dict({**data, "labels": [[-100, *row, -100] for row in labels]})


def task_tokenizer(sentences: Iterable[Sentence], max_characters_per_token: int) -> hf_elmo.ElmoTokenizer:
    """A tokenizer whose vocabulary is all words of the task, most frequent first, to look word vectors up."""
    counts = Counter(word for words, _ in sentences for word in words)
    return hf_elmo.ElmoTokenizer.create([word for word, _ in counts.most_common()], max_characters_per_token)


def entity_scores(predicted: list[list[str]], gold: list[list[str]]) -> dict[str, float]:
    """Micro-averaged precision, recall and F1 of whole entities, in percent, counted as the conlleval script does.

    `strict_f1` counts by the letter of BIO: an entity that does not begin with B is none.
    """
    strict = {"mode": "strict", "scheme": IOB2, "zero_division": 0}
    scores = {
        "f1": f1_score(gold, predicted, zero_division=0),
        "precision": precision_score(gold, predicted, zero_division=0),
        "recall": recall_score(gold, predicted, zero_division=0),
        "strict_f1": f1_score(gold, predicted, **strict),
    }
    return {name: round(100 * float(score), 2) for name, score in scores.items()}


def plain_tags(tags: list[str]) -> list[str]:
    """BIOES letters as BIO letters, one by one: what breaks the scheme stays broken."""
    return [{"E": "I", "S": "B"}.get(tag[0], tag[0]) + tag[1:] for tag in tags]


def train_once(
    arm: Arm, recipe: Recipe, names: list[str], tokenizer, seed: int, folder_to_keep: Path | None = None
) -> dict:
    """Trains one model with early stopping on the development set, and scores it.

    Args:
        arm: What is trained, and on what.
        recipe: Head and training.
        names: The labels.
        tokenizer: Of the model.
        seed: Of the weights and of the order of sentences.
        folder_to_keep: Where the model is saved; None: nowhere.

    Returns:
        Scores of the development and the test set, each for Viterbi's tags and for the best tag of each word; epochs,
        seconds of training (on the clock, and of all threads' work), and the mix's weights after the softmax.
    """

    def only_tags(outputs, labels):
        logits, tags = outputs
        return torch.stack([tags, logits.argmax(dim=-1).masked_fill(tags == -100, -100)], dim=-1)

    def score(prediction) -> dict:
        tags, labels = prediction
        kept = labels != -100

        def named(rows):
            return [plain_tags([names[tag] for tag in row[some]]) for row, some in zip(rows, kept, strict=True)]

        gold = named(labels)
        viterbi, argmax = entity_scores(named(tags[..., 0]), gold), entity_scores(named(tags[..., 1]), gold)
        return {"f1": viterbi["f1"], "viterbi": viterbi, "argmax": argmax}

    set_seed(seed)
    model = arm.make(
        {
            "num_labels": len(names),
            "id2label": dict(enumerate(names)),
            "label2id": {name: number for number, name in enumerate(names)},
            "output_tags": True,
            **recipe.head,
        }
    )
    if recipe.word_vectors is not None:
        share = model.load_word_vectors(recipe.word_vectors, tokenizer.get_vocab())
        print(f"{share:.1%} of the task's words have a vector")
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            TrainingArguments(
                folder,
                seed=seed,
                num_train_epochs=recipe.max_epochs,
                per_device_train_batch_size=recipe.batch_size,
                per_device_eval_batch_size=64,
                learning_rate=arm.learning_rate,
                lr_scheduler_type=recipe.schedule,
                max_grad_norm=recipe.max_grad_norm,
                weight_decay=0.0,
                eval_strategy="epoch",
                save_strategy="best",
                save_only_model=True,
                save_total_limit=1,
                load_best_model_at_end=True,
                metric_for_best_model="f1",
                logging_strategy="epoch",
                dataloader_pin_memory=torch.cuda.is_available(),
                train_sampling_strategy="group_by_length",
                report_to="none",
            ),
            data_collator=DataCollatorForTokenClassification(tokenizer),
            train_dataset=arm.data["train"],
            eval_dataset=arm.data["dev"],
            processing_class=tokenizer,
            compute_metrics=score,
            preprocess_logits_for_metrics=only_tags,
            callbacks=[EarlyStoppingCallback(recipe.patience)],
        )
        started, busy = time.perf_counter(), time.process_time()
        trainer.train()
        seconds, busy = time.perf_counter() - started, time.process_time() - busy
        results = {name: trainer.predict(arm.data[name]).metrics for name in ("dev", "test")}
        if folder_to_keep is not None:
            trainer.save_model(folder_to_keep)
    return {
        "seed": seed,
        "epochs": trainer.state.epoch,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(busy, 1),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "mix": [round(share, 3) for share in model.elmo.scalar_mixes[0].weights.softmax(dim=0).tolist()],
        **{
            name: {kind: metrics[f"test_{kind}"] for kind in ("viterbi", "argmax")} for name, metrics in results.items()
        },
    }


def summarize(runs: list[dict], split: str, kind: str, score: str = "f1") -> str:
    """Mean and standard deviation over the seeds."""
    values = [run[split][kind][score] for run in runs]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {spread:.2f}"


def table(results: dict[str, list[dict]]) -> str:
    """Entity F1 of all arms, as a Markdown table."""
    columns = [
        "test, Viterbi",
        "test, argmax",
        "test, argmax, strict",
        "dev, Viterbi",
        "epochs",
        "seconds",
        "CPU seconds",
    ]
    lines = [f"| model | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, runs in results.items():
        cells = [
            summarize(runs, "test", "viterbi"),
            summarize(runs, "test", "argmax"),
            summarize(runs, "test", "argmax", "strict_f1"),
            summarize(runs, "dev", "viterbi"),
            f"{statistics.mean(run['epochs'] for run in runs):.0f}",
            f"{statistics.mean(run['seconds'] for run in runs):.0f}",
            f"{statistics.mean(run['cpu_seconds'] for run in runs):.0f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def run_experiment(
    splits: dict[str, list[Sentence]],
    model_folder: str,
    recipe: Recipe,
    seeds: list[int],
    output: Path | None,
    arms: Sequence[str] = ARMS,
) -> dict:
    """Trains ELMo and the baseline with every seed, prints a table, and writes all scores as JSON.

    Args:
        splits: Sentences of `train`, `dev` and `test`.
        model_folder: The pretrained biLM.
        recipe: Head and training, the same for both.
        seeds: One run each.
        output: Where the scores go; replaced as a whole after every run. None: nowhere.
        arms: Which models to train, of `ARMS`.
    """
    transformers.logging.set_verbosity_error()
    names = label_names(splits["train"], recipe.scheme)
    config = hf_elmo.ElmoConfig.from_pretrained(model_folder)
    tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(model_folder)
    if recipe.word_vectors is not None:
        every = [sentence for sentences in splits.values() for sentence in sentences]
        tokenizer = task_tokenizer(every, config.max_characters_per_token)
        recipe.head["vocab_size"] = len(tokenizer)
    data = {name: tokenize(sentences, tokenizer, names, recipe.scheme) for name, sentences in splits.items()}
    report = {"model": model_folder, "recipe": asdict(recipe), "seeds": seeds, "arms": {}}
    with tempfile.TemporaryDirectory() as store:
        bilm = hf_elmo.ElmoModel.from_pretrained(model_folder).eval()
        started = time.perf_counter()
        keep = recipe.head.get("char_cnn_filters") is not None
        layers = {name: precompute_layers(split, bilm, store, keep_character_ids=keep) for name, split in data.items()}
        report["seconds_of_biLM"] = round(time.perf_counter() - started, 1)

        def pretrained(fields):
            return hf_elmo.ElmoForTokenClassification.from_pretrained(model_folder, **fields)

        def from_scratch(fields):
            model = CharacterTagger(hf_elmo.ElmoConfig(**{**config.to_dict(), **fields}))
            with torch.no_grad():
                # Fresh vectors are about a tenth of trained ones in size; so both heads begin with the like.
                model.elmo.scalar_mixes[0].gamma.fill_(10)
            return model

        made = {
            "elmo": Arm(ELMO, pretrained, layers, recipe.learning_rate),
            "characters": Arm(
                "character encoder from scratch",
                from_scratch,
                data,
                recipe.baseline_learning_rate or recipe.learning_rate,
            ),
        }
        for arm in (made[name] for name in arms):
            runs = report["arms"].setdefault(arm.name, [])
            for seed in seeds:
                runs.append(train_once(arm, recipe, names, tokenizer, seed))
                print(json.dumps({"arm": arm.name, **runs[-1]}))
                if output is not None:
                    write_json(report, output)
    print(table(report["arms"]))
    return report


def write_json(report: dict, path: Path) -> None:
    """Writes a report, which is never half written."""
    with new_file(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parser(description: str) -> argparse.ArgumentParser:
    """The options that all recipes have."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--model", help="folder of the pretrained biLM (default: the bundled elmo-mini)")
    options.add_argument("--data", type=Path, help="folder of the task's files")
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options.add_argument("--epochs", type=int, help="most epochs of a run")
    options.add_argument("--limit", type=int, help="most sentences of each file, for a quick try")
    options.add_argument("--threads", type=int, help="threads of torch (default: all cores)")
    options.add_argument("--output", type=Path, help="JSON file for all scores")
    options.add_argument("--results", type=Path, help="JSON file of ELMo's test scores for a model card")
    options.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="which models to train")
    return options


def card_rows(runs: list[dict], dataset: dict[str, str]) -> Iterator[tuple[dict, dict, dict, float]]:
    """The F1 of the test set for a model card: task, dataset, metric, value."""
    for kind, name in (("viterbi", "Viterbi"), ("argmax", "argmax")):
        metric = f"F1 of entities in percent, {name}, mean of {len(runs)} seeds"
        value = round(statistics.mean(run["test"][kind]["f1"] for run in runs), 2)
        task = {"type": "token-classification", "name": "Entities, frozen biLM under a biLSTM and a CRF"}
        yield task, {**dataset, "split": "test"}, {"type": "f1", "name": metric}, value


def run_recipe(
    options: argparse.Namespace,
    files: dict[str, str],
    recipe: Recipe,
    dataset: dict[str, str],
    module: str,
    arguments: Sequence[str] | None,
) -> dict:
    """Runs a recipe as the command line says.

    Args:
        options: Of `parser`.
        files: The file of each split in the data folder.
        recipe: What to train.
        dataset: `type` (the hub's id) and `name` of the data, for a model card.
        module: The name of the recipe's module.
        arguments: What it was called with, as in `write_card_results`.

    Raises:
        ValueError: if results are wanted, but ELMo is none of the arms.
    """
    if options.results is not None and "elmo" not in options.arms:
        raise ValueError("--results is for ELMo's scores: add elmo to --arms.")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.epochs is not None:
        recipe.max_epochs = options.epochs
    splits = {name: read_columns(options.data / file, options.limit) for name, file in files.items()}
    model = options.model or hf_elmo.bundled()
    report = run_experiment(splits, model, recipe, options.seeds, options.output, options.arms)
    if options.results is not None:
        write_card_results(options.results, card_rows(report["arms"][ELMO], dataset), module, arguments)
    return report
