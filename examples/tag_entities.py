"""Named entities with a frozen ELMo, a biLSTM and a CRF.

    python examples/tag_entities.py --train train.json --dev dev.json --output ner-model

Files are JSON lines like {"tokens": ["George", "Bush"], "tags": ["B-person", "I-person"]}. The biLM is run once over
all sentences; every epoch then reads its stored layers.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from datasets import load_dataset
from seqeval.metrics import f1_score
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
    pipeline,
)

import hf_elmo

DATA = Path(__file__).parent / "data"


def main(arguments: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", default=str(DATA / "entities.json"))
    parser.add_argument("--dev", default=str(DATA / "entities.json"))
    parser.add_argument("--model", default=hf_elmo.bundled(), help="folder of the pretrained biLM")
    parser.add_argument("--output", default="ner-model", help="folder for the trained tagger")
    parser.add_argument("--epochs", type=float, default=20)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    options = parser.parse_args(arguments)

    data = load_dataset("json", data_files={"train": options.train, "dev": options.dev})
    labels = sorted({tag for split in data.values() for tags in split["tags"] for tag in tags})
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForTokenClassification.from_pretrained(options.model, **names)

    def encode(batch):
        encoded = tokenizer(batch["tokens"], is_split_into_words=True)  # one row per word: labels need no alignment
        # -100 is not scored: <S> and </S>.
        encoded["labels"] = [[-100, *map(labels.index, tags), -100] for tags in batch["tags"]]
        return encoded

    def entity_f1(results):
        predicted = np.argmax(results.predictions, axis=-1)
        rows = [(gold, own, gold != -100) for gold, own in zip(results.label_ids, predicted)]
        gold, own = ([[labels[tag] for tag in row[side][row[2]]] for row in rows] for side in (0, 1))
        return {"f1": f1_score(gold, own)}

    with tempfile.TemporaryDirectory() as store:
        data = data.map(encode, batched=True, remove_columns=["tokens", "tags"])
        data = hf_elmo.precompute_layers(data, model, store)
        settings = {"num_train_epochs": options.epochs, "learning_rate": options.learning_rate, "report_to": "none"}
        settings |= {"eval_strategy": "epoch", "save_strategy": "no", "per_device_train_batch_size": 8}
        trainer = Trainer(
            model, TrainingArguments(options.output, **settings), DataCollatorForTokenClassification(tokenizer),
            data["train"], data["dev"], tokenizer, compute_metrics=entity_f1,
        )  # fmt: skip
        trainer.train()
        f1 = trainer.evaluate()["eval_f1"]
    trainer.save_model(options.output)
    print(f"F1 of entities: {f1:.3f}")
    tag = pipeline("token-classification", model=options.output, aggregation_strategy="simple")
    for entity in tag("Mary Shelley left London for Geneva ."):
        print(entity["entity_group"], entity["word"], round(float(entity["score"]), 3))
    return f1


if __name__ == "__main__":
    main()
