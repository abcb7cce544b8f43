"""Training a language model: the loss, the state from batch to batch, checkpoints, processes, further training."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import warm
from amounts import first_of
from language_model_training import STEPS, small_training, write_text
from places import HELPERS
from safetensors.torch import load_file
from torch.distributed import TCPStore

from hf_elmo import ElmoConfig, ElmoForPreTraining, ElmoModel, ElmoTokenizer
from hf_elmo.language_model.scoring import perplexity
from hf_elmo.training import trainer as trainer_module
from hf_elmo.training.batches import RunningText, WordTable
from hf_elmo.training.corpus import Corpus
from hf_elmo.training.trainer import (
    ORIGINAL_RECIPE,
    LanguageModelTrainer,
    LanguageModelTrainingArguments,
    make_model,
    train,
)

SCRIPT = HELPERS / "language_model_training.py"
TEXT = "The cat sat on the mat. The dog sat on the cat.\n\n   \nA dog ate the mat.\n"


def tiny_config(**overrides) -> ElmoConfig:
    sizes = {
        "cell_size": 24,
        "projection_dim": 12,
        "filters": [[1, 8], [2, 8]],
        "num_highway_layers": 1,
        "dropout": 0.0,
    }
    return ElmoConfig(**{**sizes, **overrides})


def losses_of(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A whole run in a process of its own: its folder."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    run(folder)
    return folder / "out"


def start(folder: Path, variables: dict[str, str] | None = None, /, **options) -> warm.Popen:
    folder.mkdir(exist_ok=True)
    return warm.Popen(
        [SCRIPT, folder, json.dumps(options)],
        warm.TRAINING,
        env={**os.environ, "HF_DATASETS_CACHE": str(folder / "cache"), **(variables or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, status: int = 0, **options) -> str:
    process = start(folder, **options)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == status, output[-3000:]
    return output


@pytest.mark.parametrize("whole_sentences", first_of([True, False]))
def test_training_learns_the_text_and_leaves_a_usable_folder(tmp_path, whole_sentences):
    (tmp_path / "a.txt").write_text(TEXT * 20, encoding="utf-8")
    trainer = train(
        [tmp_path / "a.txt"],
        tmp_path / "out",
        tiny_config(),
        vocabulary_size=8,
        max_steps=60,
        per_device_train_batch_size=8,
        unroll_steps=6,
        carry_state=not whole_sentences,
        learning_rate=2e-2,
        logging_steps=20,
        save_steps=30,
        use_cpu=True,
        seed=0,
        disable_tqdm=True,
    )
    tokenizer = ElmoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_ids_to_tokens([4, 5]) == [".", "the"]  # 60 times each, in the order of their letters
    assert len(tokenizer) == 12
    model = ElmoForPreTraining.from_pretrained(tmp_path / "out")
    sentences = ["The cat sat on the mat.", "The dog sat on the cat.", "A dog ate the mat."]
    learned = perplexity(model, tokenizer, sentences)
    torch.manual_seed(0)
    fresh = perplexity(ElmoForPreTraining(model.config), tokenizer, sentences)
    assert learned.forward < 0.4 * fresh.forward
    assert learned.backward < 0.4 * fresh.backward
    assert not any(mix.gamma.requires_grad for mix in model.elmo.scalar_mixes)
    base = ElmoModel.from_pretrained(tmp_path / "out")
    assert torch.equal(base.bilstm.forward_layers[0].weight_ih, model.elmo.bilstm.forward_layers[0].weight_ih)
    assert trainer.state.global_step == 60
    first = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert first["loss"] == pytest.approx((first["forward_loss"] + first["backward_loss"]) / 2, rel=1e-4)
    assert not (tmp_path / "out" / "_unfinished").exists()


@pytest.mark.parametrize("accumulate", first_of([2, 1]))
def test_the_state_goes_from_batch_to_batch(tmp_path, accumulate):
    """The losses are those of a loop written out here, in which the model is given the state of the batch before."""
    torch.manual_seed(0)
    trainer = small_training(
        tmp_path,
        dropout=0.0,
        num_negative_samples=None,
        optim="sgd",
        lr_scheduler_type="constant",
        learning_rate=0.5,
        max_grad_norm=0,
        max_steps=12,
        gradient_accumulation_steps=accumulate,
    )
    corpus, tokenizer = Corpus.load(tmp_path / "out" / "_corpus"), trainer.processing_class
    batches = RunningText(corpus, WordTable.of(corpus.lexicon, tokenizer), 4, 7, seed=5)
    torch.manual_seed(5)
    model = ElmoForPreTraining(trainer.model.config).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    state, expected, stateless = None, [], []
    for step in range(12):
        total = 0
        for part in range(accumulate):
            number = step * accumulate + part
            assert number < len(batches)
            batch = batches[(0, number)]
            output = model(**batch, state=state, return_state=True)
            stateless.append(model(**batch).loss.item())
            state = output.state.detach()
            (output.loss / accumulate).backward()
            total += output.loss.item() / accumulate
        optimizer.step()
        optimizer.zero_grad()
        expected.append(total)
    assert losses_of(trainer) == pytest.approx(expected, abs=2e-5)
    if accumulate == 1:
        assert losses_of(trainer)[1:] != pytest.approx(stateless[1:], abs=2e-5)


@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_at_any_moment_and_resumed_the_weights_are_the_same(uninterrupted, tmp_path, kills):
    """`kill -9` in the writing of a first checkpoint (between two, in a later one); then it goes on to its end."""
    out = tmp_path / "out"

    def killed_when(happened):
        process = start(tmp_path)
        while not happened():
            assert process.poll() is None, f"it ended before: {process.stdout.read()[-3000:]}"
            time.sleep(0.0005)
        process.kill()
        process.wait()

    def is_writing(*pieces):
        """Whether a checkpoint has these files, and is not there yet under its own name."""
        return any(
            all((folder / piece).exists() for piece in pieces) and not (out / folder.name).exists()
            for folder in (out / "_unfinished").glob("checkpoint-*")
        )

    killed_when(lambda: is_writing("model.safetensors"))
    before = {folder.name for folder in out.glob("checkpoint-*")}
    assert (out / "_unfinished").is_dir(), "the process was to die while it was writing"
    if kills > 1:
        killed_when(lambda: {folder.name for folder in out.glob("checkpoint-*")} - before)
        time_of_death = sorted(int(folder.name.partition("-")[2]) for folder in out.glob("checkpoint-*"))
        assert time_of_death[-1] < STEPS
        later = time_of_death[-1] + 4
        killed_when(lambda: (out / f"checkpoint-{later}").exists() and is_writing("optimizer.pt"))
    run(tmp_path)
    assert sha256(out / "model.safetensors") == sha256(uninterrupted / "model.safetensors")
    state = [json.loads((folder / "trainer_state.json").read_text(encoding="utf-8")) for folder in (out, uninterrupted)]
    assert state[0]["global_step"] == state[1]["global_step"] == STEPS
    last = f"checkpoint-{STEPS}"
    for file in ("model.safetensors", "lstm_state_0.safetensors"):
        assert sha256(out / last / file) == sha256(uninterrupted / last / file)


@pytest.mark.slow
def test_a_resumed_run_across_the_end_of_an_epoch(tmp_path):
    """The text of the second epoch is shuffled anew, and a run that resumes there reads it so."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    short = {"unroll_steps": 28, "per_device_train_batch_size": 16, "lr_scheduler_type": "constant"}
    batches = len(small_training(whole, max_steps=2, **short).batches)
    shutil.rmtree(whole / "out")
    options = {"max_steps": batches + 6, "save_steps": batches + 3, **short}
    small_training(whole, **options)
    small_training(parts, **options)
    shutil.rmtree(parts / "out" / f"checkpoint-{batches + 6}")
    (parts / "out" / "model.safetensors").unlink()
    trainer = small_training(parts, **options)
    assert trainer.state.global_step == batches + 6
    assert sha256(parts / "out" / "model.safetensors") == sha256(whole / "out" / "model.safetensors")


