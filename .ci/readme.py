"""Helps .ci/run: prints a command of the README, and sees to it that tests really ran.

python3 .ci/readme.py command NAME                 the shell block behind <!-- command: NAME -->
python3 .ci/readme.py check-fixture-tests FILE...  those on original data, by pytest's JUnit reports
python3 .ci/readme.py check-all-ran FILE           all of a JUnit report
"""

import os
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).parents[1]


def command(name: str) -> str:
    """The README's shell block of that name, as a user would copy it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(rf"<!-- command: {re.escape(name)} -->\s*```bash\n(.*?)```", readme, flags=re.DOTALL)
    if block is None:
        sys.exit(f"README.md has no shell block behind <!-- command: {name} -->.")
    return block[1]


def check_fixture_tests(reports: list[str]) -> None:
    """Fails if tests on the shared data were left out although it is there."""
    beside = ROOT.parent / "shared" / "data"
    folder = Path(os.environ.get("HF_ELMO_SHARED_DATA", beside))
    cases = [case for report in reports for case in ElementTree.parse(report).iter("testcase")]
    fidelity = [case for case in cases if case.get("classname", "").endswith("test_fidelity")]
    if not folder.is_dir():
        print(f"There is no shared data at {folder}: {len(fidelity)} fixture tests had nothing to compare with.")
        return
    skipped = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if (mark := case.find("skipped")) is not None and "shared data" in (mark.get("message") or "")
    ]
    if skipped or not fidelity or any(case.find("skipped") is not None for case in fidelity):
        sys.exit(f"The shared data is there, but tests on it did not run: {skipped or 'no test_fidelity'}")
    print(f"All {len(fidelity)} fixture tests ran, and none was left out for want of shared data.")


def check_all_ran(report: str) -> None:
    """Fails if a test was skipped, or if there was none."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    skipped = [
        f"{case.get('classname')}::{case.get('name')}: {mark.get('message')}"
        for case in cases
        if (mark := case.find("skipped")) is not None
    ]
    if skipped or not cases:
        sys.exit("\n".join(["Tests did not run:", *skipped]) if cases else "There were no tests.")
    print(f"All {len(cases)} tests ran.")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["command", name]:
            print(command(name), end="")
        case ["check-fixture-tests", _, *_]:
            check_fixture_tests(sys.argv[2:])
        case ["check-all-ran", report]:
            check_all_ran(report)
        case _:
            sys.exit(__doc__)
