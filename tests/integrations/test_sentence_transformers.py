"""An ELMo folder in sentence-transformers: as it is, and with words alone and a layer."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset

from hf_elmo import Embedder

library = pytest.importorskip("sentence_transformers", reason="needs the extra sentence")

from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss  # noqa: E402

from hf_elmo.integrations.sentence_transformers import sentence_transformer  # noqa: E402

TEXTS = ["I read the book.", "Yes!", "He read it, she did not."]


def expected(folder, **options):
    return np.stack([row.vectors for row in Embedder(folder, **options).embed(TEXTS)])


def test_a_folder_as_it_is(tiny_model_folder, tmp_path):
    model = library.SentenceTransformer(str(tiny_model_folder))
    wanted = expected(tiny_model_folder, pooling="mean", keep_boundaries=True)
    np.testing.assert_allclose(model.encode(TEXTS), wanted, atol=1e-5)
    np.testing.assert_allclose(model.encode(TEXTS[0]), wanted[0], atol=1e-5)
    assert model.encode(["", "a"]).shape == (2, 32)
    model.save(str(tmp_path / "saved"))
    again = library.SentenceTransformer(str(tmp_path / "saved"))
    np.testing.assert_array_equal(again.encode(TEXTS), model.encode(TEXTS))


@pytest.mark.parametrize(("layer", "pooling"), [(None, "mean"), (0, "mean"), (-1, "max"), (1, "mean")])
def test_words_alone_of_a_layer(tiny_model_folder, tmp_path, layer, pooling):
    model = sentence_transformer(tiny_model_folder, layer=layer, pooling=pooling)
    wanted = expected(tiny_model_folder, pooling=pooling, layers="mix" if layer is None else "all")
    wanted = wanted if layer is None else wanted[:, layer]
    np.testing.assert_allclose(model.encode(TEXTS), wanted, atol=1e-5)
    assert not model.encode([""]).any() or pooling == "max"
    model.save(str(tmp_path / "saved"))
    kinds = [module["type"] for module in json.loads((tmp_path / "saved" / "modules.json").read_text(encoding="utf-8"))]
    assert kinds[1] == "hf_elmo.integrations.sentence_transformers.ElmoWords"
    again = library.SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=True)
    np.testing.assert_array_equal(again.encode(TEXTS), model.encode(TEXTS))


def test_training_on_pairs(tiny_model_folder, tmp_path):
    """Of the whole model; what is near is nearer afterwards, and a saved model is the trained one."""
    model = sentence_transformer(tiny_model_folder)
    pairs = Dataset.from_dict({"anchor": ["one two", "three", "four five"], "positive": ["six", "seven two", "eight"]})
    before = [parameter.detach().clone() for parameter in model.parameters()]
    options = library.SentenceTransformerTrainingArguments(
        str(tmp_path / "run"), max_steps=15, per_device_train_batch_size=3, learning_rate=5e-3, report_to=[],
        save_strategy="no", logging_steps=1, disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    loss = MultipleNegativesRankingLoss(model)
    trainer = library.SentenceTransformerTrainer(model, options, pairs, loss=loss)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]
    changed = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert sum(changed) > len(changed) / 2
    model.save(str(tmp_path / "saved"))
    again = library.SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=True)
    np.testing.assert_allclose(again.encode(TEXTS), model.encode(TEXTS), atol=1e-6)


def test_layers_that_are_none(tiny_model_folder):
    for layer in (3, -4):
        with pytest.raises(ValueError, match=rf"layers 0 \(context-free\) to 2, layer was: {layer}"):
            sentence_transformer(tiny_model_folder, layer=layer)


def test_a_cross_encoder(tiny_model_folder):
    """It reads two texts as one row of two sentences, with a new head."""
    model = library.CrossEncoder(str(tiny_model_folder), num_labels=1)
    scores = model.predict([("one", "two"), ("I read it.", "Yes!")])
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()
