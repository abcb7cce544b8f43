"""Files whose words stand apart: elmoformanylangs' inputs and proteins; read, and embedded by the command."""

import json
import re
import shlex

import h5py
import numpy as np
import pytest
from numpy_elmo import NumpyElmo, random_weights
from original_format import OPTIONS, write_original
from places import CHECKOUT
from typer.testing import CliRunner

from hf_elmo.commands.app import app
from hf_elmo.conversion import convert_to_folder
from hf_elmo.vectors.word_files import KINDS, read_word_file

CONLLU = """# newdoc
# sent_id = vi-1
# text = Xin chào Hà Nội.
1\tXin chào\t_\tVERB\t_\t_\t0\troot\t_\t_
2-3\tHàNội\t_\t_\t_\t_\t_\t_\t_\t_
2\tHà Nội\t_\tPROPN\t_\t_\t1\tobj\t_\t_
2.1\tunwritten\t_\t_\t_\t_\t_\t_\t_\t_
3\t.\t_\tPUNCT\t_\t_\t1\tpunct\t_\tSpaceAfter=No


1\tĐi
"""
FASTA = """>sp|P1|A protein
MKVla
 GX
>P2
>

AC DE
"""
CASES = {
    "tabs": ("Xin chào\tHà Nội\n\na\t\tb\n", [(["Xin chào", "Hà Nội"], None), ([], None), (["a", "", "b"], None)]),
    "conllu": (CONLLU, [(["Xin chào", "Hà Nội", "."], "vi-1"), (["Đi"], None)]),
    "conllu-characters": (CONLLU, [([*"Xin chào", *"Hà Nội", "."], "vi-1"), ([*"Đi"], None)]),
    "conllu-parts": (CONLLU, [(["Xin", "chào", "Hà", "Nội", "."], "vi-1"), (["Đi"], None)]),
    "fasta": (FASTA, [([*"MKVLAGX"], "sp|P1|A"), ([], "P2"), ([*"ACDE"], None)]),
}


def test_the_page(seqvec, tmp_path, monkeypatch):
    """The commands of docs/published.md, on files of these names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "proteins.fasta").write_text(FASTA, encoding="utf-8")
    (tmp_path / "vi-ud-test.conllu").write_text(CONLLU, encoding="utf-8")
    for name in ("seqvec", "elmo-vi"):
        (tmp_path / name).symlink_to(seqvec[0], target_is_directory=True)
    page = (CHECKOUT / "docs" / "published.md").read_text(encoding="utf-8")
    commands = re.findall(r"^hf-elmo embed .*", page, flags=re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        run(*shlex.split(command)[2:])
    assert {"residues.npz", "proteins.hdf5", "vectors.hdf5"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("kind", KINDS)
def test_formats(kind):
    text, expected = CASES[kind]
    assert [tuple(sentence) for sentence in read_word_file(text.splitlines(), kind, "file")] == expected
    assert list(read_word_file([], kind, "file")) == []


@pytest.mark.parametrize(
    ("kind", "lines", "message"),
    [
        ("conllu", ["1\ta", "two words"], "file, line 2: expected a word of CoNLL-U, .* was: 'two words'"),
        ("conllu", ["a\tb"], "file, line 1: expected a word of CoNLL-U"),
        ("fasta", ["", "MKV"], "file, line 2: expected a header of FASTA, > and a name"),
        ("conll2003", [], "There is no format 'conll2003' of sentences; there are tabs, conllu"),
    ],
)
def test_other_files(kind, lines, message):
    with pytest.raises(ValueError, match=message):
        list(read_word_file(lines, kind, "file"))


@pytest.fixture(scope="module")
def seqvec(tmp_path_factory):
    """A model as SeqVec's: weights.hdf5 with options.json beside them; and what it computes, by formulas."""
    source = tmp_path_factory.mktemp("seqvec")
    arrays = random_weights(OPTIONS, seed=3)
    write_original(source / "seqvec", OPTIONS, arrays)
    convert_to_folder(source / "seqvec" / "weights.hdf5", source / "model")
    return source / "model", NumpyElmo(OPTIONS, arrays)


def run(*arguments, status=0):
    result = CliRunner().invoke(app, ["embed", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result.output


def of_letters(oracle, letters):
    """SeqVec's recipe for residues: the sum of the three layers."""
    return oracle.read(list(letters))[0].sum(axis=0)[1:-1]


def test_residues(seqvec, tmp_path):
    model, oracle = seqvec
    (tmp_path / "p.fasta").write_text(FASTA, encoding="utf-8")
    output = tmp_path / "residues.npz"
    run("-f", tmp_path / "p.fasta", "--input-format", "fasta", "--layers", "sum", "-m", model, "-o", output)
    with np.load(output) as arrays:
        for key, letters in (("0", "MKVLAGX"), ("2", "ACDE")):
            np.testing.assert_allclose(arrays[key], of_letters(oracle, letters), atol=3e-6)
        assert len(arrays["1"]) == 0


def test_proteins(seqvec, tmp_path):
    model, oracle = seqvec
    (tmp_path / "p.fasta").write_text(FASTA, encoding="utf-8")
    how = ["--input-format", "fasta", "--layers", "sum", "--pooling", "mean", "-m", model]
    run("-f", tmp_path / "p.fasta", *how, "-o", tmp_path / "proteins.hdf5")
    with h5py.File(tmp_path / "proteins.hdf5") as file:
        keys = json.loads(file["sentence_to_index"][0])
        assert keys["sp|P1|A"] == "0"
        expected = of_letters(oracle, "MKVLAGX").mean(axis=0, keepdims=True)
        np.testing.assert_allclose(file["0"][()], expected, atol=3e-6)
        # Without a name it has its words.
        assert keys["A C D E"] == "2"
    assert "sp|P1|A" in run("-f", tmp_path / "p.fasta", *how)


def test_words_with_spaces(seqvec, tmp_path):
    model, oracle = seqvec
    for kind in ("tabs", "conllu"):
        text, expected = CASES[kind]
        (tmp_path / kind).write_text(text, encoding="utf-8")
        output = tmp_path / f"{kind}.npz"
        run("-f", tmp_path / kind, "--input-format", kind, "--layers", "all", "-m", model, "-o", output)
        with np.load(output) as arrays:
            np.testing.assert_allclose(arrays["0"], oracle.read(expected[0][0])[0][:, 1:-1], atol=3e-6)


def test_what_does_not_go_together(seqvec, tmp_path):
    told = run("x", "--input-format", "fasta", "--pretokenized", status=2)
    assert "apart already" in told
    assert "layout holds words" in run("x", "-o", "x", "--format", "bilm-hdf5", "--pooling", "mean", status=2)
    (tmp_path / "p.fasta").write_text("MKV\n", encoding="utf-8")
    told = run("-f", tmp_path / "p.fasta", "--input-format", "fasta", "-m", seqvec[0], status=1)
    assert "line 1: expected a header of FASTA" in " ".join(told.split())
