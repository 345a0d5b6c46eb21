"""What visitors do while the page is busy: runs go on, answers are late, another video comes.

The runs and the answers are held up by the tests, so that the order of events is certain.
"""

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from visitor import FRAMES, Visitor, of_the_pages_libraries, served, visiting

from moving_disc import HEIGHT, WIDTH, disc, overlap, picture, tools, write_clip
from stremn.media.encoding import write_video
from stremn.web import following
from stremn.web.page import Page
from stremn.web.project import Project
from stremn.web.projects import Projects

pytestmark = [pytest.mark.slow, of_the_pages_libraries]

DISC = (26, 24), (74, 73)
"""The corners of a box round the disc in the first frame."""

OTHER_FRAMES = 20


class Server:
    """A page with a tiny network, whose runs and answers can be held up."""

    def __init__(self) -> None:
        self.address = ""
        self.projects: Projects
        self.until = FRAMES  # runs wait before this frame
        self.finds = threading.Event()  # objects are found while it is set
        self.finds.set()
        self._find = tools().find()

    def find(self, *arguments: Any, **prompt: Any) -> np.ndarray:
        assert self.finds.wait(60)
        return self._find(*arguments, **prompt)

    def project(self, visitor: Visitor) -> Project:
        """What the visitor has open."""
        key = visitor.page.evaluate("sessionStorage.getItem('stremn-project')")
        project = self.projects.get(key)
        assert project is not None
        return project


class Late:
    """Holds up requests whose address matches, until they are let through."""

    def __init__(self, visitor: Visitor, address: str) -> None:
        self.held: list[Any] = []
        self._over = False
        visitor.page.route(address, self._answer)

    def _answer(self, route: Any) -> None:
        if self._over:
            route.continue_()
        else:
            self.held.append(route)

    def let_through(self) -> None:
        self._over = True
        for route in self.held:
            route.continue_()


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    server = Server()
    model = tools().model()
    step = following.Run._step

    def held_up(run: Any, take: Any, session: Any, frame: Any) -> None:
        while frame.index >= server.until and not run._stop.is_set():
            time.sleep(0.01)
        step(run, take, session, frame)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Page, "_model", property(lambda _: model))
        patch.setattr(Page, "_find", property(lambda _: server.find))
        patch.setattr(following.Run, "_step", held_up)
        with served() as (server.address, server.projects):
            yield server


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    yield shared_server
    shared_server.until = FRAMES
    shared_server.finds.set()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", FRAMES)


@pytest.fixture(scope="module")
def other_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "other.mp4", OTHER_FRAMES)


def open_another(visitor: Visitor, video: Path, frames: int) -> None:
    """Open another video in the same page."""
    visitor.page.locator("#video button[aria-label=Clear]").click()
    visitor.page.wait_for_selector("#video input[type=file]", state="attached")
    visitor.open(video, frames)


def follow_until(server: Server, visitor: Visitor, frame: int) -> None:
    """Press Follow, and see the run wait before a frame."""
    server.until = frame
    visitor.page.evaluate("document.querySelector('[name=size]').value = 64")
    visitor.page.click("[data-id=run]")
    visitor.wait_for_words(f"{frame} of {FRAMES} frames")
    wait_for_number(visitor, frame - 1)


def go_on_until(server: Server, visitor: Visitor, frame: int) -> None:
    """Let the run go on, and see it wait before a frame."""
    server.until = frame
    visitor.wait_for_words(f"{frame} of {FRAMES} frames")


def wait_for_number(visitor: Visitor, index: int) -> None:
    """Wait until the view is at a frame."""
    visitor.wait_for(
        "start => document.querySelector('[data-id=number]').innerText.startsWith(start)",
        f"{index} /",
    )


def wait_for_answers(visitor: Visitor) -> None:
    """Wait until all marks are answered."""
    visitor.page.wait_for_selector(".wb-busy", state="hidden")


def test_a_tall_video_is_marked_where_it_is_seen(server: Server, tmp_path: Path) -> None:
    frames = [np.ascontiguousarray(picture(index).transpose(1, 0, 2)) for index in range(4)]
    write_video(tmp_path / "tall.mp4", frames, 25)
    with visiting(server.address, 400, 800) as visitor:
        page = visitor.page
        visitor.open(tmp_path / "tall.mp4", 4)
        canvas = page.locator(".wb canvas")
        for size in ((400, 800), (1280, 900)):
            page.set_viewport_size({"width": size[0], "height": size[1]})
            box = canvas.bounding_box()
            assert box["width"] / box["height"] == pytest.approx(HEIGHT / WIDTH, rel=0.01), size
        canvas.scroll_into_view_if_needed()
        seen = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
        orange = (seen[..., 0] > 180) & (seen[..., 2] < 90) & (np.ptp(seen, axis=2) > 100)
        ((top, bottom), (left, right)) = ((x.min(), x.max()) for x in np.nonzero(orange))
        page.mouse.move(float(left - 10), float(top - 10))
        page.mouse.down()
        page.mouse.move(float(right + 10), float(bottom + 10), steps=5)
        page.mouse.up()
        wait_for_answers(visitor)
        assert overlap(server.project(visitor).labels(0) == 1, disc(0).T) > 0.9


