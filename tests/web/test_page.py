"""The page as it is served: what its server refuses, and the whole way in a browser."""

import sys
import time
import zipfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from visitor import FRAMES, of_the_pages_libraries, served, visiting

from moving_disc import write_clip
from stremn.errors import MissingExtraError
from stremn.web import following
from stremn.web.page import build_page
from stremn.web.predict_tab import MOST_FRAMES
from stremn.web.projects import Limits


def test_without_gradio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingExtraError, match=r'pip install "stremn\[web\]"'):
        build_page()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", FRAMES)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A page that runs, with the shipped weights."""
    with served() as (address, _):
        yield address


@of_the_pages_libraries
@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 200),
        ("/", {"Host": "evil.example"}, 421),
        ("/", {"Origin": "http://evil.example"}, 403),
        ("/workbench/static/main.js", {}, 200),
        ("/workbench/static/main.js", {"Host": "evil.example"}, 421),
        ("/workbench/static/../page.py", {}, 400),
        ("/workbench/project/x/state", {}, 404),
        ("/workbench/project/x/state", {"Origin": "http://evil.example"}, 403),
        ("/gradio_api/heartbeat/..", {}, 400),
        ("/gradio_api/heartbeat/%2e%2e", {}, 400),
        ("/gradio_api/queue/data?session_hash=../x", {}, 400),
        ("/gradio_api/file=/etc/passwd", {}, 403),
        ("/gradio_api/file=../../etc/passwd", {}, 400),
    ],
)
def test_the_server_refuses_what_no_page_asks(
    address: str, path: str, headers: dict[str, str], status: int
) -> None:
    connection = HTTPConnection(urlsplit(address).netloc, timeout=30)
    connection.request("GET", path, headers=headers)
    assert connection.getresponse().status == status
    connection.close()


@of_the_pages_libraries
def test_a_playlist_that_is_uploaded_reads_no_file_of_the_server(
    address: str, clip: Path, tmp_path: Path
) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(address, verbose=False, analytics_enabled=False)
    for name in ("list.m3u8", "list.mp4"):
        playlist = tmp_path / name
        playlist.write_text(f"#EXTM3U\n#EXTINF:1,\nfile://{clip}\n#EXT-X-ENDLIST\n")
        with pytest.raises(AppError, match=r"cannot be opened as a video|Invalid file type"):
            client.predict(handle_file(str(playlist)), api_name="/open")


MOST = 12
"""Frames that the page of `short_address` takes."""


@pytest.fixture(scope="module")
def short_address() -> Iterator[str]:
    """A page that cuts videos."""
    with served(Limits(frames=MOST)) as (address, _):
        yield address


@of_the_pages_libraries
def test_a_prediction_observes_no_more_frames_than_the_page_allows(
    short_address: str, clip: Path, tmp_path: Path
) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(short_address, verbose=False, analytics_enabled=False)
    short = write_clip(tmp_path / "short.mp4", MOST)
    for video, observe, observed, cut in [
        (clip, 0, MOST, True), (short, 0, MOST, False), (clip, 4, 4, False),
    ]:  # fmt: skip
        *_, note = client.predict(
            handle_file(str(video)), observe, 1, "natural", api_name="/predict"
        )
        assert f"Observed {observed} frames, predicted 1 " in note
        assert (f"longer than the {MOST} frames that are observed here" in note) == cut
    with pytest.raises(AppError, match=f"At most {MOST} frames can be observed here, got 13"):
        client.predict(handle_file(str(clip)), MOST + 1, 1, "natural", api_name="/predict")


# ---------------------------------------------------------------- in a browser


@pytest.mark.slow
@of_the_pages_libraries
def test_a_prediction_can_be_stopped(address: str, clip: Path) -> None:
    with visiting(address, 1280, 900) as visitor:
        page = visitor.page
        page.get_by_role("tab", name="Predict frames").click()
        page.set_input_files("#predict-video input[type=file]", str(clip))
        page.get_by_label("Frames to predict").fill(str(MOST_FRAMES))
        page.wait_for_timeout(1000)
        page.click("#predict")
        page.get_by_text("Frames predicted").first.wait_for()
        page.click("#stop-prediction")
        page.get_by_text("Stopped.").wait_for()
        assert page.inner_text("#predict-note") == ""
        page.get_by_label("Frames to predict").fill("2")
        page.click("#predict")
        page.wait_for_selector("#rows img")
        assert "predicted 2 " in page.inner_text("#predict-note")


@pytest.mark.slow
@of_the_pages_libraries
def test_a_visitor_sees_that_a_video_is_cut(short_address: str, clip: Path) -> None:
    with visiting(short_address, 1280, 900) as visitor:
        notice = visitor.page.locator("[data-id=notice]")
        visitor.open(clip, MOST)
        assert notice.inner_text().startswith(f"The video is cut after {MOST} of its {FRAMES} ")
        visitor.picture("cut")
        visitor.page.get_by_role("tab", name="Predict frames").click()
        assert f"At most {MOST} frames are observed" in visitor.page.inner_text("#predict-help")


