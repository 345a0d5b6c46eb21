"""The page on a server, and a visitor of it in a browser."""

import gc
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from moving_disc import HEIGHT, WIDTH
from stremn.web.page import build_page
from stremn.web.projects import LIMITS, Limits, Projects

FRAMES = 40

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

LIBRARIES_WARN = (
    "ignore::ResourceWarning",  # sockets and event loops left to the garbage collector
    "ignore::pytest.PytestUnraisableExceptionWarning",  # the same, found by pytest
    "ignore:'future.no_silent_downcasting':DeprecationWarning",  # gradio sets it, pandas objects
)

of_the_pages_libraries = pytest.mark.filterwarnings(*LIBRARIES_WARN)
"""Lets gradio and its client warn of what is theirs; any other warning is an error."""


@contextmanager
def served(limits: Limits = LIMITS) -> Iterator[tuple[str, Projects]]:
    """Serve the page; its address, and the projects behind it."""
    import gradio

    from stremn.web.serving import launch, page_style

    blocks, projects = build_page("small", device="cpu", limits=limits)
    yield launch(blocks, projects, "127.0.0.1", None, style=page_style(gradio)), projects
    blocks.close()
    with warnings.catch_warnings():  # what the page's own libraries left open, found here and now
        warnings.simplefilter("ignore")
        gc.collect()


class Visitor:
    """A browser with the page open."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def open(self, video: Path, frames: int = FRAMES) -> None:
        self.page.set_input_files("#video input[type=file]", str(video))
        self.page.wait_for_selector(".wb canvas", state="visible")
        self.wait_for(
            "end => document.querySelector('[data-id=number]').innerText.endsWith(end)",
            f" / {frames - 1}",
        )
        self.page.wait_for_timeout(500)

    def wait_for(self, test: str, value: object = None) -> None:
        """Wait until a test in JavaScript is true; it gets the value."""
        self.page.wait_for_function(test, arg=value)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of the frame is on the screen."""
        box = self.page.locator(".wb canvas").bounding_box()
        return box["x"] + x * box["width"] / WIDTH, box["y"] + y * box["height"] / HEIGHT

    def drag(self, *points: tuple[float, float]) -> None:
        """Draw, and wait for the mask."""
        self.draw(*points)
        self.page.wait_for_selector(".wb-busy", state="hidden")
        self.page.wait_for_timeout(500)

    def draw(self, *points: tuple[float, float]) -> None:
        """Draw, and do not wait."""
        self.page.locator(".wb canvas").scroll_into_view_if_needed()
        self.page.mouse.move(*self.at(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.at(*point), steps=5)
        self.page.mouse.up()

    def words(self) -> str:
        return self.page.inner_text("[data-id=words]")

    def wait_for_words(self, words: str) -> None:
        self.wait_for(
            "words => document.querySelector('[data-id=words]').innerText.includes(words)", words
        )

    def color(self, x: float, y: float) -> list[int]:
        """What is shown at a pixel of the frame."""
        return self.page.evaluate(
            "([x, y]) => [...document.querySelector('.wb canvas').getContext('2d')"
            ".getImageData(x, y, 1, 1).data].slice(0, 3)",
            [x, y],
        )

    def number(self) -> str:
        return self.page.inner_text("[data-id=number]").split(" ")[0]

    def picture(self, name: str) -> None:
        """Keep a picture of the page where it is asked for."""
        if "STREMN_SCREENSHOTS" in os.environ:
            folder = Path(os.environ["STREMN_SCREENSHOTS"])
            self.page.screenshot(path=str(folder / f"{name}.png"), full_page=True)


def _answer_late(route: Any) -> None:
    time.sleep(4)
    route.continue_()


@contextmanager
def visiting(address: str, width: int, height: int, late: str | None = None) -> Iterator[Visitor]:
    """Open the page; requests whose address matches `late` are answered seconds later."""
    from playwright import sync_api as playwright

    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        pytest.skip(f"needs a browser: one of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as drivers:
        browser = drivers.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(240_000)  # a loaded machine takes its time
        asked: list[str] = []
        wrong: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        if late is not None:
            page.route(late, _answer_late)
        page.goto(address)
        yield Visitor(page)
        assert wrong == []
        elsewhere = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
        assert elsewhere == [], "a request left the machine"
        browser.close()
