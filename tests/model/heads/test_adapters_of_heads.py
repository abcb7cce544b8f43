"""PEFT's ordinary recipes on fresh heads: the head is trained and saved with the adapter, and comes back exactly."""

import re

import pytest
import torch
from head_batches import HEADS, batch_for, load
from small_models import random_words
from small_translator import SOURCES, TARGETS, small_translator, two_tokenizers

from hf_elmo import ElmoEncoderDecoderModel, ElmoTokenizer

peft = pytest.importorskip("peft", reason="needs the extra peft")

TASK_TYPES = {
    "AutoModelForMultipleChoice": "SEQ_CLS",
    "AutoModelForQuestionAnswering": "QUESTION_ANS",
    "AutoModelForSequenceClassification": "SEQ_CLS",
    "AutoModelForTokenClassification": "TOKEN_CLS",
}
# Every part that such a head can have.
FIELDS = {
    "AutoModelForQuestionAnswering": {"context_self_attention": True},
    "AutoModelForTokenClassification": {
        "num_labels": 2,
        "task_feedforward_sizes": [7, 6],
        "char_cnn_filters": [[2, 3]],
        "word_vector_size": 3,
        "freeze_word_vectors": False,
    },
}


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder):
    return ElmoTokenizer.from_pretrained(tiny_model_folder)


def recipe(name, **fields):
    return peft.LoraConfig(**{"task_type": TASK_TYPES[name], "r": 2, "target_modules": ["projection"], **fields})


def fresh(name, folder, seed=0):
    return load(name, folder, seed, **FIELDS.get(name, {})).eval()


def outputs(model, batch):
    with torch.no_grad():
        return torch.cat([each.flatten(1) for key, each in model.eval()(**batch).items() if key.endswith("logits")])


def train(model, batch):
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.5)
    model.train()
    for _ in range(2):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def head_of(model):
    """Names of what is no biLM: the head, and the mixes that belong to it."""
    return {key for key, _ in model.named_parameters() if not key.startswith(("elmo.character_", "elmo.bilstm"))}


def test_every_head_has_a_task_type():
    assert set(TASK_TYPES) == set(HEADS)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("targets", [["projection"], "all-linear"])
def test_the_recipe_trains_and_saves_the_head(name, targets, tiny_model_folder, tokenizer, tmp_path):
    fields = {"target_modules": targets}
    if targets == "all-linear":
        # PEFT puts adapters within the head, and could not load what it saves. A classifier it refuses itself.
        expected = r"(which is new, .* exclude_modules=r\"|cannot be applied to modules of type .*Linear)"
        with pytest.raises((ValueError, TypeError), match=expected) as refused:
            peft.get_peft_model(fresh(name, tiny_model_folder), recipe(name, target_modules=targets))
        pattern = re.search(r'exclude_modules=r"(.*)"', str(refused.value))
        fields["exclude_modules"] = pattern[1] if pattern else r"(classifier|feedforward)(\..*)?"
    base, batch = fresh(name, tiny_model_folder), batch_for(name, tokenizer)
    names, head = list(base.state_dict()), head_of(base)
    before = {key: tensor.clone() for key, tensor in base.state_dict().items()}
    model = peft.get_peft_model(base, recipe(name, **fields))
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    saved_whole = {
        key.removeprefix("base_model.model.").replace(".modules_to_save.default", "").replace(".base_layer", "")
        for key in trained
        if ".modules_to_save.default" in key and "lora_" not in key
    }
    assert saved_whole == head
    train(model, batch)
    expected = outputs(model, batch)
    model.save_pretrained(tmp_path)

    # Another random head, in the place of which the saved one comes.
    other = fresh(name, tiny_model_folder, seed=1)
    assert (outputs(other, batch) - expected).abs().max() > 1e-3
    again = peft.PeftModel.from_pretrained(other, tmp_path)
    assert torch.equal(outputs(again, batch), expected)
    merged = again.merge_and_unload()
    assert list(merged.state_dict()) == names
    torch.testing.assert_close(outputs(merged, batch), expected, atol=1e-5, rtol=1e-5)
    changed = {key for key, tensor in merged.state_dict().items() if not torch.equal(tensor, before[key])}
    # A bias that no batch of one kind of labels moves may stay.
    assert changed >= {key for key in head if "scores" in key or "classifier" in key or "crf.transitions" in key}
    adapted = {"elmo.character_encoder.projection.weight"}
    assert changed - head == adapted if targets == ["projection"] else changed - head > adapted


