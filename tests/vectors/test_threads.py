"""One model, tokenizer or pipeline shared by threads gives bit for bit what it gives to one thread.

The switch interval of the interpreter is set as short as it goes, so that threads meet in the middle of everything.
"""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from amounts import first_of
from small_models import fill, small_config
from transformers import pipeline

import hf_elmo
from hf_elmo import ElmoForPreTraining, ElmoModel, ElmoTokenizer
from hf_elmo.vectors.batching import evaluating

THREADS = 8
WORDS = [
    "the a king queen left right house bank of and in on river money saw was 's mid-October don 't . , ! ? über 日本 x"
    " Petersburg unbelievable"
][0].split()


@pytest.fixture(autouse=True)
def switches_often() -> Iterator[None]:
    """Threads are switched as often as can be, and each product has one thread of its own."""
    interval, threads = sys.getswitchinterval(), torch.get_num_threads()
    sys.setswitchinterval(1e-6)
    torch.set_num_threads(1)
    yield
    sys.setswitchinterval(interval)
    torch.set_num_threads(threads)


def sentences(number: int) -> list[list[str]]:
    """A few sentences, other ones for each number."""
    generator = np.random.default_rng(number)
    lengths = generator.integers(1, 9, size=generator.integers(1, 4))
    return [[f"{WORDS[place]}{number % 7}" for place in generator.integers(0, len(WORDS), n)] for n in lengths]


def model_and_tokenizer(**fields) -> tuple[ElmoForPreTraining, ElmoTokenizer]:
    tokenizer = ElmoTokenizer.create([f"{word}{number}" for word in WORDS for number in range(4)])
    sizes = {"max_characters_per_token": 50, "vocab_size": len(tokenizer), "cell_size": 16, "projection_dim": 8}
    config = small_config(**{**sizes, **fields})
    return fill(ElmoForPreTraining(config)), tokenizer


