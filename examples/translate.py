"""Translation: a frozen ELMo reads, and a small decoder that is trained writes.

    python examples/translate.py --train train.json --dev dev.json --output translator

Files are JSON lines like {"source": "A dog runs .", "target": "Ein Hund rennt ."}.
"""

import argparse
from pathlib import Path

import torch
from datasets import load_dataset
from transformers import (
    DataCollatorForSeq2Seq,
    GPT2Config,
    GPT2LMHeadModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    pipeline,
)

import hf_elmo

DATA = Path(__file__).parent / "data" / "translations.json"


def main(arguments: list[str] | None = None) -> list[str]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", default=str(DATA))
    parser.add_argument("--dev", default=str(DATA))
    parser.add_argument("--model", default=hf_elmo.bundled(), help="folder of the pretrained biLM")
    parser.add_argument("--output", default="translator", help="folder for the trained translator")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--vocabulary", type=int, default=4000, help="most tokens of the target language")
    options = parser.parse_args(arguments)

    data = load_dataset("json", data_files={"train": options.train, "dev": options.dev})
    target = hf_elmo.train_target_tokenizer(data["train"]["target"], options.vocabulary, model_max_length=128)
    tokenizer = hf_elmo.ElmoEncoderDecoderTokenizer(hf_elmo.ElmoTokenizer.from_pretrained(options.model), target)
    ids = {name: getattr(target, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    sizes = {"n_embd": 256, "n_layer": 2, "n_head": 4, "n_positions": 128, "add_cross_attention": True}
    encoder = hf_elmo.ElmoModel.from_pretrained(options.model, representation_dropout=0.2)
    decoder = GPT2LMHeadModel(GPT2Config(vocab_size=len(target), **ids, **sizes))
    model = hf_elmo.ElmoEncoderDecoderModel(encoder=encoder, decoder=decoder)

    def encode(batch):
        return tokenizer(batch["source"], text_target=batch["target"], truncation=True)

    data = data.map(encode, batched=True, remove_columns=["source", "target"])
    # The mix of ELMo's layers learns with a rate of its own: it hardly moves with that of the decoder.
    mixes = [parameter for parameter in model.encoder.scalar_mixes.parameters() if parameter.requires_grad]
    others = [p for p in model.parameters() if p.requires_grad and not any(p is mix for mix in mixes)]
    optimizer = torch.optim.AdamW([{"params": others, "lr": 1e-3}, {"params": mixes, "lr": 0.1, "weight_decay": 0.0}])
    settings = {"max_steps": options.steps, "per_device_train_batch_size": 32, "report_to": "none", "logging_steps": 50}
    settings |= {"eval_strategy": "no", "save_strategy": "no"}
    trainer = Seq2SeqTrainer(
        model, Seq2SeqTrainingArguments(options.output, **settings), DataCollatorForSeq2Seq(tokenizer, model=model),
        data["train"], data["dev"], tokenizer, optimizers=(optimizer, None),
    )  # fmt: skip
    trainer.train()
    print(f"loss per token: {trainer.evaluate()['eval_loss']:.3f}")
    trainer.save_model(options.output)

    translate = pipeline("elmo-translation", model=options.output, num_beams=4, max_new_tokens=60)
    translations = [each["translation_text"] for each in translate(["A dog runs in the park .", "Two women read ."])]
    print("\n".join(translations))
    return translations


if __name__ == "__main__":
    main()
