"""The page that shows pictures as they are made."""

from http.client import HTTPConnection, HTTPResponse
from threading import Thread
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from stremn.errors import StremnError
from stremn.web.live_page import LivePage


def gray(level: int) -> np.ndarray:
    return np.full((32, 48, 3), level, np.uint8)


def asked(page: LivePage, path: str, **headers: str) -> HTTPResponse:
    connection = HTTPConnection(urlsplit(page.address).netloc, timeout=20)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def level(jpeg: bytes) -> float:
    return float(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).mean())


def test_the_newest_picture_and_its_words() -> None:
    with LivePage(0) as page:
        drawn: list[int] = []

        def draw(value: int) -> np.ndarray:
            drawn.append(value)
            return gray(value)

        for value in (10, 90, 200):
            page.show(lambda value=value: draw(value), f"{value} <b>")
        for _ in range(2):
            answer = asked(page, "/frame.jpg")
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "image/jpeg"
            assert level(answer.read()) == pytest.approx(200, abs=2)
        assert drawn == [200], "drawn once, and only what somebody looks at"
        assert asked(page, "/words").read() == b"200 <b>"
        whole = asked(page, "/").read().decode()
        assert 'src="stream"' in whole
        assert "http://" not in whole


def part(stream: HTTPResponse) -> float:
    """Read the next picture of a stream."""
    assert stream.readline().startswith(b"--stremn-frame")
    assert stream.readline() == b"Content-Type: image/jpeg\r\n"
    length = int(stream.readline().split(b":")[1])
    stream.readline()
    jpeg = stream.read(length)
    stream.readline()
    return level(jpeg)


def test_a_stream_has_each_new_picture_and_ends_with_the_page() -> None:
    with LivePage(0) as page:
        page.show(lambda: gray(40), "")
        stream = asked(page, "/stream")
        assert stream.headers["Content-Type"].startswith("multipart/x-mixed-replace")
        assert part(stream) == pytest.approx(40, abs=2)
        for value in (90, 140):
            page.show(lambda value=value: gray(value), "")
            assert part(stream) == pytest.approx(value, abs=2)
    assert stream.read() == b"--stremn-frame--\r\n"


def test_a_visitor_who_is_early_waits() -> None:
    found: list[float] = []
    with LivePage(0) as page:
        visitor = Thread(target=lambda: found.append(level(asked(page, "/frame.jpg").read())))
        visitor.start()
        visitor.join(0.2)
        assert found == []
        page.show(lambda: gray(70), "")
        visitor.join(20)
    assert found == [pytest.approx(70, abs=2)]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 200),
        ("/stream/..", {}, 404),
        ("/static/live.html", {}, 404),
        ("/", {"Host": "evil.example"}, 421),
        ("/stream", {"Host": "evil.example"}, 421),
        ("/frame.jpg", {"Host": "localhost.evil.example"}, 421),
        ("/frame.jpg", {"Origin": "http://evil.example"}, 403),
        ("/frame.jpg", {"Origin": "null"}, 403),
    ],
)
def test_strangers_are_refused(path: str, headers: dict[str, str], status: int) -> None:
    with LivePage(0) as page:
        page.show(lambda: gray(1), "")
        answer = asked(page, path, **headers)
        assert answer.status == status
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]


def test_other_methods_are_refused() -> None:
    with LivePage(0) as page:
        connection = HTTPConnection(urlsplit(page.address).netloc, timeout=20)
        connection.request("POST", "/", body=b"x")
        assert connection.getresponse().status == 501
        connection.close()


def test_ports_that_cannot_be_used_are_named() -> None:
    with LivePage(0) as page, pytest.raises(StremnError, match="it is taken, or not allowed"):
        LivePage(urlsplit(page.address).port or 0)
    with pytest.raises(StremnError, match="--port must be from 0 to 65535, got 70000"):
        LivePage(70_000)