def plain(model, tokenizer, number):
    inputs = tokenizer(sentences(number), is_split_into_words=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    return [*output.hidden_states, output.logits, output.backward_logits]


def embedded(model, tokenizer, number):
    found = hf_elmo.embed_sentences(model, tokenizer, sentences(number), layers="all", batch_words=12)
    return [torch.from_numpy(sentence.vectors) for sentence in found]


def perplexity(model, tokenizer, number):
    found = hf_elmo.perplexity(model, tokenizer, sentences(number))
    return [torch.tensor([found.forward, found.backward, found.words, found.unknown], dtype=torch.float64)]


def substitutes(model, tokenizer, number):
    words = sentences(number)[0]
    return hf_elmo.substitutes(model, tokenizer, [words], word_index=[0], is_split_into_words=True, top_k=5)


def stream(model, tokenizer, number):
    return list(hf_elmo.stream(model, tokenizer, sentences(number)[0][:2]))


def generated(model, tokenizer, number):
    generator = torch.Generator().manual_seed(number)
    return list(hf_elmo.generate(model, tokenizer, "the", 2, generator=generator))


def tokenized(model, tokenizer, number):
    """Words, their encodings, and raw text, some of it with words that were added later."""
    words = tokenizer(sentences(number), is_split_into_words=True, padding=bool(number % 2))
    text = tokenizer([" ".join(sentence) for sentence in sentences(number)], truncation=True, max_length=6 + number % 3)
    return [words.data, [words.word_ids(0), words.tokens(0)], text.data]


ENTRIES: dict[str, Callable] = {
    "plain": plain,
    "embed_sentences": embedded,
    "perplexity": perplexity,
    "substitutes": substitutes,
    "stream": stream,
    "generate": generated,
    "tokenizer": tokenized,
}
PREPARATIONS: dict[str, Callable] = {
    "": lambda model: None,
    "remember_words": hf_elmo.remember_words,
    "remember_words(capacity=50)": lambda model: hf_elmo.remember_words(model, 50),
    "quantize": hf_elmo.quantize,
    "quantize, remember_words": lambda model: hf_elmo.remember_words(hf_elmo.quantize(model)),
    "bfloat16, remember_words": lambda model: hf_elmo.remember_words(model.bfloat16()),
}


def equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def differing_calls(call: Callable, expected: list, calls: int) -> list[int]:
    """Which calls gave something else in one of the threads, or an error; each thread begins at another one."""
    start, wrong = threading.Barrier(THREADS), []

    def work(thread: int) -> None:
        start.wait()
        for step in range(calls):
            number = (step * (1 + 2 * thread) + thread) % len(expected)
            try:
                if not equal(call(number), expected[number]):
                    wrong.append(number)
            except Exception as error:
                wrong.append(error)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    return wrong


def check_entry(entry: str, preparation: str, calls: int, **fields) -> None:
    model, tokenizer = model_and_tokenizer(**fields)
    PREPARATIONS[preparation](model)
    with torch.inference_mode():
        expected = [ENTRIES[entry](model, tokenizer, number) for number in range(24)]
    # A model that nobody has called, so that the threads lay its weights out.
    model, tokenizer = model_and_tokenizer(**fields)
    PREPARATIONS[preparation](model)
    assert differing_calls(lambda number: ENTRIES[entry](model, tokenizer, number), expected, calls) == []
    # Nor is anything spoilt for those who come later.
    for number, right in enumerate(expected):
        assert equal(ENTRIES[entry](model, tokenizer, number), right)
    assert not any(module.training for module in model.modules())


CASES = [
    *((entry, "") for entry in ENTRIES),
    ("plain", "remember_words(capacity=50)"),
    ("plain", "quantize"),
    ("embed_sentences", "remember_words(capacity=50)"),
    ("plain", "remember_words"),
    ("plain", "quantize, remember_words"),
    ("plain", "bfloat16, remember_words"),
    ("stream", "remember_words(capacity=50)"),
    ("perplexity", "remember_words"),
    ("substitutes", "remember_words"),
    ("embed_sentences", "quantize"),
]


@pytest.mark.parametrize(("entry", "preparation"), first_of(CASES, 6))
def test_threads_share_a_model(entry, preparation):
    check_entry(entry, preparation, 8)


@pytest.mark.slow
@pytest.mark.parametrize(("entry", "preparation"), CASES)
def test_threads_share_a_model_for_long(entry, preparation):
    # Each layer and filter is as the others; calls are quicker with few of them.
    check_entry(entry, preparation, 200, num_layers=1, filters=[[2, 6]])


@pytest.mark.parametrize("task", ["elmo-fill-mask", "token-classification"])
def test_threads_share_a_pipeline(task):
    model, tokenizer = model_and_tokenizer()
    if task == "token-classification":
        model = fill(hf_elmo.ElmoForTokenClassification(model.config))
    pipe = pipeline(task, model=model, tokenizer=tokenizer)
    texts = [" ".join(words) for words in (sentence for number in range(12) for sentence in sentences(number)[:1])]
    if task == "elmo-fill-mask":
        texts = [f"[MASK] {text}" for text in texts]
    expected = [pipe(text) for text in texts]
    assert differing_calls(lambda number: pipe(texts[number]), expected, 6) == []


@pytest.mark.parametrize("entry", first_of(["perplexity", "embed_sentences", "stream", "substitutes"]))
def test_a_model_in_training_mode_is_read_in_evaluation_mode_and_comes_back(entry):
    tokenizer = model_and_tokenizer()[1]
    config = model_and_tokenizer()[0].config
    config.dropout = 0.5
    model = fill(ElmoForPreTraining(config))
    expected = [ENTRIES[entry](model, tokenizer, number) for number in range(12)]
    model.train()
    modes = {name: module.training for name, module in model.named_modules()}
    assert differing_calls(lambda number: ENTRIES[entry](model, tokenizer, number), expected, 10) == []
    assert {name: module.training for name, module in model.named_modules()} == modes


def test_one_thread_ends_evaluating_while_another_is_at_it():
    model = fill(ElmoModel(small_config(dropout=0.5))).train()
    first, second = evaluating(model), evaluating(model.bilstm)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert model.training
    assert not any(module.training for module in model.bilstm.modules())
    second.__exit__(None, None, None)
    assert all(module.training for module in model.modules())


def test_evaluating_leaves_modes_as_they_were():
    model = fill(ElmoModel(small_config())).train()
    model.bilstm.eval()
    modes = [module.training for module in model.modules()]
    with evaluating(model), contextlib.suppress(RuntimeError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise RuntimeError
    assert [module.training for module in model.modules()] == modes
