"""ElmoModel: what goes in, what comes out, and on what it does not depend."""

import shutil

import numpy as np
import pytest
import torch
from amounts import examples, first_of
from hypothesis import given
from hypothesis import strategies as st
from low_precision import assert_as_near, double
from small_models import fill, mask_of, random_words, small_config
from torch.func import functional_call

from hf_elmo import ElmoForPreTraining, ElmoForTokenClassification, ElmoModel, ElmoState


def small_model(seed=0, **fields):
    return fill(ElmoModel(small_config(**fields)), seed)


def layers_of(model, *args, **kwargs):
    """All layers in one tensor, ``(batch, num_layers + 1, words, dim)``."""
    with torch.no_grad():
        return torch.stack(model(*args, output_hidden_states=True, **kwargs).hidden_states, dim=1)


def assert_same(one, other, atol=1e-5):
    torch.testing.assert_close(one, other, rtol=0, atol=atol)


def cosine(one, other):
    return torch.nn.functional.cosine_similarity(one.float(), other.float(), dim=-1)


class TestOutputs:
    def test_shapes_and_padding(self):
        model, ids = small_model(num_representations=2, num_layers=3), random_words([4, 0, 2])
        output = model(character_ids=ids, output_hidden_states=True, return_state=True)
        assert len(output.hidden_states) == 4
        assert len(output.elmo_representations) == 2
        assert output.last_hidden_state is output.elmo_representations[0]
        padding = ~mask_of([4, 0, 2])
        for values in (*output.hidden_states, *output.elmo_representations):
            assert values.shape == (3, 4, 10)
            assert not values[padding].any()
            assert values[~padding].any(dim=-1).all()
        assert output.state.hidden.shape == (2, 3, 3, 5)
        assert output.state.cell.shape == (2, 3, 3, 7)

    def test_word_layer_is_the_word_vector_twice(self):
        model, ids = small_model(), random_words([3])
        words = model.character_encoder(ids)
        assert_same(layers_of(model, character_ids=ids)[:, 0], torch.cat([words, words], dim=-1))

    def test_only_what_is_asked_for(self):
        model, ids = small_model(), random_words([3])
        output = model(character_ids=ids)
        assert set(output.keys()) == {"last_hidden_state"}
        assert output.hidden_states is None
        assert output.state is None
        model.config.output_hidden_states = True
        assert len(model(character_ids=ids).hidden_states) == 3
        assert model(character_ids=ids, output_hidden_states=False).hidden_states is None

    def test_as_a_tuple(self):
        model, ids = small_model(), random_words([3])
        output = model(character_ids=ids, output_hidden_states=True)
        last, layers = model(character_ids=ids, output_hidden_states=True, return_dict=False)
        assert_same(last, output.last_hidden_state)
        assert len(layers) == 3
        model = small_model(num_representations=3)
        output = model(character_ids=ids)
        last, further = model(character_ids=ids, return_dict=False)
        assert_same(last, output.last_hidden_state)
        assert_same(further, torch.stack(output.elmo_representations[1:], dim=1))

    def test_every_mix_has_weights_of_its_own(self):
        model, ids = small_model(num_representations=3), random_words([4, 2])
        layers = layers_of(model, character_ids=ids).numpy()
        representations = model(character_ids=ids).elmo_representations
        for mix, representation in zip(model.scalar_mixes, representations, strict=True):
            shares = np.exp(mix.weights.tolist()) / np.exp(mix.weights.tolist()).sum()
            expected = mix.gamma.item() * np.einsum("k,bkwd->bwd", shares, layers)
            np.testing.assert_allclose(representation.detach(), expected, rtol=0, atol=1e-5)
        assert (representations[0] - representations[1]).abs().max() > 0.1

    def test_layer_norm(self):
        """One mean and one variance of all words of the batch, boundaries included, padding left out."""
        model, ids = small_model(do_layer_norm=True).double(), random_words([4, 2])
        layers, kept = layers_of(model, character_ids=ids).numpy(), mask_of([4, 2]).numpy()
        mix = model.scalar_mixes[0]
        shares = np.exp(mix.weights.tolist()) / np.exp(mix.weights.tolist()).sum()
        expected = np.zeros((2, 4, 10))
        for share, layer in zip(shares, layers.transpose(1, 0, 2, 3), strict=True):
            words = layer[kept]
            expected += share * (layer - words.mean()) / np.sqrt(words.var() + 1e-12)
        with torch.no_grad():
            got = model(character_ids=ids).last_hidden_state.numpy()
        np.testing.assert_allclose(got[kept], mix.gamma.item() * expected[kept], rtol=0, atol=1e-12)

    def test_rows_of_padding_stay_zero_with_layer_norm(self):
        """The shift would move them: `last_hidden_state` is documented as zero there."""
        model, ids = small_model(do_layer_norm=True), random_words([4, 2])
        assert not model(character_ids=ids).last_hidden_state[1, 2:].any()


