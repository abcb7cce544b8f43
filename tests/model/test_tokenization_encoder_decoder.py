"""The two tokenizers of a model that writes, as one."""

import copy
import json
import pickle
import shutil

import pytest
import torch
from datasets.fingerprint import Hasher
from small_translator import SOURCES, TARGETS, small_translator, target_tokenizer, two_tokenizers
from transformers import AutoTokenizer, BertTokenizer, DataCollatorForSeq2Seq, GPT2Tokenizer
from transformers.trainer_utils import align_special_tokens
from transformers.utils import to_py_obj

from hf_elmo import ElmoEncoderDecoderTokenizer, ElmoTokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return two_tokenizers()


def bert_tokenizer():
    return BertTokenizer(
        vocab={
            word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ein", "hund"])
        }
    )


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert to_py_obj(one[name]) == to_py_obj(other[name]), name


def test_texts_are_the_sources_and_text_target_the_targets(tokenizer):
    source, target = ElmoTokenizer.create(), target_tokenizer()
    options = {"padding": True, "return_tensors": "pt"}
    same(tokenizer(SOURCES, **options), source(SOURCES, **options))
    same(tokenizer(text_target=TARGETS, **options), target(TARGETS, **options))
    same(tokenizer(SOURCES[0]), source(SOURCES[0]))
    words = [text.split() for text in SOURCES]
    same(tokenizer(words, is_split_into_words=True), source(words, is_split_into_words=True))
    both = tokenizer(SOURCES, text_target=TARGETS)
    assert both.pop("labels") == target(TARGETS)["input_ids"]
    same(both, source(SOURCES))


def test_lengths(tokenizer):
    cut = tokenizer(SOURCES, text_target=TARGETS, max_length=5, max_target_length=3, truncation=True)
    assert max(map(len, cut["input_ids"])) == 5
    assert max(map(len, cut["labels"])) == 3
    padded = tokenizer(text_target=TARGETS[0], padding="max_length", max_length=40)
    assert padded["input_ids"].count(0) == 40 - sum(padded["attention_mask"])


def test_all_else_is_the_targets(tokenizer):
    target = target_tokenizer()
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 2, 3)
    assert len(tokenizer) == len(target) == tokenizer.vocab_size
    assert tokenizer.get_vocab() == target.get_vocab()
    ids = target(TARGETS)["input_ids"]
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == TARGETS
    assert tokenizer.decode(torch.tensor(ids[0]), skip_special_tokens=True) == TARGETS[0]
    assert tokenizer.convert_ids_to_tokens(ids[0]) == target.convert_ids_to_tokens(ids[0])
    assert tokenizer.convert_tokens_to_ids("</S>") == 3
    assert tokenizer.tokenize("A cat.") == ["A", "cat", "."]


def test_batches_for_training(tokenizer):
    """With the library's collator; targets are padded as targets."""
    model = small_translator()
    rows = [tokenizer(source, text_target=target) for source, target in zip(SOURCES, TARGETS, strict=True)]
    batch = DataCollatorForSeq2Seq(tokenizer, model=model)(rows)
    assert batch["character_ids"].shape == (*batch["input_ids"].shape, 50)
    assert torch.equal(batch["labels"] == -100, batch["labels"] < 0)
    assert batch["decoder_input_ids"][:, 0].tolist() == [2] * 4
    assert model(**batch).loss.isfinite()
    padded = tokenizer.pad({"input_ids": tokenizer(text_target=TARGETS)["input_ids"]}, return_tensors="pt")
    assert torch.equal(
        padded["input_ids"], tokenizer(text_target=TARGETS, padding=True, return_tensors="pt")["input_ids"]
    )


def test_trainer_gives_the_model_the_ids_of_targets():
    """The source's ids, added to those of a target with others, filled finished texts with rubbish."""
    target = bert_tokenizer()
    tokenizer = ElmoEncoderDecoderTokenizer(ElmoTokenizer.create(["a", "b"]), target)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.eos_token_id) == ("[CLS]", "[SEP]", 3)
    model = small_translator(vocab_size=7)
    model.generation_config.eos_token_id = 5
    align_special_tokens(model, tokenizer)
    assert model.generation_config.eos_token_id in (3, [3], [3, 5])
    assert model.generation_config.pad_token_id == 0
    plain = small_translator()
    before = plain.generation_config.to_dict()
    align_special_tokens(plain, two_tokenizers())
    assert plain.generation_config.to_dict() == before


