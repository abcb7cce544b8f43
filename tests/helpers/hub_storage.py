"""What a hub keeps: repositories, their branches and commits, and who may do what."""

from dataclasses import dataclass, field

TOKEN = "hf_" + "W" * 34
READ_ONLY_TOKEN = "hf_" + "R" * 34
USER = "tester"


@dataclass
class Blob:
    """A file of a commit. `sha256` is that of a large one; `xet` its name in the store of large files."""

    oid: str
    size: int
    sha256: str | None = None
    xet: str | None = None


@dataclass
class Commit:
    sha: str
    title: str
    files: dict[str, Blob]


@dataclass
class Repo:
    name: str
    is_private: bool
    branches: dict[str, list[Commit]] = field(default_factory=dict)

    def find(self, revision: str) -> Commit | None:
        if revision in self.branches:
            return self.branches[revision][-1]
        return next((each for commits in self.branches.values() for each in commits if each.sha == revision), None)


@dataclass
class Request:
    """What came in, and what it got: status 0 stands for a broken connection."""

    method: str
    path: str
    status: int
    received: int
    token: str | None


@dataclass
class Fault:
    method: str
    pattern: str
    times: int
    status: int = 0
    message: str = ""
    after: int = 0


class Refusal(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, body: dict | None = None):
        self.status, self.message, self.code, self.body = status, message, code, body
