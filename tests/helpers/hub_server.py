"""A small hub on this machine: the protocol of huggingface.co as the `huggingface_hub` client uses it, over real HTTP.

Repositories, branches and commits are kept in memory, contents in a folder. A commit is there whole or not at all.
Requests can be made to fail: with a status, or by a connection that breaks in the middle.
"""

import re
import secrets
import threading
from collections import Counter
from http.server import ThreadingHTTPServer
from pathlib import Path

from hub_handler import HubHandler
from hub_storage import Blob, Fault, Repo, Request
from xet_store import XetStore


class HubServer:
    """The hub; `with HubServer(folder) as hub:` serves at `hub.url` until the end.

    Args:
        folder: For contents.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.unknown: list[str] = []
        self.xet = XetStore()
        self.xet_token = secrets.token_hex(16)
        self.lock = threading.RLock()
        folder.mkdir(parents=True, exist_ok=True)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (HubHandler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()

    def fail(self, method: str, pattern: str, status: int, message: str = "", times: int = 1) -> None:
        """Answers the next requests whose path matches with an error."""
        self.faults.append(Fault(method, pattern, times, status=status, message=message))

    def drop(self, method: str, pattern: str, after: int = 0, times: int = 1) -> None:
        """Breaks the connection of the next requests whose path matches, when `after` bytes have come in."""
        self.faults.append(Fault(method, pattern, times, after=after))

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.method == method and fault.times > 0 and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault
        return None

    def counts(self) -> Counter:
        """How many requests of each sort got through: `"POST commit"`, `"PUT lfs"`, ..."""
        return Counter(f"{each.method} {_sort(each.path)}" for each in self.requests if 0 < each.status < 400)

    def files(self, repo: str, revision: str = "main") -> dict[str, Blob]:
        """The files of a revision."""
        return self.repos[repo].find(revision).files

    def read(self, repo: str, path: str, revision: str = "main") -> bytes:
        """The content of a file that is not in the store of hf_xet."""
        blob = self.files(repo, revision)[path]
        return self.stored(blob.sha256 or blob.oid).read_bytes()

    def stored(self, oid: str) -> Path:
        return self.folder / oid


_SORTS = "create|validate-yaml|preupload|commit|batch|verify|lfs|branch|xorbs|shards|resolve"


def _sort(path: str) -> str:
    found = re.search(rf"/({_SORTS})(/|$)", path)
    return found[1] if found else "other"