@pytest.mark.parametrize("name", HEADS)
def test_two_adapters_have_heads_of_their_own(name, tiny_model_folder, tokenizer):
    base, batch = fresh(name, tiny_model_folder), batch_for(name, tokenizer)
    inputs = {key: tensor for key, tensor in batch.items() if "labels" not in key and "positions" not in key}
    before = outputs(base, inputs)
    model = peft.get_peft_model(base, recipe(name))
    model.add_adapter("second", recipe(name))
    train(model, batch)
    first = outputs(model, batch)
    assert (first - before).abs().max() > 1e-4
    model.set_adapter("second")
    torch.testing.assert_close(outputs(model, batch), before)
    train(model, batch)
    assert (outputs(model, batch) - before).abs().max() > 1e-4
    model.set_adapter("default")
    assert torch.equal(outputs(model, batch), first)
    with model.disable_adapter():
        torch.testing.assert_close(outputs(model, batch), before)


def test_second_names_are_in_no_list_of_parameters(tiny_model_folder):
    model = fresh("AutoModelForTokenClassification", tiny_model_folder)
    assert [key for key, _ in model.named_parameters(remove_duplicate=False)] == [
        key for key, _ in model.named_parameters()
    ]
    once = [key for key, _ in model.named_modules()]
    twice = [key for key, _ in model.named_modules(remove_duplicate=False)]
    assert twice[: len(once)] == once
    assert "head_for_adapters.crf_classifier" in twice[len(once) :]
    assert model.get_submodule("head_for_adapters.crf_classifier") is model.crf
    assert not hasattr(model.head_for_adapters, "elmo_classifier")


class TestWithoutATaskType:
    """PEFT then trains no head, and says nothing."""

    NAME = "AutoModelForTokenClassification"

    def warnings_of(self, model, caplog):
        caplog.clear()
        model.train()
        return caplog.text

    def test_a_head_that_stays_random_is_warned_of(self, tiny_model_folder, caplog, monkeypatch):
        from hf_elmo.model import modeling_elmo

        monkeypatch.setattr(modeling_elmo.logger, "warning_once", modeling_elmo.logger.warning)
        model = load(self.NAME, tiny_model_folder, num_labels=2)
        assert not self.warnings_of(model, caplog)
        wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["projection"]))
        expected = "modules_to_save=['classifier', 'crf', 'task_encoder']"
        assert expected in self.warnings_of(wrapped, caplog)
        model = load(self.NAME, tiny_model_folder, num_labels=2)
        named = peft.LoraConfig(
            r=2, target_modules=["projection"], modules_to_save=["classifier", "crf", "task_encoder"]
        )
        assert not self.warnings_of(peft.get_peft_model(model, named), caplog)

    def test_a_head_that_was_trained_before_may_stay(self, tiny_model_folder, tmp_path, caplog):
        load(self.NAME, tiny_model_folder, num_labels=2).save_pretrained(tmp_path)
        model = load(self.NAME, tmp_path)
        wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["projection"]))
        assert not self.warnings_of(wrapped, caplog)


