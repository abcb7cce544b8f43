"""The code of saved folders: what stands there, and what should."""

import ast
from pathlib import Path

import pytest

import hf_elmo.model
from hf_elmo.model import remote_code

MODEL = Path(hf_elmo.model.__file__).parent


def code_of(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.py")}


def model_code():
    """The files of this package that are needed, by name, as one flat folder holds them."""
    files = {path.stem: path for path in MODEL.rglob("*.py") if path.name != "__init__.py"}
    needed, open_names = {}, ["elmo_models", "tokenization_elmo", "configuration_elmo"]
    for entry in remote_code.CUSTOM_PIPELINES.values():
        open_names.append(entry["impl"].partition(".")[0])
    while open_names:
        name = open_names.pop()
        if name in needed:
            continue
        lines = files[name].read_text(encoding="utf-8").split("\n")
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.ImportFrom) and node.level:
                sibling = node.module.split(".")[-1]
                open_names.append(sibling)
                line = lines[node.lineno - 1]
                lines[node.lineno - 1] = line[: line.index("from")] + f"from .{sibling} " + line[line.index("import") :]
        needed[name] = "\n".join(lines)
    return {f"{name}.py": text.encode() for name, text in needed.items()}


def assert_same(own, other):
    """Equal in structure and words, and in numbers but for rounding."""
    assert type(own) is type(other)
    if isinstance(own, dict):
        assert own.keys() == other.keys()
        own, other = list(own.values()), list(other.values())
    if isinstance(own, list):
        assert len(own) == len(other)
        for a, b in zip(own, other, strict=True):
            assert_same(a, b)
    else:
        assert own == (pytest.approx(other, abs=1e-6) if isinstance(own, float) else other)
