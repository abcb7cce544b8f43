"""Experiments with models that write: three encoders with the same decoder, the same tokens and the same steps.

`multi30k.py` and `headlines.py` are recipes on top of it. The arms are `elmo` (the frozen biLM of --model and its
trained mix), `random` (the same with fresh weights, frozen too) and `transformer` (an encoder of about as many
parameters on byte-level BPE, trained from scratch). What they have in common: the decoder, the target tokenizer, the
pairs and their order, the number of steps, the schedule, beam search.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertModel,
    DataCollatorForSeq2Seq,
    EncoderDecoderModel,
    GPT2Config,
    GPT2LMHeadModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    set_seed,
)

import hf_elmo
from hf_elmo.whole_files import new_file

ARMS = ("elmo", "random", "transformer")
Pairs = list[tuple[str, str]]


@dataclass
class Recipe:
    """Sizes and training.

    Attributes:
        vocabulary: Most tokens of the targets, and of the transformer's sources.
        source_words: Words (tokens, for the transformer) behind which sources are cut.
        target_tokens: Tokens behind which targets are cut, and the most that are written.
        width: Of the decoder and of the transformer encoder.
        mix_learning_rate: Of the biLM's mix, which hardly moves with the other.
    """

    vocabulary: int = 4000
    source_words: int = 80
    target_tokens: int = 60
    width: int = 256
    layers: int = 2
    batch_size: int = 48
    steps: int = 400
    learning_rate: float = 1e-3
    mix_learning_rate: float = 0.1
    representation_dropout: float = 0.2
    beams: int = 4


def parser(description: str) -> argparse.ArgumentParser:
    """The options that the recipes share."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--output", type=Path, required=True, help="JSON file for the results; runs in it are kept")
    options.add_argument("--data", type=Path, help="folder of the data")
    options.add_argument("--model", default=hf_elmo.bundled(), help="folder of the biLM")
    options.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options.add_argument("--train-pairs", type=int, default=12_000)
    options.add_argument("--test-pairs", type=int, help="by default all")
    options.add_argument("--steps", type=int, help="by default those of the recipe")
    options.add_argument("--threads", type=int, default=1)
    return options


