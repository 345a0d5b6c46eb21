"""Check requests to the page's server before they are handled."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_HEADERS = (
    # The page's own scripts build functions from templates, hence eval; nothing comes from, or goes
    # to, another host.
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; base-uri 'self'; "
        b"form-action 'self'; frame-ancestors 'self'; object-src 'none'",
    ),
    (b"referrer-policy", b"same-origin"),  # the address may hold the token
    (b"x-content-type-options", b"nosniff"),
)
"""Headers of every answer."""

_COOKIE = "stremn-token"
_STARTED = "/gradio_api/startup-events"
_HOST = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[\w.-]+))(?::\d*)?", re.ASCII)
"""A Host header: an IPv6 address in brackets, or a name or IPv4 address; then perhaps a port."""
_SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")


def is_loopback(host: str) -> bool:
    """Return whether `host` always is this computer: localhost, or an address such as 127.0.0.1.

    A server there can be reached only from this computer. Other names do not count, whatever
    address they lead to: the owner of a name can let it lead to this computer.
    """
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    """Return a token that cannot be guessed."""
    return secrets.token_urlsafe(24)


class Guard:
    """ASGI middleware that refuses requests from other pages or for other servers.

    - Another site's pages: the Origin, where there is one, must be the host that is asked.
    - Another site's name for this computer (DNS rebinding): a server on loopback answers to
      localhost and to loopback addresses alone.
    - Strangers: a server that others can reach wants `token`, once in the address and then in a
      cookie that other sites cannot send.
    - Paths with ".." and names of sessions that no browser makes up.
    - Bodies larger than `largest` bytes, whatever their header says.

    It also tells browsers to ask no other host for anything, whatever a page holds.
    """

    def __init__(
        self, app: Callable[..., Awaitable[None]], *, token: str | None, largest: int
    ) -> None:
        self.app = app
        self._token = token
        self._largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        refusal = self._refusal(scope, headers, query)
        if refusal is not None:
            await _refuse(scope, send, *refusal)
            return
        if scope["type"] == "http":
            headers_too = list(_HEADERS)
            if self._token is not None and query.get("token"):
                cookie = f"{_COOKIE}={self._token}; Path=/; HttpOnly; SameSite=Strict"
                headers_too.append((b"set-cookie", cookie.encode()))
            send = _with_headers(send, headers_too)
        await self.app(scope, _bounded(receive, self._largest), send)

    def _refusal(
        self, scope: Scope, headers: dict[str, str], query: dict[str, list[str]]
    ) -> tuple[int, str] | None:
        """Return status and reason if a request is refused."""
        host = headers.get("host", "")
        stranger = foreign(host, headers.get("origin"), only_here=self._token is None)
        if stranger is not None:
            return stranger
        if headers.get("sec-fetch-site") == "cross-site" and scope.get("method") != "GET":
            return 403, "Requests of other sites are refused."
        open_to_all = scope["path"] == _STARTED  # gradio asks itself, once, without a cookie
        if self._token and not open_to_all and not self._knows_token(headers, query):
            return 401, "Open the page with the address that `stremn web` printed, token included."
        if not _is_plain_path(scope) or not all(
            _SESSION.fullmatch(name) for name in query.get("session_hash", [])
        ):
            return 400, "There is no such page."
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self._largest:
            return 413, f"At most {self._largest // 10**6} MB can be sent."
        return None

    def _knows_token(self, headers: dict[str, str], query: dict[str, list[str]]) -> bool:
        assert self._token is not None  # asked only then
        given = list(query.get("token", []))
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
        except CookieError:
            cookie = None
        if cookie is not None:
            given.append(cookie.value)
        return any(hmac.compare_digest(one.encode(), self._token.encode()) for one in given)


def foreign(host: str, origin: str | None, *, only_here: bool) -> tuple[int, str] | None:
    """Return status and reason if a request is not for this server, or not from its own pages.

    Args:
        host: the Host header, "" if there is none.
        origin: the Origin header.
        only_here: the server answers to localhost and to loopback addresses alone.
    """
    if only_here and not is_loopback(_hostname(host)):
        return 421, "This server answers to localhost alone."
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return 403, "Requests of other sites are refused."
    return None


def _hostname(host: str) -> str:
    """Return a Host header without port and brackets, in lower case; "" if it is none."""
    found = _HOST.fullmatch(host)
    return "" if found is None else (found["address"] or found["name"]).lower()


def _is_plain_path(scope: Scope) -> bool:
    """Return whether a path stays in its folder and names valid sessions."""
    path = scope["path"]
    for _ in range(3):  # however often it was quoted
        path = unquote(path)
    parts = path.split("/")
    if ".." in parts or "\\" in path or "\0" in path:
        return False
    after = parts[parts.index("heartbeat") + 1 :] if "heartbeat" in parts else ["x"]
    return len(after) == 1 and _SESSION.fullmatch(after[0]) is not None


def _with_headers(send: Send, headers: list[tuple[bytes, bytes]]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *headers]
        await send(message)

    return sending


def _bounded(receive: Receive, largest: int) -> Receive:
    """End a request body that is larger than allowed, as if the client had disconnected."""
    taken = 0

    async def receiving() -> Message:
        nonlocal taken
        message = await receive()
        if message["type"] == "http.request":
            taken += len(message.get("body", b""))
            if taken > largest:
                return {"type": "http.disconnect"}
        return message

    return receiving


async def _refuse(scope: Scope, send: Send, status: int, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})