class TestInputs:
    def test_characters_under_the_name_input_ids(self):
        model, ids = small_model(), random_words([4, 2])
        expected = model(character_ids=ids).last_hidden_state
        assert torch.equal(model(ids).last_hidden_state, expected)
        assert torch.equal(model(input_ids=ids).last_hidden_state, expected)

    def test_word_ids_are_not_read(self):
        model, ids = small_model(), random_words([4, 2])
        expected = model(character_ids=ids).last_hidden_state
        for words in (torch.zeros(2, 4, dtype=torch.long), torch.full((2, 4), 10**6)):
            assert torch.equal(model(input_ids=words, character_ids=ids).last_hidden_state, expected)

    @pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
    def test_mask_in_any_type(self, dtype):
        model, ids = small_model(), random_words([4, 4])
        mask = mask_of([4, 2])
        assert_same(
            layers_of(model, character_ids=ids, attention_mask=mask.to(dtype)),
            layers_of(model, character_ids=random_words([4, 4]) * mask[..., None]),
            atol=0,
        )

    def test_without_words(self):
        model = small_model()
        for ids in (torch.zeros(2, 3, 8), torch.zeros(2, 0, 8), torch.zeros(0, 3, 8)):
            output = model(character_ids=ids.long(), return_state=True, output_hidden_states=True)
            assert output.last_hidden_state.shape == (*ids.shape[:2], 10)
            assert not output.last_hidden_state.any()
            assert output.state.hidden.shape == (2, 2, len(ids), 5)
            assert not output.state.cell.any()

    def test_dummy_inputs_run(self):
        model = small_model()
        assert model(**model.dummy_inputs).last_hidden_state.shape == (2, 3, 10)

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ({}, r"reads character_ids of shape \(batch, words, chars\), but got neither: pass everything that Elmo"),
            ({"input_ids": torch.ones(2, 4, dtype=torch.long)}, "got input_ids alone, which name words but not their"),
            ({"character_ids": torch.ones(4, 8, dtype=torch.long)}, r"must be \(batch, words, chars\), was: \(4, 8\)"),
            (
                {"character_ids": torch.ones(2, 4, 2, dtype=torch.long)},
                "rows of 2 characters, but this model reads 8",
            ),
            ({"character_ids": torch.full((2, 4, 8), 262)}, "from 262 to 262, but the model knows characters 0 to 261"),
            ({"character_ids": torch.full((2, 4, 8), -1), "attention_mask": torch.ones(2, 4)}, "from -1 to -1"),
        ],
    )
    def test_wrong_inputs(self, inputs, message):
        with pytest.raises(ValueError, match=message):
            small_model()(**inputs)

    @pytest.mark.parametrize("kind", ["list", "ndarray", "str"])
    def test_what_is_no_tensor(self, kind):
        ids = random_words([4, 2])
        layers = torch.zeros(2, 3, 4, 10)
        words = torch.ones(2, 4, dtype=torch.long)
        base = {"character_ids": ids, "attention_mask": words, "token_type_ids": words}
        both = {**base, "input_ids": words, "labels": words, "backward_labels": words, "backward_character_ids": ids}
        cases = [(small_model(), base), (small_model(), {"layer_states": layers, "attention_mask": words})]
        cases.append((fill(ElmoForPreTraining(small_config(vocab_size=9))), both))
        for model, inputs in cases:
            for key, tensor in inputs.items():
                value = {"list": tensor.tolist(), "ndarray": tensor.numpy(), "str": "A text"}[kind]
                with pytest.raises(ValueError, match=rf"{key} must be a tensor, was: {kind}.*return_tensors='pt'"):
                    model(**{**inputs, key: value})
        with pytest.raises(ValueError, match="input_ids must be a tensor, was: str"):
            small_model()("A text")

    @pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore:.*torch.ao.quantization is deprecated")
    @pytest.mark.parametrize("model_class", [ElmoModel, ElmoForPreTraining, ElmoForTokenClassification])
    def test_ways_to_make_graphs_and_small_weights_that_are_not_ours(self, model_class):
        """`trace` would record the lengths of one batch, and torch's quantisation passes over ELMo's own layers."""
        model = fill(model_class(small_config(vocab_size=9, task_encoder_size=4, task_encoder_layers=1)))
        ids = random_words([4, 2])
        before = model(character_ids=ids)[0]
        with pytest.raises(ValueError, match=r"torch\.jit\.trace .*hf-elmo export.*torch\.export"):
            torch.jit.trace(model, example_kwarg_inputs={"character_ids": ids}, strict=False)
        with pytest.raises(ValueError, match=r"quantisation .*hf_elmo\.quantize\(model\)"):
            torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
        with pytest.raises(ValueError, match=r"hf_elmo\.quantize\(model\)"):
            model.qconfig = torch.ao.quantization.default_qconfig
        assert not hasattr(model, "qconfig")
        torch.testing.assert_close(model(character_ids=ids)[0], before)

    @pytest.mark.parametrize("width", [3, 7, 9, 50])
    def test_rows_of_another_width(self, width):
        """Longer ones gave the vector of another word; shorter ones lack their padding."""
        message = rf"rows of {width} characters, but this model reads 8 \(max_characters_per_token\)"
        model = small_model()
        ids = random_words([4, 2], chars=width)
        for inputs in ({"character_ids": ids}, {"input_ids": ids}, {"character_ids": torch.zeros(2, 0, width)}):
            with pytest.raises(ValueError, match=message):
                model(**inputs)
        with pytest.raises(ValueError, match=message):
            model.character_encoder(ids)
        language_model = fill(ElmoForPreTraining(small_config(vocab_size=9)))
        right, labels = random_words([4, 2]), torch.ones(2, 4, dtype=torch.long)
        both = {"character_ids": right, "labels": labels, "backward_labels": labels}
        with pytest.raises(ValueError, match=message):
            language_model(character_ids=ids)
        with pytest.raises(ValueError, match=message):
            language_model(**both, backward_character_ids=ids)

    def test_rows_of_another_width_beside_layers_read_before(self):
        """The characters are then read by the small CNN beside ELMo alone."""
        config = small_config(char_cnn_filters=[[2, 3]], task_encoder_size=4, task_encoder_layers=1)
        model, ids = fill(ElmoForTokenClassification(config)), random_words([4, 2])
        layers = torch.stack(model.elmo.read(ids, ids.any(dim=-1))[0], dim=1)
        assert model(layer_states=layers, character_ids=ids).logits.isfinite().all()
        for width in (7, 50):
            with pytest.raises(ValueError, match=rf"rows of {width} characters, but this model reads 8"):
                model(layer_states=layers, character_ids=random_words([4, 2], chars=width))

    def test_rows_of_another_width_are_not_traced(self):
        for fields in ({}, {"word_embed_dim": 3, "vocab_size": 9}):
            model = small_model(**fields)
            ids = random_words([4, 2], chars=12)
            with pytest.raises(Exception, match="rows of 12 "):
                torch.export.export(model, (), {"character_ids": ids, "attention_mask": ids.any(dim=-1)})

    @pytest.mark.parametrize("shape", [(2, 3), (2, 5), (4,), (2, 4, 8), (1, 4)])
    @pytest.mark.parametrize("name", ["attention_mask", "token_type_ids"])
    def test_masks_and_segments_of_another_shape(self, name, shape):
        wrong = torch.ones(shape, dtype=torch.long)
        expected = rf"{name} is \({', '.join(map(str, shape))},?\), but there are \(batch, words\) = \(2, 4\)"
        with pytest.raises(ValueError, match=expected):
            small_model()(character_ids=random_words([4, 2]), **{name: wrong})


