"""Models that read Unicode characters of a dictionary, and vectors of words beside them, as ELMoForManyLangs has it."""

import copy
import pickle

import numpy as np
import pytest
import torch
from amounts import examples
from datasets import Dataset
from datasets.fingerprint import Hasher
from hypothesis import example, given
from hypothesis import strategies as st
from small_models import fill, small_config
from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer

from hf_elmo import (
    ElmoConfig,
    ElmoForMultipleChoice,
    ElmoForPreTraining,
    ElmoForQuestionAnswering,
    ElmoForTokenClassification,
    ElmoModel,
    ElmoTokenizer,
)
from hf_elmo.model.character_encoder import CharacterEncoder
from hf_elmo.model.tokenization_elmo import character_numbers, character_rows
from hf_elmo.training.batches import WordTable
from hf_elmo.training.corpus import Corpus
from hf_elmo.training.trainer import make_model

# Beyond the 255 places before the marks, and beyond the basic plane.
CHARACTERS = "abkoø" + "".join(map(chr, range(0x4E00, 0x4E00 + 300))) + "я😀é́"
WORDS = ["bok", "ab", "一丁", "яяяяяя", "kok"]
LENGTH = 8


def tokenizer_of(**options):
    return ElmoTokenizer.create(
        WORDS, max_characters_per_token=LENGTH, characters=CHARACTERS, word_ids_in_rows=True, **options
    )


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_of()


def config_of(**fields):
    numbers = character_numbers(len(CHARACTERS))
    return small_config(
        char_vocab_size=int(numbers[-1]) + 1,
        byte_characters=False,
        word_embed_dim=4,
        vocab_size=4 + len(WORDS),
        max_characters_per_token=LENGTH,
        **fields,
    )


def row_of(word, word_id):
    """A word's row, one character at a time."""
    numbers = {character: number for number, character in zip([*range(2, 257), *range(262, 400)], CHARACTERS)}
    if word in ("<S>", "</S>"):
        inside = [257 if word == "<S>" else 258]
    else:
        inside = [numbers.get(character, 1) for character in word[: LENGTH - 2]]
    row = [259, *inside, 260]
    return [*row, *[261] * (LENGTH - len(row)), word_id]


def id_of(word):
    special = {"<S>": 2, "</S>": 3}
    return special.get(word, {word: number for number, word in enumerate(WORDS, start=4)}.get(word[: LENGTH - 2], 1))


