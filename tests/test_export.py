"""Exported graphs run without hf_elmo, and compute what the models do."""

import random
import re

import numpy as np
import pytest
import torch
from amounts import first_of
from isolated import run_isolated
from small_models import fill, random_batch, random_options, small_config
from typer.testing import CliRunner

import hf_elmo
from hf_elmo import ElmoModel, ElmoState, ElmoTokenizer
from hf_elmo.commands.app import app
from hf_elmo.export import ElmoGraph, export_folder, export_onnx, export_program

TAGS = dict(enumerate(["O", "B-x", "I-x", "B-y", "I-y"]))
HEADS = {
    "tags of a chain": ("ElmoForTokenClassification", {"id2label": TAGS, "task_encoder_layers": 1}),
    "tags from highways": (
        "ElmoForTokenClassification",
        {
            "num_labels": 4,
            "use_crf": False,
            "task_encoder_layers": 2,
            "task_encoder_highways": True,
            "word_vector_size": 4,
            "char_cnn_filters": [[2, 5]],
            "task_feedforward_sizes": [5],
        },
    ),
    "tags from alternating LSTMs": (
        "ElmoForTokenClassification",
        {
            "num_labels": 4,
            "use_crf": False,
            "task_encoder_layers": 2,
            "task_encoder_kind": "alternating_lstm",
            "task_encoder_bidirectional": False,
            "task_encoder_highways": True,
            "elmo_projection_size": 5,
        },
    ),
    "classes": ("ElmoForSequenceClassification", {"num_labels": 3, "task_encoder_layers": 1}),
    "choices": ("ElmoForMultipleChoice", {"task_encoder_layers": 0}),
    "answers": ("ElmoForQuestionAnswering", {"num_representations": 2, "context_self_attention": True}),
    "neighbours": ("ElmoForPreTraining", {}),
}


def make_head(name):
    kind, fields = HEADS[name]
    config = small_config(num_layers=1, vocab_size=20, task_encoder_size=6, classifier_size=8, **fields)
    return fill(getattr(hf_elmo, kind)(config))


def batches_of(model, count, seed=0, words=()):
    """Inputs that the model's graph takes, and more that the model takes."""
    generator = random.Random(seed)
    for number in range(count):
        length = words[number] if number < len(words) else generator.randint(6, 24)
        batch = random_batch(generator, words=length)
        if isinstance(model, hf_elmo.ElmoForQuestionAnswering):
            # Three words each at least, with their boundaries.
            batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
            batch["token_type_ids"] = (torch.arange(length) >= 3).long().expand_as(batch["attention_mask"]).clone()
        if isinstance(model, hf_elmo.ElmoForMultipleChoice):
            batch = {name: torch.stack([tensor, tensor.flip(0)], dim=1) for name, tensor in batch.items()}
        yield batch


def expected(model, batch, **fields):
    """The outputs of a graph, by the model itself."""
    with torch.no_grad():
        results = model(**batch, **fields, output_hidden_states=True, return_dict=True)
    outputs = {name: value for name, value in results.items() if name.endswith(("logits", "_state", "representations"))}
    if isinstance(model, ElmoModel):
        outputs["hidden_states"] = torch.stack(results.hidden_states, dim=1)
    if results.get("state") is not None:
        outputs.update({f"new_{name}": part for name, part in results.state._asdict().items()})
    return outputs


def assert_close(found, wanted):
    assert set(found) == set(wanted)
    for name, tensor in wanted.items():
        scale = max(1.0, float(tensor.abs().max()))
        torch.testing.assert_close(torch.as_tensor(found[name]), tensor, rtol=0, atol=1e-5 * scale, msg=name)


def run_program(program, batch, names):
    with torch.no_grad():
        return program(**{name: batch[name] for name in names})


def run_onnx(file, batches, names):
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (extra onnx)")
    options = onnxruntime.SessionOptions()
    # Threads that wait for work would keep other tests from theirs.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == names
    for batch in batches:
        values = session.run(None, {name: batch[name].numpy() for name in names})
        yield dict(zip([each.name for each in session.get_outputs()], values, strict=True))


@pytest.fixture(scope="module", autouse=True)
def compiler_afresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def needs_onnx():
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra onnx)")
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (extra onnx)")


# The others are tested through ONNX, whose exporter makes such a program first.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["choices", "tags from highways", "neighbours"])
def test_programs_of_heads(name):
    model = make_head(name).train()
    program, names = export_program(model).module(), ElmoGraph(model).input_names
    assert model.training
    model.eval()
    for batch in batches_of(model, 6, words=(6, 7)):
        assert_close(run_program(program, batch, names), expected(model, batch))