def run_recipe(
    options: argparse.Namespace,
    recipe: Recipe,
    train: Pairs,
    test: Pairs,
    score: Callable[[Sequence[str], Sequence[str]], dict[str, float]],
    baselines: dict[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Trains every arm with every seed, and writes the results after each run.

    Args:
        options: Of `parser`.
        recipe: Sizes.
        train: Sources and targets.
        test: Likewise.
        score: Of texts and references, to names and numbers.
        baselines: Texts for the test set that no model wrote, by name.

    Returns:
        What the file holds: `recipe`, `baselines`, `runs` and `summary` (mean and standard deviation over seeds).
    """
    torch.set_num_threads(options.threads)
    if options.steps is not None:
        recipe.steps = options.steps
    train, test = train[: options.train_pairs], test[: options.test_pairs]
    references = [target for _, target in test]
    results: dict[str, Any] = {"recipe": asdict(recipe), "train_pairs": len(train), "test_pairs": len(test), "runs": []}
    results["baselines"] = {name: score(texts[: len(test)], references) for name, texts in (baselines or {}).items()}
    if options.output.is_file():
        earlier = json.loads(options.output.read_text(encoding="utf-8"))
        same = ("recipe", "train_pairs", "test_pairs")
        if any(earlier.get(name) != results[name] for name in same):
            raise SystemExit(f"{options.output} has results of other settings: give another file.")
        results["runs"], results["summary"] = earlier["runs"], summary(earlier["runs"])
    for seed in options.seeds:
        for arm in options.arms:
            if any((run["arm"], run["seed"]) == (arm, seed) for run in results["runs"]):
                continue
            run, texts = train_and_write(arm, seed, options.model, recipe, train, [source for source, _ in test])
            results["runs"].append({"arm": arm, "seed": seed, **score(texts, references), **run})
            results["summary"] = summary(results["runs"])
            with new_file(options.output) as temporary:
                temporary.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
            print(json.dumps(results["runs"][-1]))
    return results


def train_and_write(
    arm: str, seed: int, folder: str, recipe: Recipe, train: Pairs, sources: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """Trains one model, and writes texts for the sources.

    Returns:
        Seconds, parameters of the encoder and the weights of the mix; and the texts.
    """
    start = time.perf_counter()
    set_seed(seed)
    target = hf_elmo.train_target_tokenizer([text for _, text in train], recipe.vocabulary, recipe.target_tokens)
    model, tokenizer, encode = ENCODERS[arm](folder, recipe, train, target)
    rows = []
    for source, text in train:
        row = encode(source)
        rows.append({**row, "labels": target(text, truncation=True)["input_ids"]})
    mixes = list(model.encoder.scalar_mixes.parameters()) if hasattr(model.encoder, "scalar_mixes") else []
    others = [p for p in model.parameters() if p.requires_grad and not any(p is mix for mix in mixes)]
    groups = [{"params": others, "lr": recipe.learning_rate}]
    if mixes:
        groups.append({"params": mixes, "lr": recipe.mix_learning_rate, "weight_decay": 0.0})
    with tempfile.TemporaryDirectory() as output:
        arguments = Seq2SeqTrainingArguments(
            output,
            max_steps=recipe.steps,
            per_device_train_batch_size=recipe.batch_size,
            seed=seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=max(recipe.steps // 4, 1),
            remove_unused_columns=False,
            use_cpu=True,
        )
        collator = DataCollatorForSeq2Seq(tokenizer, model=model)
        trainer = Seq2SeqTrainer(
            model, arguments, collator, rows, processing_class=tokenizer, optimizers=(torch.optim.AdamW(groups), None)
        )
        trainer.train()
    trained = time.perf_counter()
    texts = write(model.eval(), tokenizer, encode, target, recipe, sources)
    run = {
        "train_seconds": round(trained - start, 1),
        "write_seconds": round(time.perf_counter() - trained, 1),
        "encoder_parameters": sum(parameter.numel() for parameter in model.encoder.parameters()),
        "trained_parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "mix": [mix.tolist() for mix in mixes],
    }
    return run, texts


def write(model: Any, tokenizer: Any, encode: Callable, target: Any, recipe: Recipe, sources: list[str]) -> list[str]:
    """Texts for sources, in batches of similar length."""
    rows = [encode(source) for source in sources]
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]["input_ids"]))
    texts = [""] * len(rows)
    for begin in range(0, len(order), recipe.batch_size):
        part = order[begin : begin + recipe.batch_size]
        batch = tokenizer.pad([rows[number] for number in part], return_tensors="pt")
        written = model.generate(**batch, num_beams=recipe.beams, max_new_tokens=recipe.target_tokens - 1)
        for number, text in zip(part, target.batch_decode(written, skip_special_tokens=True), strict=True):
            texts[number] = text.strip()
    return texts


def _decoder(recipe: Recipe, target: Any) -> GPT2LMHeadModel:
    ids = {name: getattr(target, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    sizes = {"n_embd": recipe.width, "n_layer": recipe.layers, "n_head": 4, "n_positions": recipe.target_tokens}
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(target), add_cross_attention=True, **ids, **sizes))


def _elmo(folder: str, recipe: Recipe, train: Pairs, target: Any, is_random: bool = False) -> tuple[Any, Any, Callable]:
    dropout = {"representation_dropout": recipe.representation_dropout}
    if is_random:
        encoder = hf_elmo.ElmoModel(hf_elmo.ElmoConfig.from_pretrained(folder, **dropout))
    else:
        encoder = hf_elmo.ElmoModel.from_pretrained(folder, **dropout)
    tokenizer = hf_elmo.ElmoEncoderDecoderTokenizer(hf_elmo.ElmoTokenizer.from_pretrained(folder), target)
    model = hf_elmo.ElmoEncoderDecoderModel(encoder=encoder, decoder=_decoder(recipe, target))
    return model, tokenizer, lambda text: dict(tokenizer(text, truncation=True, max_length=recipe.source_words))


def _random(folder: str, recipe: Recipe, train: Pairs, target: Any) -> tuple[Any, Any, Callable]:
    return _elmo(folder, recipe, train, target, is_random=True)


def _transformer(folder: str, recipe: Recipe, train: Pairs, target: Any) -> tuple[Any, Any, Callable]:
    source = hf_elmo.train_target_tokenizer([text for text, _ in train], recipe.vocabulary, recipe.source_words)
    elmo = hf_elmo.ElmoModel(hf_elmo.ElmoConfig.from_pretrained(folder))
    wanted = sum(parameter.numel() for parameter in elmo.parameters())
    # Attention and feed-forward of a layer; embeddings of tokens.
    layer, embedding = 12 * recipe.width**2, len(source) * recipe.width
    config = BertConfig(
        vocab_size=len(source),
        hidden_size=recipe.width,
        num_hidden_layers=max(1, round((wanted - embedding) / layer)),
        num_attention_heads=4,
        intermediate_size=4 * recipe.width,
        max_position_embeddings=recipe.source_words,
        pad_token_id=source.pad_token_id,
    )
    encoder = BertModel(config, add_pooling_layer=False)
    model = EncoderDecoderModel(encoder=encoder, decoder=_decoder(recipe, target))
    for holder in (model.config, model.generation_config):
        holder.decoder_start_token_id, holder.pad_token_id = target.bos_token_id, target.pad_token_id
    return model, source, lambda text: dict(source(text, truncation=True))


ENCODERS: dict[str, Callable[..., tuple[Any, Any, Callable]]] = {
    "elmo": _elmo,
    "random": _random,
    "transformer": _transformer,
}


def summary(runs: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Mean and standard deviation (0 for one seed) of every score, by arm."""
    left_out = {"arm", "seed", "train_seconds", "write_seconds", "encoder_parameters", "trained_parameters", "mix"}
    found: dict[str, dict[str, list[float]]] = {}
    for arm in ARMS:
        own = [run for run in runs if run["arm"] == arm]
        for name in (own[0].keys() - left_out) if own else ():
            values = [run[name] for run in own]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            found.setdefault(arm, {})[name] = [round(statistics.mean(values), 2), round(spread, 2)]
    return found
