"""Python processes in which hf_elmo cannot be imported, however it is installed: what users of remote code have."""

import os
import subprocess
import sys
from pathlib import Path

# Python runs a module of this name at every start, in child processes as well.
_HIDE = """
import sys

class HideHfElmo:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hf_elmo":
            raise ModuleNotFoundError(f"No module named {name!r}: hidden by the tests", name=name)

sys.meta_path.insert(0, HideHfElmo())
"""


def isolated_environment(folder: Path, **variables: str) -> dict[str, str]:
    """Environment variables under which every Python process is without hf_elmo, the hub, and the user's caches.

    Args:
        folder: An empty folder for the caches.
        variables: More of them.
    """
    hidden = folder / "hidden"
    hidden.mkdir(parents=True, exist_ok=True)
    (hidden / "sitecustomize.py").write_text(_HIDE, encoding="utf-8")
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


def run_isolated(
    arguments: list, folder: Path, timeout: float = 300, check: bool = True, **variables: str
) -> subprocess.CompletedProcess:
    """Runs Python without hf_elmo, in `folder`; fails with its output if it fails, unless `check` is off."""
    process = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=isolated_environment(folder, **variables),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert process.returncode == 0 or not check, (
        f"exit status {process.returncode}\n{process.stdout[-3000:]}\n{process.stderr[-6000:]}"
    )
    return process
