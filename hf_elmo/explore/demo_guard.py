"""What the demo's server lets through: requests to its own name, and no uploads."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

#: The names by which this machine knows itself.
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

# Gradio's routes of uploads, with or without its prefixes.
_UPLOADS = re.compile(r"(^|/)upload(_progress)?/?$")


class RequestGuard:
    """An ASGI middleware that answers what no visitor of the page asks for.

    The page has nothing to upload, but the library's server takes files from anybody. And a page elsewhere whose name
    is made to lead to this machine (DNS rebinding) would be served like the machine's own user, but for the name in
    the header `Host`.

    Args:
        app: The application behind it.
        hosts: Names that the header may have, without the port, and `*.name` for all below a name. None: any, for a
            server that listens to other machines, which may call it by any name.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], hosts: Iterable[str] | None = LOOPBACK):
        self.app = app
        self.hosts = None if hosts is None else [host.lower() for host in hosts]

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        """Passes a request on, or answers it: 400 for another host, 404 for an upload."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
        elif not self._is_own(scope):
            await _answer(scope, send, 400, b"This server has another name.")
        elif _UPLOADS.search(scope["path"]):
            await _answer(scope, send, 404, b"There is nothing to upload here.")
        else:
            await self.app(scope, receive, send)

    def _is_own(self, scope: dict[str, Any]) -> bool:
        if self.hosts is None:
            return True
        names = [value.decode("latin-1").lower() for name, value in scope["headers"] if name.lower() == b"host"]
        if len(names) != 1:
            return False
        name = re.sub(r":[0-9]*$", "", names[0])
        return any(name == host or (host.startswith("*.") and name.endswith(host[1:])) for host in self.hosts)


async def _answer(scope: dict[str, Any], send: Callable, status: int, text: bytes) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
