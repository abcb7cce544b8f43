"""The page of sources: its commands are commands that there are."""

import re
import shlex

import pytest
from places import CHECKOUT
from typer.testing import CliRunner

from hf_elmo.commands.app import app

PAGE = (CHECKOUT / "conversion" / "SOURCES.md").read_text(encoding="utf-8")
COMMANDS = [
    command
    for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    for command in re.findall(r"hf-elmo .*", block.replace("\\\n", ""))
]


def test_every_section_has_its_command():
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    without = [section.splitlines()[0] for section in sections if "```bash" not in section]
    assert not without
    assert len(COMMANDS) >= len(sections)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, shlex.split(command, comments=True)[1:])
    # The files are not here; but what is said is about them, not about the command.
    assert result.exit_code == 1
    assert "does not exist" in result.output or "is not a file" in result.output
    assert "Traceback" not in result.output
