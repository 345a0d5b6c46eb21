"""Serve a local page that shows live pictures as a stream of JPEG images."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any, NamedTuple, Self

import cv2
import numpy as np
from jaxtyping import UInt8

from stremn.errors import StremnError
from stremn.web.guard import foreign

HOST = "127.0.0.1"

Draw = Callable[[], UInt8[np.ndarray, "rows columns 3"]]
"""Returns the picture to show, RGB."""

_BOUNDARY = "stremn-frame"
_QUALITY = 85  # of the JPEG images, 0..100
_SECONDS = 10.0  # that a visitor may take to receive a picture
_TICK = 0.5  # seconds after which a waiting visitor looks whether the page has ended

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",  # no other site may show the pictures
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every answer."""


class _Shown(NamedTuple):
    number: int
    draw: Draw
    words: str


class LivePage:
    """Serve the newest picture at `address` until it is closed.

    `/` is a page with the stream, `/stream` the stream itself (MJPEG), `/frame.jpg` the newest
    picture, `/words` what is said about it. A picture is drawn when somebody looks; a visitor who
    is slow misses pictures and delays nobody. Requests of other sites, or under another name than
    this computer's own, are refused.
    """

    closed = False
    """A page is not closed by who looks at it."""

    def __init__(self, port: int) -> None:
        """Serve on a port; 0 is any free one.

        Raises:
            StremnError: there is no such port, or it is taken.
        """
        if not 0 <= port <= 65_535:
            raise StremnError(f"--port must be from 0 to 65535, got {port}.")
        self._shown: _Shown | None = None
        self._encoded: tuple[int, bytes] = (-1, b"")
        self._encoding = threading.Lock()
        self._news = threading.Condition()
        self._ended = False
        try:
            self._server = _Server((HOST, port), _Visit)
        except OSError as error:
            raise StremnError(
                f"The live page cannot be served on port {port}: it is taken, or not allowed. "
                "Choose another --port, or 0 for any free one."
            ) from error
        self._server.page = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="stremn-live-page", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> str:
        """Address of the page."""
        return f"http://{HOST}:{self._server.server_address[1]}/"

    def show(self, draw: Draw, words: str) -> None:
        """Show another picture; `draw` is called in a visitor's thread, if there is one."""
        with self._news:
            number = 0 if self._shown is None else self._shown.number + 1
            self._shown = _Shown(number, draw, words)
            self._news.notify_all()

    def close(self) -> None:
        """End the page and its streams; safe to call twice."""
        with self._news:
            self._ended = True
            self._news.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ for visitors

    def words(self) -> str:
        """Return the text about the newest picture."""
        return "" if self._shown is None else self._shown.words

    def picture(self, after: int = -1) -> tuple[int, bytes] | None:
        """Wait for a picture after the one of that number; return its number and its JPEG.

        None: the page has ended.
        """
        with self._news:
            while not self._ended and (self._shown is None or self._shown.number <= after):
                self._news.wait(_TICK)
            if self._ended or self._shown is None:
                return None
            shown = self._shown
        with self._encoding:  # once for all visitors
            if self._encoded[0] < shown.number:
                bgr = cv2.cvtColor(shown.draw(), cv2.COLOR_RGB2BGR)
                _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
                self._encoded = shown.number, jpeg.tobytes()
            return self._encoded


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    page: LivePage

    def handle_error(self, *_: Any) -> None:
        """Ignore visitors who disconnect."""


class _Visit(BaseHTTPRequestHandler):
    timeout = _SECONDS
    server_version, sys_version = "stremn", ""
    server: _Server

    def do_GET(self) -> None:
        stranger = foreign(self.headers.get("Host", ""), self.headers.get("Origin"), only_here=True)
        if stranger is not None:
            self._answer(stranger[1].encode(), "text/plain; charset=utf-8", stranger[0])
            return
        path = self.path.partition("?")[0]
        page = self.server.page
        if path == "/":
            self._answer(_page(), "text/html; charset=utf-8")
        elif path == "/words":
            self._answer(page.words().encode(), "text/plain; charset=utf-8")
        elif path == "/frame.jpg" and (found := page.picture()) is not None:
            self._answer(found[1], "image/jpeg")
        elif path == "/stream":
            self._stream(page)
        else:
            self._answer(b"There is no such page.", "text/plain; charset=utf-8", 404)

    def _answer(self, content: bytes, kind: str, status: int = 200) -> None:
        self._head(kind, status, {"Content-Length": str(len(content))})
        self.wfile.write(content)

    def _stream(self, page: LivePage) -> None:
        self._head(f"multipart/x-mixed-replace; boundary={_BOUNDARY}", 200, {})
        self.close_connection = True
        number = -1
        with suppress(OSError):  # the visitor has left
            while (found := page.picture(after=number)) is not None:
                number, jpeg = found
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\n"
                self.wfile.write(f"{head}Content-Length: {len(jpeg)}\r\n\r\n".encode())
                self.wfile.write(jpeg + b"\r\n")
            self.wfile.write(f"--{_BOUNDARY}--\r\n".encode())

    def _head(self, kind: str, status: int, more: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **_HEADERS, **more}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Do not log visits to the terminal."""


def _page() -> bytes:
    return (resources.files("stremn.web") / "static" / "live.html").read_bytes()
