"""Files and folders that are whole or not there, whatever happens while they are written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hf_elmo.whole_files import check_new_folder, move_content, move_folder, new_file, new_folder


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


class Stop(Exception):
    pass


def write_file(path, error=None, meanwhile=None, **options):
    """Writes a file; within, raises an error, or writes what another process might."""
    with new_file(path, **options) as temporary:
        temporary.write_text("new", encoding="utf-8")
        if meanwhile is not None:
            path.write_text(meanwhile, encoding="utf-8")
        if error is not None:
            raise error


def write_folder(path, error=None, **options):
    with new_folder(path, **options) as temporary:
        (temporary / "new").write_text("new", encoding="utf-8")
        if error is not None:
            raise error


class TestFile:
    def test_it_appears_when_it_is_complete(self, tmp_path):
        with new_file(tmp_path / "a") as temporary:
            temporary.write_text("new", encoding="utf-8")
            assert temporary.parent == tmp_path
            assert not (tmp_path / "a").exists()
        assert names(tmp_path) == ["a"]
        assert (tmp_path / "a").read_text(encoding="utf-8") == "new"

    @pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
    def test_an_error_leaves_what_was_there(self, tmp_path, error):
        (tmp_path / "a").write_text("old", encoding="utf-8")
        with pytest.raises(error):
            write_file(tmp_path / "a", error)
        assert names(tmp_path) == ["a"]
        assert (tmp_path / "a").read_text(encoding="utf-8") == "old"

    @pytest.mark.parametrize("function", ["fsync", "replace"])
    def test_a_full_disk_is_told_of_the_file_that_was_asked_for(self, tmp_path, monkeypatch, function):
        def fail(*_):
            raise OSError(28, "No space left on device", "another name")

        monkeypatch.setattr(os, function, fail)
        with pytest.raises(OSError, match=r"No space left on device: '.*/a'$") as raised:
            write_file(tmp_path / "a")
        assert raised.value.errno == 28
        assert names(tmp_path) == []

    def test_another_process_that_was_faster_keeps_its_file(self, tmp_path):
        with pytest.raises(FileExistsError, match="a exists already: give another name"):
            write_file(tmp_path / "a", meanwhile="first", overwrite=False)
        assert names(tmp_path) == ["a"]
        assert (tmp_path / "a").read_text(encoding="utf-8") == "first"

    def test_a_file_system_without_hard_links(self, tmp_path, monkeypatch):
        def fail(*_):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", fail)
        write_file(tmp_path / "a", overwrite=False)
        assert (tmp_path / "a").read_text(encoding="utf-8") == "new"
        with pytest.raises(FileExistsError, match="b exists already"):
            write_file(tmp_path / "b", meanwhile="first", overwrite=False)
        assert names(tmp_path) == ["a", "b"]

    def test_of_a_link_the_file_that_it_points_to_is_replaced(self, tmp_path):
        (tmp_path / "there").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "there" / "a")
        with new_file(tmp_path / "link") as temporary:
            temporary.write_text("new", encoding="utf-8")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "there" / "a").read_text(encoding="utf-8") == "new"

    def test_names_may_be_as_long_as_the_system_allows(self, tmp_path):
        with new_file(tmp_path / ("x" * 255)) as temporary:
            temporary.write_text("new", encoding="utf-8")
        assert names(tmp_path) == ["x" * 255]

    def test_every_write_waits_for_the_disk(self, tmp_path, monkeypatch):
        synced, renamed = [], []
        fsync, replace = os.fsync, os.replace
        monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file).st_ino), fsync(file)))
        monkeypatch.setattr(os, "replace", lambda *pair: (renamed.append(len(synced)), replace(*pair)))
        with new_file(tmp_path / "a") as temporary:
            temporary.write_text("new", encoding="utf-8")
        # The content before the rename, the name after it.
        assert synced == [(tmp_path / "a").stat().st_ino, tmp_path.stat().st_ino]
        assert renamed == [1]


KILLED = """
import os, signal, sys
from hf_elmo.whole_files import new_file, new_folder
with new_file(sys.argv[1]) as file, new_folder(sys.argv[2]) as folder:
    file.write_text("half")
    (folder / "x").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_what_a_killed_process_leaves_is_removed_by_the_next_of_the_same_name(tmp_path):
    code = [sys.executable, "-c", KILLED, str(tmp_path / "a"), str(tmp_path / "b")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    assert subprocess.run(code, env=environment, check=False).returncode == -9
    left = names(tmp_path)
    assert len(left) == 2
    assert all(name.startswith(".") and name.endswith(".part") for name in left)
    with new_file(tmp_path / "other") as temporary:
        temporary.write_text("", encoding="utf-8")
    assert names(tmp_path) == [*left, "other"]
    with new_file(tmp_path / "a") as temporary:
        temporary.write_text("whole", encoding="utf-8")
        # A second writer of this process, which lives, loses nothing.
        with new_file(tmp_path / "a") as second:
            second.write_text("whole, too", encoding="utf-8")
        assert temporary.read_text(encoding="utf-8") == "whole"
    with new_folder(tmp_path / "b") as temporary:
        (temporary / "x").write_text("whole", encoding="utf-8")
    assert names(tmp_path) == ["a", "b", "other"]


class TestFolder:
    def test_it_appears_when_it_is_complete(self, tmp_path):
        with new_folder(tmp_path / "x" / "y") as temporary:
            (temporary / "a").write_text("new", encoding="utf-8")
            assert not (tmp_path / "x" / "y").exists()
        assert names(tmp_path / "x") == ["y"]
        assert names(tmp_path / "x" / "y") == ["a"]

    def test_an_error_leaves_nothing(self, tmp_path):
        with pytest.raises(Stop):
            write_folder(tmp_path / "x" / "y", Stop)
        assert names(tmp_path) == []

    def test_an_empty_folder_is_filled_and_stays_the_same_folder(self, tmp_path):
        (tmp_path / "x").mkdir(mode=0o700)
        before = (tmp_path / "x").stat()
        with new_folder(tmp_path / "x") as temporary:
            (temporary / "a").mkdir()
            (temporary / "b").write_text("new", encoding="utf-8")
        after = (tmp_path / "x").stat()
        assert names(tmp_path / "x") == ["a", "b"]
        assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)

    @pytest.mark.parametrize(("kind", "message"), [("file", "is a file"), ("full", "is not empty")])
    def test_what_is_there_is_not_replaced_unless_asked_for(self, tmp_path, kind, message):
        if kind == "file":
            (tmp_path / "x").write_text("old", encoding="utf-8")
        else:
            (tmp_path / "x").mkdir()
            (tmp_path / "x" / "old").write_text("old", encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            check_new_folder(tmp_path / "x")
        with pytest.raises(ValueError, match=message):
            write_folder(tmp_path / "x")
        assert names(tmp_path) == ["x"]

    def test_a_folder_is_replaced_as_a_whole(self, tmp_path):
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "old").write_text("old", encoding="utf-8")
        with pytest.raises(Stop):
            write_folder(tmp_path / "x", Stop, overwrite=True)
        assert names(tmp_path / "x") == ["old"]
        write_folder(tmp_path / "x", overwrite=True)
        assert names(tmp_path) == ["x"]
        assert names(tmp_path / "x") == ["new"]

    def test_a_rename_that_fails_leaves_the_old_folder(self, tmp_path):
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "old").write_text("old", encoding="utf-8")
        with pytest.raises(OSError):
            move_folder(tmp_path / "missing", tmp_path / "x")
        assert names(tmp_path) == ["x"]
        assert names(tmp_path / "x") == ["old"]