@pytest.fixture
def slow_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves time to press a button while a run goes on."""
    step = following.Run._step

    def slowly(*arguments: Any) -> None:
        step(*arguments)
        time.sleep(0.1)

    monkeypatch.setattr(following.Run, "_step", slowly)


@pytest.mark.slow
@of_the_pages_libraries
def test_mark_run_pause_correct_go_on_and_download(
    address: str, clip: Path, tmp_path: Path, slow_steps: None
) -> None:
    with visiting(address, 1280, 900) as visitor:
        page = visitor.page
        visitor.open(clip)
        orange = visitor.color(50, 48)
        assert orange[0] > 180 > orange[2]
        visitor.drag((26, 24), (74, 73))
        marked = visitor.color(50, 48)
        assert marked[2] > orange[2] + 20, "the object is filled with blue"
        page.fill("[data-id=objects] input", "Ball <b>")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Add an object").click()
        page.get_by_role("radio", name="Brush").click()
        page.uncheck("[data-id=snap]")
        visitor.drag((100, 80), (112, 80))
        assert page.locator("[data-id=objects] li").count() == 2
        page.get_by_role("radio", name="Box or point").click()
        page.mouse.click(*visitor.at(50, 48))
        chosen = page.locator(".wb-chosen input")
        assert chosen.input_value() == "Ball <b>", "a click on an object chooses it"
        page.click("summary:has-text('Settings')")
        page.fill("[name=size]", "96")
        visitor.picture("marked")
        page.click("[data-id=run]")
        visitor.wait_for_words("frames/s")
        page.wait_for_function("() => document.querySelectorAll('.wb-tile').length > 3")
        visitor.picture("running")
        page.click("[data-id=run]")
        visitor.wait_for_words("Paused after frame")
        paused = int(visitor.words().split("frame ")[1].split(".")[0])
        assert 0 < paused < FRAMES - 1
        visitor.picture("paused")
        # correct the frame that is shown, and go on from there
        page.locator(".wb-swatch").first.click()
        page.get_by_role("radio", name="Eraser").click()
        at = int(visitor.number())
        visitor.drag((40 + at, 40), (60 + at, 40))
        assert page.locator(".wb-track b").count() == 2
        page.click("[data-id=run]")
        # on from the saved session before the correction, and back from the correction
        visitor.wait_for_words(f"Done: {FRAMES - at // 10 * 10 + at + 1} frames")
        assert "Ball <b>" in page.inner_text(".wb-memory")
        # any frame with its masks
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Shift+ArrowRight")
        page.wait_for_function(
            "() => document.querySelector('[data-id=number]').innerText.startsWith('11 ')"
        )
        visitor.picture("done")
        # nothing is lost when the page is loaded again
        page.reload()
        page.wait_for_function("() => document.querySelectorAll('.wb-track b').length == 2")
        # take it home
        page.click("summary:has-text('Downloads')")
        page.check("[data-id=formats] [name=coco]")
        page.get_by_role("button", name="Prepare the files").click()
        page.wait_for_selector(".wb-files a >> nth=2")
        visitor.picture("downloads")
        with page.expect_download() as waiting:
            page.click(".wb-files a:has-text('masks.zip')")
        waiting.value.save_as(tmp_path / "masks.zip")
        with zipfile.ZipFile(tmp_path / "masks.zip") as archive:
            assert archive.namelist() == [f"masks/{i:05d}.png" for i in range(FRAMES)]
        # undo of everything
        page.evaluate("document.activeElement.blur()")
        for _ in range(10):
            page.keyboard.press("z")
            page.wait_for_timeout(200)
        page.wait_for_function("() => document.querySelector('[data-do=undo]').disabled")
        assert page.locator(".wb-track i, .wb-track b").count() == 0


@pytest.mark.slow
@of_the_pages_libraries
@pytest.mark.parametrize("late", ["**/static/main.js", "**/static/view.js"])
def test_a_video_that_is_opened_before_the_workbench_is_ready(
    address: str, clip: Path, late: str
) -> None:
    with visiting(address, 1280, 900, late=late) as visitor:
        visitor.open(clip)


@pytest.mark.slow
@of_the_pages_libraries
def test_a_workbench_that_does_not_load_is_told(address: str) -> None:
    with visiting(address, 1280, 900) as visitor:
        page = visitor.page
        page.route("**/static/view.js", lambda route: route.abort())
        page.reload()
        page.get_by_text("The workbench could not be loaded. Reload the page.").wait_for()


@pytest.mark.slow
@of_the_pages_libraries
def test_a_phone(address: str, clip: Path, slow_steps: None) -> None:
    with visiting(address, 400, 800) as visitor:
        page = visitor.page
        visitor.picture("phone-empty")
        visitor.open(clip)
        visitor.drag((26, 24), (74, 73))
        page.click("summary:has-text('Settings')")
        page.fill("[name=size]", "96")
        page.click("[data-id=run]")
        visitor.wait_for_words("frames/s")
        page.keyboard.press("Escape")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("Space")
        visitor.wait_for_words("Paused")
        visitor.picture("phone")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 400, "nothing is cut off at the side"


@pytest.mark.slow
@of_the_pages_libraries
def test_predicted_frames_beside_the_true_ones(address: str, clip: Path) -> None:
    with visiting(address, 1280, 900) as visitor:
        page = visitor.page
        page.get_by_role("tab", name="Predict frames").click()
        page.set_input_files("#predict-video input[type=file]", str(clip))
        page.wait_for_timeout(1000)
        page.click("#predict")
        page.wait_for_selector("#rows img")
        page.wait_for_selector("#beside video")
        assert "Observed 10 frames, predicted 10" in page.inner_text("#predict-note")
        visitor.picture("predict")