def test_two_processes_have_rows_of_their_own(tmp_path):
    """Two processes with two rows each see what one process with four rows sees, and learn the same."""
    options = {"dropout": 0.0, "num_negative_samples": None, "max_steps": 8, "save_steps": 4}
    (tmp_path / "one").mkdir()
    one = small_training(tmp_path / "one", **options)
    folder = tmp_path / "two"
    folder.mkdir()
    # What torchrun does, but for the time that it and two processes take to start.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    common |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    ranks = ({**common, "RANK": rank, "LOCAL_RANK": rank} for rank in "01")
    processes = [start(folder, rank, **options, per_device_train_batch_size=2) for rank in ranks]
    for process in processes:
        output, _ = process.communicate(timeout=900)
        assert process.returncode == 0, output[-3000:]
    state = json.loads((folder / "out" / "trainer_state.json").read_text(encoding="utf-8"))
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert losses == pytest.approx(losses_of(one), abs=1e-4)
    weights, expected = (load_file(path / "out" / "model.safetensors") for path in (folder, tmp_path / "one"))
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, atol=1e-4, rtol=0)
    files = sorted(file.name for file in (folder / "out" / "checkpoint-4").glob("lstm_state_*"))
    assert files == ["lstm_state_0.safetensors", "lstm_state_1.safetensors"]
    with pytest.raises(ValueError, match=r"processes was 2, now 1.* Resume with the values of before"):
        small_training(folder, **options, per_device_train_batch_size=2)


