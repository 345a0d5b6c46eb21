"""What the page's server answers to, request by request."""

from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from stremn.errors import StremnError
from stremn.web.guard import Guard, is_loopback, new_token
from stremn.web.serving import serve


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer 200 with the length of the body, or accept a websocket."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})


def ask(
    path: str = "/",
    *,
    token: str | None = None,
    method: str = "GET",
    kind: str = "http",
    query: str = "",
    bodies: tuple[bytes, ...] = (b"",),
    **headers: str,
) -> list[Any]:
    """All that the guard sends for a request; an underscore in a header's name is a dash."""
    guard = Guard(application, token=token, largest=100)
    given = {"host": "localhost:7860"} | {k.replace("_", "-"): v for k, v in headers.items()}
    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(k.encode(), v.encode()) for k, v in given.items()],
    }
    waiting = [
        {"type": "http.request", "body": body, "more_body": i < len(bodies) - 1}
        for i, body in enumerate(bodies)
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    # In a thread of its own: `asyncio.run` would drop a loop that gradio left for this thread.
    with start_blocking_portal() as portal:
        portal.call(guard, scope, receive, send)
    return sent


def status(*arguments: Any, **options: Any) -> int | None:
    sent = ask(*arguments, **options)
    return sent[0]["status"] if sent else None


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost:7860", "LocalHost", "127.0.0.1:1", "127.0.0.2", "127.8.9.10:7860",
        "[::1]", "[::1]:7860",
    ],
)  # fmt: skip
def test_this_computers_names_are_answered(host: str) -> None:
    assert status(host=host) == 200
    assert status(host=host, origin=f"http://{host}", method="POST") == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:7860", "", "localhost.evil.example", "10.0.0.1", "[::1",
        "127.0.0.2.evil.example", "127.0.0.2.evil.example:7860", "127.1", "127.0.0.1.", "0.0.0.0",
        "[::1].evil.example", "127.0.0.1@evil.example", "::1",
        "evil.example@127.0.0.1", "127.0.0.1/evil.example", "127.0.0.1:x",
    ],
)  # fmt: skip
def test_other_names_for_this_computer_are_refused(host: str) -> None:
    assert status(host=host) == 421


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "http://localhost:7860.evil"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_sites_are_refused(origin: str, method: str) -> None:
    assert status(origin=origin, method=method) == 403
    assert ask(origin=origin, kind="websocket") == [{"type": "websocket.close", "code": 1008}]


def test_forms_of_other_sites_are_refused() -> None:
    assert status(method="POST", sec_fetch_site="cross-site") == 403
    assert status(method="GET", sec_fetch_site="cross-site") == 200  # a link to the page


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/heartbeat/..",
        "/gradio_api/heartbeat/%2e%2e",
        "/gradio_api/heartbeat/%252e%252e",
        "/gradio_api/heartbeat/a/b",
        "/gradio_api/heartbeat/",
        "/gradio_api/heartbeat/.",
        "/gradio_api/heartbeat/" + "x" * 65,
        "/file=../../etc/passwd",
        "/a\\..\\b",
        "/a\0b",
    ],
)
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    assert status(path) == 400


def test_sessions_have_a_browsers_names() -> None:
    assert status("/gradio_api/heartbeat/k3j2h1g0f9") == 200
    assert status("/gradio_api/queue/data", query="session_hash=k3j2h1g0f9") == 200
    assert status("/gradio_api/queue/data", query="session_hash=../../x") == 400


def test_browsers_are_told_to_ask_no_other_host() -> None:
    told = dict(ask()[0]["headers"])
    rules = dict(rule.split(b" ", 1) for rule in told[b"content-security-policy"].split(b"; "))
    assert rules[b"default-src"].startswith(b"'self'")
    assert b"http" not in told[b"content-security-policy"]
    assert told[b"referrer-policy"] == b"same-origin"


def test_bodies_are_bounded_whatever_they_say() -> None:
    assert status(method="POST", content_length="100", bodies=(b"x" * 100,)) == 200
    assert status(method="POST", content_length="101") == 413
    assert status(method="POST", content_length="-1") == 413
    assert status(method="POST", content_length="many") == 413
    assert status(method="POST", bodies=(b"x" * 60, b"x" * 60)) is None  # it says no length


def test_a_server_that_others_reach_wants_its_token_once() -> None:
    token = new_token()
    there = {"token": token, "host": "192.168.1.5:7860"}
    assert status(**there) == 401
    assert status(**there, query="token=guess") == 401
    assert status(**there, cookie="stremn-token=guess") == 401
    assert status(**there, cookie="stremn-token=ä") == 401
    first = ask(**there, query=f"token={token}")
    assert first[0]["status"] == 200
    name, value = first[0]["headers"][-1]
    assert name == b"set-cookie"
    assert b"HttpOnly; SameSite=Strict" in value
    assert status(**there, cookie=value.decode().partition(";")[0]) == 200
    assert status(**there, cookie=f"stremn-token={token}", origin="http://evil.example") == 403


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True), ("127.0.0.7", True), ("localhost", True), ("::1", True),
        ("0.0.0.0", False), ("::", False), ("192.168.1.5", False), ("example.org", False),
    ],
)  # fmt: skip
def test_which_addresses_stay_on_this_computer(host: str, alone: bool) -> None:
    assert is_loopback(host) is alone


@pytest.mark.parametrize("port", [-1, 65_536, 99_999])
def test_ports_that_do_not_exist_are_refused(port: int) -> None:
    with pytest.raises(StremnError, match="--port must be from 0 to 65535"):
        serve(port=port, announce=print)
