"""Muon: its step against float64 and torch's own, which parameters it takes, and resuming bit for bit."""

import json
import re
import shutil

import pytest
import torch
from amounts import first_of
from language_model_training import small_training
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hf_elmo.training.muon import MuonWithAdamW, is_hidden_matrix, orthogonalized
from hf_elmo.training.trainer import LanguageModelTrainingArguments


def newton_schulz(matrix: torch.Tensor) -> torch.Tensor:
    """The five steps as the original writes them, on the whole matrix."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm()
    for _ in range(5):
        square = wide @ wide.T
        wide = 3.4445 * wide + (-4.7750 * square + 2.0315 * square @ square) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


@pytest.mark.parametrize("shape", [(48, 12), (12, 48), (20, 20), (1, 9), (640, 48)])
def test_singular_values_are_made_equal(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    exact = newton_schulz(matrix.double())
    # Nearly zero singular values, which a square matrix has, grow 485-fold with what rounding left of them.
    tolerance = 500 * torch.finfo(torch.float32).eps
    assert torch.allclose(orthogonalized(matrix).double(), exact, rtol=0, atol=tolerance)
    if shape[0] != shape[1]:  # a square one has some singular values near zero
        values = torch.linalg.svdvals(orthogonalized(matrix))
        assert values.min() > 0.6
        assert values.max() < 1.25


def test_no_gradient_makes_no_step_into_nan():
    assert torch.equal(orthogonalized(torch.zeros(4, 6)), torch.zeros(4, 6))


def test_steps_are_those_of_torch():
    """torch.optim.Muon and torch.optim.AdamW, side by side; Muon's products there are bfloat16's."""
    random = torch.Generator().manual_seed(1)
    start, bias = torch.randn(24, 8, generator=random), torch.randn(8, generator=random)
    ours, theirs = [[torch.nn.Parameter(value.clone()) for value in (start, bias)] for _ in range(2)]
    both = MuonWithAdamW(ours[:1], [{"params": ours[1:]}], 0.02, 0.01, weight_decay=0.1)
    muon = torch.optim.Muon(theirs[:1], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(theirs[1:], lr=0.01, weight_decay=0.1)
    for _ in range(5):
        gradients = torch.randn(24, 8, generator=random), torch.randn(8, generator=random)
        for parameters in (ours, theirs):
            for parameter, gradient in zip(parameters, gradients):
                parameter.grad = gradient.clone()
        both.step()
        muon.step()
        adamw.step()
    moved = (theirs[0] - start).abs().mean()
    assert (ours[0] - theirs[0]).abs().max() < 0.1 * moved
    assert torch.equal(ours[1], theirs[1])


def test_muon_takes_what_leads_from_vectors_to_vectors(tiny_lm):
    taken = {name for name, p in tiny_lm.named_parameters() if is_hidden_matrix(name, p, tiny_lm)}
    assert {"elmo.bilstm.forward_layers.0.weight_ih", "elmo.character_encoder.projection.weight"} <= taken
    assert not any(re.search("embedding|softmax|bias|convolutions|scalar_mix", name) for name in taken)


@pytest.fixture
def tiny_lm():
    from hf_elmo import ElmoConfig, ElmoForPreTraining

    return ElmoForPreTraining(ElmoConfig(cell_size=8, projection_dim=4, filters=[[1, 6]], vocab_size=9))


def test_vectors_are_refused():
    with pytest.raises(ValueError, match=r"Muon takes matrices, but was given the shapes \[\(3,\)\]"):
        MuonWithAdamW([torch.nn.Parameter(torch.zeros(3))], [])
    with pytest.raises(ValueError, match="optim was adagrad"):
        LanguageModelTrainingArguments("out", use_cpu=True, optim="adagrad", matrix_learning_rate=0.01)


def test_a_resumed_training_ends_with_the_same_weights(tmp_path):
    """A checkpoint holds the state of both parts."""
    (tmp_path / "whole").mkdir()
    options = {"matrix_learning_rate": 0.006, "max_steps": 15, "save_steps": 5, "lr_scheduler_type": "cosine"}
    trainer = small_training(tmp_path / "whole", **options)
    rates = {group["muon"]: group["initial_lr"] for group in trainer.optimizer.param_groups}
    assert rates == {True: 0.006, False: 0.01}
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    for folder in (tmp_path / "again" / "out").glob("checkpoint-*"):
        if folder.name != "checkpoint-10":
            shutil.rmtree(folder)
    small_training(tmp_path / "again", **options)
    whole, again = [load_file(tmp_path / run / "out" / "model.safetensors") for run in ("whole", "again")]
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert trainer.state.global_step == 15


@pytest.mark.parametrize(
    ("begun", "resumed", "message"),
    first_of(
        [
            ({"matrix_learning_rate": 0.006}, {}, "optimizer was muon, now adamw_torch"),
            ({}, {"bf16": True}, "precision was fp32, now bf16"),
            ({}, {"matrix_learning_rate": 0.006}, "optimizer was adamw_torch.*, now muon"),
        ],
        2,
    ),
)
def test_another_optimizer_or_precision_cannot_be_resumed(tmp_path, begun, resumed, message):
    small_training(tmp_path, max_steps=4, **begun)
    with pytest.raises(ValueError, match=message):
        small_training(tmp_path, max_steps=8, **resumed)


def test_a_checkpoint_that_does_not_name_its_optimizer_is_resumed(tmp_path):
    """Those of hf_elmo before Muon do not."""
    (tmp_path / "whole").mkdir()
    options = {"max_steps": 12, "save_steps": 6}
    small_training(tmp_path / "whole", **options)
    shutil.copytree(tmp_path / "whole", tmp_path / "old")
    shutil.rmtree(tmp_path / "old" / "out" / "checkpoint-12")
    file = tmp_path / "old" / "out" / "checkpoint-6" / "lstm_state_0.safetensors"
    with safe_open(file, framework="pt") as stored:
        stream = json.loads(stored.metadata()["stream"])
    kept = {name: value for name, value in stream.items() if name not in ("optimizer", "precision")}
    assert len(kept) == len(stream) - 2
    save_file(load_file(file), file, {"stream": json.dumps(kept)})
    small_training(tmp_path / "old", **options)
    whole, again = [load_file(tmp_path / run / "out" / "model.safetensors") for run in ("whole", "old")]
    assert all(torch.equal(whole[name], again[name]) for name in whole)
