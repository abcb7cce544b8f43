"""Model folders that are damaged or hostile: an error at once, before memory is asked for or a file elsewhere read."""

import json
import os
import shutil
import struct
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from hf_elmo import ElmoConfig, ElmoForTokenClassification, ElmoModel
from hf_elmo.commands.app import app
from hf_elmo.hub.folders import load, load_as_saved

COUNTS = {
    "num_layers": 10**9,
    "num_highway_layers": 10**9,
    "num_representations": 10**9,
    "task_encoder_layers": 10**9,
    "cell_size": 10**12,
    "char_embed_dim": 10**9,
    "word_embed_dim": 10**9,
    "max_characters_per_token": 10**9,
    "vocab_size": 10**12,
    "char_vocab_size": 10**12,
    "num_labels": 10**9,
    "filters": [[1, 1]] * 10**5,
    "char_cnn_filters": [[1, 10**9]],
    "task_feedforward_sizes": [1] * 10**5,
}


@pytest.fixture
def folder(tiny_model_folder, tmp_path):
    return shutil.copytree(tiny_model_folder, tmp_path / "model")


@pytest.fixture
def few_bytes():
    """Lets the process ask for two gigabytes more than it has, and no more."""
    resource = pytest.importorskip("resource")
    if not sys.platform.startswith("linux"):
        pytest.skip("needs /proc")
    pages = int(open("/proc/self/statm").read().split()[0])  # noqa: SIM115
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2 * 10**9, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def change(path, **fields):
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | fields), encoding="utf-8")


def run(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 1, result.output
    assert "report this" not in result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.parametrize("name", COUNTS)
def test_absurd_counts(folder, few_bytes, name):
    change(folder / "config.json", **{name: COUNTS[name]})
    for load_it in (lambda: ElmoConfig.from_pretrained(folder), lambda: load(str(folder))):
        with pytest.raises(ValueError, match=f"({name}|a filter's count) must be .*at most|{name} must be at most"):
            load_it()
    assert "must be" in run("info", folder)


@pytest.mark.parametrize("fields", [{"num_layers": 999}, {"cell_size": 10**6}, {"num_representations": 999}])
def test_counts_that_are_not_those_of_the_weights(folder, few_bytes, fields):
    change(folder / "config.json", **fields)
    with pytest.raises(ValueError, match=r"are not those of its config\.json: [0-9]+ are missing or of another shape"):
        load(str(folder))


@pytest.mark.parametrize("model_class", [ElmoModel, ElmoForTokenClassification])
@pytest.mark.parametrize(
    "fields",
    [
        {"num_layers": 999, "cell_size": 10**6},
        {"cell_size": 10**6},
        {"filters": [[1, 10**6]]},
    ],
)
def test_from_pretrained_compares_sizes_before_memory_is_asked_for(folder, few_bytes, model_class, fields):
    change(folder / "config.json", **fields)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        model_class.from_pretrained(folder)


NESTED = "[" * 100_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (NESTED, "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ("[]", "must hold a JSON object, but holds a list"),
        ("{", "is not a JSON file"),
        (b"\xff{}", "is not a JSON file"),
    ],
    ids=["lists", "objects", "a list", "cut", "bytes"],
)
def test_json_that_is_none(folder, tmp_path, content, message):
    content = content if isinstance(content, bytes) else content.encode()
    (folder / "config.json").write_bytes(content)
    for arguments in (["info", folder], ["embed", "a", "--model", folder], ["push", folder, "a/b", "--dry-run"]):
        assert message in run(*arguments)
    (tmp_path / "text").write_text("a b c", encoding="utf-8")
    assert message in run("train", tmp_path / "text", "-o", tmp_path / "out", "--config", folder / "config.json")


def shards(folder, **places):
    """The folder with its weights in two files, all of whose names in the index are replaced."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    for file, part in (("one.safetensors", names[::2]), ("two.safetensors", names[1::2])):
        save_file({name: weights[name] for name in part}, folder / file, {"format": "pt"})
    index = {name: ("one.safetensors", "two.safetensors")[number % 2] for number, name in enumerate(names)}
    index = {name: places.get(file.partition(".")[0], file) for name, file in index.items()}
    content = {"metadata": {"total_size": 1}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content), encoding="utf-8")


def refused(folder, message):
    for load_it in (
        lambda: load(str(folder)),
        lambda: ElmoModel.from_pretrained(folder),
        lambda: load_as_saved(folder),
    ):
        with pytest.raises(ValueError, match=message):
            load_it()
    assert run("info", folder)


def test_shards_are_read(folder, tiny_model_folder):
    shards(folder)
    for model in (load(str(folder), "cpu")[0], ElmoModel.from_pretrained(folder)):
        expected = ElmoModel.from_pretrained(tiny_model_folder).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["../one.safetensors", "/etc/passwd", "sub/one.safetensors", "..", "", "a\\b", "a\0b"])
def test_shards_outside_of_the_folder(folder, name):
    shards(folder, two=name)
    refused(folder, "weights must lie in the folder itself")


@pytest.mark.skipif(os.name != "posix", reason="needs pipes and devices")
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "absent", "index"])
def test_shards_that_are_no_files(folder, kind):
    shards(folder)
    shard = folder / ("model.safetensors.index.json" if kind == "index" else "two.safetensors")
    shard.unlink()
    if kind in ("pipe", "index"):
        os.mkfifo(shard)
    elif kind == "device":
        shard.symlink_to("/dev/zero")
    elif kind == "folder":
        shard.mkdir()
    refused(folder, "is missing" if kind == "absent" else "is not a regular file")


@pytest.mark.parametrize(
    "content", [NESTED, "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {}}', "{"]
)
def test_a_broken_index(folder, content):
    shards(folder)
    (folder / "model.safetensors.index.json").write_text(content, encoding="utf-8")
    refused(folder, r"index\.json (is not a JSON file|must hold a JSON object|is not an index of files of weights)")


@pytest.mark.parametrize("header", [NESTED, "[]", '{"a": 1}', '{"a": {"dtype": "F32", "shape": "x"}}', ""])
def test_a_broken_table_of_contents(folder, header):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode())
    refused(folder, r"model\.safetensors is damaged")


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_weights_of_other_numbers(folder, dtype):
    weights = load_file(folder / "model.safetensors")
    weights["bilstm.forward_layers.0.bias"] = weights["bilstm.forward_layers.0.bias"].to(dtype)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    refused(folder, r"the weights bilstm\.forward_layers\.0\.bias are of the type .*, expected F64, F32, F16, BF16")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_weights_of_other_precisions_are_read(folder, dtype):
    ElmoModel.from_pretrained(folder, dtype=dtype).save_pretrained(folder)
    assert load(str(folder), "cpu")[0].dtype in (dtype, torch.float32)


def test_weights_that_overflow(folder):
    weights = load_file(folder / "model.safetensors")
    weights["bilstm.forward_layers.0.weight_hh"][1, 2] = -1e38
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"weight_hh holds numbers up to 1e\+38, with which nothing can be computed"):
        load(str(folder))


def test_a_head_is_loaded_as_before(tmp_path):
    config = ElmoConfig(
        filters=[[1, 4]], num_highway_layers=1, cell_size=8, projection_dim=4, char_embed_dim=3, num_labels=2
    )
    ElmoForTokenClassification(config).save_pretrained(tmp_path)
    assert ElmoForTokenClassification.from_pretrained(tmp_path).config.num_labels == 2
    assert ElmoModel.from_pretrained(tmp_path).config.cell_size == 8
