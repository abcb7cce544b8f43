"""Messages of the command line name its options, not arguments of Python."""

import ast
import re

import pytest
from places import CHECKOUT

from hf_elmo.commands.console import in_options

# What commands call, and what of it only Python can reach.
ROOMS = (
    "conversion",
    "hf_elmo/vectors",
    "hf_elmo/hub",
    "hf_elmo/language_model",
    "hf_elmo/training",
    "hf_elmo/explore",
)
FILES = [*(path for room in ROOMS for path in (CHECKOUT / room).rglob("*.py")), CHECKOUT / "hf_elmo" / "whole_files.py"]


def advice(path):
    """The arguments in brackets, as in "(options=...)", of texts that are raised, warned of, or kept for that."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            # Behind a name it is a call: code, which nothing but Python can run.
            yield from re.findall(r"(?<!\w)\([a-z_]+=[^()]*\)", node.value)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_argument_has_its_option(path):
    for argument in advice(path):
        assert in_options(f"Do so {argument}.") != f"Do so {argument}."


def test_there_are_some():
    assert {"(options=...)", "(vocabulary=...)", "(only_elmo=True)"} <= {
        found for path in FILES for found in advice(path)
    }
