"""Other recurrent layers in the place of a tagger's biLSTMs, and what else AllenNLP's taggers have."""

import pytest
import torch
from small_models import fill, small_config

from hf_elmo import ElmoForTokenClassification
from hf_elmo.model.heads.task_encoder import TaskEncoder
from hf_elmo.model.lstm.tracing import _task_layers

WORDS = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn", "relu_rnn"])
def test_what_a_graph_computes_word_by_word(kind):
    encoder = fill(TaskEncoder(4, 3, 1, 0.0, bidirectional=False, kind=kind))
    [[(project, step, size, _)]] = _task_layers(encoder.lstm)
    state = (torch.zeros(1, size),) * (2 if kind == "lstm" else 1)
    outputs = []
    with torch.no_grad():
        for shares in project(WORDS[0].unsqueeze(1))[0]:
            state = step(shares, *state)
            outputs.append(state[0])
        expected = encoder(WORDS, torch.ones(1, 5, dtype=torch.bool))
    torch.testing.assert_close(torch.stack(outputs, dim=1), expected)


@pytest.mark.parametrize("highways", [True, False])
@pytest.mark.parametrize("backward", [True, False])
def test_what_a_graph_computes_of_alternating_layers(highways, backward):
    kind = {"kind": "alternating_lstm", "begins_backward": backward, "highways": highways}
    encoder = fill(TaskEncoder(4, 3, 2, 0.0, bidirectional=False, **kind))
    mask = torch.tensor([[True, True, True, False, False], [False, True, True, True, True]])
    segments = torch.tensor([[0, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    words = WORDS.expand(2, -1, -1)
    with torch.no_grad():
        expected = encoder(words, mask, segments)
        torch.testing.assert_close(encoder._read_padded(words, mask, segments), expected)
        # A sentence's vectors are those of the sentence alone.
        alone = encoder(words[1:, 1:], mask[1:, 1:])
    torch.testing.assert_close(expected[1:, 1:], alone)
    assert encoder.output_size == 3


def test_a_plain_layer_is_that_of_torch():
    encoder = fill(TaskEncoder(4, 3, 1, 0.0, bidirectional=False, kind="alternating_lstm"))
    [layer] = encoder.lstm.layers
    plain = torch.nn.LSTM(4, 3, batch_first=True)
    with torch.no_grad():
        for name in ("weight_ih", "weight_hh"):
            getattr(plain, f"{name}_l0").copy_(getattr(layer, name))
        plain.bias_ih_l0.copy_(layer.input_bias)
        plain.bias_hh_l0.copy_(layer.bias)
        torch.testing.assert_close(encoder(WORDS, torch.ones(1, 5, dtype=torch.bool)), plain(WORDS)[0])


KINDS = {
    "gru": {"task_encoder_kind": "gru"},
    "rnn": {"task_encoder_kind": "rnn"},
    "alternating": {
        "task_encoder_kind": "alternating_lstm",
        "task_encoder_bidirectional": False,
        "task_encoder_highways": True,
        "task_encoder_begins_backward": True,
        "elmo_projection_size": 5,
        "task_feedforward_sizes": [4, 3],
        "task_feedforward_activation": ["linear", "gelu"],
    },
}


@pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)
def test_saved_and_loaded(tmp_path, fields):
    """A fresh one, of which every parameter has numbers, and a gradient."""
    torch.manual_seed(0)
    model = ElmoForTokenClassification(
        small_config(**fields, task_encoder_size=3, num_labels=2, task_dropout=0.0, freeze_bilm=False)
    )
    inputs = model.dummy_inputs
    labels = torch.ones(inputs["character_ids"].shape[:2], dtype=torch.long)
    model(**inputs, labels=labels).loss.backward()
    own = {name: parameter for name, parameter in model.named_parameters() if not name.startswith("elmo.")}
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in own.values())
    model.eval().save_pretrained(tmp_path)
    loaded = ElmoForTokenClassification.from_pretrained(tmp_path).eval()
    assert type(loaded.task_encoder.lstm) is type(model.task_encoder.lstm)
    assert loaded.config.to_diff_dict() | fields == loaded.config.to_diff_dict()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task_encoder_kind": "qrnn"}, "task_encoder_kind must be 'lstm' or 'gru' or .*, was: 'qrnn'"),
        ({"task_encoder_kind": "gru", "task_encoder_highways": True}, "Highways lead around LSTMs alone"),
        ({"task_encoder_kind": "alternating_lstm"}, "task_encoder_bidirectional is True: set it to False"),
        ({"task_encoder_begins_backward": True}, "is for alternating LSTMs, but task_encoder_kind is 'lstm'"),
        ({"task_feedforward_activation": "prelu"}, "must be one of relu, .*, was: 'prelu'"),
        (
            {"task_feedforward_sizes": [3], "task_feedforward_activation": ["relu", "tanh"]},
            "has 2 names, but task_feedforward_sizes has 1 layers",
        ),
        ({"elmo_projection_size": -1}, "elmo_projection_size"),
    ],
)
def test_what_there_is_not(fields, message):
    with pytest.raises(ValueError, match=message):
        small_config(**fields)