class TestTokenizer:
    @examples(50)
    @given(st.lists(st.text(st.sampled_from("abkя一丁😀€\ud800 "), max_size=10), min_size=1, max_size=5))
    @example(["", "bok", "bokbokbok", "яяяяяяя", "<S>", "</S>", "\ud800", "\udc00b", "e\u0301", "é"])
    @example(["[PAD]", "[UNK]", "[PAD]xyz", "一" * 50])
    def test_rows(self, tokenizer, words):
        encoded = tokenizer(words, is_split_into_words=True)
        expected = ["<S>", *words, "</S>"]
        assert encoded["input_ids"] == [id_of(word) for word in expected]
        assert encoded["character_ids"] == [row_of(word, id_of(word)) for word in expected]

    def test_the_example_passes_the_marks(self):
        numbers = character_numbers(300).tolist()
        assert numbers[:2] == [2, 3]
        assert numbers[253:257] == [255, 256, 262, 263]
        assert len(set(numbers)) == 300

    def test_padding(self, tokenizer):
        sentences = [["bok", "x"], ["ab"], ["яяяяяяяяя", "一丁", "kok"]]
        separate = [tokenizer(words, is_split_into_words=True) for words in sentences]
        for side in ("right", "left"):
            batch = tokenizer(sentences, is_split_into_words=True, padding=True, padding_side=side, return_tensors="pt")
            later = tokenizer.pad(separate, padding_side=side, return_tensors="pt")
            assert batch["character_ids"].shape == (3, 5, LENGTH + 1)
            for name in ("input_ids", "character_ids", "attention_mask"):
                assert torch.equal(batch[name], later[name])
            assert torch.equal(batch["character_ids"][..., -1], batch["input_ids"])
            assert not batch["character_ids"][batch["attention_mask"] == 0].any()
        empty = tokenizer([], is_split_into_words=True, add_special_tokens=False)
        both = tokenizer.pad([empty, separate[0]], return_tensors="np")
        assert both["character_ids"].shape == (2, 4, LENGTH + 1)

    def test_text_windows_and_pairs(self, tokenizer):
        encoded = tokenizer("bok яяяяяяяя.", "一丁", return_truncated_words=True)
        # Chinese characters stand alone in text.
        words = ["<S>", "bok", "яяяяяяяя", ".", "</S>", "<S>", "一", "丁", "</S>"]
        assert encoded["input_ids"] == [id_of(word) for word in words]
        assert encoded["character_ids"] == [row_of(word, id_of(word)) for word in words]
        assert encoded["truncated_words"] == [int(len(word) > 6) for word in words]
        windows = tokenizer("bok ab x kok", truncation=True, max_length=4, stride=1, return_overflowing_tokens=True)
        assert [[row[-1] for row in rows] for rows in windows["character_ids"]] == windows["input_ids"]
        assert len(windows["input_ids"]) > 1

    def test_saved_copied_and_pickled(self, tokenizer, tmp_path):
        tokenizer.save_pretrained(tmp_path)
        words = ["bok", "一丁😀", "яяяяяяяяя", "€"]
        expected = tokenizer(words, is_split_into_words=True).data
        loaded = AutoTokenizer.from_pretrained(tmp_path)
        for each in (loaded, pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
            assert each(words, is_split_into_words=True).data == expected
            assert (each.characters, each.word_ids_in_rows, each.row_length) == (CHARACTERS, True, LENGTH + 1)
        loaded.save_pretrained(tmp_path / "again")
        assert AutoTokenizer.from_pretrained(tmp_path / "again")(words, is_split_into_words=True).data == expected

    def test_datasets_know_it_again(self, tokenizer):
        before = Hasher.hash(tokenizer)
        rows = Dataset.from_dict({"words": [["bok", "яяяяяяяяя"], ["一"]]})
        mapped = rows.map(lambda batch: tokenizer(batch["words"], is_split_into_words=True), batched=True)
        assert mapped[0]["character_ids"] == [row_of(word, id_of(word)) for word in ["<S>", *rows[0]["words"], "</S>"]]
        assert Hasher.hash(tokenizer) == before == Hasher.hash(pickle.loads(pickle.dumps(tokenizer)))
        assert Hasher.hash(ElmoTokenizer.create(WORDS, LENGTH, characters=CHARACTERS)) != before

    def test_each_switch_alone(self):
        letters = ElmoTokenizer.create(WORDS, LENGTH, characters=CHARACTERS)
        assert letters(["яяяяяяяя"], is_split_into_words=True)["character_ids"][1] == row_of("яяяяяяяя", 7)[:-1]
        ids = ElmoTokenizer.create(WORDS, LENGTH, word_ids_in_rows=True)
        plain = ElmoTokenizer.create(WORDS, LENGTH)
        found = ids(["bok", "яяяя"], is_split_into_words=True)["character_ids"]
        expected = plain(["bok", "яяяя"], is_split_into_words=True)
        assert [row[:-1] for row in found] == expected["character_ids"]
        assert [row[-1] for row in found] == expected["input_ids"]
        assert (plain.characters, plain.word_ids_in_rows, plain.row_length) == (None, False, LENGTH)

    @pytest.mark.parametrize(
        ("characters", "error", "message"),
        [
            (["a"], TypeError, "characters must be a str of all characters that are known, was: \\['a'\\]"),
            ("", ValueError, "at least one character"),
            ("aba", ValueError, "none of them twice"),
            ("a\ud800", ValueError, "lone surrogates"),
        ],
    )
    def test_bad_dictionaries(self, characters, error, message):
        with pytest.raises(error, match=message):
            ElmoTokenizer.create(characters=characters)


class TestModel:
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return fill(ElmoModel(config_of()), seed=2)

    def test_word_vectors(self, tokenizer):
        """The formula: projection of the word's vector and the features of its characters, side by side."""
        encoder = fill(CharacterEncoder(config_of()), seed=1).double()
        with torch.no_grad():
            encoder.word_embedding.weight[0] = 0
        rows = torch.tensor([row_of(word, id_of(word)) for word in ["bok", "kok", "€", "bok", "一" * 9]])
        characters = encoder.char_embedding.weight[rows[:, :-1]].transpose(1, 2)
        features = [torch.relu(convolution(characters).amax(dim=-1)) for convolution in encoder.convolutions]
        x = torch.cat(features, dim=1)
        for highway in encoder.highways:
            x = highway(x)
        x = torch.cat([encoder.word_embedding.weight[rows[:, -1]], x], dim=1)
        expected = x @ encoder.projection.weight.T + encoder.projection.bias
        torch.testing.assert_close(encoder(rows), expected)
        assert not torch.allclose(expected[0], expected[1])

    def test_the_same_letters_with_other_ids_are_other_words(self):
        encoder = fill(CharacterEncoder(config_of()), seed=1)
        rows = torch.tensor([row_of("bok", 4), row_of("bok", 5), row_of("bok", 4)])
        with torch.no_grad():
            vectors = encoder(rows)
        assert torch.equal(vectors[0], vectors[2])
        assert not torch.allclose(vectors[0], vectors[1])

    def test_gradients(self, tokenizer):
        model = fill(ElmoModel(config_of())).train()
        inputs = tokenizer([["bok", "€"], ["ab"]], is_split_into_words=True, padding=True, return_tensors="pt")
        model(**inputs).last_hidden_state.square().sum().backward()
        gradient = model.character_encoder.word_embedding.weight.grad
        assert gradient.abs().sum(dim=1).ne(0).tolist() == [False, True, True, True, True, True, False, False, False]

    def test_fresh_weights(self):
        embedding = ElmoModel(config_of()).character_encoder.word_embedding
        assert embedding.weight.shape == (9, 4)
        assert not embedding.weight[0].any()
        assert embedding.weight[1:].abs().min() > 0

    def test_saved_and_loaded(self, model, tokenizer, tmp_path):
        model.save_pretrained(tmp_path)
        config = AutoConfig.from_pretrained(tmp_path)
        assert (config.byte_characters, config.word_embed_dim, config.row_length) == (False, 4, LENGTH + 1)
        inputs = tokenizer([["bok", "€"]], is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            torch.testing.assert_close(ElmoModel.from_pretrained(tmp_path).eval()(**inputs)[0], model(**inputs)[0])

    def test_wrong_rows(self, model):
        good = torch.tensor([[row_of("bok", 4)]])
        for rows in (good[..., :-1], torch.nn.functional.pad(good, (0, 1))):
            with pytest.raises(
                ValueError, match=f"rows of {rows.shape[-1]} integers, expected 9: 8 characters and the"
            ):
                model(character_ids=rows)
        good[0, 0, -1] = 9
        with pytest.raises(ValueError, match=r"word ids at the end of character_ids reach from 9 to 9, .* 0 to 8"):
            model(character_ids=good)
        good[0, 0, -1], good[0, 0, 1] = 4, 999
        with pytest.raises(ValueError, match="character_ids reach from 4 to 999"):
            model(character_ids=good)

    @pytest.mark.parametrize(
        "head", [ElmoForTokenClassification, ElmoForMultipleChoice, ElmoForQuestionAnswering, ElmoForPreTraining]
    )
    def test_heads_take_the_rows(self, head, tokenizer):
        model = head(config_of(char_cnn_filters=[[2, 3]], word_vector_size=2)).eval()
        inputs = tokenizer(["bok", "ab"], ["kok", "一"], padding=True, return_tensors="pt")
        if head is ElmoForMultipleChoice:
            inputs = {
                name: value.flatten(1)[None] if value.dim() > 2 else value[None] for name, value in inputs.items()
            }
            inputs["character_ids"] = inputs["character_ids"].view(1, 2, -1)
        with torch.no_grad():
            for given_inputs in (inputs, model.dummy_inputs if head is not ElmoForMultipleChoice else inputs):
                output = model(**given_inputs)
                assert all(value.isfinite().all() for value in output.values() if torch.is_tensor(value))

    def test_boundaries_are_known_by_their_marks(self, tokenizer, tmp_path):
        """The taggers' labels of `<S>` and `</S>` do not count."""
        model = AutoModelForTokenClassification.from_config(config_of(num_labels=3))
        inputs = tokenizer(["bok", "ab"], is_split_into_words=True, return_tensors="pt")
        assert [len(row) for row in model.decode(**inputs)] == [2]

    def test_what_cannot_be(self):
        with pytest.raises(ValueError, match="word_embed_dim must be a whole number of at least 0, was: -1"):
            ElmoConfig(word_embed_dim=-1)
        with pytest.raises(ValueError, match="char_cnn_characters are decoded from bytes"):
            config_of(char_cnn_filters=[[1, 2]], char_cnn_characters="ab")
        # Padding, unknown characters and five marks come to those of the dictionary.
        size = len(CHARACTERS) + 7
        with pytest.raises(ValueError, match=f"this one has {size} of a dictionary, word vectors of 4, and cannot"):
            config_of().to_options()
        with pytest.raises(ValueError, match="word vectors of 3, and cannot be written"):
            ElmoConfig(word_embed_dim=3).to_options()
        with pytest.raises(ValueError, match="of a dictionary, and cannot be written"):
            ElmoConfig(byte_characters=False).to_options()


class TestTraining:
    @pytest.fixture
    def corpus(self, tmp_path):
        return Corpus.save([["bok", "ab", "一丁"], ["ab", "kok", "яяяяяяяя"]], tmp_path / "corpus", {})

    def test_tables_of_words(self, tokenizer):
        lexicon = ["bok", "яяяяяяяя", "€", "[PAD]", "一丁"]
        table = WordTable.of(lexicon, tokenizer)
        assert table.word_ids.tolist() == [2, 3, *map(id_of, lexicon)]
        rows = [row_of(word, id_of(word)) for word in ("<S>", "</S>", *lexicon)]
        assert table.character_ids.tolist() == rows
        (row,) = character_rows(["<S>"], LENGTH, {}, CHARACTERS)[0].tolist()
        assert WordTable.of(["<S>"], tokenizer).character_ids.tolist()[2] == [*row, 1]

    def test_training_further(self, tokenizer, tmp_path, corpus):
        folder = tmp_path / "model"
        ElmoModel(config_of()).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        model, own = make_model(corpus, model=folder)
        assert own.get_vocab() == tokenizer.get_vocab()
        assert own.characters == CHARACTERS
        assert model.softmax.out_features == len(tokenizer)
        with pytest.raises(ValueError, match="has a word embedding with a vocabulary of its own"):
            make_model(corpus, model=folder, vocabulary=["bok"])
        table = WordTable.of(["bok", "ab"], own)
        ids, characters = table.ids(np.array([[0, 2, 3]])), table.characters(np.array([[0, 2, 3]]))
        loss = model.train()(input_ids=ids, character_ids=characters, labels=ids).loss
        loss.backward()
        assert model.elmo.character_encoder.word_embedding.weight.grad[[2, 4, 5]].abs().sum(dim=1).gt(0).all()

    def test_without_word_embedding_the_vocabulary_is_new(self, tmp_path, corpus):
        folder = tmp_path / "model"
        config = config_of()
        config.word_embed_dim = 0
        ElmoModel(config).save_pretrained(folder)
        ElmoTokenizer.create(WORDS, LENGTH, characters=CHARACTERS).save_pretrained(folder)
        model, own = make_model(corpus, model=folder, vocabulary=["ab"])
        assert (own.characters, own.max_characters_per_token) == (CHARACTERS, LENGTH)
        assert len(own) == model.config.vocab_size == 5

    def test_fresh_models_read_bytes(self, corpus):
        with pytest.raises(ValueError, match="A fresh model reads bytes"):
            make_model(corpus, config=config_of())