@pytest.mark.slow
def test_a_saved_program_runs_in_a_process_without_hf_elmo(tmp_path):
    """For all lengths and numbers of sentences, whatever they were when it was traced."""
    model = fill(ElmoModel(small_config(num_layers=1, num_highway_layers=0)))
    torch.export.save(export_program(model), tmp_path / "elmo.pt2")
    names = ElmoGraph(model).input_names
    batches = list(batches_of(model, 12, words=(1, 1, 2, 300, 40)))
    torch.save([{name: batch[name] for name in names} for batch in batches], tmp_path / "inputs.pt")
    script = """
import torch
program = torch.export.load("elmo.pt2").module()
with torch.no_grad():
    outputs = [program(**inputs) for inputs in torch.load("inputs.pt")]
torch.save(outputs, "outputs.pt")
"""
    run_isolated(["-c", script], tmp_path)
    for batch, outputs in zip(batches, torch.load(tmp_path / "outputs.pt"), strict=True):
        assert_close(outputs, expected(model, batch))


@pytest.mark.slow
def test_a_program_carries_state():
    model = fill(ElmoModel(small_config(num_layers=1, num_highway_layers=0, num_representations=2)))
    program, config = export_program(model, with_state=True).module(), model.config
    for batch in batches_of(model, 4, words=(1, 9)):
        del batch["token_type_ids"]
        shape = (2, config.num_layers, len(batch["input_ids"]))
        state = ElmoState(torch.randn(*shape, config.projection_dim), torch.randn(*shape, config.cell_size))
        inputs = {**batch, **state._asdict()}
        names = ["character_ids", "attention_mask", "hidden", "cell"]
        wanted = expected(model, batch, state=state, return_state=True)
        assert_close(run_program(program, inputs, names), wanted)


@pytest.mark.slow
def test_a_model_itself_can_be_exported():
    """As `torch.export`'s own documentation has it, without this package's functions."""
    model = fill(ElmoModel(small_config(num_layers=1, num_highway_layers=0)))
    first, *batches = batches_of(model, 3)
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("words")}
    arguments = {name: first[name] for name in ("character_ids", "attention_mask")}
    with torch.no_grad():
        program = torch.export.export(model, (), arguments, dynamic_shapes=dict.fromkeys(arguments, sizes))
        for batch in batches:
            found = program.module()(**{name: batch[name] for name in arguments})
            wanted = model(**{name: batch[name] for name in arguments})
            torch.testing.assert_close(found.last_hidden_state, wanted.last_hidden_state, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [5, 10])
def test_onnx_of_any_options(tmp_path, needs_onnx, seed):
    model = fill(ElmoModel(small_config(**random_options(random.Random(seed)))), seed)
    export_onnx(model, tmp_path / "elmo.onnx")
    batches = list(batches_of(model, 20, seed, words=(1, 1, 2, 100, 60)))
    for batch, found in zip(batches, run_onnx(tmp_path / "elmo.onnx", batches, ElmoGraph(model).input_names)):
        assert_close(found, expected(model, batch))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tags of a chain", "answers"])
def test_onnx_of_heads(tmp_path, needs_onnx, name):
    model = make_head(name)
    export_onnx(model, tmp_path / "head.onnx")
    batches = list(batches_of(model, 6))
    for batch, found in zip(batches, run_onnx(tmp_path / "head.onnx", batches, ElmoGraph(model).input_names)):
        assert_close(found, expected(model, batch))


@pytest.mark.slow
def test_onnx_carries_state(tmp_path, needs_onnx):
    """Word by word it gives what a whole sentence gives to the forward direction."""
    model = fill(ElmoModel(small_config()))
    export_onnx(model, tmp_path / "elmo.onnx", with_state=True)
    (batch,) = batches_of(model, 1, words=(12,))
    mask = torch.ones(len(batch["input_ids"]), 12, dtype=torch.long)
    with torch.no_grad():
        whole = model(character_ids=batch["character_ids"], attention_mask=mask, output_hidden_states=True)
    state = {"hidden": torch.zeros(2, 2, len(mask), 5), "cell": torch.zeros(2, 2, len(mask), 7)}
    for word in range(12):
        inputs = {"character_ids": batch["character_ids"][:, [word]], "attention_mask": mask[:, [word]], **state}
        (outputs,) = run_onnx(tmp_path / "elmo.onnx", [inputs], list(inputs))
        state = {name: torch.from_numpy(outputs[f"new_{name}"]) for name in state}
        found = torch.from_numpy(outputs["hidden_states"])[:, :, 0, :5]
        wanted = torch.stack(whole.hidden_states, dim=1)[:, :, word, :5]
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_command_writes_what_its_readme_says(tmp_path, needs_onnx):
    model, tokenizer = fill(ElmoModel(small_config(num_layers=1))), ElmoTokenizer.create(max_characters_per_token=8)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    result = CliRunner().invoke(
        app, ["export", "--onnx", "--program", str(tmp_path / "model"), str(tmp_path / "graphs")]
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"graphs: ElmoModel, model\.onnx \(.* kB\), model\.pt2 \(.* kB\)", result.stderr)
    folder = tmp_path / "graphs"
    assert {"config.json", "model.onnx", "model.pt2", "README.md", "tokenizer.json"} <= {
        each.name for each in folder.iterdir()
    }
    assert not list(tmp_path.glob(".hf_elmo-*"))
    texts = ["I read the book yesterday .", "Can you read the letter now ?"]
    wanted = expected(model, tokenizer(texts, padding=True, return_tensors="pt"))
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 2
    for number, block in enumerate(blocks):
        target = str(tmp_path / f"{number}.npz")
        save = f"\nnp.savez({target!r}, **{{name: np.asarray(value) for name, value in outputs.items()}})"
        script = tmp_path / f"{number}.py"
        script.write_text(f"import os\nos.chdir({str(folder)!r})\n{block}{save}", encoding="utf-8")
        process = run_isolated([script], tmp_path)
        assert f"'last_hidden_state': {tuple(wanted['last_hidden_state'].shape)}" in process.stdout
        with np.load(tmp_path / f"{number}.npz") as found:
            assert_close(dict(found), wanted)


