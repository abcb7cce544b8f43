"""The pages of the checkout: files and commands that they name exist, and the README stays short."""

import ast
import pkgutil
import re
import shlex
from pathlib import Path

import pytest
import typer
from places import CHECKOUT

import hf_elmo
from hf_elmo.commands.app import app

PAGES = [
    *(CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md")),
    *sorted((CHECKOUT / "docs").glob("*.md")),
    *sorted((CHECKOUT / "model_cards").glob("*.md")),
]
ROOMS = ["benchmarks", "conversion", "docs", "examples", "hf_elmo", "model_cards", "tests"]
# Names that stand for any name.
PLACEHOLDER = re.compile(r"\bNAME\b|\bN\b")

pytestmark = pytest.mark.skipif(not (CHECKOUT / "mkdocs.yml").is_file(), reason="only a checkout has the pages")


def page_names(page: Path) -> str:
    return page.relative_to(CHECKOUT).as_posix()


def paths_in(text: str) -> list[str]:
    """What looks like a path of the checkout, within code or a command."""
    found = re.findall(rf"(?<![\w./-])((?:{'|'.join(ROOMS)})/[\w./-]*\w/?)", text)
    return [path for path in found if not PLACEHOLDER.search(path)]


@pytest.mark.parametrize("page", PAGES, ids=page_names)
def test_files_exist(page):
    code = re.findall(r"`[^`]+`", page.read_text(encoding="utf-8"))
    missing = [path for path in paths_in("\n".join(code)) if not (CHECKOUT / path).exists()]
    assert missing == []


def test_the_check_itself():
    assert paths_in("`hf_elmo/model/` `python -m pytest tests/x.py -k y` `conversion/NAME.py` `../shared/data`") == [
        "hf_elmo/model/",
        "tests/x.py",
    ]


def test_architecture_names_every_room():
    text = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = [path.parent for path in (CHECKOUT / "hf_elmo").rglob("__init__.py")]
    assert len(rooms) > 8
    for room in {page_names(room) for room in rooms} - {"hf_elmo"} | set(ROOMS) - {"hf_elmo", "docs"}:
        assert f"`{room}/`" in text, room


def commands_in(text: str, program: str) -> list[list[str]]:
    """The words of each command of a page, in blocks or in running text."""
    blocks = "\n".join(re.findall(r"```(?:bash|console)\n(.*?)```", text, flags=re.DOTALL)).replace("\\\n", " ")
    lines = [line.removeprefix("$ ") for line in blocks.splitlines()] + re.findall(r"`([^`\n]+)`", text)
    parts = [re.search(rf"(?:^|[\s=])({program} .*)", line) for line in lines]
    return [shlex.split(part[1], comments=True) for part in parts if part]


@pytest.mark.parametrize("page", PAGES, ids=page_names)
def test_benchmarks_exist(page):
    for command in commands_in(page.read_text(encoding="utf-8"), "python"):
        if command[:2] != ["python", "-m"] or not command[2].startswith("benchmarks."):
            continue
        module = CHECKOUT / command[2].replace(".", "/")
        file = module / "__main__.py" if module.is_dir() else module.with_suffix(".py")
        assert file.is_file(), command
        quality = CHECKOUT / "benchmarks" / "quality"
        sources = [file, quality / "tagging.py", quality / "tables.py"]
        source = "".join(path.read_text(encoding="utf-8") for path in sources)
        for option in (word.partition("=")[0] for word in command if word.startswith("--")):
            assert f'"{option}"' in source, command


@pytest.mark.parametrize("page", [*PAGES, CHECKOUT / "conversion" / "SOURCES.md"], ids=page_names)
def test_commands_have_the_options_that_pages_give_them(page):
    root = typer.main.get_command(app)
    for words in commands_in(page.read_text(encoding="utf-8"), "hf-elmo"):
        command = root
        rest = words[1:]
        while hasattr(command, "commands") and rest and rest[0] in command.commands:
            command, rest = command.commands[rest[0]], rest[1:]
        assert command is not root or rest[0].startswith("-") or rest[0] == "...", words
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        given = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
        assert given <= known | {"--help", "-h"}, words


def is_there(name: str) -> bool:
    """Whether a module has this name. Without the library of an integration, its text tells."""
    try:
        pkgutil.resolve_name(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("hf_elmo"):
            return False
        module, _, last = name.rpartition(".")
        tree = ast.parse((CHECKOUT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8"))
        return any(getattr(node, "name", None) == last for node in tree.body)
    return True


def test_the_reference_names_what_is_public_where_it_is():
    pages = sorted((CHECKOUT / "docs" / "reference").glob("*.md"))
    named = [
        name for page in pages for name in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    for name in named:
        assert is_there(name), name
    places = {name: f"hf_elmo.{module}" for name, module in hf_elmo._MODULES.items()}
    missing = [
        name
        for name in hf_elmo.__all__
        if not {f"hf_elmo.{name}", f"{places.get(name)}.{name}", places.get(name)} & set(named)
    ]
    assert missing == []


def test_the_readme_is_short():
    lines = (CHECKOUT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    # A first screen: what it is, how to install it, and a result.
    screen = "\n".join(lines[:40])
    assert "<!-- command: embed -->" in screen
    assert "![" in screen


def test_hooks_have_the_tested_versions():
    """Those of .pre-commit-config.yaml are those of constraints.txt."""
    constraints = (CHECKOUT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    hooks = (CHECKOUT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    pinned = set(re.findall(r"\"(\w+==[\w.]+)\"", hooks))
    assert len(pinned) == 2
    assert pinned <= set(constraints)
