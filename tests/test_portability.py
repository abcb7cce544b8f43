"""What differs between operating systems, as far as it can be seen on one of them."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from places import CHECKOUT, HELPERS

import hf_elmo

PACKAGE = Path(hf_elmo.__file__).parent
PACKAGED = [*PACKAGE.rglob("*.py"), *(CHECKOUT / "conversion").glob("*.py")]
BESIDE = [*(CHECKOUT / "tests").rglob("*.py"), *(CHECKOUT / "benchmarks").rglob("*.py")]
# Linux' own files, members of archives, which are opened in bytes, and what a process printed in whatever encoding.
NO_TEXT_OF_OURS = ("/proc/", "archive.open", "opened.open", "self.log.read_text")
# Where they may be absent, they are not needed: torch brings Triton for the GPUs that have it, type checkers _typeshed.
OPTIONAL = {"triton", "_typeshed"}
# What a module is installed as, if not by its name.
INSTALLED_AS = {"sklearn": "scikit_learn", "umap": "umap_learn", "yaml": "pyyaml"}
# Extras for those who work on the project, rather than with it.
FOR_DEVELOPERS = {"browser", "docs", "lint", "release", "test"}


def opens_text_in_any_encoding(call: ast.Call) -> bool:
    """Whether a call opens a text file without saying in which encoding: it would be another one on Windows."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    if name in ("read_text", "write_text") and isinstance(call.func, ast.Attribute):
        return True
    if name != "open":
        return False
    place = 0 if isinstance(call.func, ast.Attribute) else 1
    modes = [keyword.value for keyword in call.keywords if keyword.arg == "mode"] or call.args[place : place + 1]
    if isinstance(call.func, ast.Attribute) and not modes:
        return False
    return not modes or (isinstance(modes[0], ast.Constant) and not set("b|:") & set(str(modes[0].value)))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("path.read_text()", True),
        ("path.write_text(text, encoding='utf-8')", False),
        ("open(path)", True),
        ("open(path, 'w')", True),
        ("open(path, mode='rb')", False),
        ("path.open('x')", True),
        ("path.open('xb')", False),
        ("read_text(file)", False),
    ],
)
def test_the_check_itself(code, expected):
    assert opens_text_in_any_encoding(ast.parse(code).body[0].value) is expected


def test_text_files_are_utf8():
    found = [
        f"{path.name}:{node.lineno}"
        for path in [*PACKAGED, *BESIDE]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and opens_text_in_any_encoding(node)
        and not any(word in ast.unparse(node) for word in NO_TEXT_OF_OURS)
    ]
    assert len(PACKAGED) > 50
    assert len(BESIDE) > 80
    assert found == []


def test_all_that_is_imported_is_declared():
    """Also what others bring today. An extra's packages are imported by those who installed it."""
    if not (CHECKOUT / "pyproject.toml").is_file():
        pytest.skip("only a checkout has what is declared")
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert extras.keys() >= FOR_DEVELOPERS
    needs = list(project["dependencies"])
    for name in extras.keys() - FOR_DEVELOPERS:
        needs += extras[name]
    declared = {re.match(r"[\w-]+", each)[0].replace("-", "_").lower() for each in needs}
    imported = {}
    for path in PACKAGED:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            for name in {module.partition(".")[0] for module in modules} - {"hf_elmo", *sys.stdlib_module_names}:
                imported.setdefault(INSTALLED_AS.get(name, name), f"{path.name}:{node.lineno}")
    assert {"torch", "pyyaml", "rich", "umap_learn"} <= imported.keys()
    assert {name: place for name, place in imported.items() if name not in declared | OPTIONAL} == {}


def test_no_command_needs_posix():
    """Windows has no SIGHUP, no SIGKILL, no fork, and no such modules."""
    missing = {"SIGHUP", "SIGKILL", "fork", "forkpty", "killpg", "geteuid", "mkfifo"}
    modules = {"resource", "fcntl", "pty", "termios", "pwd", "grp"}
    for path in PACKAGED:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                assert node.attr not in missing, f"{path.name}:{node.lineno}"
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & modules, f"{path.name}:{node.lineno}"


def test_output_that_is_no_terminal_is_utf8_on_windows():
    """There the default would be a code page, in which most words cannot be written."""
    code = "import sys; from hf_elmo.commands import app; sys.platform = {!r}; app._prepare_output(); print('\\u03b5')"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    printed = [
        subprocess.run([sys.executable, "-c", code.format(system)], capture_output=True, env=environment, check=True)
        for system in ("win32", "linux")
    ]
    assert [done.stdout.split()[0] for done in printed] == ["ε".encode(), b"\\u03b5"]


@pytest.mark.slow
def test_processes_that_are_spawned(tmp_path):
    pytest.importorskip("accelerate")
    script = HELPERS / "spawned_workers.py"
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, encoding="utf-8", timeout=500,
        env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("spawned\n")
