"""An ELMo folder in sentence-transformers: as it is, and with words alone and a layer."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from isolated import TRAINING, run_isolated

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


_WITHOUT_HF_ELMO = """
import sys
import numpy
from sentence_transformers import SentenceTransformer

folder, results, texts = sys.argv[1:]
try:
    import hf_elmo
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("hf_elmo can be imported: this shows nothing")
model = SentenceTransformer(folder, trust_remote_code=True)
texts = texts.split("|")
vectors = model.encode(texts)
numpy.save(results + "/vectors.npy", vectors)
model.save(results + "/saved")
again = SentenceTransformer(results + "/saved", trust_remote_code=True)
assert numpy.array_equal(again.encode(texts), vectors)
"""


def test_remote_code_alone(tiny_model_folder, tmp_path):
    """Loaded, and saved again, where hf_elmo is not installed."""
    script = tmp_path / "user.py"
    script.write_text(_WITHOUT_HF_ELMO, encoding="utf-8")
    run_isolated([script, tiny_model_folder, tmp_path, "|".join(TEXTS)], tmp_path, also=TRAINING)
    vectors = np.load(tmp_path / "vectors.npy")
    np.testing.assert_allclose(vectors, expected(tiny_model_folder, pooling="mean", keep_boundaries=True), atol=1e-5)
    again = library.SentenceTransformer(str(tmp_path / "saved"))
    np.testing.assert_allclose(again.encode(TEXTS), vectors, atol=1e-6)


def test_keybert(tiny_model_folder):
    """Its keywords are words of the text, nearest to it by this model's vectors, which it is given."""
    keybert = pytest.importorskip("keybert", reason="needs keybert")
    model = sentence_transformer(tiny_model_folder, layer=0)
    text = "Rivers carry water to the sea and mountains hold snow"
    found = keybert.KeyBERT(model).extract_keywords(text, top_n=3, stop_words=None)
    words = [word for word in text.lower().split() if len(word) > 1]
    vectors = model.encode([text, *words]).astype(float)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = sorted(zip(vectors[1:] @ vectors[0], words), reverse=True)[:3]
    assert [word for word, _ in found] == [word for _, word in nearest]
    np.testing.assert_allclose([score for _, score in found], [score for score, _ in nearest], atol=2e-4)


def test_setfit(tiny_model_folder, tmp_path):
    """Its recipe learns two classes from eight texts, and comes back as it was saved."""
    setfit = pytest.importorskip("setfit", reason="needs setfit")
    body = sentence_transformer(tiny_model_folder)
    texts = ["one two", "one three", "one four", "one", "nine ten", "nine eleven", "nine", "nine twelve"]
    rows = Dataset.from_dict({"text": texts, "label": [0, 0, 0, 0, 1, 1, 1, 1]})
    model = setfit.SetFitModel(body, setfit.modeling.LogisticRegression())
    options = setfit.TrainingArguments(
        str(tmp_path / "run"), max_steps=40, batch_size=4, body_learning_rate=5e-3, report_to="none", save_strategy="no"
    )
    setfit.Trainer(model, options, train_dataset=rows).train()
    assert model.predict(texts).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    model.save_pretrained(str(tmp_path / "saved"))
    again = setfit.SetFitModel.from_pretrained(str(tmp_path / "saved"), trust_remote_code=True)
    np.testing.assert_allclose(again.predict_proba(texts), model.predict_proba(texts), atol=1e-5)


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
