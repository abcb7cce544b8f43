"""Compiled models compute what they compute otherwise, and the lengths of sentences make no graphs of their own."""

import random
import shutil

import pytest
import torch
import torch._dynamo
from amounts import first_of
from low_precision import assert_as_near, assert_as_near_on_average, double
from small_models import fill, mask_of, random_batch, random_options, random_words, small_config
from torch._dynamo.testing import CompileCounter

from hf_elmo import ElmoForPreTraining, ElmoForSequenceClassification, ElmoModel, ElmoState
from hf_elmo.model.lstm.tracing import begins

# More than any model here needs; were there a graph per length, all tests would fail by their counts.
GRAPHS = 64
# Where a test is not about what layers do to each other: a compiler goes through each of them.
FEW_LAYERS = {"num_layers": 1, "num_highway_layers": 0}


@pytest.fixture(autouse=True)
def compiler_afresh():
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=GRAPHS):
        yield
    torch._dynamo.reset()


def assert_close(compiled, plain):
    for name, expected in plain.items():
        pairs = [(compiled[name], expected)]
        if name in ("hidden_states", "state"):
            pairs = list(zip(compiled[name], expected, strict=True))
        for found, wanted in pairs:
            scale = max([1.0, *wanted.abs().flatten().tolist()])
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(("seed", "kind"), first_of([(4, "state"), (1, "segments"), (7, "plain")]))
def test_one_graph_is_exact_for_all_options_and_inputs(seed, kind):
    generator = random.Random(seed)
    model = fill(ElmoModel(small_config(**random_options(generator))), seed)
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    config = model.config
    with torch.no_grad():
        for number in range(12):
            inputs = random_batch(generator, min_size=2, words=300 if number == 11 else None)
            inputs["output_hidden_states"] = True
            if kind != "segments":
                del inputs["token_type_ids"]
            if kind == "state":
                shape = (2, config.num_layers, len(inputs["character_ids"]))
                state = torch.randn(*shape, config.projection_dim), torch.randn(*shape, config.cell_size)
                inputs.update(state=ElmoState(*state), return_state=True)
            assert_close(compiled(**inputs), model(**inputs))
    assert counter.frame_count == 1


@pytest.mark.slow
def test_lengths_and_batch_sizes_make_no_graphs_of_their_own():
    counter = CompileCounter()
    model = fill(ElmoModel(small_config(num_layers=1, num_highway_layers=0)))
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    graphs = []
    with torch.no_grad():
        for batch in (2, 3, 1, 5, 40):
            for words in (4, 7, 1, 2, 11, 29):
                inputs = {"character_ids": random_words([words] * batch)}
                assert_close(compiled(**inputs), model(**inputs))
                graphs.append(counter.frame_count)
    # The first sizes have graphs of their own, and so have one word and one row, which a compiler takes for constants.
    assert graphs[17] <= 7
    assert graphs[-1] == graphs[17]


@pytest.mark.slow
def test_compiled_plainly_the_bilm_stays_outside_and_lengths_make_no_graphs():
    counter = CompileCounter()
    model = fill(ElmoModel(small_config()))
    compiled = torch.compile(model, backend=counter)
    graphs = []
    with torch.no_grad():
        for batch, words in ((2, 4), (3, 7), (1, 5), (4, 1), (1, 1), (5, 9), (1, 30), (17, 12), (64, 2), (9, 1)):
            inputs = {"character_ids": random_words([words] * batch)}
            assert_close(compiled(**inputs), model(**inputs))
            graphs.append(counter.frame_count)
            torch.testing.assert_close(compiled(**inputs).last_hidden_state, model(**inputs).last_hidden_state)
    assert graphs[-1] == graphs[4] <= 10
    # A scan would be in one of the graphs: they hold the mask and the mix alone.
    assert counter.op_count / counter.frame_count < 20


def test_words_of_no_number():
    model = fill(ElmoModel(small_config(**FEW_LAYERS)))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    state = ElmoState(torch.randn(2, 1, 2, 5), torch.randn(2, 1, 2, 7))
    with torch.no_grad():
        output = compiled(character_ids=random_words([0, 0]), state=state, return_state=True)
    assert output.last_hidden_state.shape == (2, 0, 10)
    assert torch.equal(output.state.hidden, state.hidden)
    assert torch.equal(output.state.cell, state.cell)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [10])