@pytest.mark.slow
def test_onnx_of_the_bundled_model(tmp_path, needs_onnx):
    model = ElmoModel.from_pretrained(hf_elmo.bundled()).eval()
    tokenizer = ElmoTokenizer.from_pretrained(hf_elmo.bundled())
    export_onnx(model, tmp_path / "elmo.onnx")
    texts = [
        ["A cat sat on the mat ."],
        ["Yes", "The " * 100 + "end ."],
        ["I read it .", "You did not , I think ."] * 8,
    ]
    batches = [tokenizer(each, padding=True, return_tensors="pt") for each in texts]
    batches.append(tokenizer(["Who ?"], ["She , of course ."], return_tensors="pt"))
    for batch, found in zip(batches, run_onnx(tmp_path / "elmo.onnx", batches, ElmoGraph(model).input_names)):
        assert_close(found, expected(model, batch))


@pytest.mark.parametrize("form", first_of(["onnx", "program"]))
def test_the_command_exports_heads_or_the_vectors_below(tmp_path, monkeypatch, needs_onnx, form):
    folder, suffix = tmp_path / "classifier", {"onnx": "onnx", "program": "pt2"}[form]
    config = small_config(num_layers=1, num_highway_layers=0, num_labels=2, task_encoder_layers=0)
    model = fill(hf_elmo.ElmoForSequenceClassification(config)).eval()
    model.save_pretrained(folder)
    ElmoTokenizer.create(max_characters_per_token=config.max_characters_per_token).save_pretrained(folder)
    result = CliRunner().invoke(app, ["export", f"--{form}", str(folder), str(tmp_path / "graph")])
    assert result.exit_code == 0, result.output
    assert f"ElmoForSequenceClassification, model.{suffix}" in result.stderr
    tokenizer, names = ElmoTokenizer.from_pretrained(tmp_path / "graph"), ElmoGraph(model).input_names
    batches = [tokenizer(texts, padding=True, return_tensors="pt") for texts in (["A cat ."], ["I", "You " * 60])]
    if form == "onnx":
        results = run_onnx(tmp_path / "graph" / "model.onnx", batches, names)
    else:
        program = torch.export.load(tmp_path / "graph" / "model.pt2").module()
        results = (run_program(program, batch, names) for batch in batches)
    for batch, found in zip(batches, results, strict=True):
        assert_close(found, expected(model, batch))

    exported = []
    monkeypatch.setattr(hf_elmo.export, "export_folder", lambda model, *_, **__: exported.append(type(model)) or [])
    for option in ("--vectors", "--state"):
        CliRunner().invoke(app, ["export", "--program", option, str(folder), str(tmp_path / "vectors")])
    assert exported == [ElmoModel, ElmoModel]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["elmo-mini", "new"], 2, "--onnx, --program"),
        (["--program", "elmo-mini", "full"], 1, "full is not empty"),
        (["--program", "nowhere", "new"], 1, "no model folder nowhere"),
        (["--onnx", "--state", "elmo-mini", "new/model.onnx/"], 1, "onnxscript"),
    ],
)
def test_the_command_says_what_is_wrong_and_leaves_nothing(tmp_path, monkeypatch, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    if "onnxscript" in message:
        monkeypatch.setattr(hf_elmo.export, "_version", lambda name: None if name == "onnxscript" else "1")
    result = CliRunner().invoke(app, ["export", *arguments])
    assert result.exit_code == status
    assert message in result.stderr
    assert [each.name for each in tmp_path.rglob("*")] == ["full", "file"]


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(hf_elmo.export, "export_program", lambda *arguments: None)
    model = fill(ElmoModel(small_config()))

    def fail(program, file):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr(torch.export, "save", fail)
    with pytest.raises(OSError, match="No space"):
        export_folder(model, ElmoTokenizer.create(), tmp_path / "graphs", onnx=False, program=True)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_told(tmp_path, needs_onnx):
    characters = small_config(num_labels=2, use_crf=False, char_cnn_characters="abc", char_lstm_size=3)
    with pytest.raises(ValueError, match="Unicode characters"):
        export_program(hf_elmo.ElmoForTokenClassification(characters))
    with pytest.raises(ValueError, match="keeps no LSTM state"):
        export_program(make_head("classes"), with_state=True)
    with pytest.raises(ValueError, match=r"in bfloat16.*float\(\)"):
        export_onnx(ElmoModel(small_config()).bfloat16(), tmp_path / "elmo.onnx")
    assert not list(tmp_path.iterdir())