class TestIndependence:
    """A sentence's vectors are its own, whatever its batch-mates, its place and its padding."""

    @examples(60)
    @given(
        lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6),
        skip=st.booleans(),
        data=st.data(),
    )
    def test_batch_order_and_padding(self, lengths, skip, data):
        model = small_model(use_skip_connections=skip)
        sentences = [ids[:length] for ids, length in zip(random_words(lengths), lengths, strict=True)]
        alone = [layers_of(model, character_ids=sentence[None])[0] for sentence in sentences]
        # Any order, any place of the words within a wider row, holes between them included.
        order = data.draw(st.permutations(range(len(lengths))))
        width = max(lengths) + data.draw(st.integers(0, 4))
        batch = torch.zeros(len(lengths), width, 8, dtype=torch.long)
        mask = torch.zeros(len(lengths), width, dtype=torch.bool)
        for row, number in enumerate(order):
            places = (
                data.draw(
                    st.lists(st.integers(0, width - 1), min_size=lengths[number], max_size=lengths[number], unique=True)
                )
                if width
                else []
            )
            mask[row, sorted(places)] = True
            batch[row, sorted(places)] = sentences[number]
        filled = torch.where(mask[..., None], batch, 200)
        for ids, given_mask in ((batch, None), (batch, mask), (filled, mask)):
            layers = layers_of(model, character_ids=ids, attention_mask=given_mask)
            for row, number in enumerate(order):
                assert_same(layers[row][:, mask[row]], alone[number])
                assert not layers[row][:, ~mask[row]].any()

    def test_segments_are_sentences_of_their_own(self):
        model = small_model()
        ids = random_words([9, 7])
        segments = torch.tensor([[0, 0, 0, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0, 0]])
        layers = layers_of(model, character_ids=ids, token_type_ids=segments)
        for row, start, stop in ((0, 0, 3), (0, 3, 5), (0, 5, 9), (1, 0, 4), (1, 4, 7)):
            assert_same(layers[row, :, start:stop], layers_of(model, character_ids=ids[row : row + 1, start:stop])[0])
        assert (layers - layers_of(model, character_ids=ids))[:, 1:].abs().max() > 0.01

    def test_one_segment_is_none(self):
        model, ids = small_model(), random_words([5, 3])
        for value in (0, 1):
            segments = torch.full((2, 5), value)
            assert torch.equal(
                layers_of(model, character_ids=ids, token_type_ids=segments), layers_of(model, character_ids=ids)
            )

    def test_segments_of_padding_do_not_count(self):
        model, ids = small_model(), random_words([5, 3])
        segments = torch.tensor([[0] * 5, [1, 1, 1, 0, 0]])
        model(character_ids=ids, token_type_ids=segments, return_state=True)
        assert torch.equal(
            layers_of(model, character_ids=ids, token_type_ids=segments), layers_of(model, character_ids=ids)
        )

    def test_calls_leave_no_trace(self):
        """The original programs warmed up: the same sentence gave other vectors each time."""
        model, ids = small_model(), random_words([5, 3])
        first = layers_of(model, character_ids=ids)
        layers_of(model, character_ids=random_words([7, 7], seed=5))
        assert torch.equal(layers_of(model, character_ids=ids), first)


