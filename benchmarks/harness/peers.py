"""The programs that hf_elmo is compared with: one command makes an environment that runs each of them today.

    python -m benchmarks.harness.peers install allennlp FOLDER
    python -m benchmarks.harness.peers install simple_elmo FOLDER
    python -m benchmarks.harness.peers install fast_elmo FOLDER
    python -m benchmarks.harness.peers check

`install` makes a virtual environment in FOLDER and ends with the line to put in front of `python -m benchmarks.run`.
No program runs as its own `pip install` leaves it, so the packages are named here one by one. Each needs about
3 GB of disk and some minutes.

- AllenNLP 2.10.1 asks for a torch below 1.13, which does not run on Python 3.11. It runs with torch 2.13, without its
  requirements and without torchvision, which it imports for pictures alone (`contestant.py` puts an empty one there).
  Its taggers, with which tests compare, are in allennlp-models, which needs an optimiser that transformers has up to
  4.46.
- simple_elmo 0.9.2 wants Keras 2, which TensorFlow now has in a package of its own (`tf_keras`).
- pytorch-fast-elmo 0.6.12 asks for torch 1.0. It is C++ over torch's library, in two packages, which are built here
  from their sources against torch 2.13, with a C++ compiler; one call has had another name since (`Source`). Each of
  the six files takes a minute or more of a core; as many are built at once as there are cores, or as `MAX_JOBS` says.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

CONTESTANT = Path(__file__).with_name("contestant.py")


@dataclass(frozen=True)
class Source:
    """A package that is built from its source distribution, with changes.

    Attributes:
        requirement: The package, and its version.
        changes: File in the distribution, what stands there once, and what is to stand there.
    """

    requirement: str
    changes: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Peer:
    """A program of others.

    Attributes:
        variable: The environment variable that names the Python of its environment.
        installs: What `pip install` is given, one call after the other.
        sources: What is built then, one after the other.
    """

    variable: str
    installs: tuple[str, ...]
    sources: tuple[Source, ...] = ()


PEERS = {
    "allennlp": Peer(
        "HF_ELMO_ALLENNLP_PYTHON",
        (
            "torch==2.13.0 numpy==2.4.6 h5py==3.16.0",
            # numpy and torch again, so that nothing changes them.
            "torch==2.13.0 numpy==2.4.6 transformers==4.46.3 huggingface_hub==0.36.2 spacy==3.8.18 "
            "cached_path==1.8.10 overrides==3.1.0 lmdb dill base58 more_itertools fairscale termcolor tensorboardX "
            "jsonnet typer wandb nltk scikit-learn filelock",
            "--no-deps allennlp==2.10.1 allennlp-models==2.10.1",
        ),
    ),
    "simple_elmo": Peer(
        "HF_ELMO_SIMPLE_ELMO_PYTHON",
        ("simple_elmo==0.9.2 tensorflow-cpu==2.21.0 keras==3.15.1 tf_keras==2.21.0",),
    ),
    "fast_elmo": Peer(
        "HF_ELMO_FAST_ELMO_PYTHON",
        ("torch==2.13.0 numpy==2.4.6 h5py==3.16.0 setuptools wheel ninja",),
        (
            Source("pytorch-stateful-lstm==1.6.0"),
            Source(
                "pytorch-fast-elmo==0.6.12",
                (("extension/elmo_character_encoder.cc", ".with_bias(true)", ".bias(true)"),),
            ),
        ),
    ),
}


def python_of(name: str) -> str | None:
    """The Python of a peer's environment, if the environment variable names one."""
    return os.environ.get(PEERS[name].variable) or None


def clean_environment(**variables: str) -> dict[str, str]:
    """The environment variables for another environment's Python, which is to find its own packages only."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return {**kept, **variables}


def change(folder: Path, changes: tuple[tuple[str, str, str], ...]) -> None:
    """Makes the changes of a `Source` in the folder of its distribution.

    Raises:
        ValueError: if what is to be changed does not stand there exactly once: this is another version.
    """
    for name, old, new in changes:
        path = folder / name
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if text.count(old) != 1:
            raise ValueError(f"{name} of {folder.name} has {old!r} {text.count(old)} times, expected once.")
        path.write_text(text.replace(old, new), encoding="utf-8")


def build(python: str | Path, source: Source) -> None:
    """Builds and installs a package from its source distribution.

    Args:
        python: The Python of an environment that has torch, setuptools and wheel.
        source: The package.

    Raises:
        ValueError: as `change`.
        OSError: if pip does not succeed; its own messages are on the terminal.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # A distribution of the time before pyproject.toml says nothing of torch, which its setup.py imports.
        options = ["--no-deps", "--no-build-isolation"]
        _pip(python, "download", *options, "--no-binary", ":all:", "--dest", temporary, source.requirement)
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
        (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
        change(unpacked, source.changes)
        _pip(python, "install", *options, unpacked)


def _pip(python: str | Path, command: str, *arguments: str | Path) -> None:
    """Runs pip of an environment."""
    if subprocess.run([python, "-m", "pip", command, "--quiet", *arguments], env=clean_environment()).returncode:
        raise OSError(f"pip could not {command}: {' '.join(map(str, arguments))}.")


def install(name: str, folder: Path) -> Path:
    """Makes an environment for a peer, and gives its Python.

    Args:
        name: A key of `PEERS`.
        folder: Where; must not exist, or be empty.

    Raises:
        ValueError: if there is something in the folder, or a source is not as expected.
        OSError: if pip does not succeed; its own messages are on the terminal.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty: name a new folder.")
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    for packages in PEERS[name].installs:
        _pip(python, "install", *packages.split())
    for source in PEERS[name].sources:
        build(python, source)
    return python


def check(name: str, python: str | Path) -> dict[str, str | None]:
    """The versions of a peer's packages.

    Raises:
        OSError: if it does not run there.
    """
    done = subprocess.run(
        [python, CONTESTANT, name, "--check"], env=clean_environment(), capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise OSError(f"{name} does not run with {python}: {lines[-1]}")
    return json.loads(done.stdout)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("install", help="make an environment")
    command.add_argument("name", choices=sorted(PEERS))
    command.add_argument("folder", type=Path)
    commands.add_parser("check", help="try the environments that variables name")
    options = parser.parse_args(arguments)
    try:
        if options.command == "install":
            python = install(options.name, options.folder).absolute()
            print(json.dumps(check(options.name, python)))
            print(f"export {PEERS[options.name].variable}={python}")
            return 0
        for name, peer in PEERS.items():
            python = python_of(name)
            print(f"{name}: {json.dumps(check(name, python)) if python else f'{peer.variable} is not set'}")
        return 0
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
