"""Models that read words in place of characters: through every part of the package that reads text."""

import pickle

import pytest
import torch
from datasets import Dataset
from isolated import run_isolated
from small_models import fill, small_config
from transformers import AutoTokenizer
from typer.testing import CliRunner

import hf_elmo
from hf_elmo import (
    ElmoForMultipleChoice,
    ElmoForPreTraining,
    ElmoForQuestionAnswering,
    ElmoForSequenceClassification,
    ElmoForTokenClassification,
    ElmoModel,
    ElmoTokenizer,
)
from hf_elmo.commands.app import app
from hf_elmo.export import ElmoGraph, export_program
from hf_elmo.model.lstm.tracing import encode_padded
from hf_elmo.vectors.word_cache import cache_words

WORDS = ["the", "cat", "sat", ".", "naïve", "on", "mat", "a"]
SENTENCES = [["the", "cat", "sat", "on", "a", "zebra"], ["naïve", "."]]


def config_of(**fields):
    return small_config(character_inputs=False, vocab_size=4 + len(WORDS), **fields)


@pytest.fixture(scope="module")
def tokenizer():
    return ElmoTokenizer.create(WORDS, reads_characters=False)


def language_model(**fields):
    model = fill(ElmoForPreTraining(config_of(**fields)))
    with torch.no_grad():
        model.elmo.character_encoder.word_embedding.weight[0] = 0
    return model


@pytest.fixture(scope="module")
def model():
    return language_model()


