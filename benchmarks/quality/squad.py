"""Questions of SQuAD 1.1 (Rajpurkar et al. 2016) with a frozen ELMo, beside a character encoder trained from scratch.

    python -m benchmarks.quality.squad --output squad.json

Both models have the same head: attention flow and one modelling biLSTM of 2 x 64. They learn from a part of the
training set, 4,370 questions of 87,599, in 12 articles. Scores are of every tenth question of the development set
(1,057, of all its articles), answered by the pipeline with answers of at most 17 words (as in the paper): EM (the
answer is one of the references, case, punctuation and articles aside) and F1 (of words, the best reference), as the
official script counts them, in percent.

The data (CC BY-SA 4.0) is read from the files given by --train and --dev, in SQuAD's own format, or from `qa` in the
folder of shared data (HF_ELMO_SHARED_DATA, or `../shared/data`).
"""

from __future__ import annotations

import argparse
import json
import re
import string
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
import transformers
from datasets import Dataset
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments, pipeline, set_seed

import hf_elmo
from hf_elmo.vectors.layer_store import precompute_layers
from hf_elmo.whole_files import new_file

from ..harness.data import shared_data

HEAD = {
    "task_encoder_layers": 1,
    "task_encoder_size": 64,
    "task_dropout": 0.2,
    "representation_dropout": 0.2,
}


class CharacterReader(hf_elmo.ElmoForQuestionAnswering):
    """The same head on a character encoder alone, which is trained with it: what words are without a biLM.

    All layers of the mixes are the word layer, so a mix is that layer times gamma.
    """

    # Trainer keeps the columns that are named here.
    def forward(
        self,
        input_ids=None,
        character_ids=None,
        attention_mask=None,
        token_type_ids=None,
        start_positions=None,
        end_positions=None,
        **options,
    ):
        vectors = self.elmo.character_encoder(character_ids)
        layers = torch.cat([vectors, vectors], dim=-1).unsqueeze(1).expand(-1, self.config.num_layers + 1, -1, -1)
        return super().forward(
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            layer_states=layers,
            start_positions=start_positions,
            end_positions=end_positions,
            **options,
        )

    def _freeze(self):
        super()._freeze()
        self.elmo.character_encoder.requires_grad_(True)
        self.elmo.bilstm.requires_grad_(False)
        self.train(self.training)


def read_questions(path: Path) -> list[dict]:
    """A file in SQuAD's format, as dictionaries of `question`, `context`, and `answers` (`text` and `answer_start`)."""
    articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    return [
        {"question": question["question"], "context": paragraph["context"], "answers": question["answers"]}
        for article in articles
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]


def tokenize(questions: list[dict], tokenizer) -> Dataset:
    """Questions with the first and the last word of their first answers, as `Trainer` takes them."""
    encoded = tokenizer([q["question"] for q in questions], [q["context"] for q in questions])
    starts, ends = [], []
    for row, question in enumerate(questions):
        answer = question["answers"][0]
        first = answer["answer_start"]
        starts.append(encoded.char_to_token(row, first, 1))
        ends.append(encoded.char_to_token(row, first + len(answer["text"]) - 1, 1))
    data = Dataset.from_dict({**encoded, "start_positions": starts, "end_positions": ends})
    # An answer that begins or ends with white space would have no word there.
    return data.filter(lambda row: row["start_positions"] is not None and row["end_positions"] is not None)


