"""`hf-elmo` as a process: what it prints where, its exit status, and what signals leave behind."""

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import warm
from amounts import first_of

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals, descriptors and shells")


def run(*arguments, start=warm.run, **options):
    defaults = {"capture_output": True, "text": True, "timeout": 120, "encoding": "utf-8", "check": False}
    return start(["-m", "hf_elmo", *arguments], **{**defaults, **options})


def run_anew(arguments, **options):
    """A process that really starts; the others here are forks."""
    return subprocess.run([sys.executable, *map(str, arguments)], **options)


def test_embed_prints_a_summary_and_nothing_else(tiny_model_folder):
    done = run("embed", "I read a book .", "--model", tiny_model_folder, start=run_anew)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split("\t")[2] for line in done.stdout.splitlines()] == ["word", "I", "read", "a", "book", "."]


def test_the_script_starts():
    script = shutil.which("hf-elmo", path=Path(sys.executable).parent)
    if script is None:
        pytest.skip("the package is not installed, so there is no script")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("hf-elmo ")


def test_a_failure_has_status_1_and_one_line(tmp_path, tiny_model_folder):
    """An ASCII terminal cannot show the name of the folder, which is no reason to fail otherwise."""
    folder = tmp_path / "Ärger"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = run("embed", "a", "-m", tiny_model_folder, "-o", folder / "v.npz", env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert "there is no folder" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("wanted", [["--traceback"], []])
def test_a_traceback_is_that_of_the_error(tmp_path, wanted):
    """Errors of files are not taken for a standard output that cannot be written."""
    result = run(*wanted, "embed", "--file", tmp_path / "missing.txt")
    assert result.returncode == 1
    assert "missing.txt" in result.stderr
    assert "Standard output" not in result.stderr
    assert ("Traceback" in result.stderr) == ("FileNotFoundError" in result.stderr) == bool(wanted)


def test_the_package_does_not_import_the_command_line():
    names = ["hf_elmo.commands.app", "typer", "hf_elmo.vectors.embedding", "nupunkt", "h5py"]
    code = f"import sys, hf_elmo; print([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "[]\n"


@posix_only
@pytest.mark.slow
def test_closed_standard_input(tiny_model_folder):
    done = run("embed", "--model", tiny_model_folder, preexec_fn=lambda: os.close(0), start=run_anew)
    assert done.returncode == 1
    assert done.stderr == "hf-elmo: Standard input is closed: give texts or --file.\n"


@posix_only
def test_a_reader_that_goes_away(tiny_model_folder, tmp_path):
    (tmp_path / "in.txt").write_text("some words in a line\n" * 2000, encoding="utf-8")
    arguments = ["-m", "hf_elmo", "embed", "--model", tiny_model_folder, "--file", tmp_path / "in.txt", "--show", 2000]
    process = warm.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is always full")
@pytest.mark.slow
def test_standard_output_that_is_full(tiny_model_folder):
    with open("/dev/full", "w", encoding="utf-8") as full:
        options = {"stdout": full, "stderr": subprocess.PIPE, "capture_output": False}
        done = run("embed", "a", "-m", tiny_model_folder, start=run_anew, **options)
    assert done.returncode == 1
    assert done.stderr == "hf-elmo: Standard output cannot be written: No space left on device\n"


@posix_only
@pytest.mark.parametrize("name", first_of(["SIGINT", "SIGKILL", "SIGTERM"], 2))
def test_a_signal_while_writing_leaves_no_partial_file(tiny_model_folder, tmp_path, name):
    number = getattr(signal, name)
    output = ["-o", tmp_path / "v.hdf5", "--batch-words", 10]
    # A shell's background job, as a run of these tests may be, hands on that SIGINT is to be ignored.
    process = warm.Popen(
        ["-m", "hf_elmo", "embed", "-m", tiny_model_folder, *output],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    process.stdin.write(b"some words\n" * 200)
    process.stdin.flush()
    # It now waits for more, with its file open and vectors in it.
    deadline = time.monotonic() + 100
    while not any(entry.stat().st_size > 10_000 for entry in tmp_path.iterdir()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    stderr = process.communicate(timeout=60)[1]
    names = [entry.name for entry in tmp_path.iterdir()]
    assert b"Traceback" not in stderr
    if name == "SIGKILL":
        assert all(name.startswith(".") and name.endswith(".part") for name in names)
    else:
        assert names == []
        assert process.returncode == 128 + number


@posix_only
def test_on_a_terminal_there_are_a_table_and_a_bar(tiny_model_folder, tmp_path):
    import pty
    import termios

    (tmp_path / "in.txt").write_text("some [red] words\n" * 50, encoding="utf-8")
    printed = []
    for options in ([], ["--output", tmp_path / "v.npz"]):
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (40, 100))
        arguments = ["-m", "hf_elmo", "embed", "-m", tiny_model_folder, "-f", tmp_path / "in.txt", *options]
        environment = {**os.environ, "TERM": "xterm"}
        process = warm.Popen(arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)
        printed.append(read_terminal(ours))
        assert process.wait(60) == 0
    table, bar = printed
    assert "first of 32 numbers" in table
    assert "─" in table
    assert "red" in table
    assert "50 sentences, 250 words" in bar
    assert "100%" in bar
    with np.load(tmp_path / "v.npz") as archive:
        assert archive["49"].shape == (5, 32)


def read_terminal(descriptor):
    """All that is written to a terminal until its last user is gone."""
    content = b""
    while select.select([descriptor], [], [], 100)[0]:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:
            break
        if not piece:
            break
        content += piece
    os.close(descriptor)
    return content.decode()


@posix_only
def test_without_anything_to_embed_a_terminal_user_is_not_left_waiting(tiny_model_folder):
    import pty

    ours, theirs = pty.openpty()
    done = run("embed", "--model", tiny_model_folder, stdin=theirs)
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 2
    assert "nothing to embed" in done.stderr
