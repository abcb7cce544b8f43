"""`Seq2SeqTrainer` for a small model that writes, in one process or several.

As a script: the file for results; the batch of a process is 8 divided by their number.
"""

import os
import random
import sys
from pathlib import Path

import torch
from small_translator import SOURCES, TARGETS, small_decoder, small_elmo, small_translator, two_tokenizers
from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

from hf_elmo import ElmoEncoderDecoderModel, ElmoEncoderDecoderTokenizer, ElmoTokenizer, train_target_tokenizer

NAMES = ["Ann", "Ben", "Carla", "Dirk", "Eva", "Finn", "Greta", "Hugo"]
VERBS = ["sees", "hears", "likes", "knows"]


def make_trainer(output, model=None, tokenizer=None, rows=None, **arguments):
    """A trainer of a small model, on four pairs twice; by default it saves nothing, and logs each step."""
    tokenizer = tokenizer or two_tokenizers()
    model = model or small_translator()
    if rows is None:
        rows = [tokenizer(source, text_target=target) for source, target in zip(SOURCES * 2, TARGETS * 2, strict=True)]
    common = {
        "output_dir": str(output),
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(**{**common, **arguments}),
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        processing_class=tokenizer,
    )


def train(output, batch, accumulate=1, **arguments):
    """Trains for two steps of plain gradient descent, without dropout.

    Returns:
        Losses and gradient norms of the steps, and the trained weights.
    """
    trainer = make_trainer(
        output,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulate,
        max_steps=2,
        learning_rate=0.01,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=1e9,
        **arguments,
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    trained = {name: value.detach().clone() for name, value in trainer.model.named_parameters() if value.requires_grad}
    return {
        "loss": [entry["loss"] for entry in logs],
        "grad_norm": [float(entry["grad_norm"]) for entry in logs],
        "weights": trained,
    }


def swaps(count, seed=0):
    """Sentences `Ann sees Ben`, and what is to be written: `Ben sees Ann`; all different."""
    everything = [(a, verb, b) for a in NAMES for verb in VERBS for b in NAMES if a != b]
    chosen = random.Random(seed).sample(everything, count)
    return [" ".join(words) for words in chosen], [" ".join(words[::-1]) for words in chosen]


def swapper(seed=0):
    """A fresh model, whose biLM is random and frozen, and tokenizers for `swaps`."""
    _, targets = swaps(200, seed)
    target = train_target_tokenizer(targets, vocab_size=330)
    torch.manual_seed(seed)
    encoder = small_elmo(projection_dim=16, cell_size=32, char_embed_dim=8, filters=[[1, 8], [2, 16], [3, 24]])
    decoder = small_decoder(vocab_size=len(target), n_embd=64, n_head=4, positions=16, seed=seed)
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.dim() > 1:
                parameter.div_(15)
    model = ElmoEncoderDecoderModel(encoder=encoder, decoder=decoder)
    return model, ElmoEncoderDecoderTokenizer(ElmoTokenizer.create(), target)


if __name__ == "__main__":
    (results,) = map(Path, sys.argv[1:])
    processes = int(os.environ["WORLD_SIZE"])
    found = {
        smoothing: train(results.parent, 8 // processes, label_smoothing_factor=smoothing) for smoothing in (0.0, 0.1)
    }
    assert torch.distributed.get_world_size() == processes
    if torch.distributed.get_rank() == 0:
        torch.save(found, results)