@pytest.mark.parametrize("make", [target_tokenizer, bert_tokenizer])
def test_saved_and_loaded_as_one(make, tmp_path):
    tokenizer = ElmoEncoderDecoderTokenizer(ElmoTokenizer.create(["dog", "cat"], max_characters_per_token=20), make())
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert type(again) is ElmoEncoderDecoderTokenizer
    assert type(again.target) is type(tokenizer.target)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["auto_map"]["AutoTokenizer"][0] == "tokenization_encoder_decoder_elmo.ElmoEncoderDecoderTokenizer"
    assert (tmp_path / "tokenization_encoder_decoder_elmo.py").is_file()
    again.save_pretrained(tmp_path / "again")
    third = ElmoEncoderDecoderTokenizer.from_pretrained(str(tmp_path / "again"))
    for loaded in (again, third, pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        same(loaded(SOURCES), tokenizer(SOURCES))
        same(loaded(text_target="ein hund"), tokenizer(text_target="ein hund"))
        assert loaded.special_tokens_map == tokenizer.special_tokens_map
        assert loaded.decode([5, 3]) == tokenizer.decode([5, 3])
    with pytest.raises(ValueError, match="filename_prefix is 'x': save to a folder"):
        tokenizer.save_pretrained(tmp_path, filename_prefix="x")


def test_tokens_that_are_added_are_saved(tmp_path):
    tokenizer, model = two_tokenizers(), small_translator()
    assert tokenizer.add_tokens(["Katzenklo"]) == 1
    assert tokenizer.add_special_tokens({"mask_token": "[M]"}) == 1
    assert tokenizer.mask_token_id == len(tokenizer) - 1 == 301
    model.resize_token_embeddings(len(tokenizer))
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert len(again) == 302
    assert again(text_target="Katzenklo")["input_ids"] == [300, 3]
    assert again.mask_token_id == 301


def test_calls_leave_the_sources_as_they_are(tokenizer):
    """So `datasets` knows what it has mapped before."""
    tokenizer(text_target=TARGETS, truncation=True, max_length=4)
    before = Hasher.hash(tokenizer)
    tokenizer(SOURCES, truncation=True, max_length=4)
    assert Hasher.hash(tokenizer) == before


# Bad input


def test_tokenizers_that_are_no_pair():
    elmo = ElmoTokenizer.create()
    with pytest.raises(TypeError, match="source's tokenizer must be an ElmoTokenizer, was: TokenizersBackend"):
        ElmoEncoderDecoderTokenizer(target_tokenizer(), elmo)
    with pytest.raises(TypeError, match="target's tokenizer must be one of transformers, was: str"):
        ElmoEncoderDecoderTokenizer(elmo, "folder")


def test_targets_without_special_tokens():
    elmo = ElmoTokenizer.create()
    gpt2 = GPT2Tokenizer(vocab={"<|endoftext|>": 0, "a": 1}, merges=[])
    with pytest.raises(ValueError, match=r"GPT2Tokenizer.* has no token for padding.*train_target_tokenizer"):
        ElmoEncoderDecoderTokenizer(elmo, gpt2)
    gpt2.pad_token = gpt2.eos_token
    with pytest.raises(ValueError, match=r"pads with its end .*would never learn to stop"):
        ElmoEncoderDecoderTokenizer(elmo, gpt2)
    gpt2.add_special_tokens({"pad_token": "[PAD]"})
    with pytest.raises(ValueError, match=r"does not put its end .* behind a text.*add_eos_token = True"):
        ElmoEncoderDecoderTokenizer(elmo, gpt2)
    gpt2.add_eos_token = True
    assert ElmoEncoderDecoderTokenizer(elmo, gpt2)(text_target="a")["input_ids"] == [1, 0]
    nothing = target_tokenizer()
    nothing.bos_token = nothing.eos_token = None
    with pytest.raises(ValueError, match="has no token for start and end"):
        ElmoEncoderDecoderTokenizer(elmo, nothing)


@pytest.mark.parametrize("text", ["", " \n", ["A dog", "\t"], [["a"], []]])
@pytest.mark.parametrize("options", [{}, {"padding": True}, {"return_tensors": "np"}, {"add_special_tokens": False}])
def test_sources_without_words(text, options, tokenizer):
    split = isinstance(text, list) and isinstance(text[0], list)
    if options.get("return_tensors") and isinstance(text, list):
        options = {**options, "padding": True}
    with pytest.raises(ValueError, match=r"has no words, so that there is nothing to write of it"):
        tokenizer(text, is_split_into_words=split, **options)


def test_nothing_to_encode(tokenizer):
    with pytest.raises(ValueError, match="There is nothing to encode"):
        tokenizer()


@pytest.mark.parametrize("missing", ["source_tokenizer", "target_tokenizer"])
def test_folders_without_one_of_the_two(missing, tmp_path):
    two_tokenizers().save_pretrained(tmp_path)
    shutil.rmtree(tmp_path / missing)
    with pytest.raises(ValueError, match=f"has no {missing}: it does not hold the two tokenizers"):
        AutoTokenizer.from_pretrained(tmp_path)
