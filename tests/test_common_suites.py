"""transformers' own test suites for tokenizers and models, run on ours.

They are not part of an installed transformers, but of its source distribution. To run them, unpack the one of the
installed version and name its folder (the one with `src` and `tests`):

    pip download --no-deps --no-binary :all: transformers==<version>
    tar xzf transformers-<version>.tar.gz
    pip install parameterized
    HF_ELMO_TRANSFORMERS_TESTS=transformers-<version> python -m pytest tests/test_common_suites.py
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import transformers

_VARIABLE = "HF_ELMO_TRANSFORMERS_TESTS"


@dataclass(frozen=True)
class Suite:
    """A module of tests that uses transformers' mixins, and what of it may fail or be skipped: name to reason.

    Attributes:
        module: The module's text. It lies in a package `tests.elmo`; transformers' `tests` are the package above.
        failures: Tests that fail, each because it cannot hold for ELMo. One that passes is to be taken off the list.
        skips: Tests that skip themselves.
        stubs: Files of transformers' tests that the source distribution lacks, path to text.
    """

    module: str
    failures: dict[str, str] = field(default_factory=dict)
    skips: dict[str, str] = field(default_factory=dict)
    stubs: dict[str, str] = field(default_factory=dict)


TOKENIZER = Suite(
    module='''
import tempfile
import unittest

import hf_elmo
from ..test_tokenization_common import TokenizerTesterMixin
from ..test_tokenizers_backend_mixin import TokenizersBackendTesterMixin

# Every word of the texts that the suite expects to get back from their ids.
WORDS = """
    This is the first sentence a test some text hello world Hello I am you low lower newest new unwanted running
""".split()
FOLDER = tempfile.mkdtemp()
hf_elmo.ElmoTokenizer.create(dict.fromkeys(WORDS)).save_pretrained(FOLDER)
hf_elmo.ElmoConfig.from_preset("small", vocab_size=4 + len(set(WORDS))).save_pretrained(FOLDER)


class ElmoTokenizationTest(TokenizerTesterMixin, TokenizersBackendTesterMixin, unittest.TestCase):
    tokenizer_class = rust_tokenizer_class = hf_elmo.ElmoTokenizer
    from_pretrained_id = FOLDER
    test_tokenizer_from_extractor = False
''',
    failures={
        "test_batch_encode_dynamic_overflowing": "asserts that every output is 2-D; character_ids are 3-D",
    },
    skips={
        "test_chat_template_save_loading": "looks for chat_template in the signature of our __init__; there is none",
        "test_integration": "compares with the tokens of a published tokenizer",
        "test_integration_from_extractor": "likewise",
    },
    # The common text that some tests read; any text will do.
    stubs={"fixtures/sample_text.txt": "This is some text.\n\nIt is not the text of transformers.\n"},
)

SUITES = {"tokenizer": TOKENIZER}

_RECORDER = """
import json, os

OUTCOMES = {}


def pytest_runtest_logreport(report):
    name = report.nodeid.rpartition("::")[2]
    if report.failed:
        OUTCOMES[name] = ["failed", str(report.longrepr)[-3000:]]
    elif report.skipped and name not in OUTCOMES:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        OUTCOMES[name] = ["skipped", reason]
    elif report.when == "call":
        OUTCOMES.setdefault(name, ["passed", ""])


def pytest_sessionfinish():
    with open(os.environ["OUTCOMES"], "w") as file:
        json.dump(OUTCOMES, file)
"""


@pytest.fixture(scope="session")
def transformers_tests() -> Path:
    """The folder of tests of the installed transformers."""
    name = os.environ.get(_VARIABLE)
    if not name:
        pytest.skip(f"{_VARIABLE} is not set; how to get transformers' test suites stands at the top of this file")
    if importlib.util.find_spec("parameterized") is None:
        pytest.skip("transformers' test suites need the package parameterized")
    folder = Path(name)
    information = (folder / "PKG-INFO").read_text(encoding="utf-8")
    version = next(line.partition(": ")[2] for line in information.splitlines() if line.startswith("Version: "))
    if version != transformers.__version__:
        pytest.skip(f"{folder} has the tests of transformers {version}, installed is {transformers.__version__}")
    return folder / "tests"


def run_suite(suite: Suite, transformers_tests: Path, folder: Path) -> dict[str, list[str]]:
    """Runs a suite in a process of its own: "passed", "failed" or "skipped", and why, for the name of each test."""
    # The suites look for a directory of exactly this name.
    tests = folder / "tests"
    shutil.copytree(transformers_tests, tests)
    for path, text in suite.stubs.items():
        (tests / path).parent.mkdir(parents=True, exist_ok=True)
        (tests / path).write_text(text, encoding="utf-8")
    for package in {tests, tests / "elmo", *((tests / path).parent for path in suite.stubs)}:
        package.mkdir(exist_ok=True)
        (package / "__init__.py").touch()
    (tests / "elmo" / "test_elmo.py").write_text(suite.module, encoding="utf-8")
    (folder / "conftest.py").write_text(_RECORDER, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n")
    outcomes = folder / "outcomes.json"
    packages = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/elmo/test_elmo.py"],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, packages)),
            "OUTCOMES": str(outcomes),
            "HF_HUB_OFFLINE": "1",
            "RUN_SLOW": "1",
        },
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert outcomes.exists(), result.stdout[-5000:] + result.stderr[-5000:]
    found = json.loads(outcomes.read_text())
    assert found, result.stdout[-5000:] + result.stderr[-5000:]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", SUITES)
def test_suite(name, transformers_tests, tmp_path):
    suite = SUITES[name]
    outcomes = run_suite(suite, transformers_tests, tmp_path)
    by_outcome = {
        kind: {test: why for test, (outcome, why) in outcomes.items() if outcome == kind}
        for kind in ("passed", "failed", "skipped")
    }
    new_failures = {test: why for test, why in by_outcome["failed"].items() if test not in suite.failures}
    assert not new_failures, "\n\n".join(f"{test}: {why}" for test, why in new_failures.items())
    new_skips = {test: why for test, why in by_outcome["skipped"].items() if test not in suite.skips}
    assert not new_skips, "skipped for no known reason:\n" + "\n".join(f"{t}: {why}" for t, why in new_skips.items())
    assert not suite.failures.keys() - by_outcome["failed"].keys(), "these pass now, or are gone"
    assert not suite.skips.keys() - by_outcome["skipped"].keys(), "these are not skipped any more, or are gone"