class TestQuestionAnswering:
    """PEFT's class takes token_type_ids and does not pass them on."""

    NAME = "AutoModelForQuestionAnswering"

    @pytest.mark.parametrize("side", ["right", "left"])
    def test_an_adapter_of_zeros_changes_nothing(self, side, tiny_model_folder):
        tokenizer = ElmoTokenizer.from_pretrained(tiny_model_folder, padding_side=side)
        # The word </S> alone is no border.
        questions, texts = ["Who sat ?", "What </S> barks loudly here ?"], ["A cat sat <S> on the mat .", "Dogs"]
        batch = tokenizer(questions, texts, padding=True, return_tensors="pt")
        plain = load(self.NAME, tiny_model_folder).eval()
        expected = outputs(plain, batch)
        model = peft.get_peft_model(load(self.NAME, tiny_model_folder), recipe(self.NAME))
        # The projection with an adapter is another computation, so rounding differs.
        torch.testing.assert_close(outputs(model, batch), expected)
        assert torch.equal(outputs(model, batch), outputs(model.get_base_model(), batch))
        layers = torch.stack(plain.elmo(**batch, output_hidden_states=True).hidden_states, dim=1)
        by_ids = {"input_ids": batch["input_ids"], "layer_states": layers, "attention_mask": batch["attention_mask"]}
        torch.testing.assert_close(outputs(model, by_ids), expected)

    def test_what_cannot_be_told_apart_is_refused(self, tiny_model_folder, tokenizer):
        model = peft.get_peft_model(load(self.NAME, tiny_model_folder), recipe(self.NAME))
        pairs = tokenizer(["Who ?", "Who ?"], ["He .", "He </S> <S> she ."], padding=True, return_tensors="pt")
        with pytest.raises(ValueError, match=r"row 1 of the batch has 2.*get_base_model\(\)"):
            model(**pairs)
        assert model.get_base_model().eval()(**pairs).start_logits.isfinite().all()
        with pytest.raises(ValueError, match=r"row 0 of the batch has 0"):
            model(**tokenizer(["A single text"], return_tensors="pt"))
        with pytest.raises(ValueError, match="needs token_type_ids"):
            model(layer_states=torch.ones(1, 3, 4, 32))
        # Without an adapter nothing is read from boundaries.
        plain = load(self.NAME, tiny_model_folder)
        with pytest.raises(ValueError, match="needs token_type_ids"):
            plain(character_ids=random_words([4], chars=50))


class TestModelsThatWrite:
    """LoRA on the decoder and the character encoder; what is new between them is trained and saved whole."""

    CONFIG = peft.LoraConfig(
        task_type="SEQ_2_SEQ_LM",
        r=2,
        target_modules=["c_attn", "character_encoder.projection"],
        modules_to_save=["enc_to_dec_proj", "scalar_mixes.0"],
    )

    @pytest.fixture
    def batch(self):
        tokenizer = two_tokenizers()
        batch = tokenizer(SOURCES, text_target=TARGETS, padding=True, return_tensors="pt")
        batch["labels"][batch["labels"] == tokenizer.pad_token_id] = -100
        return batch

    def test_it_comes_back_exactly(self, batch, tmp_path):
        sources = {name: tensor for name, tensor in batch.items() if name != "labels"}
        model = peft.get_peft_model(small_translator(), self.CONFIG)
        trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
        assert any("scalar_mixes.0.modules_to_save.default.weights" in key for key in trained)
        assert not any("bilstm" in key for key in trained)
        before = model(**batch).loss.item()
        train(model, batch)
        expected = outputs(model, batch)
        assert model(**batch).loss.item() < before
        written = model.generate(**sources, num_beams=2, max_new_tokens=8)
        model.save_pretrained(tmp_path)
        again = peft.PeftModel.from_pretrained(small_translator(), tmp_path)
        assert (outputs(again, batch) - expected).abs().max() == 0.0
        assert torch.equal(again.generate(**sources, num_beams=2, max_new_tokens=8), written)
        merged = again.merge_and_unload()
        assert type(merged) is ElmoEncoderDecoderModel
        torch.testing.assert_close(outputs(merged, batch), expected, atol=1e-4, rtol=1e-4)
        merged.save_pretrained(tmp_path / "merged")
        loaded = ElmoEncoderDecoderModel.from_pretrained(tmp_path / "merged")
        assert (outputs(loaded, batch) - outputs(merged, batch)).abs().max() == 0.0