class TestState:
    def test_two_pieces_are_the_whole(self):
        model, ids = small_model().double(), random_words([9, 7, 4])
        whole = layers_of(model, character_ids=ids)
        with torch.no_grad():
            end = model(character_ids=ids, return_state=True).state
            first = model(character_ids=ids[:, :4], return_state=True).state
            second = model(character_ids=ids[:, 4:], state=first, return_state=True).state
        pieces = [
            layers_of(model, character_ids=ids[:, :4]),
            layers_of(model, character_ids=ids[:, 4:], state=first),
        ]
        assert_same(torch.cat(pieces, dim=2)[..., :5], whole[..., :5], atol=1e-12)
        assert_same(second.hidden[0], end.hidden[0], atol=1e-12)
        assert_same(second.cell[0], end.cell[0], atol=1e-12)
        without = layers_of(model, character_ids=ids[:, 4:])
        assert (pieces[1] - without)[:2, 1:, :, :5].abs().max() > 0.01

    def test_rows_without_words_keep_their_state(self):
        model, ids = small_model(), random_words([5, 0, 3, 0])
        generator = torch.Generator().manual_seed(1)
        state = ElmoState(torch.rand(2, 2, 4, 5, generator=generator), torch.rand(2, 2, 4, 7, generator=generator))
        before = ElmoState(*(part.clone() for part in state))
        with torch.no_grad():
            after = model(character_ids=ids, state=state, return_state=True).state
        for old, new, kept in zip(state, after, before, strict=True):
            assert torch.equal(new[:, :, [1, 3]], old[:, :, [1, 3]])
            assert (new[:, :, [0, 2]] != old[:, :, [0, 2]]).any(dim=-1).all()
            assert torch.equal(old, kept), "the given state was changed"

    def test_state_belongs_to_rows_not_lengths(self):
        model = small_model()
        state = model(character_ids=random_words([2, 5, 3]), return_state=True).state.detach()
        ids = random_words([4, 1, 6], seed=1)
        together = layers_of(model, character_ids=ids, state=state)
        for row, length in enumerate([4, 1, 6]):
            own = ElmoState(*(part[:, :, row : row + 1] for part in state))
            alone = layers_of(model, character_ids=ids[row : row + 1, :length], state=own)
            assert_same(together[row, :, :length], alone[0])

    def test_zeros_are_the_default(self):
        model, ids = small_model(), random_words([3, 2])
        zeros = ElmoState(torch.zeros(2, 2, 2, 5), torch.zeros(2, 2, 2, 7))
        assert torch.equal(layers_of(model, character_ids=ids, state=zeros), layers_of(model, character_ids=ids))

    def test_gradients_flow_through_it_unless_detached(self):
        model, ids = small_model(), random_words([3, 2])
        state = model(character_ids=ids, return_state=True).state
        assert state.cell.requires_grad
        model(character_ids=ids, state=state.detach()).last_hidden_state.sum().backward()

    def test_several_segments_have_no_state(self):
        model, ids = small_model(), random_words([4, 2])
        segments = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]])
        state = ElmoState(torch.zeros(2, 2, 2, 5), torch.zeros(2, 2, 2, 7))
        for arguments in ({"return_state": True}, {"state": state}):
            with pytest.raises(
                ValueError, match=r"row holds several sentences .* give every sentence a row of its own"
            ):
                model(character_ids=ids, token_type_ids=segments, **arguments)

    @pytest.mark.parametrize(
        ("hidden", "cell", "message"),
        [
            ((2, 2, 3, 5), (2, 2, 3, 7), r"state\.hidden must be .* = \(2, 2, 2, 5\), was: \(2, 2, 3, 5\)"),
            ((2, 2, 2, 5), (2, 2, 2, 5), r"state\.cell must be .* = \(2, 2, 2, 7\), was: \(2, 2, 2, 5\)"),
            ((2, 1, 2, 5), (2, 1, 2, 7), r"state\.hidden must be .* \(2, 1, 2, 5\). A state belongs to the rows"),
            ((2, 2, 5), (2, 2, 7), r"state\.hidden must be .* was: \(2, 2, 5\)"),
        ],
    )
    def test_state_of_another_shape(self, hidden, cell, message):
        with pytest.raises(ValueError, match=message):
            small_model()(character_ids=random_words([4, 2]), state=ElmoState(torch.zeros(hidden), torch.zeros(cell)))


