"""The commands, run in this process; `test_cli_processes.py` runs `hf-elmo` itself."""

import functools
import json
import shutil
import struct

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import torch
from transformers.utils import logging
from typer.testing import CliRunner

from hf_elmo import ElmoConfig, ElmoForPreTraining, ElmoModel, ElmoTokenizer, __version__
from hf_elmo.commands.app import app
from hf_elmo.commands.embed import Format, Layers
from hf_elmo.vectors.embedding import LAYERS
from hf_elmo.vectors.files import FORMATS

SAFE_OPEN = safetensors.safe_open
TEXT = "I read a book .\n\nShe didn't read it yesterday, and he will (maybe).\nYes!\n   \nÄrger in 東京\n"


@pytest.fixture(autouse=True)
def libraries_as_loud_as_before():
    """Commands silence the libraries, for the whole process."""
    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    yield
    logging.set_verbosity(verbosity)
    if has_bars:
        logging.enable_progress_bar()


@pytest.fixture
def run(tiny_model_folder, tmp_path, monkeypatch):
    """Runs a command in an empty folder, with the tiny model for those that want one."""
    monkeypatch.chdir(tmp_path)

    def run(command, *arguments, model=tiny_model_folder, status=0, input=None):
        options = [] if model is None or command in ("convert", "info") else ["--model", str(model)]
        result = CliRunner().invoke(app, [command, *options, *map(str, arguments)], input=input)
        assert result.exit_code == status, result.output
        if status:
            assert "Traceback" not in result.output
            assert result.stdout == ""
            assert result.stderr.startswith("Usage: " if status == 2 else "hf-elmo: ")
        return result

    return run


@functools.cache
def loaded(folder):
    return ElmoModel.from_pretrained(folder), ElmoTokenizer.from_pretrained(folder)


def alone(folder, words, layers="mix"):
    """The vectors of one sentence by a plain call of the model, boundaries left out."""
    model, tokenizer = loaded(folder)
    with torch.no_grad():
        output = model(**tokenizer([words], is_split_into_words=True, return_tensors="pt"), output_hidden_states=True)
    stack = torch.stack([layer[0, 1:-1] for layer in output.hidden_states]).numpy()
    mix = output.last_hidden_state[0, 1:-1].numpy()
    return {"mix": mix, "top": stack[-1], "all": stack, "average": stack.mean(axis=0), "sum": stack.sum(axis=0)}[layers]


def read_vectors(path):
    """Arrays by number."""
    if path.suffix == ".npz":
        with np.load(path) as archive:
            arrays = dict(archive)
    elif path.suffix == ".safetensors":
        arrays = safetensors.numpy.load_file(path)
    elif path.suffix == ".hdf5":
        with h5py.File(path) as file:
            arrays = {key: file[key][...] for key in file if key.isdecimal()}
    else:
        rows = pq.read_table(path).to_pylist()
        arrays = {str(row["sentence"]): np.array(row["vectors"], dtype=np.float32) for row in rows}
    return {int(key): array for key, array in arrays.items() if key.isdecimal()}


def check_vectors(path, folder, sentences, layers="mix"):
    vectors = read_vectors(path)
    assert sorted(vectors) == list(range(len(sentences)))
    for number, words in enumerate(sentences):
        expected = alone(folder, words, layers)
        np.testing.assert_allclose(vectors[number].reshape(expected.shape), expected, atol=1e-5, rtol=0)


def test_options_name_what_the_library_has():
    assert [each.value for each in Layers] == list(LAYERS)
    assert [each.value for each in Format] == list(FORMATS)


# --- embed


@pytest.mark.parametrize("name", ["v.npz", "v.safetensors", "v.hdf5", "v.parquet"])
@pytest.mark.parametrize("layers", LAYERS)
def test_embed_writes_every_format(run, tiny_model_folder, tmp_path, name, layers):
    (tmp_path / "in.txt").write_text(TEXT, encoding="utf-8")
    result = run("embed", "--file", "in.txt", "--output", name, "--layers", layers, "--batch-words", 20)
    tokenizer = ElmoTokenizer.from_pretrained(tiny_model_folder)
    sentences = [tokenizer.tokenize(line) for line in TEXT.splitlines()]
    assert sentences[2][:4] == ["She", "didn", "'t", "read"]
    check_vectors(tmp_path / name, tiny_model_folder, sentences, layers)
    assert result.stdout == ""
    assert f"{name}: 6 sentences, {sum(map(len, sentences))} vectors of 32 numbers" in result.stderr
    assert "2 sentences of 6 without words" in result.stderr


