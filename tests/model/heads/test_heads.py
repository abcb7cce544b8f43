"""What all task heads have in common: a frozen biLM, one flag to train it, and folders that read back as written."""

import logging
import re

import pytest
import torch
import transformers
from head_batches import HEADS, batch_for, load
from safetensors.torch import save_file
from transformers import AutoModelForPreTraining, Trainer, TrainingArguments

import hf_elmo
from hf_elmo import ElmoForPreTraining, ElmoModel, ElmoTokenizer
from hf_elmo.model.remote_code import AUTO_MAP


def head_class(name):
    return getattr(hf_elmo, AUTO_MAP[name].rpartition(".")[2])


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder):
    return ElmoTokenizer.from_pretrained(tiny_model_folder)


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def mix_and_head(model):
    return {name for name, _ in model.named_parameters() if not name.startswith(("elmo.character_", "elmo.bilstm"))}


def bilm(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if name not in mix_and_head(model)}


@pytest.mark.parametrize("name", HEADS)
class TestFreezing:
    def test_mix_and_head_are_trained_and_nothing_else(self, name, tiny_model_folder, tokenizer, tmp_path):
        fresh = head_class(name)(load(name, tiny_model_folder).config)
        made = load(name, tiny_model_folder)
        made.save_pretrained(tmp_path)
        for model in (fresh, made, load(name, tmp_path), type(made).from_pretrained(tmp_path)):
            assert trained(model) == mix_and_head(model)
            assert {part.partition(".")[0] for part in trained(model)} > {"elmo"}
            for mode in (True, False):
                model.train(mode)
                modes = {key: module.training for key, module in model.named_modules()}
                frozen = {key for key in modes if key.startswith(("elmo.character_encoder", "elmo.bilstm"))}
                assert len(frozen) > 4
                assert {key for key, training in modes.items() if training != mode} == (frozen if mode else set())
            model.train()
            model(**batch_for(name, tokenizer)).loss.backward()
            with_gradient = {key for key, parameter in model.named_parameters() if parameter.grad is not None}
            # A question answerer takes two mixes, the others the first of however many there are.
            assert with_gradient == trained(model)

    def test_the_bilm_reads_without_dropout_and_keeps_no_graph(self, name, tiny_model_folder, tokenizer):
        model = load(name, tiny_model_folder, dropout=0.5).train()
        batch = batch_for(name, tokenizer)
        layers = [model(**batch, output_hidden_states=True).hidden_states for _ in range(2)]
        for first, second in zip(*layers, strict=True):
            assert torch.equal(first, second)
            assert not first.requires_grad

    def test_the_optimizer_of_trainer_sees_mix_and_head_alone(self, name, tiny_model_folder, tokenizer, tmp_path):
        model = load(name, tiny_model_folder)
        before = bilm(model)
        mix = model.elmo.scalar_mixes[0].weights.detach().clone()
        batch = batch_for(name, tokenizer)
        rows = [{key: tensor[row] for key, tensor in batch.items()} for row in range(len(batch["input_ids"]))]
        arguments = TrainingArguments(
            output_dir=str(tmp_path), max_steps=3, learning_rate=0.1, report_to="none", save_strategy="no", use_cpu=True
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=rows)
        trainer.train()
        in_optimizer = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
        assert {key for key, parameter in model.named_parameters() if id(parameter) in in_optimizer} == mix_and_head(
            model
        )
        assert all(torch.equal(before[key], tensor) for key, tensor in bilm(model).items())
        assert not torch.equal(mix, model.elmo.scalar_mixes[0].weights)

    def test_one_flag_trains_all(self, name, tiny_model_folder, tokenizer, tmp_path):
        made = load(name, tiny_model_folder, freeze_bilm=False)
        made.save_pretrained(tmp_path)
        for model in (made, type(made).from_pretrained(tmp_path), load(name, tmp_path)):
            assert trained(model) == {key for key, _ in model.named_parameters()}
            model.train()
            assert model.elmo.bilstm.dropout.training
            model(**batch_for(name, tokenizer)).loss.backward()
            for key, parameter in model.named_parameters():
                assert parameter.grad is not None, key
            assert all(layer.weight_hh.grad.abs().sum() > 0 for layer in model.elmo.bilstm.forward_layers)
            assert model.elmo.character_encoder.char_embedding.weight.grad.abs().sum() > 0
        frozen_again = type(made).from_pretrained(tmp_path, freeze_bilm=True)
        assert trained(frozen_again) == mix_and_head(frozen_again)

    @pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
    def test_checkpointed_gradients_are_the_same(self, name, tiny_model_folder, tokenizer):
        no_dropout = {"dropout": 0.0, "representation_dropout": 0.0, "task_dropout": 0.0}
        model = load(name, tiny_model_folder, freeze_bilm=False, **no_dropout).train()
        gradients = []
        for checkpointing in (False, True):
            if checkpointing:
                model.gradient_checkpointing_enable()
            model.zero_grad()
            model(**batch_for(name, tokenizer)).loss.backward()
            gradients.append({key: parameter.grad.clone() for key, parameter in model.named_parameters()})
        for key, gradient in gradients[0].items():
            torch.testing.assert_close(gradients[1][key], gradient)


