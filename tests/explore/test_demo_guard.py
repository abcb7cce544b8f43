"""The guard before the demo's server, without the server; `test_demo.py` asks the server itself."""

import asyncio

import pytest

from hf_elmo.explore.demo_guard import LOOPBACK, RequestGuard


def ask(path="/", host="localhost:7860", hosts=LOOPBACK, kind="http"):
    """The status of the answer; 200 comes from behind the guard."""

    async def behind(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sent = []

    async def send(message):
        sent.append(message)

    headers = [] if host is None else [(b"host", each.encode()) for each in ([host] if isinstance(host, str) else host)]
    asyncio.run(RequestGuard(behind, hosts)({"type": kind, "path": path, "headers": headers}, None, send))
    return sent[0].get("status", sent[0].get("code"))


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:7860", "127.0.0.1:7860", "[::1]:7860", "[::1]"])
def test_its_own_names(host):
    assert ask(host=host) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:7860", "127.0.0.1.evil", "", None, ["localhost", "evil.example"]]
)
def test_other_names(host):
    assert ask(host=host) == 400
    assert ask(host=host, kind="websocket") == 1008
    assert ask(host=host, hosts=None) == 200


def test_names_below_a_name():
    hosts = (*LOOPBACK, "*.gradio.live")
    assert ask(host="0123.gradio.live", hosts=hosts) == 200
    assert ask(host="gradio.live.evil", hosts=hosts) == 400


@pytest.mark.parametrize(
    "path", ["/upload", "/gradio_api/upload", "/gradio_api/upload/", "/gradio_api/upload_progress"]
)
def test_nothing_is_uploaded(path):
    assert ask(path) == ask(path, hosts=None) == 404
    assert ask(path, kind="websocket") == 1008


def test_the_rest_passes():
    assert ask("/gradio_api/queue/join") == ask("/assets/Upload-1.js") == 200