def test_embed_writes_bilm_tfs_layout_with_all_layers(run, tiny_model_folder, tmp_path):
    run("embed", "a b", "c", "--output", "v.dat", "--format", "bilm-hdf5")
    with h5py.File("v.dat") as file:
        assert sorted(file) == ["0", "1"]
        for key, words in (("0", ["a", "b"]), ("1", ["c"])):
            np.testing.assert_allclose(file[key][...], alone(tiny_model_folder, words, "all"), atol=1e-5, rtol=0)


def test_embed_takes_pretokenized_words_as_they_are(run, tiny_model_folder, tmp_path):
    sentences = [["don't", "(stop)", "a", "b", "U.S."], ["x"], [], ["[PAD]", "c", "d"]]
    lines = ["  don't   (stop)\ta\u00a0b U.S. ", "x", " \t", "[PAD] c\u3000d\x85"]
    run("embed", "--pretokenized", "--output", "v.npz", input="\r\n".join(lines))
    check_vectors(tmp_path / "v.npz", tiny_model_folder, sentences)
    with np.load("v.npz") as archive:
        assert [json.loads(line) for line in bytes(archive["words"]).splitlines()] == sentences


def test_embed_splits_sentences(run):
    result = run("embed", "--split-sentences", "Dr. Smith came. He read it.\n\nThe end.")
    rows = [line.split("\t") for line in result.stdout.splitlines()[1:]]
    assert [row[2] for row in rows if row[0] == "0"] == ["Dr.", "Smith", "came", "."]
    assert [row[2] for row in rows if row[0] == "1"] == ["He", "read", "it", "."]
    assert [row[2] for row in rows if row[0] == "2"] == ["The", "end", "."]