class TestTokenizer:
    def test_words_and_nothing_else(self, tokenizer):
        encoded = tokenizer(SENTENCES, is_split_into_words=True, padding=True, return_tensors="pt")
        assert list(encoded) == ["input_ids", "token_type_ids", "attention_mask"]
        assert encoded["input_ids"].tolist() == [[2, 4, 5, 6, 9, 11, 1, 3], [2, 8, 7, 3, 0, 0, 0, 0]]
        assert tokenizer("the zebra")["input_ids"] == [2, 4, 1, 3]
        assert (tokenizer.row_length, tokenizer.reads_characters) == (1, False)
        # A word is never cut, however long.
        assert tokenizer("x" * 999, return_truncated_words=True)["truncated_words"] == [0, 0, 0]

    def test_saved_and_loaded(self, tokenizer, tmp_path):
        tokenizer.save_pretrained(tmp_path)
        for loaded in (ElmoTokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
            assert loaded(SENTENCES, is_split_into_words=True) == tokenizer(SENTENCES, is_split_into_words=True)
            assert not loaded.reads_characters
        assert pickle.loads(pickle.dumps(tokenizer))("cat") == tokenizer("cat")

    def test_padding(self, tokenizer):
        rows = [tokenizer("the cat"), tokenizer("mat")]
        padded = tokenizer.pad(rows, return_tensors="pt")
        assert padded["input_ids"].tolist() == [[2, 4, 5, 3], [2, 10, 3, 0]]
        assert "character_ids" not in padded

    @pytest.mark.parametrize("also", [{"characters": "ab"}, {"word_ids_in_rows": True}])
    def test_characters_of_none(self, also):
        with pytest.raises(ValueError, match="reads no characters"):
            ElmoTokenizer.create(WORDS, reads_characters=False, **also)


class TestConfig:
    def test_fields_follow(self):
        config = config_of()
        assert (config.word_embed_dim, config.row_length) == (5, 1)
        assert type(config).from_dict(config.to_dict()).to_dict() == config.to_dict()

    @pytest.mark.parametrize(
        ("fields", "part"),
        [
            ({"word_embed_dim": 3}, r"word_embed_dim is 3: leave word_embed_dim"),
            ({"char_cnn_filters": [[3, 8]]}, "has nothing to read"),
            ({"char_lstm_size": 4, "char_cnn_characters": "ab"}, "has nothing to read"),
        ],
    )
    def test_what_contradicts(self, fields, part):
        with pytest.raises(ValueError, match=part):
            config_of(**fields)

    def test_no_words_to_share(self):
        with pytest.raises(ValueError, match="tie_word_embeddings is for models that read words"):
            small_config(tie_word_embeddings=True)


class TestModel:
    def test_a_sentence_alone_and_in_a_batch(self, model, tokenizer):
        batch = tokenizer(SENTENCES, is_split_into_words=True, padding=True, return_tensors="pt")
        with torch.no_grad():
            together = model.elmo(**batch).last_hidden_state
            for row, sentence in enumerate(SENTENCES):
                alone = model.elmo(**tokenizer(sentence, is_split_into_words=True, return_tensors="pt"))
                torch.testing.assert_close(together[row, : len(sentence) + 2], alone.last_hidden_state[0])
            # Ids as rows of one number are the same words; without a mask padding is told by its id.
            rows = model.elmo(character_ids=batch["input_ids"].unsqueeze(-1)).last_hidden_state
        assert torch.equal(rows, together)

    @pytest.mark.parametrize(
        ("inputs", "part"),
        [
            ({}, r"expected input_ids \(batch, words\), was: neither"),
            ({"input_ids": torch.ones(2, 3, 8, dtype=torch.long)}, r"was: \(2, 3, 8\)"),
            ({"character_ids": torch.ones(2, 3, 8, dtype=torch.long)}, r"was: \(2, 3, 8\)"),
            ({"input_ids": torch.ones(3, dtype=torch.long)}, r"was: \(3,\)"),
            ({"input_ids": torch.tensor([[2, 12, 3]])}, "reach from 2 to 12, but the model knows words 0 to 11"),
            ({"input_ids": [[2, 3]]}, "must be a tensor"),
        ],
    )
    def test_other_inputs(self, model, inputs, part):
        with pytest.raises(ValueError, match=part):
            model.elmo(**inputs)

    @pytest.mark.parametrize("tied", [False, True])
    def test_saved_resized_and_trained(self, tokenizer, tmp_path, tied):
        model = language_model(tie_word_embeddings=tied)
        model.save_pretrained(tmp_path)
        loaded, report = ElmoForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
        assert not report["missing_keys"] | report["unexpected_keys"]
        for name, value in loaded.state_dict().items():
            assert torch.equal(value, model.state_dict()[name]), name
        loaded.resize_token_embeddings(20)
        embedding, softmax = loaded.elmo.character_encoder.word_embedding.weight, loaded.softmax.weight
        assert embedding.shape == softmax.shape == (20, 5)
        assert (embedding is softmax) == tied
        assert loaded.get_input_embeddings().weight is embedding
        assert torch.equal(embedding[:12], model.elmo.character_encoder.word_embedding.weight)
        inputs = tokenizer(SENTENCES, is_split_into_words=True, padding=True, return_tensors="pt")
        loaded.train()(**inputs, labels=inputs["input_ids"].masked_fill(inputs["input_ids"] == 0, -100)).loss.backward()
        # Neither padding is learned, nor words that are not there.
        assert embedding.grad[0].count_nonzero() == 0
        assert embedding.grad[4].count_nonzero()
        assert bool(embedding.grad[10].count_nonzero()) == tied

    @pytest.mark.parametrize("part", ["sampled", "full"])
    def test_padding_stays_zero_in_training(self, tokenizer, part):
        model = language_model(tie_word_embeddings=True, num_negative_samples=4 if part == "sampled" else None)
        inputs = tokenizer(SENTENCES, is_split_into_words=True, padding=True, return_tensors="pt")
        labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == 0, -100)
        optimizer = torch.optim.Adam(model.train().parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(**inputs, labels=labels).loss.backward()
            optimizer.step()
        assert model.softmax.weight[0].count_nonzero() == 0

    def test_heads(self, tokenizer):
        pair = tokenizer([["the", "cat"]], [["a", "mat", "sat"]], is_split_into_words=True, return_tensors="pt")
        choices = {name: values.repeat(2, 1).unsqueeze(0) for name, values in pair.items()}
        for kind, inputs in (
            (ElmoForSequenceClassification, pair),
            (ElmoForTokenClassification, pair),
            (ElmoForQuestionAnswering, pair),
            (ElmoForMultipleChoice, choices),
        ):
            head = fill(kind(config_of(task_encoder_size=3, classifier_size=4)))
            with torch.no_grad():
                first = head(**inputs)
                other = {**inputs, "input_ids": inputs["input_ids"].masked_fill(inputs["input_ids"] == 5, 9)}
                assert not torch.equal(first[0], head(**other)[0]), kind
            assert set(head.dummy_inputs) >= {"input_ids"}

    @pytest.mark.parametrize("as_rows", [False, True])
    def test_where_question_and_context_meet(self, tokenizer, as_rows):
        pair = tokenizer([["the", "cat"]], [["a", "mat", "sat"]], is_split_into_words=True, return_tensors="pt")
        head = ElmoForQuestionAnswering(config_of(task_encoder_size=3, classifier_size=4))
        ids = pair["input_ids"]
        given = (None, ids.unsqueeze(-1)) if as_rows else (ids, None)
        found = head._segments_between_boundaries(ids != 0, *given)
        assert torch.equal(found, pair["token_type_ids"])

    def test_quantized(self, model, tokenizer):
        inputs = tokenizer("the cat sat", return_tensors="pt")
        small = hf_elmo.quantize(language_model())
        with torch.no_grad():
            torch.testing.assert_close(small(**inputs).logits, model(**inputs).logits, rtol=0, atol=0.2)


class TestPackage:
    def test_embedding_and_scores(self, model, tokenizer):
        (first, _) = hf_elmo.embed_sentences(model.elmo, tokenizer, SENTENCES, layers="all")
        with torch.no_grad():
            inputs = tokenizer(SENTENCES[0], is_split_into_words=True, return_tensors="pt")
            outputs = model.elmo(**inputs, output_hidden_states=True).hidden_states
        torch.testing.assert_close(torch.from_numpy(first.vectors), torch.stack(outputs)[:, 0, 1:-1])
        assert hf_elmo.perplexity(model, tokenizer, SENTENCES).words == 10
        streamed = torch.stack(list(hf_elmo.stream(model, tokenizer, SENTENCES[0])))
        torch.testing.assert_close(streamed.transpose(0, 1), torch.stack(outputs)[:, 0, 1:-1, :5])
        assert hf_elmo.substitutes(model, tokenizer, "the [MASK] sat")
        with pytest.raises(ValueError, match="nothing to cache"):
            cache_words(model, tokenizer, WORDS)
        hf_elmo.remember_words(model)
        model.elmo.character_encoder.cache = None

    def test_stored_layers(self, model, tokenizer, tmp_path):
        rows = Dataset.from_dict({"words": SENTENCES}).map(
            lambda row: tokenizer(row["words"], is_split_into_words=True)
        )
        stored = hf_elmo.precompute_layers(rows, model, tmp_path)
        assert stored.column_names == [*rows.column_names, "layer_states"]
        with torch.no_grad():
            inputs = tokenizer(SENTENCES[1], is_split_into_words=True, return_tensors="pt")
            outputs = model.elmo(**inputs, output_hidden_states=True).hidden_states
        torch.testing.assert_close(torch.tensor(stored[1]["layer_states"]), torch.stack(outputs)[:, 0])
        characters = rows.add_column("character_ids", [[[1]]] * 2)
        with pytest.raises(ValueError, match="this model reads words: tokenise"):
            hf_elmo.precompute_layers(characters, model, tmp_path)

    def test_what_a_graph_reads(self, model):
        graph = ElmoGraph(model.elmo)
        assert graph.input_names == ["input_ids", "attention_mask", "token_type_ids"]
        rows = graph.example_inputs()["input_ids"].unsqueeze(-1)
        encoder = model.elmo.character_encoder
        assert torch.equal(encode_padded(encoder, rows), encoder(rows))

    @pytest.mark.slow
    def test_exported(self, model, tokenizer):
        program = export_program(model.elmo)
        inputs = tokenizer(SENTENCES, is_split_into_words=True, padding=True, return_tensors="pt")
        with torch.no_grad():
            expected = model.elmo(**inputs).last_hidden_state
            found = program.module()(**{name: inputs[name] for name in inputs})["last_hidden_state"]
        torch.testing.assert_close(found, expected)

    def test_trained_further_and_read_by_remote_code_alone(self, tmp_path, tokenizer):
        language_model(tie_word_embeddings=True).save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        text = tmp_path / "text.txt"
        text.write_text("\n".join([" ".join(sentence) for sentence in SENTENCES] * 20), encoding="utf-8")
        before = hf_elmo.perplexity(ElmoForPreTraining.from_pretrained(tmp_path / "model"), tokenizer, SENTENCES)
        trainer = hf_elmo.train(
            [text],
            tmp_path / "trained",
            model=tmp_path / "model",
            pretokenized=True,
            per_device_train_batch_size=4,
            unroll_steps=4,
            max_steps=60,
            learning_rate=0.02,
        )
        assert trainer.model.config.tie_word_embeddings
        loaded = ElmoForPreTraining.from_pretrained(tmp_path / "trained")
        after = hf_elmo.perplexity(loaded, ElmoTokenizer.from_pretrained(tmp_path / "trained"), SENTENCES)
        assert after.forward < 0.5 * before.forward
        result = CliRunner().invoke(app, ["info", str(tmp_path / "trained")])
        assert "character_inputs" in result.stdout
        assert "False" in result.stdout
        loaded.save_pretrained(tmp_path / "again")
        script = tmp_path / "user.py"
        script.write_text(_USER, encoding="utf-8")
        run_isolated([script, tmp_path / "trained", tmp_path / "vectors.pt"], tmp_path)
        inputs = tokenizer(SENTENCES, is_split_into_words=True, padding=True, return_tensors="pt")
        with torch.no_grad():
            expected = loaded(**inputs).logits
        torch.testing.assert_close(torch.load(tmp_path / "vectors.pt"), expected, rtol=1e-6, atol=1e-5)

    def test_a_fresh_model_is_trained(self, tmp_path):
        text = tmp_path / "text.txt"
        text.write_text("\n".join([" ".join(sentence) for sentence in SENTENCES] * 20), encoding="utf-8")
        trainer = hf_elmo.train(
            [text],
            tmp_path / "trained",
            config=config_of(num_negative_samples=3),
            pretokenized=True,
            per_device_train_batch_size=4,
            unroll_steps=4,
            max_steps=2,
        )
        assert trainer.model.config.vocab_size == 4 + 8
        folder = tmp_path / "trained"
        assert isinstance(ElmoModel.from_pretrained(folder), ElmoModel)
        assert not ElmoTokenizer.from_pretrained(folder).reads_characters


_USER = f"""
import sys
import torch
from transformers import AutoModelForPreTraining, AutoTokenizer

model = AutoModelForPreTraining.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
inputs = tokenizer({SENTENCES!r}, is_split_into_words=True, padding=True, return_tensors="pt")
with torch.no_grad():
    torch.save(model(**inputs).logits, sys.argv[2])
"""
