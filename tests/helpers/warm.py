"""Python processes that start at once: forks of a process that has imported the library already.

Importing torch and transformers takes most of the time of a short process. Where a test is about what a process does,
and not about how it starts, `run` and `Popen` stand for those of `subprocess` with `sys.executable`. What they start is
a small process, which holds the pipes, the folder and the environment that it was given, hands them to a fork of the
server (`warm_server.py`), and ends as that ends. Where forks are not to be had, the interpreter starts anew.
"""

import atexit
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from places import HELPERS

# Not datasets, which reads its variables when it is imported, nor matplotlib, which a test hides.
LIBRARY = ("torch", "transformers.modeling_utils", "pandas", "pyarrow", "h5py", "hf_elmo.vectors.embedding")
LIBRARY += ("hf_elmo.model.elmo_models", "hf_elmo.commands.app")
# For trainings, whose scripts set the variables of datasets themselves.
TRAINING = (*LIBRARY, "transformers.trainer", "hf_elmo.training.trainer")
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

_HAS_FORKS = sys.platform == "linux"
_SERVERS: dict[tuple, Path] = {}
# As it was before any test changed it.
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def _server(modules: tuple[str, ...], path: str) -> Path:
    """The socket of the server that has imported these modules, which starts at the first call."""
    if (modules, path) not in _SERVERS:
        address = Path(tempfile.mkdtemp(prefix="warm-")) / "socket"
        # It ends when its standard input does: at the latest with this process.
        process = subprocess.Popen(
            [sys.executable, str(HELPERS / "warm_server.py"), str(address), *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**_ENVIRONMENT, "PYTHONPATH": path} if path else _ENVIRONMENT,
        )
        assert process.stdout.readline() == b"ready\n", "the server of warm processes did not start"

        def end():
            process.stdin.close()
            process.wait(60)
            for file in (*address.parent.iterdir(), address.parent):
                (Path.rmdir if file.is_dir() else Path.unlink)(file)

        atexit.register(end)
        _SERVERS[modules, path] = address
    return _SERVERS[modules, path]


def _command(arguments, modules, path) -> list[str]:
    arguments = [str(argument) for argument in arguments]
    if not _HAS_FORKS:
        return [sys.executable, *arguments]
    return [sys.executable, "-I", "-S", str(HELPERS / "warm_relay.py"), str(_server(modules, path)), *arguments]


def run(arguments, modules: tuple[str, ...] = LIBRARY, path: str = "", **options) -> subprocess.CompletedProcess:
    """`subprocess.run` of Python.

    Args:
        arguments: Of Python: `-m` with a module, `-c` with code, or a script; and its own.
        modules: What the process has imported when it starts.
        path: PYTHONPATH while that was imported. (That of the process itself is in its environment.)
        options: Of `subprocess.run`.
    """
    return subprocess.run(_command(arguments, modules, path), **options)


class Popen(subprocess.Popen):
    """`subprocess.Popen` of Python, with arguments as for `run`; signals reach the process that does the work."""

    def __init__(self, arguments, modules: tuple[str, ...] = LIBRARY, **options):
        self.address = _server(modules, "") if _HAS_FORKS else None
        super().__init__(_command(arguments, modules, ""), **options)

    def send_signal(self, sig):
        if self.address is None:
            return super().send_signal(sig)
        file = self.address.with_name(str(self.pid))
        while not file.exists() and self.poll() is None:
            time.sleep(0.001)
        if self.poll() is None:
            os.kill(int(file.read_text(encoding="ascii")), sig)
