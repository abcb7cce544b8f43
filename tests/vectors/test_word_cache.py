"""Words' vectors that a model keeps: never those of another computation than the one that is asked for."""

import copy
import pickle

import peft
import pytest
import torch
from low_precision import assert_as_near, double
from small_models import fill, random_words, small_config
from torch.nn.utils import parametrize, prune

import hf_elmo
from hf_elmo import ElmoModel, ElmoTokenizer
from hf_elmo.vectors.word_cache import RecentWords, cache_words, remember_words

WORDS = random_words([9, 5])


def vectors(model):
    with torch.no_grad():
        return torch.stack(model(character_ids=WORDS, output_hidden_states=True).hidden_states)


def without_cache(model):
    encoder = model.base_model.character_encoder if hasattr(model, "base_model") else model.character_encoder
    cache, encoder.cache = encoder.cache, None
    try:
        return vectors(model)
    finally:
        encoder.cache = cache


def assert_fresh(model, encoder):
    """What the model gives with its cache is what it gives without."""
    found = vectors(model)
    cache, encoder.cache = encoder.cache, None
    expected = vectors(model)
    encoder.cache = cache
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    return found


@pytest.fixture
def model():
    model = fill(ElmoModel(small_config(cell_size=9, projection_dim=6))).eval()
    remember_words(model)
    return model


class Scale(torch.nn.Module):
    """A parametrisation with a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("factor", torch.ones(()))

    def forward(self, weight):
        return weight * self.factor


class TestSameParametersAnotherComputation:
    """Nothing here changes a parameter; a cache that looked at parameters alone gave old vectors."""

    @pytest.fixture
    def adapted(self, model):
        config = peft.LoraConfig(target_modules=["projection"], init_lora_weights=False)
        adapted = peft.get_peft_model(model, config, adapter_name="one").eval()
        adapted.add_adapter("two", config)
        return adapted

    def test_an_adapter_that_is_switched_off(self, model, adapted):
        encoder = model.character_encoder
        with_adapter = assert_fresh(adapted, encoder)
        with adapted.disable_adapter():
            assert (assert_fresh(adapted, encoder) - with_adapter).abs().max() > 1e-2
        torch.testing.assert_close(assert_fresh(adapted, encoder), with_adapter, rtol=0, atol=1e-5)

    def test_another_adapter(self, model, adapted):
        first = assert_fresh(adapted, model.character_encoder)
        adapted.set_adapter("two")
        assert (assert_fresh(adapted, model.character_encoder) - first).abs().max() > 1e-2

    def test_an_adapter_that_is_merged(self, model, adapted):
        first = assert_fresh(adapted, model.character_encoder)
        adapted.set_adapter("two")
        adapted.merge_adapter()
        second = assert_fresh(adapted, model.character_encoder)
        merged = adapted.merge_and_unload()
        torch.testing.assert_close(assert_fresh(merged, merged.character_encoder), second, rtol=0, atol=1e-5)
        assert (second - first).abs().max() > 1e-2

    def test_a_second_mask_of_pruning(self, model):
        encoder = model.character_encoder
        before = vectors(model)
        for seed in range(2):
            torch.manual_seed(seed)
            prune.random_unstructured(encoder.projection, "weight", amount=0.4)
            pruned = assert_fresh(model, encoder)
            assert (pruned - before).abs().max() > 1e-2
            before = pruned
        encoder.projection.weight_mask.mul_(0)
        assert (assert_fresh(model, encoder) - before).abs().max() > 1e-2

    def test_a_buffer_of_a_parametrisation(self, model):
        encoder = model.character_encoder
        parametrize.register_parametrization(encoder.highways[0].transform, "weight", Scale())
        before = assert_fresh(model, encoder)
        encoder.highways[0].transform.parametrizations.weight[0].factor.fill_(3)
        assert (assert_fresh(model, encoder) - before).abs().max() > 1e-2

    def test_a_hook(self, model):
        encoder = model.character_encoder
        before = vectors(model)
        handle = encoder.highways[0].register_forward_hook(lambda module, inputs, output: output * 2)
        assert (assert_fresh(model, encoder) - before).abs().max() > 1e-2
        handle.remove()
        torch.testing.assert_close(vectors(model), before, rtol=0, atol=1e-5)

    def test_a_hook_on_all_modules(self, model):
        before = vectors(model)

        def hook(module, inputs, output):
            return output * 2 if module is model.character_encoder.projection else None

        handle = torch.nn.modules.module.register_module_forward_hook(hook)
        try:
            assert (assert_fresh(model, model.character_encoder) - before).abs().max() > 1e-2
        finally:
            handle.remove()

    def test_another_activation(self, model):
        before = vectors(model)
        model.character_encoder.activation = torch.tanh
        assert (assert_fresh(model, model.character_encoder) - before).abs().max() > 1e-2

    def test_a_method_put_in_another_place(self, model):
        before = vectors(model)
        highway = model.character_encoder.highways[0]
        plain = highway.forward
        highway.forward = lambda inputs: plain(inputs) + 1
        assert (assert_fresh(model, model.character_encoder) - before).abs().max() > 1e-2

    def test_autocast(self, model):
        before = vectors(model)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            within = without_cache(model)
            assert torch.equal(vectors(model), within)
        assert torch.equal(vectors(model), before)

    def test_a_table_of_words_too(self, model):
        tokenizer = ElmoTokenizer.create(max_characters_per_token=8)
        cache_words(model, tokenizer, ["king", "left"])
        inputs = tokenizer([["king", "left"]], is_split_into_words=True, return_tensors="pt")["character_ids"]
        encoder = model.character_encoder
        encoder.highways[0].register_forward_hook(lambda module, inputs, output: output * 2)
        with torch.no_grad():
            torch.testing.assert_close(encoder(inputs)[0], encoder.encode(inputs[0]), rtol=0, atol=1e-5)


def test_word_ids_that_are_far_apart_are_told_apart():
    """Rows were compared in 16 bits: a word's id and the same 65536 further were one."""
    model = fill(ElmoModel(small_config(word_embed_dim=4, vocab_size=70_000)))
    remember_words(model)
    rows = random_words([1])[0]
    ids = torch.tensor([[5], [65_536 + 5]])
    both = torch.cat([rows.expand(2, -1), ids], dim=1)
    with torch.no_grad():
        for row in (both[:1], both[1:]):
            found = model.character_encoder(row)
            model.character_encoder.cache, cache = None, model.character_encoder.cache
            torch.testing.assert_close(found, model.character_encoder(row), rtol=0, atol=1e-5)
            model.character_encoder.cache = cache


