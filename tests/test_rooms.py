"""The rooms of the package: imports run down, and no room is overfull."""

import importlib.util
import os
import shutil
import subprocess
import sys

import pytest
from places import CHECKOUT

pytestmark = pytest.mark.skipif(
    not (CHECKOUT / "pyproject.toml").is_file(), reason="only a checkout has the rooms' contracts"
)

#: Most modules in a folder; of these, whose modules are a file per format and a file per command, more, and of the
#: model, where tokenizers must lie side by side.
MOST_MODULES = 16
MOST_MODULES_OF = {"conversion": 24, "commands": 24}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package as it is installed: conversion/ and model_cards/ beside the other rooms."""
    folder = tmp_path_factory.mktemp("installed")
    ignored = shutil.ignore_patterns("__pycache__", "pretrained")
    shutil.copytree(CHECKOUT / "hf_elmo", folder / "hf_elmo", ignore=ignored)
    for name in ("conversion", "model_cards"):
        shutil.copytree(CHECKOUT / name, folder / "hf_elmo" / name, ignore=ignored)
    return folder


def lint(folder):
    """Runs import-linter on the package of a folder, alone: a checkout that is installed would hide some rooms."""
    if importlib.util.find_spec("importlinter") is None:
        pytest.skip("needs the extra lint")
    code = "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports(sys.argv[1], cache_dir=None))"
    environment = {**os.environ, "PYTHONPATH": str(folder), "NO_COLOR": "1", "COLUMNS": "200"}
    command = [sys.executable, "-c", code, str(CHECKOUT / "pyproject.toml")]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert not done.stderr
    return done.returncode, done.stdout


def test_imports_run_down(installed):
    status, report = lint(installed)
    assert status == 0, report
    assert "3 kept, 0 broken" in report


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("conversion/files.py", "from ..compat import loading"),
        ("hub/model_card.py", "from .. import commands"),
        # The package itself imports every room.
        ("vectors/files.py", "from .. import bundled"),
        ("model/scalar_mix.py", "from ..whole_files import new_file"),
        ("model/scalar_mix.py", "from .modeling_elmo import ElmoModel"),
        ("nobody_has_a_place_for_it.py", ""),
    ],
)
def test_an_import_that_runs_up_is_found(installed, tmp_path, path, line):
    shutil.copytree(installed, tmp_path / "copy")
    file = tmp_path / "copy" / "hf_elmo" / path
    # As a reader might hide it: for type checking alone.
    hidden = f"\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {line}\n" if line else ""
    file.write_text((file.read_text(encoding="utf-8") if file.exists() else "") + hidden, encoding="utf-8")
    status, report = lint(tmp_path / "copy")
    assert status == 1
    assert file.stem in report


def test_no_folder_is_overfull(installed):
    folders = [path for path in (installed / "hf_elmo").rglob("*") if path.is_dir()]
    assert len(folders) >= 10
    counts = {path.name: sum(each.stem != "__init__" for each in path.glob("*.py")) for path in folders}
    assert not {name: n for name, n in counts.items() if n > MOST_MODULES_OF.get(name, MOST_MODULES)}
