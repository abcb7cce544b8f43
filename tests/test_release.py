"""The packages that are released: what is in the wheel and the sdist, and how large they are."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from places import CHECKOUT

import hf_elmo

MOST_BYTES = 40e6

needs_checkout = pytest.mark.skipif(
    not (CHECKOUT / "pyproject.toml").is_file(), reason="only a checkout has what packages are built from"
)


def test_one_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", hf_elmo.__version__)
    assert importlib.metadata.version("hf_elmo") == hf_elmo.__version__


@needs_checkout
def test_the_version_is_written_in_one_place():
    files = [CHECKOUT / "pyproject.toml", *(CHECKOUT / "hf_elmo").rglob("*.py"), *CHECKOUT.glob("conversion/*.py")]
    found = [path.name for path in files if f'"{hf_elmo.__version__}"' in path.read_text(encoding="utf-8")]
    assert found == ["version.py"]


@needs_checkout
def test_the_changelog_is_one():
    lines = (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    versions = [line for line in lines if line.startswith("## ")]
    assert versions[0] == "## [Unreleased]"
    assert all(re.fullmatch(r"## \[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", line) for line in versions[1:])
    kinds = {"### " + kind for kind in ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")}
    assert {line for line in lines if line.startswith("### ")} <= kinds


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Wheel and sdist, built from a copy of the files, without the network: the build's own needs are to be there."""
    pytest.importorskip("build", reason="needs the extra release")
    for name, least in (("setuptools", 77), ("wheel", 0)):
        version = importlib.metadata.version(name) if importlib.util.find_spec(name) else "-1"
        if int(version.partition(".")[0]) < least:
            pytest.skip(f"building needs {name} of version {least} or later here: it is {version}")
    folder = tmp_path_factory.mktemp("packages")
    # In the checkout a build would leave its folders behind, and find those of others.
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist", "site", ".git", ".venv", ".*_cache")
    shutil.copytree(CHECKOUT, folder / "source", ignore=ignored)
    (folder / "source" / "hf_elmo" / "__pycache__").mkdir()
    (folder / "source" / "hf_elmo" / "__pycache__" / "left.cpython-311.pyc").write_bytes(b"x")
    command = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--outdir",
        str(folder / "dist"),
        str(folder / "source"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "importable" not in done.stderr
    (wheel,), (sdist,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    return wheel, sdist


def modules(folder):
    return {path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / folder).rglob("*.py")}


@needs_checkout
class TestPackages:
    def test_the_wheel_has_the_package_and_nothing_else(self, packages):
        with zipfile.ZipFile(packages[0]) as archive:
            names = {name for name in archive.namelist() if ".dist-info/" not in name}
            model = {name for name in names if name.startswith("hf_elmo/pretrained/")}
            for name in model:
                assert archive.read(name) == (CHECKOUT / name).read_bytes()
            for path in (CHECKOUT / "model_cards").iterdir():
                if path.suffix in (".md", ".json"):
                    assert archive.read(f"hf_elmo/model_cards/{path.name}") == path.read_bytes()
            metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            headers = HeaderParser().parsestr(archive.read(metadata).decode())
            scripts = archive.read(metadata.replace("METADATA", "entry_points.txt")).decode()
        assert {f"hf_elmo/{name}" for name in modules("conversion")} <= names
        assert modules("hf_elmo") <= names
        assert "hf_elmo/pretrained/elmo-mini/model.safetensors" in model
        assert "hf_elmo/py.typed" in names
        assert {name.partition("/")[0] for name in names} == {"hf_elmo"}
        assert not [name for name in names if name.endswith(".pyc") or "test" in Path(name).name]
        assert headers["Version"] == hf_elmo.__version__
        assert "hf-elmo = hf_elmo.commands.app:main" in scripts
        assert {"train", "peft", "docs", "release", "test"} <= set(headers.get_all("Provides-Extra"))

    def test_the_sdist_can_be_tested_and_built(self, packages):
        with tarfile.open(packages[1]) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        tests, benchmarks = modules("tests"), modules("benchmarks")
        assert len(tests) > 70
        assert len(benchmarks) > 5
        files = {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "constraints.txt", "mkdocs.yml"}
        files |= {"CITATION.cff", "CONTRIBUTING.md", "SECURITY.md", ".pre-commit-config.yaml"}
        files |= {"examples/README.md", "examples/data/corpus.txt"}
        rooms = modules("conversion") | modules("examples") | modules("hf_elmo")
        assert {*files, *tests, *benchmarks, *rooms} <= names
        assert not [name for name in names if name.endswith((".pyc", ".orig", "~")) or "/." in name.strip(".")]

    def test_they_are_small(self, packages):
        for package in packages:
            assert 20e6 < package.stat().st_size < MOST_BYTES

    def test_twine_takes_them(self, packages):
        pytest.importorskip("twine", reason="needs the extra release")
        command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, packages)]
        environment = {**os.environ, "NO_COLOR": "1"}
        done = subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", env=environment, timeout=100, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("PASSED") == 2
        assert "warning" not in (done.stdout + done.stderr).lower()