class TestLayerStates:
    def test_mixing_layers_computed_before(self):
        model, ids = small_model(num_representations=2), random_words([4, 2])
        layers = layers_of(model, character_ids=ids)
        with torch.no_grad():
            expected = model(character_ids=ids)
        for mask in (None, mask_of([4, 2])):
            output = model(layer_states=layers, attention_mask=mask, output_hidden_states=True)
            for one, other in zip(output.elmo_representations, expected.elmo_representations, strict=True):
                assert torch.equal(one, other)
            assert torch.equal(torch.stack(output.hidden_states, dim=1), layers)

    def test_mask_is_found_with_layer_norm(self):
        model, ids = small_model(do_layer_norm=True), random_words([4, 2])
        expected = model(character_ids=ids).last_hidden_state
        assert_same(model(layer_states=layers_of(model, character_ids=ids)).last_hidden_state, expected)

    def test_of_another_precision(self):
        model, ids = small_model(), random_words([4, 2])
        layers = layers_of(model, character_ids=ids)
        output = model(layer_states=layers.half())
        assert output.last_hidden_state.dtype == torch.float32
        exact, rounded = (
            double(model)(layer_states=each.double()).last_hidden_state for each in (layers, layers.half())
        )
        assert_as_near(output.last_hidden_state, rounded, exact)
        assert_same(output.last_hidden_state.double(), rounded)

    @pytest.mark.parametrize("shape", [(2, 2, 4, 10), (2, 3, 4, 5), (3, 4, 10), (4, 10)])
    def test_of_another_shape(self, shape):
        with pytest.raises(ValueError, match=r"with 3 layers of dim 10, was: \(" + ", ".join(map(str, shape))):
            small_model()(layer_states=torch.zeros(shape))

    def test_with_state_or_wrong_mask(self):
        model, layers = small_model(), torch.ones(2, 3, 4, 10)
        state = ElmoState(torch.zeros(2, 2, 2, 5), torch.zeros(2, 2, 2, 7))
        for arguments in ({"state": state}, {"return_state": True}):
            with pytest.raises(ValueError, match="layer_states are computed already: there is no LSTM state"):
                model(layer_states=layers, **arguments)
        with pytest.raises(ValueError, match=r"attention_mask is \(2, 3\), but there are \(batch, words\) = \(2, 4\)"):
            model(layer_states=layers, attention_mask=torch.ones(2, 3))