class TestContent:
    def test_files_of_the_same_names_are_replaced(self, tmp_path):
        for folder, text in (("from", "new"), ("to", "old")):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "a").write_text(text, encoding="utf-8")
        (tmp_path / "to" / "b").write_text("stays", encoding="utf-8")
        move_content(tmp_path / "from", tmp_path / "to", overwrite=True)
        assert names(tmp_path / "from") == []
        assert {name: (tmp_path / "to" / name).read_text(encoding="utf-8") for name in names(tmp_path / "to")} == {
            "a": "new",
            "b": "stays",
        }

    def test_an_error_takes_back_what_was_moved(self, tmp_path, monkeypatch):
        (tmp_path / "from").mkdir()
        (tmp_path / "to").mkdir()
        for name in ("a", "b"):
            (tmp_path / "from" / name).write_text("new", encoding="utf-8")
        rename = Path.rename

        def fail(self, target):
            if self.name == "b":
                raise OSError(28, "No space left on device")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", fail)
        with pytest.raises(OSError, match="No space"):
            move_content(tmp_path / "from", tmp_path / "to")
        assert names(tmp_path / "to") == []


@pytest.mark.parametrize("exists", [False, True], ids=["new", "empty"])
def test_the_second_of_two_writers_of_a_folder_fails(tmp_path, exists):
    """Both began while there was nothing, so that only the end can tell."""
    folder = tmp_path / "model"

    def write_as_second():
        with new_folder(folder) as second:
            (second / "weights").write_text("second", encoding="utf-8")
            if exists:
                folder.mkdir()
            with new_folder(folder) as first:
                (first / "weights").write_text("first", encoding="utf-8")

    with pytest.raises(ValueError, match=r"model is not empty"):
        write_as_second()
    assert (folder / "weights").read_text(encoding="utf-8") == "first"
    assert [entry.name for entry in tmp_path.rglob("*")] == ["model", "weights"]


@pytest.mark.skipif(os.name != "posix", reason="only there a process of a number can be asked for")
def test_an_empty_folder_with_leftovers_of_a_killed_run_counts_as_empty(tmp_path):
    code = (
        "import os, sys; from hf_elmo.whole_files import new_folder\n"
        "with new_folder(sys.argv[1]) as part: (part / 'half').touch(); os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == 9
    assert [entry.name for entry in tmp_path.rglob("*")][1:] == ["half"]
    with new_folder(tmp_path) as part:
        (part / "whole").touch()
    assert [entry.name for entry in tmp_path.iterdir()] == ["whole"]
