"""The requests of the `huggingface_hub` client, and of hf_xet, and what a hub answers."""

import base64
import hashlib
import json
import re
import secrets
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from hub_storage import READ_ONLY_TOKEN, TOKEN, USER, Blob, Commit, Refusal, Repo, Request

_LICENSES = ("apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "other", "unknown")
_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
_ROUTES = [
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", rf"/api/models/{_REPO}/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", rf"/api/models/{_REPO}/commit/(?P<revision>[^/]+)", "commit"),
    ("POST", rf"/api/models/{_REPO}/branch/(?P<revision>[^/]+)", "branch"),
    ("GET", rf"/api/models/{_REPO}/tree/(?P<revision>[^/]+)(?P<path>/.*)?", "tree"),
    ("GET", rf"/api/models/{_REPO}/xet-(?P<kind>read|write)-token/(?P<revision>[^/]+)", "xet_connection"),
    ("GET", rf"/api/models/{_REPO}(/revision/(?P<revision>[^/]+))?", "info"),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "put"),
    ("POST", rf"/lfs/{_REPO}/verify", "verify"),
    ("GET", rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    ("HEAD", rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    ("POST", r"/cas/v1/xorbs/default/(?P<name>[0-9a-f]{64})", "xorb"),
    ("POST", r"/cas/v1/shards", "shard"),
    ("GET", r"/cas/v1/reconstructions/(?P<name>[0-9a-f]{64})", "reconstruction"),
    ("GET", r"/cas/xorbs/(?P<name>[0-9a-f]{64})", "xorb_bytes"),
]
# Asked for by clients that can do without.
_ABSENT = r"/cas/v2/|/cas/v1/(chunks|xorb-grants)/|/v1/telemetry|/api/telemetry/|/api/[\w-]+$"


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class HubHandler(BaseHTTPRequestHandler):
    # The `HubServer` that this belongs to.
    hub = None
    protocol_version = "HTTP/1.1"
    # Otherwise the body of an answer waits some 40 ms for the receipt of its head.
    disable_nagle_algorithm = True
    # A client that says no more must not hold a thread up for ever.
    timeout = 60

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.received, self.is_counted = 0, False
        path = urlsplit(self.path).path
        try:
            fault = self.hub.fault_for(self.command, path)
            self.body = self._read_body(fault.after if fault and not fault.status else None)
            if fault and not fault.status:
                self.close_connection = True
                self._count(0)
                self.connection.shutdown(2)
                return
            if fault:
                raise Refusal(fault.status, fault.message)
            for method, pattern, name in _ROUTES:
                if self.command == method and (match := re.fullmatch(pattern, path)):
                    # Segments are matched before slashes that they hold are unquoted.
                    getattr(self, name)(**{key: value and unquote(value) for key, value in match.groupdict().items()})
                    return
            if not re.match(_ABSENT, path):
                self.hub.unknown.append(f"{self.command} {path}")
            raise Refusal(404, "Not Found")
        except Refusal as refusal:
            headers = {"X-Error-Message": refusal.message} if refusal.message else {}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            self._answer(refusal.status, refusal.body or {"error": refusal.message}, headers)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
            self._count(0)

    do_POST = do_PUT = do_HEAD = do_GET

    def _count(self, status: int) -> None:
        """Notes a request, once, before its client hears of the end: the test may look as soon as it does."""
        if not self.is_counted:
            self.is_counted = True
            token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
            path = urlsplit(self.path).path
            self.hub.requests.append(Request(self.command, path, status, self.received, token))

    def _read_body(self, most: int | None) -> bytes:
        pieces = []

        def read(size: int) -> None:
            size = size if most is None else min(size, most - self.received)
            piece = self.rfile.read(size)
            self.received += len(piece)
            pieces.append(piece)

        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(100).split(b";")[0], 16):
                read(size)
                if most is not None and self.received >= most:
                    return b""
                self.rfile.readline(10)
            self.rfile.readline(10)
        else:
            read(int(self.headers.get("Content-Length", 0)))
        return b"".join(pieces)

    def _answer(self, status: int, body: dict | list | bytes, headers: dict | None = None, size: int | None = None):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._count(status)
        self.send_response(status)
        headers = {"Content-Type": "application/json", **(headers or {})}
        for name, value in {**headers, "Content-Length": str(len(content) if size is None else size)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    # --- who may do what

    def _user(self, needed: bool = True) -> str | None:
        header = self.headers.get("Authorization")
        if header is None and not needed:
            return None
        if header not in (f"Bearer {TOKEN}", f"Bearer {READ_ONLY_TOKEN}"):
            # What the real hub says to an invalid token, and to none.
            raise Refusal(
                401, "Invalid credentials in Authorization header" if header else "Invalid username or password."
            )
        return USER if header == f"Bearer {TOKEN}" else "reader"

    def _may_write(self, namespace: str) -> None:
        if self._user() != namespace:
            raise Refusal(403, "You don't have the rights to write to this namespace with this token")

    def _repo(self, name: str, write: bool = False) -> Repo:
        user = self._user(needed=write)
        repo = self.hub.repos.get(name)
        if repo is None or (repo.is_private and user != name.split("/")[0]):
            raise Refusal(404 if user else 401, "Repository not found", "RepoNotFound")
        if write:
            self._may_write(name.split("/")[0])
        return repo

    def _commit_of(self, repo: Repo, revision: str) -> Commit:
        commit = repo.find(revision)
        if commit is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # --- the API

    def create(self):
        asked = json.loads(self.body)
        namespace = asked.get("organization") or self._user()
        self._may_write(namespace)
        name = f"{namespace}/{asked['name']}"
        answer = {"url": f"{self.hub.url}/{name}", "name": name, "id": name}
        with self.hub.lock:
            if name in self.hub.repos:
                message = "You already created this model repo"
                raise Refusal(409, message, body={"error": message, **answer})
            repo = Repo(name, asked.get("visibility") == "private")
            attributes = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
            blob = Blob(_git_oid(attributes), len(attributes))
            self.hub.stored(blob.oid).write_bytes(attributes)
            repo.branches["main"] = [Commit(secrets.token_hex(20), "initial commit", {".gitattributes": blob})]
            self.hub.repos[name] = repo
        self._answer(200, answer)

    def validate(self):
        content = json.loads(self.body)["content"]
        match = re.match(r"---\r?\n(.*?)\r?\n?---(\r?\n|$)", content, re.DOTALL)
        errors, warnings = [], []
        try:
            metadata = yaml.safe_load(match[1]) if match else None
        except yaml.YAMLError as error:
            metadata = None
            errors.append({"message": f"YAML: {error}"})
        if not errors and not metadata:
            warnings.append({"message": "empty or missing yaml metadata in repo card"})
        elif not errors and not isinstance(metadata, dict):
            errors.append({"message": "metadata must be an object"})
        elif not errors and metadata.get("license", "unknown") not in _LICENSES:
            errors.append({"message": f'"license" must be one of [{", ".join(_LICENSES)}]'})
        self._answer(400 if errors else 200, {"errors": errors, "warnings": warnings})

    def whoami(self):
        self._answer(200, {"type": "user", "name": self._user(), "orgs": []})

    def info(self, repo, revision):
        found = self._repo(repo)
        commit = self._commit_of(found, revision or "main")
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        facts = {"id": repo, "modelId": repo, "sha": commit.sha, "private": found.is_private, "siblings": siblings}
        self._answer(200, {**facts, "tags": [], "downloads": 0, "likes": 0})

    def tree(self, repo, revision, path):
        commit = self._commit_of(self._repo(repo), revision)
        start = (path or "").strip("/")
        entries = []
        for name, blob in sorted(commit.files.items()):
            if start and not name.startswith(start + "/"):
                continue
            entry = {"type": "file", "path": name, "oid": blob.oid, "size": blob.size}
            if blob.sha256:
                entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 130}
            if blob.xet:
                entry["xetHash"] = blob.xet
            entries.append(entry)
        if start and not entries:
            raise Refusal(404, f"{start} does not exist", "EntryNotFound")
        self._answer(200, entries)

    def branch(self, repo, revision):
        found = self._repo(repo, write=True)
        with self.hub.lock:
            if revision in found.branches:
                raise Refusal(409, "Reference already exists")
            found.branches[revision] = list(found.branches["main"])
        self._answer(200, {})

    def preupload(self, repo, revision):
        commit = self._commit_of(self._repo(repo, write=True), revision)
        answers = []
        for file in json.loads(self.body)["files"]:
            is_large = file["path"].endswith((".safetensors", ".bin", ".npz")) or file["size"] > 10_000_000
            known = commit.files.get(file["path"])
            oid = known and (known.sha256 or known.oid)
            mode = "lfs" if is_large else "regular"
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._answer(200, {"files": answers})

    def commit(self, repo, revision):
        found = self._repo(repo, write=True)
        lines = [json.loads(line) for line in self.body.splitlines()]
        assert lines[0]["key"] == "header", lines[0]
        with self.hub.lock:
            old = self._commit_of(found, revision)
            if revision not in found.branches:
                raise Refusal(412, "The revision is no branch")
            if lines[0]["value"].get("parentCommit", old.sha) != old.sha:
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            files = dict(old.files)
            for line in lines[1:]:
                value = line["value"]
                if line["key"] == "file":
                    content = base64.b64decode(value["content"])
                    files[value["path"]] = Blob(_git_oid(content), len(content))
                    self.hub.stored(_git_oid(content)).write_bytes(content)
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self._large(value["oid"], value["size"])
                elif line["key"] == "deletedFile":
                    if files.pop(value["path"], None) is None:
                        raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
                else:
                    raise Refusal(400, f"cannot do {line['key']}")
            commit = Commit(secrets.token_hex(20), lines[0]["value"]["summary"], files)
            found.branches[revision].append(commit)
        answer = {"success": True, "commitOid": commit.sha, "commitUrl": f"{self.hub.url}/{repo}/commit/{commit.sha}"}
        self._answer(200, answer)

    def _large(self, sha256: str, size: int) -> Blob:
        """A file that must have been uploaded before."""
        xet = self.hub.xet.file_of(sha256)
        stored = self.hub.stored(sha256)
        actual = self.hub.xet.size_of(xet) if xet else stored.stat().st_size if stored.exists() else None
        if actual != size:
            raise Refusal(400, f"LFS pointer pointed to a file that does not exist: {sha256}")
        return Blob(_git_oid(sha256.encode()), size, sha256, xet)

    # --- large files, with LFS

    def batch(self, repo):
        self._repo(repo, write=True)
        objects = []
        for each in json.loads(self.body)["objects"]:
            answer = {"oid": each["oid"], "size": each["size"]}
            if not self.hub.stored(each["oid"]).exists():
                upload = f"{self.hub.url}/lfs/{each['oid']}?signature={self.hub.xet_token}"
                verify = f"{self.hub.url}/lfs/{repo}/verify"
                answer["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
            objects.append(answer)
        self._answer(200, {"transfer": "basic", "objects": objects})

    def put(self, oid):
        if parse_qs(urlsplit(self.path).query).get("signature") != [self.hub.xet_token]:
            raise Refusal(403, "SignatureDoesNotMatch")
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, "The content is not that of its checksum")
        self.hub.stored(oid).write_bytes(self.body)
        self._answer(200, {})

    def verify(self, repo):
        self._repo(repo, write=True)
        asked = json.loads(self.body)
        stored = self.hub.stored(asked["oid"])
        if not stored.exists() or stored.stat().st_size != asked["size"]:
            raise Refusal(404, "not uploaded")
        self._answer(200, {})

    # --- large files, with hf_xet

    def xet_connection(self, repo, kind, revision):
        self._commit_of(self._repo(repo, write=kind == "write"), revision)
        headers = self.hub.xet.connection(f"{self.hub.url}/cas", self.hub.xet_token)
        url, token, expiry = headers.values()
        self._answer(200, {"casUrl": url, "accessToken": token, "exp": int(expiry)}, headers)

    def _check_xet_token(self):
        if self.headers.get("Authorization") != f"Bearer {self.hub.xet_token}":
            raise Refusal(401, "Unauthorized")

    def xorb(self, name):
        self._check_xet_token()
        is_new = name not in self.hub.xet.xorbs
        self.hub.xet.xorbs[name] = self.body
        self._answer(200, {"was_inserted": is_new})

    def shard(self):
        self._check_xet_token()
        try:
            self.hub.xet.add_shard(self.body)
        except KeyError as error:
            raise Refusal(400, str(error)) from None
        self._answer(200, {"result": 1})

    def reconstruction(self, name):
        self._check_xet_token()
        if name not in self.hub.xet.files:
            raise Refusal(404, "no such file")
        self._answer(200, self.hub.xet.reconstruction(name, f"{self.hub.url}/cas/xorbs"))

    def xorb_bytes(self, name):
        start, end = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
        content = self.hub.xet.xorbs[name]
        place = {"Content-Range": f"bytes {start}-{end}/{len(content)}", "Content-Type": "application/octet-stream"}
        self._answer(206, content[start : end + 1], place)

    # --- download

    def resolve(self, repo, revision, path):
        commit = self._commit_of(self._repo(repo), revision)
        # As the real one, which tells the commit also of a file that is not there.
        if path not in commit.files:
            self._answer(404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit.sha})
            return
        blob = commit.files[path]
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{blob.oid}"', "Content-Type": "application/octet-stream"}
        if blob.sha256:
            headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
        if blob.xet:
            headers |= {
                "X-Xet-Hash": blob.xet,
                "Link": f'<{self.hub.url}/api/models/{repo}/xet-read-token/{commit.sha}>; rel="xet-auth"',
            }
            if self.command == "GET":
                raise Refusal(501, "this hub gives the file to clients with hf_xet only")
            self._answer(200, b"", headers, size=blob.size)
            return
        self._answer(200, self.hub.stored(blob.sha256 or blob.oid).read_bytes(), headers)