def normalise(answer: str) -> list[str]:
    """The words of an answer as the official script compares them."""
    letters = "".join(letter for letter in answer.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", letters).split()


def f1(predicted: list[str], reference: list[str]) -> float:
    """F1 of the words that two answers share; 1 for two empty ones."""
    if not predicted or not reference:
        return float(predicted == reference)
    common = sum((Counter(predicted) & Counter(reference)).values())
    return 2 * common / (len(predicted) + len(reference))


def scores(predictions: list[str], questions: list[dict]) -> dict[str, float]:
    """EM and F1 in percent: per question the best over its references."""
    exact, overlap = 0.0, 0.0
    for prediction, question in zip(predictions, questions, strict=True):
        predicted = normalise(prediction)
        references = [normalise(answer["text"]) for answer in question["answers"]]
        exact += any(predicted == reference for reference in references)
        overlap += max(f1(predicted, reference) for reference in references)
    return {"em": round(100 * exact / len(questions), 2), "f1": round(100 * overlap / len(questions), 2)}


def train_once(make, tokenizer, data: Dataset, dev: list[dict], epochs: int, seed: int) -> dict:
    """Trains the model that `make` gives, and scores it."""
    set_seed(seed)
    model = make()
    with tempfile.TemporaryDirectory() as results:
        trainer = Trainer(
            model,
            TrainingArguments(
                results,
                seed=seed,
                num_train_epochs=epochs,
                per_device_train_batch_size=32,
                learning_rate=2e-3,
                lr_scheduler_type="linear",
                max_grad_norm=5.0,
                weight_decay=0.0,
                logging_strategy="epoch",
                save_strategy="no",
                train_sampling_strategy="group_by_length",
                report_to="none",
            ),
            data_collator=DataCollatorWithPadding(tokenizer),
            train_dataset=data,
            processing_class=tokenizer,
        )
        started, started_cpu = time.perf_counter(), time.process_time()
        trainer.train()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    answerer = pipeline("elmo-question-answering", model=model, tokenizer=tokenizer, device=trainer.args.device)
    answers = answerer(dev, max_answer_len=17, batch_size=32)
    return {
        "seed": seed,
        "dev": scores([answer["answer"] for answer in answers], dev),
        "losses": [round(entry["loss"], 3) for entry in trainer.state.log_history if "loss" in entry],
        "seconds": round(seconds),
        "cpu_seconds": round(cpu_seconds),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "mixes": [[round(w, 3) for w in mix.weights.softmax(dim=0).tolist()] for mix in model.elmo.scalar_mixes],
    }


def write_json(report: dict, path: Path) -> None:
    """Writes a report, which is never half written."""
    with new_file(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> dict:
    """Runs the experiment with the options of a command line; returns all scores."""
    data = shared_data("qa")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder of the pretrained biLM (default: the bundled one)")
    parser.add_argument("--train", type=Path, default=data / "squad_v1.1_train_partial" / "train-prefix.json")
    parser.add_argument("--dev", type=Path, default=data / "squad_v1.1" / "dev-v1.1.json")
    parser.add_argument("--train-limit", type=int, help="most questions to train on")
    parser.add_argument("--dev-every", type=int, default=10, help="answer one question in N")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--self-attention", action="store_true", help="with the paper's self-attention")
    parser.add_argument("--no-baseline", action="store_true", help="leave the character encoder from scratch out")
    parser.add_argument("--output", type=Path, help="JSON file for all scores")
    options = parser.parse_args(arguments)
    transformers.logging.set_verbosity_error()
    train, dev = read_questions(options.train)[: options.train_limit], read_questions(options.dev)[:: options.dev_every]
    folder = options.model or hf_elmo.bundled()
    tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(folder)
    head = {**HEAD, "context_self_attention": options.self_attention}

    def pretrained():
        return hf_elmo.ElmoForQuestionAnswering.from_pretrained(folder, **head)

    def from_scratch():
        return CharacterReader(hf_elmo.ElmoConfig(**{**hf_elmo.ElmoConfig.from_pretrained(folder).to_dict(), **head}))

    report = {"train": len(train), "dev": len(dev), "epochs": options.epochs, "head": head, "arms": {}}
    with tempfile.TemporaryDirectory() as store:
        data = tokenize(train, tokenizer)
        layers = precompute_layers(data, hf_elmo.ElmoModel.from_pretrained(folder), store, dtype="float16")
        arms = {"ELMo, frozen": (pretrained, layers)}
        if not options.no_baseline:
            arms["character encoder from scratch"] = (from_scratch, data)
        for name, (make, rows) in arms.items():
            runs = report["arms"].setdefault(name, [])
            for seed in options.seeds:
                runs.append(train_once(make, tokenizer, rows, dev, options.epochs, seed))
                print(json.dumps({"arm": name, **runs[-1]}), flush=True)
                if options.output is not None:
                    write_json(report, options.output)
    return report


if __name__ == "__main__":
    main()
