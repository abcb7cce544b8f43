"""A hub with one dataset to be read, as `datasets` and `huggingface_hub` ask for it."""

import json
import re
import threading
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

NAME = "tester/texts"


class DatasetHub:
    """Its address is `url`; `files` may be changed, which makes another commit. `unknown` are requests of other kinds.

    Args:
        files: Name -> content.
    """

    def __init__(self, files):
        self.files, self.unknown = files, []
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def sha(self):
        return sha1(b"".join(self.files.values())).hexdigest()

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub = None
    protocol_version = "HTTP/1.1"
    # Otherwise the body of an answer waits some 40 ms for the receipt of its head.
    disable_nagle_algorithm = True

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        if re.fullmatch(rf"/api/datasets/{NAME}/paths-info/[^/]+", self._path()):
            wanted = json.loads(body)["paths"] if body.startswith("{") else re.findall(r"paths=([^&]*)", body)
            self._json([each for each in self._tree() if each["path"] in map(unquote, wanted)])
        else:
            self._refuse()

    def do_GET(self):
        path = self._path()
        if re.fullmatch(rf"/api/datasets/{NAME}(/revision/[^/]+)?", path):
            siblings = [{"rfilename": name} for name in self.hub.files]
            self._json({"id": NAME, "sha": self.hub.sha, "siblings": siblings, "private": False, "tags": []})
        elif re.fullmatch(rf"/api/datasets/{NAME}/tree/[^/]+", path):
            self._json(self._tree())
        elif re.fullmatch(rf"/api/datasets/{NAME}/tree/[^/]+/.*", path):
            self._json([])
        elif match := re.fullmatch(rf"/datasets/{NAME}/resolve/([^/]+)/(.*)", path):
            self._file(*match.groups())
        else:
            self._refuse()

    def _path(self):
        return unquote(urlsplit(self.path).path)

    def _tree(self):
        return [
            {"type": "file", "path": name, "size": len(content), "oid": sha1(content).hexdigest()}
            for name, content in self.hub.files.items()
        ]

    def _file(self, revision, name):
        content = self.hub.files.get(name)
        if content is None or revision not in ("main", self.hub.sha):
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"ETag": f'"{sha1(content).hexdigest()}"', "X-Repo-Commit": self.hub.sha, "Accept-Ranges": "bytes"}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
            part = content[first : last + 1]
            headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
            self._answer(206, part, headers)
        else:
            self._answer(200, content, headers)

    def _json(self, content):
        self._answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _refuse(self):
        self.hub.unknown.append(f"{self.command} {self.path}")
        self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def _answer(self, status, content, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