@pytest.mark.parametrize("make_copy", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_model_has_a_cache_of_its_own(model, make_copy):
    before = vectors(model)
    twin = make_copy(model)
    assert twin.character_encoder.cache.capacity == model.character_encoder.cache.capacity
    twin.character_encoder.projection.weight.data.mul_(2)
    assert (assert_fresh(twin, twin.character_encoder) - before).abs().max() > 1e-2
    assert torch.equal(vectors(model), before)


def test_embedding_leaves_no_cache_on_the_model(tiny_model_folder):
    model = ElmoModel.from_pretrained(tiny_model_folder).eval()
    seen = []
    model.character_encoder.register_forward_hook(lambda module, *_: seen.append(module.cache))
    list(hf_elmo.embed_sentences(model, ElmoTokenizer.create(), ["The king left ."] * 3))
    assert seen
    assert set(seen) == {None}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.float16])
@pytest.mark.parametrize("words", [["king"], ["king", "left", "</S>", "<S>", "the"]])
def test_a_table_and_another_dtype(dtype, words):
    """A table of float32 vectors and a model that was brought to another dtype gave "expected scalar type"."""
    model = fill(ElmoModel(small_config()))
    tokenizer = ElmoTokenizer.create(max_characters_per_token=8)
    cache_words(model, tokenizer, words)
    model.to(dtype)
    inputs = tokenizer(
        [["the", "king", "left"], ["king", "the", "left"]], is_split_into_words=True, return_tensors="pt"
    )
    with torch.no_grad():
        found = model(**inputs)[0]
        assert found.dtype == dtype
        model.character_encoder.cache = None
        # A table keeps its dtype, so its words are nearer than float64's are to a model that was rounded before.
        exact = double(model)(**inputs)[0]
        if dtype == torch.float64:
            torch.testing.assert_close(found, exact, rtol=0, atol=1e-5)
        else:
            assert_as_near(found, model(**inputs)[0], exact)


def test_recent_words_of_a_few_places():
    """A batch with more new words than there is room for, some of them known."""
    model = fill(ElmoModel(small_config()))
    cache = remember_words(model, 3)
    assert isinstance(cache, RecentWords)
    table = random_words([12])[0].unique(dim=0)
    with torch.no_grad():
        expected = model.character_encoder.encode(table)
        for numbers in ([0], [0, 1, 2, 3, 4, 5], [5, 0], [1, 4, 0, 2], [0, 1, 2]):
            found = model.character_encoder(table[numbers])
            torch.testing.assert_close(found, expected[numbers], rtol=0, atol=1e-5)
            assert len(cache) <= 3