def test_gradients_through_one_graph(seed):
    generator = random.Random(seed)
    fixed = {"representation_dropout": 0.0, "dropout": 0.0, "num_layers": 2, "num_highway_layers": 0}
    options = {**random_options(generator), **fixed}
    model = fill(ElmoModel(small_config(**options)), seed).train()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    inputs = random_batch(generator, words=7)
    gradients = []
    for each in (compiled, model):
        model.zero_grad()
        output = each(**inputs)
        # An odd power of each number, which no symmetry cancels.
        sum(mix.pow(3).sum() for mix in output.elmo_representations).backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    scale = max(1.0, *(float(gradient.abs().max()) for gradient in gradients[1].values()))
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], gradient, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.slow
def test_dropout_falls_in_one_graph_as_elsewhere():
    """The mean and the spread of a layer are those that they are elsewhere, and not those without dropout."""
    model = fill(
        ElmoModel(small_config(dropout=0.5, representation_dropout=0.0, cell_clip=None, proj_clip=None))
    ).train()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    inputs = {"character_ids": random_words([3]).expand(4000, -1, -1), "output_hidden_states": True}
    with torch.no_grad():
        found, expected = compiled(**inputs).hidden_states[2], model(**inputs).hidden_states[2]
        undropped = model.eval()(**inputs).hidden_states[2]
    spread = expected.std(dim=0) / 4000**0.5
    assert ((found.mean(dim=0) - expected.mean(dim=0)).abs() < 7 * spread).all()
    assert ((undropped.mean(dim=0) - expected.mean(dim=0)).abs() > 20 * spread).any()
    torch.testing.assert_close(found.std(dim=0), expected.std(dim=0), rtol=0.2, atol=0.02)


@pytest.mark.parametrize("dtype", first_of([torch.bfloat16, torch.float64]))
def test_other_precisions(dtype):
    model = fill(ElmoModel(small_config(**FEW_LAYERS))).to(dtype)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    inputs = {"character_ids": random_words([5, 3])}
    with torch.no_grad():
        found, plain = compiled(**inputs).last_hidden_state, model(**inputs).last_hidden_state
        exact = double(model)(**inputs).last_hidden_state
    assert found.dtype == dtype
    assert_as_near(found, plain, exact)


def test_autocast():
    model = fill(ElmoModel(small_config(**FEW_LAYERS)))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    inputs = {"character_ids": random_words([5, 3])}
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found, plain = compiled(**inputs).last_hidden_state, model(**inputs).last_hidden_state
    with torch.no_grad():
        exact = double(model)(**inputs).last_hidden_state
    assert_as_near_on_average(found, plain, exact, torch.bfloat16)


@pytest.mark.slow
def test_other_models_as_one_graph():
    words, mask = random_words([6, 4, 2]), mask_of([6, 4, 2]).long()
    segments = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0], [0] * 6])
    inputs = {"character_ids": words, "attention_mask": mask, "token_type_ids": segments}
    config = small_config(vocab_size=20, num_labels=3, task_encoder_layers=0, classifier_size=6, **FEW_LAYERS)
    for kind in (ElmoForPreTraining, ElmoForSequenceClassification):
        model = fill(kind(config))
        with torch.no_grad():
            assert_close(torch.compile(model, backend="eager", fullgraph=True)(**inputs), model(**inputs))
    backward = {**inputs, "backward_character_ids": random_words([6, 4, 2], seed=5)}
    model = fill(ElmoForPreTraining(config))
    with torch.no_grad():
        assert_close(torch.compile(model, backend="eager", fullgraph=True)(**backward), model(**backward))


def test_words_that_begin_a_segment():
    mask = torch.tensor([[1, 1, 0, 1, 1, 0, 1], [0, 0, 1, 0, 1, 1, 1], [0] * 7]).bool()
    segments = torch.tensor([[0, 1, 0, 1, 0, 1, 0], [1, 1, 0, 1, 1, 1, 0], [0, 1, 0, 1, 0, 1, 0]])
    expected = torch.tensor([[0, 1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0, 1], [0] * 7]).bool()
    assert torch.equal(begins(mask, segments), expected)


@pytest.mark.slow
def test_inductor_compiles_one_graph():
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("no C++ compiler, without which inductor has nothing to compile with")
    model = fill(ElmoModel(small_config(num_layers=1, num_highway_layers=0, filters=[[2, 10]], dropout=0.0)))
    counter = torch._dynamo.utils.counters["stats"]
    counter.clear()
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for lengths in ([3, 4], [9, 2, 5], [40, 3], [2, 2, 2, 2, 2]):
            inputs = {"character_ids": random_words(lengths)}
            assert_close(compiled(**inputs), model(**inputs))
    assert counter["unique_graphs"] == 1
