"""`hf-elmo vocab` and `hf-elmo train`: from text to a language model, from the command line."""

import gzip
import json

import pytest
import torch
from forced_products import row_of
from safetensors.torch import save_file
from typer.testing import CliRunner

from hf_elmo import ElmoForPreTraining, ElmoTokenizer
from hf_elmo.commands.app import app
from hf_elmo.training.trainer import recorded_precision

TEXT = "the cat sat on the mat .\nthe dog sat on the cat .\na dog ate the mat .\n"
SIZES = {"model_type": "elmo", "filters": [[1, 4]], "num_highway_layers": 1, "cell_size": 12, "projection_dim": 6}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a command in a folder with a text and a small configuration."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT * 20, encoding="utf-8")
    (tmp_path / "sizes.json").write_text(json.dumps(SIZES), encoding="utf-8")

    def run(*arguments, status=0):
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == status, result.output
        assert "Traceback" not in result.output
        return result

    return run


COMMON = ("--config", "sizes.json", "--pretokenized", "--batch-size", "4", "--unroll-steps", "5", "--log-steps", "1")


def test_a_vocabulary_is_counted(run, tmp_path):
    with gzip.open(tmp_path / "more.txt.gz", "wt", encoding="utf-8") as file:
        file.write("zebra zebra cat\n" * 200)
    result = run("vocab", "text.txt", "more.txt.gz", "-o", "vocab.txt", "--pretokenized", "--size", "4")
    assert (tmp_path / "vocab.txt").read_text(encoding="utf-8").split() == [
        "<S>",
        "</S>",
        "<UNK>",
        "zebra",
        "cat",
        "the",
        ".",
    ]
    assert "4 words of 10" in result.stderr
    run("vocab", "text.txt", "-o", "frequent.txt", "--min-count", "60", "--keep-lines")
    assert (tmp_path / "frequent.txt").read_text(encoding="utf-8").split()[3:] == ["the", "."]


