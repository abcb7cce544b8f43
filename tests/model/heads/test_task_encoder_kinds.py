"""GRUs and plain RNNs in the place of a tagger's LSTMs."""

import pytest
import torch
from small_models import fill, small_config

from hf_elmo import ElmoForTokenClassification
from hf_elmo.model.heads.task_encoder import TaskEncoder
from hf_elmo.model.lstm.tracing import _task_layers

WORDS = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_what_a_graph_computes_word_by_word(kind):
    encoder = fill(TaskEncoder(4, 3, 1, 0.0, bidirectional=False, kind=kind))
    [[(project, step, size)]] = _task_layers(encoder.lstm)
    state = (torch.zeros(1, size),) * (2 if kind == "lstm" else 1)
    outputs = []
    with torch.no_grad():
        for shares in project(WORDS[0].unsqueeze(1))[0]:
            state = step(shares, *state)
            outputs.append(state[0])
        expected = encoder(WORDS, torch.ones(1, 5, dtype=torch.bool))
    torch.testing.assert_close(torch.stack(outputs, dim=1), expected)


@pytest.mark.parametrize("kind", ["gru", "rnn"])
def test_saved_and_loaded(tmp_path, kind):
    model = fill(ElmoForTokenClassification(small_config(task_encoder_kind=kind, task_encoder_size=3, num_labels=2)))
    model.save_pretrained(tmp_path)
    loaded = ElmoForTokenClassification.from_pretrained(tmp_path).eval()
    assert type(loaded.task_encoder.lstm).__name__ == kind.upper()
    with torch.no_grad():
        inputs = model.dummy_inputs
        torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)


def test_what_there_is_not():
    with pytest.raises(ValueError, match="task_encoder_kind must be 'lstm', 'gru' or 'rnn', was: 'qrnn'"):
        small_config(task_encoder_kind="qrnn")
    with pytest.raises(ValueError, match="Highways lead around LSTMs alone"):
        small_config(task_encoder_kind="gru", task_encoder_highways=True)