def test_embed_keeps_boundaries_on_demand(run, tiny_model_folder, tmp_path):
    run("embed", "a b", "", "--keep-boundaries", "--output", "v.parquet")
    rows = pq.read_table("v.parquet").to_pylist()
    assert [row["words"] for row in rows] == [["<S>", "a", "b", "</S>"], ["<S>", "</S>"]]
    assert np.shape(rows[1]["vectors"]) == (2, 32)
    np.testing.assert_allclose(rows[0]["vectors"][1:3], alone(tiny_model_folder, ["a", "b"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("arguments", [[], ["--file", "-"]])
def test_embed_reads_standard_input_with_byte_order_mark_and_carriage_returns(run, arguments):
    result = run("embed", *arguments, input="\ufeffa b\r\nc\u2028d\r\n")
    assert [line.split("\t")[:3] for line in result.stdout.splitlines()[1:]] == [
        ["0", "0", "a"],
        ["0", "1", "b"],
        ["1", "0", "c"],
        ["1", "1", "d"],
    ]


def test_embed_prints_norms_and_first_numbers(run, tiny_model_folder):
    vectors = alone(tiny_model_folder, ["I", "read", "it"])
    lines = [line.split("\t") for line in run("embed", "I read it").stdout.splitlines()]
    assert lines[0] == ["sentence", "place", "word", "norm", "first of 32 numbers"]
    for line, vector in zip(lines[1:], vectors, strict=True):
        assert float(line[3]) == pytest.approx(np.linalg.norm(vector), abs=1e-4)
        assert [float(number) for number in line[4].split()] == pytest.approx(vector[:4], abs=1e-4)
    layers = alone(tiny_model_folder, ["I", "read", "it"], "all")
    lines = [line.split("\t") for line in run("embed", "I read it", "--layers", "all").stdout.splitlines()]
    assert lines[0][3:] == ["norm in layer 0", "norm in layer 1", "norm in layer 2"]
    printed = np.array([[float(cell) for cell in line[3:]] for line in lines[1:]])
    np.testing.assert_allclose(printed, np.linalg.norm(layers, axis=-1).T, atol=1e-4)


def test_a_summary_is_short_whatever_the_input(run):
    result = run("embed", "--show", 3, input=("word " * 1000 + "\n") * 100)
    assert len(result.stdout) < 30_000
    assert result.stdout.count("... 900 words more") == 3
    assert "there are more sentences" in result.stderr
    assert "there are more" not in run("embed", "--show", 3, input="a\nb\nc\n").stderr


def test_a_summary_cannot_steer_the_terminal(run):
    result = run("embed", "--pretokenized", "a\x1b[31mb \u202e")
    assert "\x1b" not in result.stdout
    assert "\u202e" not in result.stdout
    assert r"a\x1b[31mb" in result.stdout


def test_an_empty_text_has_no_vectors(run, tmp_path):
    assert "(no words)" in run("embed", "").stdout
    run("embed", "", "  ", "--output", "v.npz")
    assert {key: array.shape for key, array in read_vectors(tmp_path / "v.npz").items()} == {0: (0, 32), 1: (0, 32)}


def test_a_line_of_five_thousand_words(run, tiny_model_folder, tmp_path):
    words = [f"w{number}" for number in range(5_000)]
    run("embed", "--output", "v.npz", input=" ".join(words) + "\nshort\n")
    check_vectors(tmp_path / "v.npz", tiny_model_folder, [words, ["short"]])


def test_words_that_are_cut_are_told(run, tiny_model_folder, tmp_path):
    long = "x" * 5000
    result = run("embed", "--pretokenized", "--output", "v.npz", input=f"a {long} b {long}\n{'é' * 30}\n{'y' * 48}\n")
    assert "3 words (2 different) of more than 48 bytes" in result.stderr
    assert "xxx… (5,000 bytes)".replace("xxx…", "xxxxxxxxx…xxxxxxxxx") in result.stderr
    assert "(60 bytes)" in result.stderr
    assert len(result.stderr) < 500
    # All but the first 48 bytes went unread.
    check_vectors(tmp_path / "v.npz", tiny_model_folder, [["a", "x" * 48, "b", "x" * 48], ["é" * 24], ["y" * 48]])
    assert "of more than" not in run("embed", "y" * 48).stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "in.txt has no sentences: there is nothing to embed"),
        (b"good\nbad \xff line\n", "in.txt, line 2: the byte 0xff is no UTF-8"),
        ("words".encode("utf-16"), "in.txt, line 1: "),
        (b"\x89PNG\r\n\x1a\n\0\0", "in.txt, line 1: "),
        (b"a\0b", "in.txt, line 1: a zero byte"),
    ],
)
@pytest.mark.parametrize("output", [[], ["--output", "v.hdf5"]])
def test_input_that_is_no_text_is_told_and_leaves_nothing(run, tmp_path, content, message, output):
    (tmp_path / "in.txt").write_bytes(content)
    assert message in run("embed", "--file", "in.txt", *output, status=1).stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.txt"]


def test_input_of_blank_lines_only(run):
    result = run("embed", input="\n \n\t\n")
    assert result.stdout.count("(no words)") == 3
    assert "3 sentences of 3 without words" in result.stderr
    assert "has no sentences" in run("embed", "--split-sentences", status=1, input="\n \n").stderr


def test_input_that_cannot_be_read(run, tmp_path):
    assert "missing.txt: No such file" in run("embed", "--file", "missing.txt", status=1).stderr
    assert f"{tmp_path} is a folder" in run("embed", "--file", tmp_path, status=1).stderr
    assert "not in UTF-8" in run("embed", "a\udcff", status=1).stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/v.npz", "missing/v.npz cannot be written: there is no folder missing"),
        ("folder.npz", "folder.npz is a folder"),
        ("old.npz", "old.npz exists already: give another name, or overwrite it (--force)"),
        ("/proc/v.npz", "/proc/v.npz cannot be written"),
    ],
)
def test_output_that_cannot_be_written(run, tmp_path, name, message):
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "old.npz").write_text("old", encoding="utf-8")
    assert message in run("embed", "a", "--output", name, status=1).stderr
    assert (tmp_path / "old.npz").read_text(encoding="utf-8") == "old"
    assert len(list(tmp_path.iterdir())) == 2