@pytest.mark.parametrize("name", HEADS)
class TestLoading:
    def test_the_stock_report_names_the_fresh_head_alone(self, name, tiny_model_folder, caplog):
        logger = logging.getLogger("transformers")
        logger.addHandler(caplog.handler)
        try:
            model, report = load(name, tiny_model_folder, output_loading_info=True)
        finally:
            logger.removeHandler(caplog.handler)
        listed = set(re.findall(r"^(\S+)\s+\| *(?:\S*?)MISSING", caplog.text, flags=re.MULTILINE))
        # Where a head takes two mixes and the base model has one.
        second_mix = {f"elmo.scalar_mixes.1.{part}" for part in ("weights", "gamma")}
        head = {key for key in model.state_dict() if not key.startswith("elmo.")}
        assert set(report["missing_keys"]) == head | (second_mix & model.state_dict().keys())
        assert listed == set(report["missing_keys"])
        assert not report["unexpected_keys"]
        assert "UNEXPECTED" not in caplog.text

    def test_a_language_models_folder_serves_as_a_base(self, name, tiny_model_folder, tmp_path, caplog):
        language_model = AutoModelForPreTraining.from_pretrained(tiny_model_folder)
        assert type(language_model) is ElmoForPreTraining
        language_model.save_pretrained(tmp_path)
        model, report = load(name, tmp_path, output_loading_info=True)
        assert not report["unexpected_keys"]
        expected = language_model.state_dict()
        assert all(torch.equal(expected[key], tensor) for key, tensor in bilm(model).items())

    def test_reloading_is_bit_identical(self, name, tiny_model_folder, tokenizer, tmp_path):
        model = load(name, tiny_model_folder)
        model.save_pretrained(tmp_path)
        again, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
        assert not any(report.values()), report
        assert model.state_dict().keys() == again.state_dict().keys()
        for key, tensor in model.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[key]), key
        batch = batch_for(name, tokenizer)
        with torch.no_grad():
            torch.testing.assert_close(again.eval()(**batch).loss, model.eval()(**batch).loss, atol=1e-6, rtol=1e-6)

    def test_the_base_model_of_a_head_is_its_own(self, name, tiny_model_folder, tmp_path):
        model = load(name, tiny_model_folder)
        model.save_pretrained(tmp_path)
        base = ElmoModel.from_pretrained(tmp_path)
        for key, tensor in base.state_dict().items():
            assert torch.equal(tensor, model.elmo.state_dict()[key]), key

    def test_a_checkpoint_of_another_task(self, name, tiny_model_folder, tmp_path):
        load(name, tiny_model_folder).save_pretrained(tmp_path)
        family = {"AutoModelForMultipleChoice", "AutoModelForSequenceClassification"}
        for other in HEADS:
            if other == name:
                continue
            if {name, other} == family:
                # One module with another number of scores: the library reports the sizes.
                with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
                    load(other, tmp_path, ignore_mismatched_sizes=False)
            else:
                with pytest.raises(
                    ValueError, match=f"not a checkpoint of {head_class(other).__name__}: it has .* and lacks"
                ):
                    load(other, tmp_path)
            # The way that the message shows.
            ElmoModel.from_pretrained(tmp_path).save_pretrained(tmp_path / "base")
            assert type(load(other, tmp_path / "base")) is head_class(other)

    def test_weights_of_anything_else(self, name, tiny_model_folder, tmp_path):
        load(name, tiny_model_folder).save_pretrained(tmp_path)
        save_file({"other.weight": torch.ones(2)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
        model, report = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
        assert report["missing_keys"] == set(model.state_dict())
        assert report["unexpected_keys"] == {"other.weight"}

    def test_new_tokens_are_a_count_in_the_configuration(self, name, tiny_model_folder, tokenizer, tmp_path):
        model = load(name, tiny_model_folder).eval()
        batch = batch_for(name, tokenizer)
        with torch.no_grad():
            before = model(**batch)[0]
            assert model.resize_token_embeddings(7) is model.get_input_embeddings()
            assert torch.equal(model(**batch)[0], before)
        assert model.get_input_embeddings().num_embeddings == 262
        assert model.config.vocab_size == model.base_model.config.vocab_size == 7
        model.save_pretrained(tmp_path)
        assert type(model).from_pretrained(tmp_path).config.vocab_size == 7


@pytest.mark.parametrize("name", HEADS)
class TestBadInput:
    @pytest.mark.parametrize("damaged", ["bilm", "head"])
    def test_weights_that_are_not_numbers(self, name, damaged, tiny_model_folder, tokenizer):
        model = load(name, tiny_model_folder).eval()
        own = next(parameter for key, parameter in model.named_parameters() if not key.startswith("elmo."))
        with torch.no_grad():
            broken = model.elmo.bilstm.forward_layers[1].weight_ih if damaged == "bilm" else own
            broken.view(-1)[0] = float("nan")
        with pytest.raises(ValueError, match=r"scores are not finite .* Did the training diverge"):
            model(**batch_for(name, tokenizer))

    @pytest.mark.parametrize("kind", ["list", "ndarray", "str"])
    def test_what_is_no_tensor(self, name, kind, tiny_model_folder, tokenizer):
        model = load(name, tiny_model_folder).eval()
        batch = dict(batch_for(name, tokenizer))
        for key, tensor in batch.items():
            value = {"list": tensor.tolist(), "ndarray": tensor.numpy(), "str": "A text"}[kind]
            message = rf"{key} must be a tensor, was: {kind}.*return_tensors='pt'"
            with pytest.raises(ValueError, match=message):
                model(**{**batch, key: value})

    def test_no_words_after_truncation(self, name, tiny_model_folder, tokenizer):
        model = load(name, tiny_model_folder)
        batch = batch_for(name, tokenizer)
        width = batch["input_ids"].shape[-1]
        cut = {
            key: tensor.narrow(tensor.shape.index(width), 0, 0) if width in tensor.shape else tensor
            for key, tensor in batch.items()
        }
        assert cut["input_ids"].shape[-1] == 0
        with pytest.raises(ValueError, match=r"no words .*(truncated|truncation)"):
            model(**cut)

    def test_a_batch_without_any_label_changes_nothing(self, name, tiny_model_folder, tokenizer):
        """Trainer then says that there are 0 labels to divide by."""
        model = load(name, tiny_model_folder).train()
        batch = batch_for(name, tokenizer)
        unlabelled = {
            key: torch.full_like(tensor, -100) if "labels" in key or "positions" in key else tensor
            for key, tensor in batch.items()
        }
        for num_items in (None, 0, torch.tensor(0)):
            loss = model(**unlabelled, num_items_in_batch=num_items).loss
            assert loss == 0
            loss.backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert len(gradients) > 4
        # The two halves of a CRF's likelihood are equal up to rounding.
        assert max(gradient.abs().max() for gradient in gradients) < 1e-6