class TestTraining:
    def test_dropout_of_representations_in_training_only(self):
        model, ids = small_model(representation_dropout=0.5, dropout=0.0), random_words([6, 6])
        plain = model(character_ids=ids, output_hidden_states=True)
        torch.manual_seed(3)
        output = model.train()(character_ids=ids, output_hidden_states=True)
        torch.manual_seed(3)
        expected = torch.nn.functional.dropout(plain.last_hidden_state, 0.5)
        assert_same(output.last_hidden_state, expected)
        assert 0.3 < (output.last_hidden_state == 0).float().mean() < 0.7
        for one, other in zip(output.hidden_states, plain.hidden_states, strict=True):
            assert_same(one, other)

    def test_dropout_of_the_bilm_in_training_only(self):
        model, ids = small_model(representation_dropout=0.0, dropout=0.5), random_words([6, 6])
        plain, again = layers_of(model, character_ids=ids), layers_of(model, character_ids=ids)
        assert torch.equal(plain, again)
        model.train()
        trained = layers_of(model, character_ids=ids)
        assert_same(trained[:, 0], plain[:, 0])
        assert (trained[:, 1:] - plain[:, 1:]).abs().max() > 0.1
        assert not torch.equal(layers_of(model, character_ids=ids), trained)

    # Quickly it looks in one direction of each parameter at random, else in all.
    @pytest.mark.parametrize("quickly", first_of([True, False]))
    def test_gradients_of_a_whole_model(self, quickly):
        config = small_config(
            char_vocab_size=6,
            char_embed_dim=2,
            filters=[[1, 2], [2, 2]],
            cell_size=3,
            projection_dim=2,
            max_characters_per_token=4,
            num_representations=2,
            do_layer_norm=True,
            cell_clip=0.6,
            proj_clip=0.4,
        )
        model = fill(ElmoModel(config), seed=1).double()
        ids = random_words([4, 2, 3], chars=4, characters=6)
        segments = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
        names, values = zip(*model.named_parameters(), strict=True)

        def run(*parameters):
            arguments = {"character_ids": ids, "token_type_ids": segments, "return_dict": False}
            return functional_call(model, dict(zip(names, parameters, strict=True)), (), arguments)[1]

        layers = layers_of(model, character_ids=ids, token_type_ids=segments)
        assert (layers[:, 1].abs() == 0.4).any()
        variables = [value.detach().clone().requires_grad_() for value in values]
        assert torch.autograd.gradcheck(run, variables, fast_mode=quickly)

    def test_every_parameter_is_trained(self):
        model = small_model(num_representations=2)
        output = model(character_ids=random_words([6, 3]))
        sum((representation**2).sum() for representation in output.elmo_representations).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name


