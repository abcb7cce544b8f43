"""Python processes that start at once: forks of a process that has imported the library already.

Importing torch and transformers takes most of the time of a short process. Where a test is about what a process does,
and not about how it starts, `run` and `Popen` stand for those of `subprocess` with `sys.executable`. What they start is
a small process, which holds the pipes, the folder and the environment that it was given, hands them to a fork of the
server (`warm_server.py`), and ends as that ends. Where forks are not to be had, the interpreter starts anew.

All processes of pytest-xdist share the servers: `begin` is called in the first one, and the servers end when that does.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from filelock import FileLock
from places import HELPERS

# What transformers imports, and not transformers: for tests of the order in which it and hf_elmo are, and for processes
# without hf_elmo. Not huggingface_hub, which reads its variables when it is imported.
BELOW = (
    "torch",
    "torch._dynamo",
    "torch.distributed.tensor",
    "torch.export",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.metrics",
    "tokenizers",
)
# Not datasets, which reads its variables when it is imported, nor matplotlib, which a test hides.
LIBRARY = (*BELOW, "transformers.modeling_utils", "pandas", "pyarrow", "h5py", "hf_elmo.vectors.embedding")
LIBRARY += ("hf_elmo.model.elmo_models", "hf_elmo.commands.app", "warm_up")
# For trainings, whose scripts set the variables of datasets themselves.
TRAINING = (*LIBRARY, "transformers.trainer", "hf_elmo.training.trainer")

_HAS_FORKS = sys.platform == "linux"
# The folder of the servers' sockets, which the processes of pytest-xdist inherit from the first.
_FOLDER = "HF_ELMO_TESTS_WARM_FOLDER"
# Whoever forgets a process that runs is warned of it.
_STARTED: list[subprocess.Popen] = []
# As it was before any test changed it.
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@contextlib.contextmanager
def begin():
    """Servers may be started until the end of this context; it is entered in the process that starts the others."""
    if not _HAS_FORKS:
        yield
        return
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    os.environ[_FOLDER] = str(folder)
    # They end when nobody has this open for writing any more: when this process ends, however that happens.
    os.mkfifo(folder / "alive")
    alive = os.open(folder / "alive", os.O_RDWR)
    try:
        yield
    finally:
        os.close(alive)
        shutil.rmtree(folder)
        del os.environ[_FOLDER]


def shared_folder() -> Path:
    """A folder that all processes of these tests have in common."""
    return Path(os.environ[_FOLDER])


def _server(modules: tuple[str, ...], path: str, variables: dict[str, str]) -> Path:
    """The socket of the server that has imported these modules, which starts at the first call of any process."""
    folder = shared_folder()
    name = hashlib.sha256(repr((modules, path, sorted(variables.items()))).encode()).hexdigest()[:16]
    address = folder / name / "socket"
    with FileLock(folder / f"{name}.lock"):
        if not address.exists():
            address.parent.mkdir(exist_ok=True)
            environment = {**_ENVIRONMENT, **variables, **({"PYTHONPATH": path} if path else {})}
            process = subprocess.Popen(
                [*_beginning(modules, path), HELPERS / "warm_server.py", address, folder / "alive", *modules],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                env=environment,
            )
            assert process.stdout.readline() == b"ready\n", "the server of warm processes did not start"
            _STARTED.append(process)
    return address


def _beginning(modules: tuple[str, ...], path: str) -> list:
    """What starts Python with the most of these modules that a server may have: a server begins as a fork as well."""
    for fewer in (LIBRARY, BELOW):
        if len(fewer) < len(modules) and modules[: len(fewer)] == fewer:
            return _fork_of(_server(fewer, path, {}))
    return [sys.executable]


def _fork_of(address: Path) -> list:
    return [sys.executable, "-I", "-S", HELPERS / "warm_relay.py", address]


def _command(arguments, modules, path="", variables=None) -> list[str]:
    start = _fork_of(_server(modules, path, variables or {})) if _HAS_FORKS else [sys.executable]
    return [str(argument) for argument in (*start, *arguments)]


def run(
    arguments,
    modules: tuple[str, ...] = LIBRARY,
    path: str = "",
    variables: dict[str, str] | None = None,
    **options,
) -> subprocess.CompletedProcess:
    """`subprocess.run` of Python.

    Args:
        arguments: Of Python: `-m` with a module, `-c` with code, or a script; and its own.
        modules: What the process has imported when it starts.
        path: PYTHONPATH while that was imported. (That of the process itself is in its environment.)
        variables: More environment variables while that was imported.
        options: Of `subprocess.run`.
    """
    return subprocess.run(_command(arguments, modules, path, variables), **options)


class Popen(subprocess.Popen):
    """`subprocess.Popen` of Python, with arguments as for `run`; signals reach the process that does the work."""

    def __init__(self, arguments, modules: tuple[str, ...] = LIBRARY, **options):
        self.address = _server(modules, "", {}) if _HAS_FORKS else None
        super().__init__(_command(arguments, modules), **options)

    def send_signal(self, sig):
        if self.address is None:
            return super().send_signal(sig)
        file = self.address.with_name(str(self.pid))
        while not file.exists() and self.poll() is None:
            time.sleep(0.001)
        if self.poll() is None:
            os.kill(int(file.read_text(encoding="ascii")), sig)