def test_output_is_overwritten_on_demand(run, tiny_model_folder, tmp_path):
    (tmp_path / "v.npz").write_text("old", encoding="utf-8")
    run("embed", "a", "--output", "v.npz", "--force")
    check_vectors(tmp_path / "v.npz", tiny_model_folder, [["a"]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed", "a", "--file", "x"], "not both"),
        (["embed", "a", "--layers", "best"], "--layers"),
        (["embed", "a", "--format", "csv", "-o", "x"], "--format"),
        (["embed", "a", "--format", "npz"], "no --output"),
        (["embed", "a", "--output", "v.txt"], "known are .npz"),
        (["embed", "a", "--pretokenized", "--split-sentences"], "sentences already"),
        (["embed", "a", "--format", "bilm-hdf5", "-o", "x", "--layers", "top"], "all layers"),
        (["embed", "a", "--batch-words", "0"], "--batch-words"),
        (["embed", "a", "--nonsense"], "--nonsense"),
        (["compare", "a"], "second"),
        (["compare", "a", "b\nc"], "one line"),
        (["convert", "a"], "destination"),
        (["nonsense"], "nonsense"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_wrong_usage_has_status_2(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")
    assert message in result.stderr.lower() if message.islower() else message in result.stderr
    assert list(tmp_path.iterdir()) == []


# --- models


def change_json(path, **changes):
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


def change_weights(path, change):
    weights = safetensors.numpy.load_file(path)
    change(weights)
    safetensors.numpy.save_file(weights, path, metadata={"format": "pt"})


def fill_with(name, value):
    return lambda folder: change_weights(folder / "model.safetensors", lambda weights: weights[name].fill(value))


def cut(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def drop_bias(folder):
    change_weights(folder / "model.safetensors", lambda weights: weights.pop("bilstm.forward_layers.0.bias"))


BROKEN_MODELS = {
    "missing": (shutil.rmtree, "There is no model folder"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "no config.json"),
    "config is no JSON": (
        lambda folder: (folder / "config.json").write_text("{", encoding="utf-8"),
        "is not a JSON file",
    ),
    "config is a list": (
        lambda folder: (folder / "config.json").write_text("[]", encoding="utf-8"),
        "must hold a JSON object",
    ),
    "another model": (lambda folder: change_json(folder / "config.json", model_type="bert"), "model_type 'bert'"),
    "impossible": (lambda folder: change_json(folder / "config.json", projection_dim=64), "larger than cell_size"),
    "other sizes": (lambda folder: change_json(folder / "config.json", cell_size=48), "are not those of its config"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
    "broken tokenizer": (
        lambda folder: (folder / "tokenizer.json").write_text("{}", encoding="utf-8"),
        "cannot be loaded",
    ),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "has no weights: model.safetensors is missing",
    ),
    "empty weights": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model.safetensors is damaged"),
    "cut weights": (cut, "model.safetensors is damaged: it ends before the numbers of"),
    "no safetensors": (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 999), "is damaged"),
    "lost weight": (drop_bias, "1 are missing or of another shape, such as bilstm.forward_layers.0.bias"),
    "not a number": (fill_with("bilstm.forward_layers.1.bias", np.nan), "bilstm.forward_layers.1.bias holds numbers"),
    "infinite": (fill_with("scalar_mixes.0.gamma", np.inf), "scalar_mixes.0.gamma holds numbers that are not finite"),
}


@pytest.mark.parametrize("case", BROKEN_MODELS)
def test_a_broken_model_is_told_and_leaves_nothing(run, tiny_model_folder, tmp_path, case):
    breaking, message = BROKEN_MODELS[case]
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    breaking(folder)
    stderr = run("embed", "a", "--output", "v.npz", model=folder, status=1).stderr
    assert message in stderr
    assert "model" in stderr
    assert len(stderr.splitlines()) == 1
    assert not list(tmp_path.glob("*.npz")) + list(tmp_path.glob(".*"))


def test_a_folder_in_the_original_format_is_to_be_converted(run, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "weights.hdf5").write_text("", encoding="utf-8")
    assert "hf-elmo convert old NEW_FOLDER" in run("embed", "a", model="old", status=1).stderr


def test_devices(run):
    assert "The device toaster cannot be used" in run("embed", "a", "--device", "toaster", status=1).stderr
    assert "The device cuda:99 cannot be used" in run("embed", "a", "--device", "cuda:99", status=1).stderr
    run("embed", "a", "--device", "cpu")


def test_the_bilm_of_a_language_model_is_used(run, tiny_model_folder, tmp_path):
    model = ElmoForPreTraining.from_pretrained(tiny_model_folder)
    model.save_pretrained(tmp_path / "lm")
    ElmoTokenizer.from_pretrained(tiny_model_folder).save_pretrained(tmp_path / "lm")
    run("embed", "a b", "--output", "v.npz", model="lm")
    check_vectors(tmp_path / "v.npz", tiny_model_folder, [["a", "b"]])


# --- compare


def test_compare_prints_cosines_and_other_words_for_contrast(run, tiny_model_folder):
    first, second = "I read a book .", "He will read it , or a paper read ."
    result = run("compare", first, second, "--word", "read")
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert lines[0] == ["word", "place in 1", "place in 2", "layer 0", "layer 1", "layer 2", "mix"]
    assert [line[:3] for line in lines[1:]] == [
        ["read", "1", "2"],
        ["read", "1", "8"],
        ["a", "2", "6"],
        [".", "4", "9"],
    ]
    a, b = (alone(tiny_model_folder, text.split(), "all").astype(float) for text in (first, second))
    for line in lines[1:]:
        assert line[3] == "1.0000"
        for layer, printed in enumerate(line[3:6]):
            x, y = a[layer, int(line[1])], b[layer, int(line[2])]
            assert float(printed) == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), abs=2e-4)


def test_compare_tells_the_words_if_the_word_is_not_among_them(run):
    stderr = run("compare", "I read .", "He wrote .", "--word", "read", status=1).stderr
    assert "'read' is not in the second sentence, whose words are: 'He', 'wrote', '.'" in stderr
    run("compare", "I don't", "They don't", "--word", "don't", status=1)
    assert run("compare", "I don't", "They don't", "--word", "don't", "--pretokenized").stdout.count("don't") == 1
    assert "share no other word" in run("compare", "a b", "a c", "--word", "a").stderr


# --- convert


def read_hdf5(path):
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(lambda key, item: arrays.update({key: item[...]} if isinstance(item, h5py.Dataset) else {}))
    return arrays


@pytest.mark.parametrize("fixture", ["allennlp_elmo", "bilm_tf"])
def test_convert_there_and_back(run, shared_data, tmp_path, fixture):
    source = shared_data / "fixtures" / fixture
    result = run("convert", source / "lm_weights.hdf5", "model", "--options", source / "options.json")
    assert "model.safetensors" in result.stderr
    assert result.stdout == ""
    run("embed", "a b", "--output", "v.npz", model="model")
    assert read_vectors(tmp_path / "v.npz")[0].shape == (2, 32)
    run("convert", "model", "back")
    before, after = read_hdf5(source / "lm_weights.hdf5"), read_hdf5(tmp_path / "back" / "weights.hdf5")
    assert sorted(before) == sorted(after)
    for key, array in before.items():
        np.testing.assert_array_equal(array, after[key])
    assert json.loads((tmp_path / "back" / "options.json").read_text(encoding="utf-8")) == json.loads(
        (source / "options.json").read_text(encoding="utf-8")
    )


def test_convert_refuses_what_it_cannot_do(run, shared_data, tiny_model_folder, tmp_path):
    source = shared_data / "fixtures" / "bilm_tf"
    options = json.loads((source / "options.json").read_text(encoding="utf-8"))
    content = (source / "lm_weights.hdf5").read_bytes()

    def convert(options_text, weights=content):
        folder = tmp_path / "source"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "options.json").write_text(options_text, encoding="utf-8")
        (folder / "weights.hdf5").write_bytes(weights)
        stderr = run("convert", folder, "model", status=1).stderr
        assert [entry.name for entry in tmp_path.iterdir()] == ["source"]
        return stderr

    assert "larger than" in convert(json.dumps({**options, "lstm": {**options["lstm"], "projection_dim": 9999}}))
    assert "lstm.dim" in convert(json.dumps({**options, "lstm": {"projection_dim": 16}}))
    assert "options.json" in convert("{")
    assert "weights.hdf5" in convert(json.dumps(options), content[: len(content) // 2])
    assert "missing" in run("convert", "missing", "model", status=1).stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("", encoding="utf-8")
    assert "not empty" in run("convert", tiny_model_folder, "full", status=1).stderr
    assert "nothing else is read" in run("convert", tiny_model_folder, "new", "--options", "x", status=2).stderr
    assert not (tmp_path / "new").exists()


# --- info


def test_info_counts_what_the_model_has(run, tiny_model_folder):
    model = ElmoModel.from_pretrained(tiny_model_folder)
    facts = json.loads(run("info", tiny_model_folder, "--json").stdout)
    mix = sum(parameter.numel() for parameter in model.scalar_mixes.parameters())
    assert facts["parameters"]["all"] == model.num_parameters()
    assert facts["parameters"]["biLM"] == model.num_parameters() - mix
    assert facts["parameters"]["scalar mixes"] == mix == 4
    assert "softmax" not in facts["parameters"]
    assert facts["dtype"] == "F32"
    assert facts["vocabulary"] == "none"
    assert facts["sizes and switches"]["cell_size"] == 40
    assert facts["files"]["model.safetensors"] == (tiny_model_folder / "model.safetensors").stat().st_size
    text = run("info", tiny_model_folder).stdout
    assert "cell_size                 40" in text
    assert f"{facts['parameters']['biLM']:,}" in text


def test_info_of_a_language_model_in_several_files(run, tmp_path):
    config = ElmoConfig(vocab_size=10, char_embed_dim=4, filters=[[1, 8]], cell_size=40, projection_dim=16)
    model = ElmoForPreTraining(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "lm", max_shard_size="20KB")
    assert len(list((tmp_path / "lm").glob("*.safetensors"))) > 1
    facts = json.loads(run("info", "lm", "--json").stdout)
    assert facts["model"] == "ElmoForPreTraining"
    assert facts["parameters"]["softmax"] == 10 * 16 + 10
    assert facts["parameters"]["all"] == model.num_parameters()
    assert facts["dtype"] == "BF16"
    assert facts["vocabulary"].startswith("10 words")
    next(iter((tmp_path / "lm").glob("*-00002-*.safetensors"))).unlink()
    assert "00002" in run("info", "lm", status=1).stderr


class WithoutTensors:
    """A file of weights that tells names and shapes, and nothing else."""

    def __init__(self, *arguments, **options):
        self._file = SAFE_OPEN(*arguments, **options)
        self.keys, self.get_slice = self._file.keys, self._file.get_slice

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def test_info_of_a_large_model_reads_no_weights(run, tmp_path, monkeypatch):
    config = ElmoConfig.from_preset("original")
    config.save_pretrained(tmp_path / "large")
    with torch.device("meta"):
        shapes = {name: list(value.shape) for name, value in ElmoModel(config).state_dict().items()}
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with (tmp_path / "large" / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        # A file with a hole: 374 MB that are nowhere.
        file.truncate(8 + len(text) + end)
    monkeypatch.setattr(safetensors, "safe_open", WithoutTensors)
    facts = json.loads(run("info", "large", "--json").stdout)
    # The number that AllenNLP published.
    assert facts["parameters"]["biLM"] == 93_600_864


@pytest.mark.parametrize(
    "case", ["missing", "no config", "config is no JSON", "another model", "impossible", "no weights", "cut weights"]
)
def test_info_of_a_broken_model(run, tiny_model_folder, tmp_path, case):
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    BROKEN_MODELS[case][0](folder)
    assert "model" in run("info", folder, status=1).stderr


# --- all


def test_version_and_help():
    assert CliRunner().invoke(app, ["--version"]).stdout == f"hf-elmo {__version__}\n"
    for command in ([], ["embed"], ["compare"], ["convert"], ["info"]):
        for flag in ("-h", "--help"):
            result = CliRunner().invoke(app, [*command, flag])
            assert result.exit_code == 0
            assert result.stdout.startswith("Usage: ")


def test_an_error_that_nobody_expected_is_one_line_unless_asked_for(run, monkeypatch, tiny_model_folder):
    def fail(*arguments, **options):
        raise TypeError("something")

    monkeypatch.setattr("hf_elmo.vectors.embedding.embed_sentences", fail)
    assert "unexpected TypeError: something" in run("embed", "a", status=1).stderr
    result = CliRunner().invoke(app, ["--traceback", "embed", "a", "--model", str(tiny_model_folder)])
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "TypeError: something" in result.stderr


def test_an_interrupt_leaves_nothing(run, monkeypatch, tmp_path):
    def lines(*arguments, **options):
        yield "a"
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_elmo.vectors.text_files.TextFile.lines", lines)
    assert "interrupted" in run("embed", "--output", "v.npz", status=130).stderr
    assert list(tmp_path.iterdir()) == []