# The clips of the published models: with narrow ones most outputs would sit on the bound, in any precision.
WIDE = {"cell_clip": 3.0, "proj_clip": 3.0}


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_is_close(self, dtype):
        ids, mask = random_words([12, 7]), mask_of([12, 7])
        expected = layers_of(small_model(**WIDE), character_ids=ids)
        model = small_model(**WIDE).to(dtype)
        with torch.no_grad():
            output = model(character_ids=ids, output_hidden_states=True, return_state=True)
        layers = torch.stack(output.hidden_states, dim=1)
        assert layers.dtype == output.last_hidden_state.dtype == output.state.cell.dtype == dtype
        assert cosine(layers, expected).transpose(1, 2)[mask].min() > 0.98
        assert cosine(layers, expected).transpose(1, 2)[mask].mean() > 0.999

    def test_state_of_another_precision_is_taken(self):
        model, ids = small_model().bfloat16(), random_words([3, 2])
        state = ElmoState(torch.zeros(2, 2, 2, 5), torch.zeros(2, 2, 2, 7))
        assert model(character_ids=ids, state=state).last_hidden_state.dtype == torch.bfloat16

    @pytest.mark.parametrize("fields", [{}, {"cell_size": 10, "projection_dim": 10}, {"do_layer_norm": True}])
    def test_autocast(self, fields):
        ids, mask = random_words([12, 7, 0]), mask_of([12, 7, 0])
        model = small_model(**WIDE, **fields)
        expected = model(character_ids=ids).last_hidden_state.detach()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(character_ids=ids, return_state=True)
            again = model(character_ids=ids, state=output.state.detach(), return_state=True)
        output.last_hidden_state.float().sum().backward()
        assert cosine(output.last_hidden_state, expected)[mask].mean() > 0.995
        assert again.last_hidden_state.isfinite().all()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


class TestCompile:
    def results_over_lengths(self, backend):
        model = small_model()
        compiled = torch.compile(model, backend=backend)
        segments = torch.tensor([[0, 0, 0, 1], [0, 1, 1, 1]])
        cases = [{"character_ids": random_words(lengths)} for lengths in ([4, 2], [7, 3, 1], [1], [3, 3], [0, 2])]
        cases.append({"character_ids": random_words([4, 4]), "token_type_ids": segments})
        cases.append({"character_ids": random_words([5, 2]), "attention_mask": mask_of([5, 2]).long()})
        with torch.no_grad():
            for case in cases:
                yield compiled(**case).last_hidden_state, model(**case).last_hidden_state

    @pytest.mark.slow
    def test_eager_backend(self):
        torch.compiler.reset()
        for compiled, plain in self.results_over_lengths("eager"):
            assert_same(compiled, plain)

    @pytest.mark.slow
    def test_inductor(self):
        if shutil.which("g++") is None and shutil.which("clang++") is None:
            pytest.skip("no C++ compiler, without which inductor has nothing to compile with")
        torch.compiler.reset()
        for compiled, plain in self.results_over_lengths("inductor"):
            assert_same(compiled, plain)
