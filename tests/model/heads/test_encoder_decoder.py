"""ELMo as the encoder of models that write: the library's own class, and ours."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import fill, small_config
from small_translator import IDS, SOURCES, TARGETS, small_decoder, small_elmo, small_translator, two_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    BertConfig,
    EncoderDecoderModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from hf_elmo import (
    ElmoEncoderDecoderConfig,
    ElmoEncoderDecoderModel,
    ElmoForPreTraining,
    ElmoForTokenClassification,
    ElmoModel,
)


@pytest.fixture(scope="module")
def tokenizer():
    return two_tokenizers()


def sources(tokenizer, texts=SOURCES):
    return tokenizer(texts, padding=True, return_tensors="pt")


def pairs(tokenizer):
    """Sources and targets; padding of labels is -100."""
    batch = sources(tokenizer)
    labels = tokenizer(text_target=TARGETS, padding=True, return_tensors="pt")
    return {**batch, "labels": labels["input_ids"].masked_fill(labels["attention_mask"] == 0, -100)}


def untouched(written, end=3):
    """Rows of tokens without what stands behind their end."""
    rows = [row.tolist() for row in written]
    return [row[: row.index(end)] if end in row else row for row in rows]


# The library's own class


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_the_stock_class_runs(kind, tokenizer, tmp_path):
    """Greedy, with beams and drawn; saved and loaded."""
    small_elmo().save_pretrained(tmp_path / "elmo")
    small_decoder(kind).save_pretrained(tmp_path / "decoder")
    torch.manual_seed(0)
    model = EncoderDecoderModel.from_encoder_decoder_pretrained(tmp_path / "elmo", tmp_path / "decoder").eval()
    model.config.decoder_start_token_id, model.config.pad_token_id = 2, 0
    batch = pairs(tokenizer)
    outputs = model(**batch, output_hidden_states=True)
    assert outputs.encoder_attentions is None
    assert len(outputs.encoder_hidden_states) == 3
    model.save_pretrained(tmp_path / "both")
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "both")
    assert type(again) is EncoderDecoderModel
    torch.testing.assert_close(again(**batch).logits, outputs.logits)
    for how in ({}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}):
        written = []
        for each in (model, again):
            torch.manual_seed(4)
            written.append(
                each.generate(**sources(tokenizer), decoder_start_token_id=2, pad_token_id=0, max_new_tokens=6, **how)
            )
        assert torch.equal(*written)


@pytest.mark.parametrize("model_class", [ElmoModel, ElmoForPreTraining, ElmoForTokenClassification])
def test_outputs_have_no_attentions_but_the_field(model_class, tokenizer):
    model = fill(model_class(small_config(max_characters_per_token=50, num_labels=2, vocab_size=4)))
    outputs = model(**sources(tokenizer))
    assert outputs.attentions is None
    assert "attentions" not in outputs


# Loss


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_loss_is_the_cross_entropy_of_each_token(kind, tokenizer):
    """Against NumPy, from logits of targets that are given behind their start."""
    model, batch = small_translator(kind), pairs(tokenizer)
    outputs = model(**batch)
    labels = batch["labels"].numpy()
    shifted = np.concatenate([np.full((len(labels), 1), 2), np.where(labels == -100, 0, labels)[:, :-1]], axis=1)
    given = {name: value for name, value in batch.items() if name != "labels"}
    logits = model(**given, decoder_input_ids=torch.from_numpy(shifted)).logits.detach().double().numpy()
    log_sums = np.log(np.exp(logits).sum(axis=-1))
    rows, places = np.nonzero(labels != -100)
    losses = log_sums[rows, places] - logits[rows, places, labels[rows, places]]
    assert outputs.loss.item() == pytest.approx(losses.mean(), rel=1e-5)
    assert model(**batch, num_items_in_batch=7).loss.item() == pytest.approx(losses.sum() / 7, rel=1e-5)


def test_padding_of_targets_changes_nothing(tokenizer):
    """Also where the start of targets has the id of padding."""
    for ids in ({}, {"bos_token_id": 0}):
        model, batch = small_translator(**ids), pairs(tokenizer)
        whole = model(**batch).logits
        for row, labels in enumerate(batch["labels"]):
            alone = {name: value[row : row + 1] for name, value in batch.items()}
            alone["labels"] = labels[labels != -100][None]
            expected = model(**alone).logits[0]
            torch.testing.assert_close(whole[row, : len(expected)], expected, atol=1e-5, rtol=1e-5)


def test_the_mix_is_trained_and_the_bilm_is_not(tokenizer):
    model = small_translator().train()
    assert not model.encoder.bilstm.training
    model(**pairs(tokenizer)).loss.backward()
    has_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    inside = {name for name in has_gradient if name.startswith("encoder.")}
    assert inside == {"encoder.scalar_mixes.0.weights", "encoder.scalar_mixes.0.gamma"}
    assert {"enc_to_dec_proj.weight", "decoder.transformer.wte.weight"} <= has_gradient


@pytest.mark.parametrize("freeze", [True, False])
def test_what_is_frozen_is_frozen_after_loading(freeze, tmp_path):
    model = small_translator(elmo_fields={"freeze_bilm": freeze})

    def trained(model):
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    assert any("bilstm" in name for name in trained(model)) is not freeze
    model.save_pretrained(tmp_path)
    assert trained(ElmoEncoderDecoderModel.from_pretrained(tmp_path)) == trained(model)
    assert trained(AutoModelForSeq2SeqLM.from_pretrained(tmp_path).train()) == trained(model)


# Writing


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
@pytest.mark.parametrize("how", [{}, {"num_beams": 4}])
def test_a_batch_is_written_as_its_sentences_one_by_one(kind, how, tokenizer):
    model = small_translator(kind)
    together = model.generate(**sources(tokenizer), max_new_tokens=9, **how)
    alone = [model.generate(**sources(tokenizer, [text]), max_new_tokens=9, **how)[0] for text in SOURCES]
    assert untouched(together) == untouched(alone)
    assert len({tuple(row) for row in untouched(together)}) > 1


def test_sources_on_the_left_and_without_a_mask(tokenizer):
    """Characters say where words are, whatever the ids of padding."""
    model = small_translator(pad_token_id=7)
    batch = sources(tokenizer)
    expected = model.generate(**batch, num_beams=2, max_new_tokens=8)
    left = tokenizer(SOURCES, padding=True, padding_side="left", return_tensors="pt")
    assert torch.equal(model.generate(**left, num_beams=2, max_new_tokens=8), expected)
    characters = batch["character_ids"]
    for inputs in ({"input_ids": batch["input_ids"], "character_ids": characters}, {"character_ids": characters}):
        assert torch.equal(model.generate(**inputs, num_beams=2, max_new_tokens=8), expected)
    assert torch.equal(model.generate(characters, num_beams=2, max_new_tokens=8), expected)


def test_saved_and_loaded_it_writes_the_same(tokenizer, tmp_path):
    model = small_translator()
    model.save_pretrained(tmp_path)
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert type(again) is ElmoEncoderDecoderModel
    assert type(AutoConfig.from_pretrained(tmp_path)) is ElmoEncoderDecoderConfig
    for how in ({}, {"num_beams": 3}):
        expected = model.generate(**sources(tokenizer), max_new_tokens=9, **how)
        assert torch.equal(again.generate(**sources(tokenizer), max_new_tokens=9, **how), expected)
    half = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half(**pairs(tokenizer)).loss.isfinite()


def test_made_of_folders(tokenizer, tmp_path):
    """Also of an ELMo with a head, and a decoder that has no cross-attention yet."""
    tagger = ElmoForTokenClassification(small_config(max_characters_per_token=50, num_labels=2))
    tagger.save_pretrained(tmp_path / "elmo")
    small_decoder(add_cross_attention=True).save_pretrained(tmp_path / "decoder")
    GPT2LMHeadModel(GPT2Config(vocab_size=300, n_layer=1, n_embd=16, n_head=2, **IDS)).save_pretrained(
        tmp_path / "plain"
    )
    model = ElmoEncoderDecoderModel.from_encoder_decoder_pretrained(
        tmp_path / "elmo", tmp_path / "decoder", encoder_representation_dropout=0.1, decoder_start_token_id=5
    )
    assert model.config.encoder.representation_dropout == model.encoder.config.representation_dropout == 0.1
    assert (model.config.decoder_start_token_id, model.config.pad_token_id) == (5, 0)
    for name, saved in tagger.elmo.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], saved)
    grown = ElmoEncoderDecoderModel.from_encoder_decoder_pretrained(tmp_path / "elmo", tmp_path / "plain")
    assert grown.config.decoder_start_token_id == 2
    assert grown(**pairs(tokenizer)).loss.isfinite()


def test_the_decoders_vocabulary_is_the_models(tokenizer):
    model = small_translator()
    assert model.get_input_embeddings() is model.decoder.get_input_embeddings()
    model.resize_token_embeddings(305)
    assert model.get_output_embeddings().weight.shape == (305, 16)
    assert model.config.decoder.vocab_size == 305
    assert model(**pairs(tokenizer)).loss.isfinite()


def test_layers_computed_before(tokenizer):
    model, batch = small_translator(), pairs(tokenizer)
    layers = torch.stack(model.encoder(**sources(tokenizer), output_hidden_states=True).hidden_states, dim=1)
    expected = model(**batch)
    del batch["character_ids"]
    torch.testing.assert_close(model(**batch, layer_states=layers).logits, expected.logits)


# Bad input


def test_decoders_without_cross_attention():
    llama = LlamaForCausalLM(
        LlamaConfig(vocab_size=30, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    )
    with pytest.raises(ValueError, match="LlamaForCausalLM has no cross-attention"):
        ElmoEncoderDecoderModel(encoder=small_elmo(), decoder=llama)
    plain = GPT2LMHeadModel(GPT2Config(vocab_size=30, n_layer=1, n_embd=8, n_head=2, **IDS))
    with pytest.raises(ValueError, match=r"GPT2LMHeadModel was made without cross-attention.*add_cross_attention=True"):
        ElmoEncoderDecoderModel(encoder=small_elmo(), decoder=plain)
    with pytest.raises(ValueError, match="made without cross-attention"):
        ElmoEncoderDecoderModel.from_encoder_decoder_pretrained(encoder_model=small_elmo(), decoder_model=plain)


def test_parts_that_are_missing_or_others(tmp_path):
    with pytest.raises(ValueError, match=r"must be an ElmoModel, was: ElmoForPreTraining.*base_model"):
        ElmoEncoderDecoderModel(encoder=ElmoForPreTraining(small_config(vocab_size=4)), decoder=small_decoder())
    with pytest.raises(ValueError, match="Give a configuration, or both"):
        ElmoEncoderDecoderModel(encoder=small_elmo())
    with pytest.raises(ValueError, match="There is no decoder: give its folder"):
        ElmoEncoderDecoderModel.from_encoder_decoder_pretrained(encoder_model=small_elmo())
    with pytest.raises(ValueError, match="must be an ElmoEncoderDecoderConfig, was: ElmoConfig"):
        ElmoEncoderDecoderModel(small_config())
    with pytest.raises(ValueError, match="must be an ElmoConfig, was: BertConfig"):
        ElmoEncoderDecoderConfig.from_encoder_decoder_configs(BertConfig(), GPT2Config())
    small_elmo().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="model type 'elmo' without encoder and decoder"):
        ElmoEncoderDecoderModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_folders_with_one_part_alone(part, tmp_path):
    small_translator().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith(f"{part}.")}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"has no weights of the {part}"):
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    del config[part]
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match=f"without {part}, but an ElmoEncoderDecoderModel has both"):
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path)


def test_ids_that_are_not_the_decoders():
    with pytest.raises(ValueError, match=r"ids 0 to 299, but decoder_start_token_id is 50256.*bos_token_id=target"):
        small_translator(bos_token_id=50256)
    with pytest.raises(ValueError, match="need a start, an end and padding, but decoder_start_token_id is None"):
        small_translator("bert", bos_token_id=None)
    # GPT-2's own habit: no padding of its own.
    assert small_translator(pad_token_id=None).config.pad_token_id == 3


def test_inputs_that_cannot_be(tokenizer):
    model, batch = small_translator(), pairs(tokenizer)
    with pytest.raises(ValueError, match=r"A label is \d+, but the decoder's vocabulary has the ids 0 to 299"):
        model(**{**batch, "labels": batch["labels"] + 297})
    with pytest.raises(ValueError, match="A target has 49 tokens, but the decoder has positions for 48"):
        model(**{**batch, "labels": torch.full((4, 49), 9)})
    with pytest.raises(ValueError, match=r"go on to 49 tokens.*max_new_tokens to at most 47"):
        model.generate(**sources(tokenizer), max_new_tokens=48)
    with pytest.raises(ValueError, match="go on to 60 tokens"):
        model.generate(**sources(tokenizer), max_length=60)
    with pytest.raises(ValueError, match="nothing to predict: give labels, or decoder_input_ids"):
        model(**sources(tokenizer))
    with pytest.raises(ValueError, match="ELMo reads character_ids"):
        model(input_ids=batch["input_ids"], labels=batch["labels"])
    with pytest.raises(ValueError, match="ELMo reads character_ids"):
        model.generate(batch["input_ids"])
    empty = {**batch, "attention_mask": batch["attention_mask"].clone()}
    empty["attention_mask"][2] = 0
    with pytest.raises(ValueError, match="source in row 2 of the batch has no words"):
        model(**empty)
    del empty["labels"]
    with pytest.raises(ValueError, match="source in row 2 of the batch has no words"):
        model.generate(**empty)
    with pytest.raises(ValueError, match=r"labels are \(4, 3\), but there are \(batch, tokens\)"):
        model(**{**batch, "labels": batch["labels"][:, :3]}, decoder_input_ids=torch.ones(4, 5, dtype=torch.long))
