"""Python processes in which hf_elmo cannot be found, however it is installed: what users of remote code have."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import warm
from filelock import FileLock

# What comes with hf_elmo, but with neither transformers nor torch, and none of what models may use where it is.
WITH_HF_ELMO = ("h5py", "nupunkt", "datasets", "pyarrow", "accelerate", "peft")
# What the library's Trainer wants.
TRAINING = ("datasets", "pyarrow", "accelerate")
# Python runs a module of this name at every start, in child processes as well. Whoever asks must be told that there is
# no such package, rather than get an error: the library looks for many.
_HIDE = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
"""


def isolated_environment(folder: Path, also: Sequence[str] = (), **variables: str) -> dict[str, str]:
    """Environment variables under which every Python process is without hf_elmo, the hub, and the user's caches.

    Args:
        folder: An empty folder for the caches.
        also: Of what is hidden with hf_elmo (`WITH_HF_ELMO`), that which stays.
        variables: More of them.
    """
    hidden = folder / "hidden"
    _write_hook(hidden, also)
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON", "TRANSFORMERS_"))
    }
    own = {
        "PYTHONPATH": str(hidden),
        "HF_HOME": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {**kept, **own, **variables}


def _write_hook(hidden: Path, also: Sequence[str] = ()) -> None:
    hidden.mkdir(parents=True, exist_ok=True)
    names = {"hf_elmo", *WITH_HF_ELMO} - set(also)
    hook = _HIDE.replace("HIDDEN", repr(sorted(names)))
    (hidden / "sitecustomize.py").write_text(hook, encoding="utf-8")


def _path_without_hf_elmo() -> str:
    """PYTHONPATH under which nothing finds hf_elmo, nor what comes with it."""
    folder = warm.shared_folder() / "hidden"
    with FileLock(warm.shared_folder() / "hidden.lock"):
        if not folder.exists():
            _write_hook(folder)
    return str(folder)


def run_warm_without_hf_elmo(arguments: list, **options) -> subprocess.CompletedProcess:
    """`subprocess.run` of Python in an `isolated_environment`: a process that starts at once, see `warm`.

    It imports transformers itself, which reads variables of its environment then.
    """
    return warm.run(arguments, warm.BELOW, _path_without_hf_elmo(), **options)


def _run_warm_with_transformers(arguments: list, **options) -> subprocess.CompletedProcess:
    """The same with transformers imported, and with one cache for all such processes."""
    variables = {"HF_HOME": str(warm.shared_folder() / "cache"), "HF_HUB_OFFLINE": "1"}
    modules = (*warm.BELOW, "transformers.pipelines", "transformers.modeling_utils", "warm_up")
    return warm.run(arguments, modules, _path_without_hf_elmo(), variables, **options)


def run_isolated(
    arguments: list,
    folder: Path,
    timeout: float = 300,
    check: bool = True,
    also: Sequence[str] = (),
    **variables: str,
) -> subprocess.CompletedProcess:
    """Runs Python without hf_elmo, in `folder`; fails with its output if it fails, unless `check` is off.

    Args:
        arguments: Of Python.
        folder: Where, and for caches.
        timeout: Seconds.
        check: Whether it must not fail.
        also: As for `isolated_environment`, as are `variables`.
    """
    options = {"cwd": folder, "env": isolated_environment(folder, also, **variables), "timeout": timeout}
    options |= {"capture_output": True, "text": True}
    if also:
        process = subprocess.run([sys.executable, *map(str, arguments)], **options)
    else:
        process = (run_warm_without_hf_elmo if variables else _run_warm_with_transformers)(arguments, **options)
    assert process.returncode == 0 or not check, (
        f"exit status {process.returncode}\n{process.stdout[-3000:]}\n{process.stderr[-6000:]}"
    )
    return process
