"""Texts to classes, such as reviews to good and bad.

    python examples/classify_texts.py --train train.json --dev dev.json --output text-model

Files are JSON lines like {"text": "A fine film .", "label": "good"}. With a second text in "pair" the model judges
pairs of texts.
"""

import argparse
from pathlib import Path

from datasets import load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    pipeline,
)

import hf_elmo

DATA = Path(__file__).parent / "data"


def main(arguments: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", default=str(DATA / "reviews.json"))
    parser.add_argument("--dev", default=str(DATA / "reviews.json"))
    parser.add_argument("--model", default=hf_elmo.bundled(), help="folder of the pretrained biLM")
    parser.add_argument("--output", default="text-model", help="folder for the trained model")
    parser.add_argument("--epochs", type=float, default=20)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    options = parser.parse_args(arguments)

    data = load_dataset("json", data_files={"train": options.train, "dev": options.dev})
    labels = sorted({label for split in data.values() for label in split["label"]})
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSequenceClassification.from_pretrained(
        options.model,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        task_encoder_layers=1,  # a biLSTM of the task's own over ELMo's vectors
    )

    def encode(batch):
        encoded = tokenizer(batch["text"], batch.get("pair"))
        encoded["labels"] = [labels.index(label) for label in batch["label"]]
        return encoded

    data = data.map(encode, batched=True, remove_columns=data["train"].column_names)
    settings = {"num_train_epochs": options.epochs, "learning_rate": options.learning_rate, "report_to": "none"}
    trainer = Trainer(
        model,
        TrainingArguments(options.output, save_strategy="no", logging_strategy="no", **settings),
        DataCollatorWithPadding(tokenizer),
        data["train"],
        data["dev"],
        processing_class=tokenizer,
        compute_metrics=lambda results: {"accuracy": (results.predictions.argmax(-1) == results.label_ids).mean()},
    )
    trainer.train()
    accuracy = trainer.evaluate()["eval_accuracy"]
    trainer.save_model(options.output)
    print(f"accuracy: {accuracy:.3f}")
    print(pipeline("text-classification", model=options.output)("A warm and funny film ."))
    return accuracy


if __name__ == "__main__":
    main()