def test_from_text_to_a_language_model(run, tmp_path):
    run("vocab", "text.txt", "-o", "vocab.txt", "--pretokenized")
    result = run(
        *("train", "text.txt", "-o", "out", *COMMON, "--vocabulary", "vocab.txt", "--steps", "6", "--save-steps", "3"),
        *("--eval", "text.txt", "--samples", "5", "--seed", "3"),
    )
    assert "6 updates" in result.stderr
    model, tokenizer = ElmoForPreTraining.from_pretrained("out"), ElmoTokenizer.from_pretrained("out")
    assert len(tokenizer) == 4 + 9
    assert model.config.num_negative_samples == 5
    log = json.loads((tmp_path / "out" / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3, 4, 5, 6]
    assert [entry["step"] for entry in log if "eval_perplexity" in entry] == [3, 6]
    result = run("perplexity", "text.txt", "--pretokenized", "--model", "out")
    assert f"{log[-2]['eval_forward_perplexity']:.3f}"[:5] in result.stdout


@pytest.mark.parametrize(
    ("optimizer", "rates"),
    [("muon", [0.006, 0.004, 0.004]), ("adamw", [0.002, 0.002]), ("adagrad", [0.2, 0.2])],
)
def test_optimizers_and_their_rates(run, tmp_path, optimizer, rates):
    """The rates stand in the checkpoint: of Muon's matrices, and of the parameters with and without weight decay."""
    run("train", "text.txt", "-o", "out", *COMMON, "--optimizer", optimizer, "--steps", "2", "--warmup-steps", "0")
    state = torch.load(tmp_path / "out" / "checkpoint-2" / "optimizer.pt", weights_only=True)
    assert [group["initial_lr"] for group in state["param_groups"]] == rates
    log = json.loads((tmp_path / "out" / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    assert log[0]["loss"] > 0


def test_a_finished_training_is_resumed_with_more_epochs(run, tmp_path):
    run("train", "text.txt", "-o", "out", *COMMON, "--whole-sentences", "--epochs", "1", "--save-steps", "5")
    steps = json.loads((tmp_path / "out" / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
    assert steps == 20 * (8 + 8 + 7) / (4 * 5)  # words and ends of sentences, over those of a batch
    assert "not empty" in run("train", "text.txt", "-o", "out", *COMMON, status=1).stderr
    run("train", "text.txt", "-o", "out", *COMMON, "--whole-sentences", "--epochs", "2", "--resume")
    assert json.loads((tmp_path / "out" / "trainer_state.json").read_text(encoding="utf-8"))["global_step"] == 2 * steps


class TestPrecision:
    """`--bf16`, `--no-bf16` and neither, by a processor's row of the table."""

    @pytest.fixture
    def precision(self, run, tmp_path, monkeypatch):
        """Trains on a processor that is faster in some dtype; returns the recorded precision, and stderr."""
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)

        def precision(faster, *options, status=0):
            monkeypatch.setattr(
                "hf_elmo.model.products.processor.row_in_use", lambda: row_of("plain", "plain", training=faster)
            )
            result = run("train", "text.txt", "-o", "out", *COMMON, "--save-steps", "1", *options, status=status)
            return recorded_precision(tmp_path / "out"), result.stderr

        return precision

    def test_the_table_decides_and_a_resumed_training_goes_on_as_it_began(self, precision, tmp_path):
        assert recorded_precision(tmp_path / "out") is None
        recorded, said = precision("bfloat16", "--steps", "1")
        assert recorded == "bf16"
        assert "matrix products in bfloat16, the faster ones on this processor (forced); --no-bf16" in said
        recorded, said = precision("float32", "--steps", "2", "--resume")
        assert recorded == "bf16"
        assert "bfloat16" not in said
        _, said = precision("float32", "--steps", "3", "--resume", "--no-bf16", status=1)
        assert "cannot be resumed so" in said
        assert "precision was bf16, now fp32" in said

    def test_a_checkpoint_of_before_the_record_is_of_float32(self, tmp_path):
        (tmp_path / "checkpoint-6").mkdir()
        file = tmp_path / "checkpoint-6" / "lstm_state_0.safetensors"
        save_file({}, file, {"stream": json.dumps({"seed": 0})})
        assert recorded_precision(tmp_path) == "fp32"

    def test_what_is_asked_for_counts(self, precision):
        recorded, said = precision("bfloat16", "--steps", "1", "--no-bf16")
        assert recorded == "fp32"
        assert "bfloat16" not in said

    def test_what_is_slower_is_warned_of(self, precision):
        recorded, said = precision("float32", "--steps", "1", "--bf16")
        assert recorded == "bf16"
        assert "--bf16 is slower than float32 on this processor (forced), by the table of products" in said


def test_a_model_is_trained_further(run, tmp_path):
    run("train", "text.txt", "-o", "first", *COMMON, "--steps", "2", "--original-recipe")
    (tmp_path / "other.txt").write_text("zebras eat the mat .\n" * 30, encoding="utf-8")
    run("train", "other.txt", "-o", "second", *COMMON[2:], "--model", "first", "--steps", "2", "--in-order")
    ids = [ElmoTokenizer.from_pretrained(folder).get_vocab() for folder in ("first", "second")]
    assert ids[0] == ids[1]
    weights = [ElmoForPreTraining.from_pretrained(folder).softmax.weight for folder in ("first", "second")]
    assert not torch.equal(*weights)


def test_without_accelerate_it_says_what_to_install(run, monkeypatch):
    monkeypatch.setattr("hf_elmo.commands.train.find_spec", lambda name: None if name == "accelerate" else True)
    result = run("train", "text.txt", "-o", "out", *COMMON, status=1)
    assert 'hf-elmo: Training needs accelerate: install the extra, as in python -m pip install -e ".[train]".' in (
        result.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.txt"], "no such text file: absent.txt"),
        (["empty.txt"], "not a single word"),
        (["text.txt", "--batch-size", "4000"], "fewer than one batch of 4000 rows of 5 words"),
        (["text.txt", "--config", "huge"], "There is no configuration huge"),
        (["text.txt", "--config", "text.txt"], "is not a JSON file"),
        (["text.txt", "--vocabulary", "bare.txt"], "lacks <S>, </S>, <UNK>: a vocabulary begins with the lines"),
        (["text.txt", "--vocabulary", "special.txt"], "no word beside the special ones"),
        (["text.txt", "--vocabulary", "absent.txt"], "absent.txt is not a file"),
        (["text.txt", "--model", "text.txt"], "text.txt is not a model folder"),
        (["text.txt", "--model", "elmo-mini", "--samples", "7"], "--samples belongs to the sizes of a fresh model"),
        (["text.txt", "--learning-rate", "1e39", "--warmup-steps", "0"], "Lower the learning rate, and resume."),
    ],
)
def test_bad_input(run, tmp_path, arguments, message):
    (tmp_path / "empty.txt").write_text("\n \n", encoding="utf-8")
    (tmp_path / "bare.txt").write_text("the\ncat\n", encoding="utf-8")
    (tmp_path / "special.txt").write_text("<S>\n</S>\n<UNK>\n", encoding="utf-8")
    # Of an option that is given twice the last one counts.
    result = run("train", "-o", "out", "--steps", "20", *COMMON, *arguments, status=1)
    assert message in result.stderr
    assert not list(tmp_path.glob("out/model.safetensors"))
    assert not list(tmp_path.glob("out/checkpoint-*"))