def torchrun(folder, *options, **variables):
    """Starts the training in two processes with two rows each."""
    folder.mkdir(exist_ok=True)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *options]
    arguments = [str(SCRIPT), str(folder), json.dumps({"per_device_train_batch_size": 2})]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(folder / "cache"), **variables}
    return subprocess.Popen([sys.executable, *launch, *arguments], env=environment, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def weights_of_two(tmp_path_factory):
    """The checksum of what two processes make that nobody disturbs."""
    folder = tmp_path_factory.mktemp("two") / "whole"
    undisturbed = torchrun(folder)
    _, said = undisturbed.communicate(timeout=900)
    assert undisturbed.returncode == 0, said[-3000:]
    return sha256(folder / "out" / "model.safetensors")


def kill_one(process, out):
    """Kills one of the two processes after the first checkpoint; what torchrun said until its end."""
    while not (out / "checkpoint-4").exists():
        time.sleep(0.002)
        assert process.poll() is None, process.communicate()[1][-3000:]
    workers = [child for child in psutil.Process(process.pid).children() if str(SCRIPT) in child.cmdline()]
    assert len(workers) == 2
    workers[1].kill()
    _, said = process.communicate(timeout=900)
    assert not any(worker.is_running() for worker in workers)
    return said


@pytest.mark.slow
def test_a_process_of_two_is_killed(tmp_path, weights_of_two):
    """torchrun ends the other one, too; started again they go on from the last checkpoint, to the same weights."""
    process, out = torchrun(tmp_path / "killed"), tmp_path / "killed" / "out"
    kill_one(process, out)
    assert process.returncode != 0
    assert not (out / "model.safetensors").exists()
    again = torchrun(tmp_path / "killed")
    _, said = again.communicate(timeout=900)
    assert again.returncode == 0, said[-3000:]
    assert sha256(out / "model.safetensors") == weights_of_two


@pytest.mark.slow
def test_torchrun_starts_a_killed_process_again(tmp_path, weights_of_two):
    """With the variable without which torch 2.13 gives new processes the addresses of those before them."""
    variables = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    process = torchrun(tmp_path / "killed", "--max-restarts", "1", **variables)
    said = kill_one(process, tmp_path / "killed" / "out")
    assert process.returncode == 0, said[-3000:]
    assert sha256(tmp_path / "killed" / "out" / "model.safetensors") == weights_of_two


def test_another_text_or_shape_cannot_be_resumed(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / f"checkpoint-{STEPS}")
    with pytest.raises(ValueError, match="rows was 4, now 8"):
        small_training(tmp_path, per_device_train_batch_size=8)
    (tmp_path / "out" / f"checkpoint-{STEPS - 4}" / "lstm_state_0.safetensors").unlink()
    with pytest.raises(ValueError, match="not a state of a language model's training"):
        small_training(tmp_path)


def test_a_full_disk_loses_nothing(uninterrupted, tmp_path):
    """The optimiser's state is larger than the model, and does not fit any more."""
    run(tmp_path, max_steps=4)
    out = tmp_path / "out"
    size = (out / "checkpoint-4" / "model.safetensors").stat().st_size
    assert size < (out / "checkpoint-4" / "optimizer.pt").stat().st_size
    kept = sha256(out / "checkpoint-4" / "optimizer.pt")
    output = run(tmp_path, status=1, largest_file=size + 1000)
    assert "The checkpoint of step 8 could not be written" in output
    assert f"The last whole checkpoint is {out / 'checkpoint-4'}. Make room there, and resume." in output
    assert [folder.name for folder in out.glob("checkpoint-*")] == ["checkpoint-4"]
    assert sha256(out / "checkpoint-4" / "optimizer.pt") == kept
    run(tmp_path)
    assert sha256(out / "model.safetensors") == sha256(uninterrupted / "model.safetensors")


def test_freed_memory_is_given_back_now_and_then(tmp_path, monkeypatch):
    """Batches of many shapes leave gaps in memory, by which a training of days would grow to several GB."""
    steps = []
    monkeypatch.setattr(trainer_module, "_BATCHES_BETWEEN_TRIMS", 3)
    monkeypatch.setattr(trainer_module, "give_back_memory", lambda: steps.append(1))
    write_text(tmp_path)
    small_training(tmp_path, max_steps=7, save_strategy="no")
    assert len(steps) == 2


def test_a_loss_that_is_no_number_stops_the_training(tmp_path):
    write_text(tmp_path)
    with pytest.raises(FloatingPointError, match=r"The loss is (nan|inf) at step \d+\. There is no checkpoint yet"):
        small_training(tmp_path, learning_rate=float("inf"), warmup_steps=0, save_strategy="no")
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    """They are before any loss shows it: the loss of the first step is one of good weights."""
    with pytest.raises(FloatingPointError, match=r"After step 1 weights are not finite .* not saved"):
        small_training(tmp_path, learning_rate=float("inf"), warmup_steps=0, save_steps=1)
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_the_best_checkpoint_is_known_by_its_place(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT * 20, encoding="utf-8")
    sentences = ["The cat sat on the mat.", "A dog ate the mat."]
    trainer = train(
        [tmp_path / "a.txt"],
        tmp_path / "out",
        tiny_config(),
        vocabulary_size=8,
        eval_dataset=sentences,
        max_steps=30,
        per_device_train_batch_size=8,
        unroll_steps=6,
        learning_rate=2e-2,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=10,
        save_steps=10,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="perplexity",
        greater_is_better=False,
        use_cpu=True,
        disable_tqdm=True,
    )
    logged = [entry for entry in trainer.state.log_history if "eval_perplexity" in entry]
    best = min(logged, key=lambda entry: entry["eval_perplexity"])
    assert trainer.state.best_model_checkpoint == str(tmp_path / "out" / f"checkpoint-{best['step']}")
    assert Path(trainer.state.best_model_checkpoint).is_dir()
    tokenizer = ElmoTokenizer.from_pretrained(tmp_path / "out")
    scored = perplexity(ElmoForPreTraining.from_pretrained(tmp_path / "out"), tokenizer, sentences)
    assert best["eval_forward_perplexity"] == pytest.approx(scored.forward, rel=1e-5)
    assert best["eval_backward_perplexity"] == pytest.approx(scored.backward, rel=1e-5)
    assert best["eval_loss"] == pytest.approx(torch.tensor(scored.mean).log().item(), rel=1e-5)


def test_the_original_recipe_is_adagrad_from_one_on_the_multiplied_loss(tmp_path):
    """One step by hand: squares of gradients begin with 1, and the gradient is that of the loss times unroll_steps."""
    fields = {**ORIGINAL_RECIPE, "max_grad_norm": 0, "max_steps": 1, "dropout": 0.0, "num_negative_samples": None}
    trainer = small_training(tmp_path, **fields)
    assert isinstance(trainer.optimizer.optimizer, torch.optim.Adagrad)
    corpus, tokenizer = Corpus.load(tmp_path / "out" / "_corpus"), trainer.processing_class
    batch = RunningText(corpus, WordTable.of(corpus.lexicon, tokenizer), 4, 7, seed=5)[(0, 0)]
    torch.manual_seed(5)
    model = ElmoForPreTraining(trainer.model.config).train()
    loss = model(**batch).loss
    (7 * loss).backward()
    trained = dict(trainer.model.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            gradient = parameter.grad
            expected = parameter - 0.2 * gradient / (1 + gradient**2).sqrt()
            torch.testing.assert_close(trained[name], expected, atol=1e-6, rtol=1e-5)
    assert losses_of(trainer) == pytest.approx([loss.item()], rel=1e-4)


def test_training_goes_on_from_a_language_model(uninterrupted, tmp_path):
    """With its own vocabulary and softmax, on another text."""
    (tmp_path / "a.txt").write_text("a0 b1 c2 unheard-of words\n" * 40, encoding="utf-8")
    arguments = {"per_device_train_batch_size": 2, "unroll_steps": 5, "use_cpu": True, "disable_tqdm": True}
    before, rates = ElmoForPreTraining.from_pretrained(uninterrupted), {"learning_rate": 0.0, "max_steps": 1}
    train([tmp_path / "a.txt"], tmp_path / "out", model=uninterrupted, **arguments, **rates)
    after = ElmoForPreTraining.from_pretrained(tmp_path / "out")
    for name, tensor in before.state_dict().items():
        assert torch.equal(tensor, after.state_dict()[name])
    ids = [ElmoTokenizer.from_pretrained(folder).get_vocab() for folder in (uninterrupted, tmp_path / "out")]
    assert ids[0] == ids[1]


def test_training_goes_on_from_weights_without_a_softmax(tiny_model_folder, tmp_path):
    """Published weights: the biLM is kept, the softmax is fresh, and its vocabulary the text's."""
    (tmp_path / "a.txt").write_text(TEXT * 20, encoding="utf-8")
    arguments = {"per_device_train_batch_size": 2, "unroll_steps": 5, "use_cpu": True, "disable_tqdm": True}
    rates = {"learning_rate": 0.0, "max_steps": 1, "vocabulary_size": 6}
    train([tmp_path / "a.txt"], tmp_path / "out", model=tiny_model_folder, **arguments, **rates)
    model, base = ElmoForPreTraining.from_pretrained(tmp_path / "out"), ElmoModel.from_pretrained(tiny_model_folder)
    for name, tensor in base.state_dict().items():
        assert torch.equal(tensor, model.elmo.state_dict()[name])
    assert model.softmax.weight.shape == (10, 16)
    assert 0.1 < model.softmax.weight.std() * 16**0.5 < 2
    assert len(ElmoTokenizer.from_pretrained(tmp_path / "out")) == 10


def test_wrong_arguments(uninterrupted, tmp_path):
    corpus = Corpus.save([["a", "b"]] * 9, tmp_path / "corpus", {})
    with pytest.raises(ValueError, match="either the sizes of a fresh model, or the folder"):
        make_model(corpus)
    with pytest.raises(ValueError, match="vocabulary of its own"):
        make_model(corpus, model=uninterrupted, vocabulary=["a"])
    with pytest.raises(ValueError, match="no weights"):
        make_model(corpus, model=tmp_path)
    with pytest.raises(ValueError, match="unroll_steps must be at least 1"):
        LanguageModelTrainingArguments(output_dir=str(tmp_path), unroll_steps=0)
    model, tokenizer = make_model(corpus, tiny_config())
    args = LanguageModelTrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True, report_to="none")
    with pytest.raises(ValueError, match=r"27 words .* fewer than one batch of 8 rows of 20 words"):
        LanguageModelTrainer(model, args, corpus, tokenizer)
    with pytest.raises(ValueError, match="The tokenizer has 4 words, but the model's softmax 6"):
        LanguageModelTrainer(model, args, corpus, ElmoTokenizer.create())
