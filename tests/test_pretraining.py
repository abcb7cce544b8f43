"""Training a language model from text files."""

import gzip

import pytest
import torch

from hf_elmo import ElmoConfig, ElmoForPreTraining, ElmoModel, ElmoTokenizer
from hf_elmo.language_model import perplexity
from hf_elmo.pretraining import LanguageModelCollator, count_words, read_sentences, train

TEXT = "The cat sat on the mat. The dog sat on the cat.\n\n   \nA dog ate the mat.\n"


def tiny_config(**overrides) -> ElmoConfig:
    sizes = {
        "cell_size": 24,
        "projection_dim": 12,
        "filters": [[1, 8], [2, 8]],
        "num_highway_layers": 1,
        "dropout": 0.0,
    }
    return ElmoConfig(**{**sizes, **overrides})


def test_reads_plain_and_gzipped_text_as_sentences(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    with gzip.open(tmp_path / "b.txt.gz", "wt", encoding="utf-8") as file:
        file.write("One more line here.\n")
    sentences = read_sentences([tmp_path / "a.txt", tmp_path / "b.txt.gz"])
    assert list(sentences["text"]) == [
        "The cat sat on the mat.",
        "The dog sat on the cat.",
        "A dog ate the mat.",
        "One more line here.",
    ]
    lines = read_sentences([tmp_path / "a.txt"], split_sentences=False)
    assert list(lines["text"]) == ["The cat sat on the mat. The dog sat on the cat.", "A dog ate the mat."]


def test_missing_and_empty_text_are_errors(tmp_path):
    with pytest.raises(ValueError, match=r"no such text file: .*absent\.txt"):
        read_sentences([tmp_path / "absent.txt"])
    (tmp_path / "blank.txt").write_text(" \n\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no text in"):
        read_sentences([tmp_path / "blank.txt"])


def test_counts_words_as_the_tokenizer_splits_them(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    counts = count_words(read_sentences([tmp_path / "a.txt"]), ElmoTokenizer.create())
    assert counts["the"] == 3
    assert counts["The"] == 2
    assert counts["."] == 3
    assert sum(counts.values()) == 20


def test_collator_labels_every_word_but_padding():
    tokenizer = ElmoTokenizer.create(["the", "cat"])
    batch = LanguageModelCollator(tokenizer)([{"text": "the cat sat"}, {"text": "cat"}])
    assert batch["labels"].tolist() == [[2, 4, 5, 1, 3], [2, 5, 3, -100, -100]]
    assert batch["character_ids"].shape == (2, 5, 50)


def test_training_learns_the_text_and_leaves_a_usable_folder(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT * 20, encoding="utf-8")
    arguments = {
        "max_steps": 60,
        "per_device_train_batch_size": 8,
        "learning_rate": 2e-2,
        "logging_steps": 20,
        "save_steps": 30,
        "use_cpu": True,
        "seed": 0,
        "disable_tqdm": True,
    }
    torch.manual_seed(0)
    trainer = train([tmp_path / "a.txt"], tmp_path / "out", tiny_config(), vocabulary_size=8, **arguments)
    tokenizer = ElmoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_ids_to_tokens([4, 5]) == [".", "the"]  # 60 times each, in the order of the alphabet
    assert len(tokenizer) == 12
    model = ElmoForPreTraining.from_pretrained(tmp_path / "out")
    sentences = ["The cat sat on the mat.", "The dog sat on the cat.", "A dog ate the mat."]
    learned = perplexity(model, tokenizer, sentences)
    torch.manual_seed(0)
    fresh = perplexity(ElmoForPreTraining(model.config), tokenizer, sentences)
    assert learned.forward < 0.4 * fresh.forward
    assert learned.backward < 0.4 * fresh.backward
    assert not any(mix.gamma.requires_grad for mix in model.elmo.scalar_mixes)
    base = ElmoModel.from_pretrained(tmp_path / "out")
    assert torch.equal(base.bilstm.forward_layers[0].weight_ih, model.elmo.bilstm.forward_layers[0].weight_ih)
    assert trainer.state.global_step == 60


def test_a_loss_that_is_no_number_stops_the_training(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT * 20, encoding="utf-8")
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        train(
            [tmp_path / "a.txt"],
            tmp_path / "out",
            tiny_config(cell_clip=None, proj_clip=None),
            vocabulary_size=8,
            max_steps=20,
            learning_rate=float("inf"),
            logging_steps=1,
            logging_nan_inf_filter=False,
            use_cpu=True,
            disable_tqdm=True,
        )
