"""Work shared with processes that are spawned, as on macOS and Windows, rather than forked. As a script: a folder."""

import multiprocessing
import sys
from pathlib import Path

import torch
from language_model_training import small_training

SENTENCES = ["the cat sat .", "a dog", "one more zebra ran ."]


def main(folder: Path) -> None:
    import datasets
    from torch.utils.data import DataLoader

    import hf_elmo

    losses = {}
    for workers in (0, 1):
        run = folder / f"workers{workers}"
        run.mkdir()
        trainer = small_training(run, max_steps=3, save_strategy="no", dataloader_num_workers=workers)
        losses[workers] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses[0]) == 3
    assert losses[0] == losses[1], losses

    torch.manual_seed(0)
    model = trainer.model.elmo
    tokenizer = trainer.processing_class
    tokenizer.add_tokens(["zebra"])
    dataset = datasets.Dataset.from_dict({"text": SENTENCES}).map(
        lambda batch: tokenizer(batch["text"]), batched=True, batch_size=2, num_proc=2, remove_columns=["text"]
    )
    assert dataset[2]["input_ids"] == tokenizer(SENTENCES[2])["input_ids"]
    stored = hf_elmo.precompute_layers(dataset, model, folder / "store")
    here, there = (
        next(iter(DataLoader(stored, batch_size=3, collate_fn=tokenizer.pad, num_workers=workers)))["layer_states"]
        for workers in (0, 1)
    )
    assert torch.equal(torch.as_tensor(here), torch.as_tensor(there))
    print("spawned")


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    # What datasets uses is a library of its own.
    import multiprocess

    multiprocess.set_start_method("spawn")
    main(Path(sys.argv[1]))
