"""Answers to questions: where in a text is the answer?

    python examples/answer_questions.py --train train.json --output qa-model

The file is JSON lines with SQuAD's fields: question, context, and answers {"text": [...], "answer_start": [...]}.
Contexts of any length stay whole.
"""

import argparse
from pathlib import Path

from datasets import load_dataset
from transformers import (
    AutoModelForQuestionAnswering,
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
    parser.add_argument("--train", default=str(DATA / "questions.json"))
    parser.add_argument("--model", default=hf_elmo.bundled(), help="folder of the pretrained biLM")
    parser.add_argument("--output", default="qa-model", help="folder for the trained model")
    parser.add_argument("--epochs", type=float, default=20)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    options = parser.parse_args(arguments)

    data = load_dataset("json", data_files=options.train, split="train")
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForQuestionAnswering.from_pretrained(options.model)

    def encode(row):
        """The question and the context as two segments, and the words in which the answer begins and ends."""
        encoded = tokenizer(row["question"], row["context"])
        first = row["answers"]["answer_start"][0]
        last = first + len(row["answers"]["text"][0]) - 1
        for name, character in (("start_positions", first), ("end_positions", last)):
            encoded[name] = encoded.char_to_token(character, sequence_index=1)
        return encoded

    settings = {"num_train_epochs": options.epochs, "learning_rate": options.learning_rate, "report_to": "none"}
    trainer = Trainer(
        model,
        TrainingArguments(options.output, save_strategy="no", logging_strategy="no", **settings),
        DataCollatorWithPadding(tokenizer),
        data.map(encode, remove_columns=data.column_names),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(options.output)

    answer = pipeline("elmo-question-answering", model=options.output)
    right = 0
    for row in data:
        found = answer(question=row["question"], context=row["context"])
        right += found["answer"] in row["answers"]["text"]
        print(f"{row['question']} {found['answer']} ({found['score']:.2f})")
    print(f"{right} of {len(data)} answers are as given")
    return right / len(data)


if __name__ == "__main__":
    main()