def test_gestures_keep_their_order_and_their_video(
    server: Server, clip: Path, other_clip: Path
) -> None:
    with visiting(server.address, 1280, 900) as visitor:
        page = visitor.page
        visitor.open(clip)
        # Space also plays after the slider was used, and stops
        page.focus("[data-id=scrub]")
        for label in ("Stop", "Play"):
            page.keyboard.press("Space")
            assert page.get_attribute("[data-id=play]", "aria-label") == label
        page.keyboard.press("Home")
        wait_for_number(visitor, 0)
        # a box that is drawn before the new object is there is that object's all the same
        late = Late(visitor, "**/do/add")
        page.keyboard.press("n")
        visitor.draw(*DISC)
        late.let_through()
        wait_for_answers(visitor)
        project = server.project(visitor)
        assert [list(masks) for masks in project.work.given().values()] == [[2]]
        # marks that wait when another video is opened are no marks of that one
        late = Late(visitor, "**/do/mark")
        visitor.draw((80, 10), (90, 20))
        visitor.draw(*DISC)
        open_another(visitor, other_clip, OTHER_FRAMES)
        late.let_through()
        wait_for_answers(visitor)
        project = server.project(visitor)
        assert not project.can_undo, "nothing was changed"
        assert page.is_hidden(".wb-alert"), "the earlier video's errors are not told"
        # nor is it told any longer that the video before is gone
        for key in list(server.projects._keys):
            server.projects.leave(key)
        page.click("[data-id=add]")
        page.get_by_text("This video is no longer open").wait_for()
        open_another(visitor, clip, FRAMES)
        assert page.is_hidden(".wb-alert")


def test_what_a_visitor_does_during_a_run(server: Server, clip: Path) -> None:
    with visiting(server.address, 1280, 900) as visitor:
        page = visitor.page
        visitor.open(clip)
        page.click("[data-id=add]")
        page.wait_for_selector("[data-id=objects] li >> nth=1")
        page.locator(".wb-swatch").first.click()
        visitor.draw(*DISC)
        wait_for_answers(visitor)
        project = server.project(visitor)
        follow_until(server, visitor, 3)
        # names can be typed
        page.locator("[data-id=objects] input").nth(1).click()
        page.keyboard.press("Control+A")
        go_on_until(server, visitor, 4)
        page.keyboard.type("fo")
        go_on_until(server, visitor, 5)
        page.keyboard.type("x")
        page.keyboard.press("Enter")
        page.wait_for_selector("[title='Mark fox']")
        assert project.work.objects == {1: "Object 1", 2: "fox"}
        # and a slow press on a button counts
        assert page.locator(".wb-chosen input").input_value() == "fox"
        page.locator(".wb-swatch").first.hover()
        page.mouse.down()
        go_on_until(server, visitor, 6)
        page.mouse.up()
        page.wait_for_selector(".wb-chosen [title='Mark Object 1']")
        # a line that breaks is told, until it is there again
        page.route("**/state", lambda route: route.abort())
        page.get_by_text("The server does not answer").wait_for()
        page.unroute("**/state")
        page.get_by_text("The server does not answer").wait_for(state="hidden")
        # on a slow line a frame is shown before the next is asked for
        late = Late(visitor, "**/frame/*")
        for frame in (8, 10, 12):
            go_on_until(server, visitor, frame)
        assert len(late.held) == 1
        late.let_through()
        wait_for_number(visitor, 11)
        # a mark is of the frame in which it was begun, and that frame stays
        page.locator(".wb canvas").scroll_into_view_if_needed()
        page.mouse.move(*visitor.at(37, 24))
        page.mouse.down()
        page.mouse.move(*visitor.at(60, 50))
        go_on_until(server, visitor, 14)
        page.mouse.move(*visitor.at(86, 73))
        server.finds.clear()
        page.mouse.up()
        visitor.wait_for_words("Paused after frame")
        assert visitor.number() == "11"
        server.finds.set()
        wait_for_answers(visitor)
        assert visitor.number() == "11"
        assert list(project.work.drawings) == [0, 11]
        # a run that is undone is no longer spoken of
        for _ in ("the mark", "the name", "the run"):
            page.click("[data-do=undo]")
        visitor.wait_for("() => document.querySelectorAll('.wb-track *').length === 1")
        assert visitor.words() == "Mark an object, then press Follow."


def test_a_run_goes_on_after_a_reload_until_another_video_is_opened(
    server: Server, clip: Path, other_clip: Path
) -> None:
    with visiting(server.address, 1280, 900) as visitor:
        visitor.open(clip)
        visitor.draw(*DISC)
        wait_for_answers(visitor)
        follow_until(server, visitor, 3)
        project = server.project(visitor)
        visitor.page.reload()
        visitor.page.wait_for_selector(".wb canvas", state="visible")
        visitor.wait_for_words(f"3 of {FRAMES} frames")
        go_on_until(server, visitor, 6)
        wait_for_number(visitor, 5)
        visitor.open(other_clip, OTHER_FRAMES)
        for _ in range(100):
            if not project.status.running:
                break
            visitor.page.wait_for_timeout(100)
        assert project.status.stage == "paused", "nothing waits for it"
