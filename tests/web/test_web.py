"""The web page: what clicks mean, a whole run, the page through its client and in a browser."""

import gc
import json
import os
import shutil
import sys
import warnings
import zipfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from stremn.errors import MissingExtraError, StremnError
from stremn.media.encoding import write_video
from stremn.media.masks import read_mask, write_mask
from stremn.media.video import open_frames
from stremn.networks.model import STReMN
from stremn.networks.pretrained import Pretrained
from stremn.training.segmentation import adaptation
from stremn.web.drawing import Drawing, Tool
from stremn.web.page import build_page
from stremn.web.runs import Objects, Options, Runs, StoppedError, follow, frame_of
from tiny_model import tiny_config

HEIGHT, WIDTH = 96, 128
FRAMES = 7


def picture(index: int) -> np.ndarray:
    """An orange disc that moves over textured blue."""
    rng = np.random.default_rng(0)
    image = np.array([40, 70, 130]) + rng.integers(-20, 20, (HEIGHT, WIDTH, 3))
    image[disc(index)] = (220, 140, 40)
    return image.astype(np.uint8)


def disc(index: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    cv2.circle(mask, (50 + index, 48), 20, 1, cv2.FILLED)
    return mask > 0


BROWSERS = ("chromium", "chromium-browser", "google-chrome")

LIBRARIES_WARN = (
    "ignore::ResourceWarning",  # sockets and event loops left to the garbage collector
    "ignore::pytest.PytestUnraisableExceptionWarning",  # the same, found by pytest
    "ignore:'future.no_silent_downcasting':DeprecationWarning",  # gradio sets it, pandas objects
)

of_the_pages_libraries = pytest.mark.filterwarnings(*LIBRARIES_WARN)
"""Lets gradio and its client warn of what is theirs; any other warning is an error."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, [picture(index) for index in range(FRAMES)], 25)
    return path


# ---------------------------------------------------------------- drawing


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_two_corners_in_any_order_make_a_box_and_an_object() -> None:
    drawing = Drawing.on(picture(0)).clicked(Tool.BOX, (75, 24))
    assert drawing.box is None
    assert drawing.current is None
    drawing = drawing.clicked(Tool.BOX, (25, 73))
    assert drawing.box == (25, 24, 50, 49)
    assert overlap(drawing.mask().labels == 1, disc(0)) > 0.9
    shown = drawing.picture()
    assert shown.shape == (HEIGHT, WIDTH, 3)
    assert (shown != picture(0)).any()


def test_two_more_corners_make_another_box() -> None:
    drawing = Drawing.on(picture(0))
    for corner in [(1, 1), (9, 9), (25, 24)]:
        drawing = drawing.clicked(Tool.BOX, corner)
    assert drawing.box == (1, 1, 8, 8)
    assert drawing.clicked(Tool.BOX, (75, 73)).box == (25, 24, 50, 49)


def test_points_find_an_object_and_a_box_limits_them() -> None:
    drawing = Drawing.on(picture(0)).clicked(Tool.ON, (50, 48))
    assert overlap(drawing.mask().labels == 1, disc(0)) > 0.8
    limited = drawing.clicked(Tool.BOX, (20, 20)).clicked(Tool.BOX, (80, 50))
    assert not limited.mask().labels[51:].any()


def test_objects_one_after_the_other_and_undo() -> None:
    first = Drawing.on(picture(0)).clicked(Tool.ON, (50, 48)).next_object()
    assert first.marks == ()
    both = first.clicked(Tool.BOX, (90, 5)).clicked(Tool.BOX, (120, 30))
    assert both.mask().ids == (1, 2)
    assert both.undone().mask().ids == (1,)
    nothing = both.undone().undone().undone()
    with pytest.raises(StremnError, match="Say what to follow first"):
        nothing.mask()
    with pytest.raises(StremnError, match="Mark an object first"):
        nothing.next_object()


def test_mask_file_instead_of_drawing(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", disc(0).astype(np.uint8) * 7)
    drawing = Drawing.on(picture(0)).clicked(Tool.ON, (5, 5))
    assert drawing.with_mask(read_mask(tmp_path / "m.png")).mask().ids == (7,)


def test_a_box_without_what_is_clicked_away() -> None:
    image = picture(0)
    image[5:20, 85:105] = (30, 200, 60)
    box = Drawing.on(image).clicked(Tool.BOX, (25, 2)).clicked(Tool.BOX, (112, 80))
    assert box.mask().labels[7:18, 87:103].all()
    assert not box.clicked(Tool.OFF, (95, 12)).mask().labels[10:15, 93:98].any()


def test_correction_of_a_later_frame() -> None:
    begun = Drawing.on(picture(0)).clicked(Tool.ON, (50, 48))
    wrong = disc(9).astype(np.uint8) * 2
    wrong[5:20, 85:105] = 4
    shown = begun.correcting(5, picture(5), read_mask(wrong))
    assert list(shown.masks()) == [0], "nothing said about frame 5: no correction"
    assert "Frame 5. Clicks mend object 2" in shown.words()
    boxed = shown.clicked(Tool.BOX, (30, 24)).clicked(Tool.BOX, (80, 73))
    assert boxed.masks()[5].ids == (2, 4)
    other = boxed.next_object()
    assert other.number == 4
    gone = other.clicked(Tool.OFF, (95, 12))
    assert not gone.masks()[5].labels[11:14, 94:97].any()
    assert gone.undone().masks()[5].ids == (2, 4)
    assert list(other.undone().masks()) == [0]
    new = other.next_object()
    assert (new.target, new.number) == (None, 5)
    again = boxed.correcting(0, picture(0), read_mask(disc(0)))
    assert list(again.masks()) == [0, 5], "what was said before stays"


# ---------------------------------------------------------------- a run


@pytest.fixture
def pretrained(model: STReMN) -> Pretrained:
    return Pretrained(model, tiny_config())


def never(doing: str, done: int, total: int | None) -> None:
    """A watcher that never stops."""


def test_follow_gives_video_strip_and_masks(
    tmp_path: Path, clip: Path, pretrained: Pretrained
) -> None:
    seen: list[tuple[str, int, int | None]] = []
    mask = read_mask(disc(0).astype(np.uint8) * 3)
    found = follow(
        str(clip), {0: mask}, pretrained, tmp_path / "run", Options(slots=3, size=64), device="cpu",
        watch=lambda *so_far: seen.append(so_far),
    )  # fmt: skip
    assert seen == [("following", done, FRAMES) for done in range(1, FRAMES + 1)]
    assert len(list(open_frames(found.overlay))) == FRAMES
    assert cv2.imread(str(found.strip)) is not None
    with zipfile.ZipFile(found.masks) as archive:
        names = archive.namelist()
        assert names == [f"masks/{i:05d}.png" for i in range(FRAMES)] + ["memory.json"]
        assert len(json.loads(archive.read("memory.json"))) == FRAMES
        with archive.open("masks/00000.png") as file:
            saved = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert saved is not None
    assert found.summary.startswith(f"{FRAMES} frames, 1 object, ")
    assert "MB from the first frame to the last" in found.summary


def test_a_stopped_run_keeps_its_frames(tmp_path: Path, clip: Path, pretrained: Pretrained) -> None:
    def watch(doing: str, done: int, total: int | None) -> None:
        if done == 4:
            raise StoppedError("Stopped.")

    mask = read_mask(disc(0))
    found = follow(
        str(clip),
        {0: mask},
        pretrained,
        tmp_path / "run",
        Options(size=64),
        device="cpu",
        watch=watch,
    )
    assert found.summary.startswith("Stopped early. ")
    assert cv2.imread(str(found.strip)) is not None
    count = len(list(open_frames(found.overlay)))
    assert 3 <= count <= 4
    with zipfile.ZipFile(found.masks) as archive:
        assert len(archive.namelist()) == count + 1


def test_a_run_on_an_adapted_network_can_be_stopped_while_it_adapts(
    tmp_path: Path, clip: Path, pretrained: Pretrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptation, "SIDE", 64)
    monkeypatch.setattr(adaptation, "STEPS", 2)
    seen: list[tuple[str, int, int | None]] = []
    adapted: dict[Objects, Pretrained] = {}
    mask, options = read_mask(disc(0)), Options(size=64, limit=3, adapt=True)

    def watch(doing: str, done: int, total: int | None) -> None:
        seen.append((doing, done, total))
        if stop_at == (doing, done):
            raise StoppedError("Stopped.")

    for stop_at in (None, ("adapting", 1)):
        seen.clear()
        run = tmp_path / str(stop_at)
        arguments = (str(clip), {0: mask}, pretrained, run, options)
        if stop_at is None:
            follow(*arguments, device="cpu", watch=watch)
            assert {("adapting", 1, 2), ("following", 3, 3)} <= set(seen)
            adapted[str(clip), mask.labels.tobytes()] = pretrained
            seen.clear()
            follow(*arguments, device="cpu", watch=watch, adapted=adapted)
            assert seen == [("following", done, 3) for done in (1, 2, 3)]  # the same objects
            other = {0: read_mask(np.roll(disc(0), 5, axis=0))}
            follow(
                str(clip), other, pretrained, run, options, device="cpu", watch=watch,
                adapted=adapted,
            )  # fmt: skip
            assert ("adapting", 1, 2) in seen
            assert list(adapted) == [(str(clip), other[0].labels.tobytes())]
        else:
            with pytest.raises(StoppedError):
                follow(*arguments, device="cpu", watch=watch)
            assert seen[-1] == ("adapting", 1, 2)


def test_limit_ends_a_run(tmp_path: Path, clip: Path, pretrained: Pretrained) -> None:
    options = Options(size=64, limit=3)
    mask = read_mask(disc(0))
    found = follow(
        str(clip), {0: mask}, pretrained, tmp_path / "run", options, device="cpu", watch=never
    )
    assert len(list(open_frames(found.overlay))) == 3


def test_a_mask_of_a_later_frame_corrects_it(
    tmp_path: Path, clip: Path, pretrained: Pretrained
) -> None:
    corner = np.zeros((HEIGHT, WIDTH), np.uint8)
    corner[5:25, 90:120] = 1
    masks = {0: read_mask(disc(0)), 4: read_mask(corner)}
    follow(
        str(clip), masks, pretrained, tmp_path / "run", Options(size=64), device="cpu", watch=never
    )
    kept = read_mask(tmp_path / "run" / "masks" / "00004.png").labels
    assert overlap(kept > 0, corner > 0) > 0.95


def test_frames_by_number(clip: Path) -> None:
    third = list(open_frames(clip))[3].image
    np.testing.assert_array_equal(frame_of(str(clip), 3), third)
    with pytest.raises(StremnError, match="holds no frame at 99"):
        frame_of(str(clip), 99)


def test_broken_inputs_are_said_in_words(tmp_path: Path, pretrained: Pretrained) -> None:
    (tmp_path / "x.mp4").write_bytes(b"no video")
    with pytest.raises(StremnError, match="cannot be opened as a video"):
        frame_of(str(tmp_path / "x.mp4"))


def test_what_was_found_in_one_video_is_not_taken_for_another(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    folder, visit = runs.begin("me", "a.mp4")
    (folder / "masks").mkdir(parents=True)
    write_mask(folder / "masks" / "00000.png", disc(0).astype(np.uint8))
    assert runs.found("me", "a.mp4", 0).ids == (1,)
    for visitor, video in (("me", "b.mp4"), ("you", "a.mp4")):
        with pytest.raises(StremnError, match="Frame 0 has not been followed yet"):
            runs.found(visitor, video, 0)
    runs.leave("me")
    assert visit.stop.is_set()
    assert not folder.exists()
    with pytest.raises(StremnError, match="Frame 0 has not been followed yet"):
        runs.found("me", "a.mp4", 0)


def test_a_visitors_name_is_never_part_of_a_path(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "kept.txt").write_text("kept", encoding="utf-8")
    runs = Runs(root)
    for visitor in (str(outside), "../outside", "..", ".", "", "/", "a/../../outside", "\0"):
        folder, _ = runs.begin(visitor, "a.mp4")
        assert folder.parent == root
        again, _ = runs.begin(visitor, "a.mp4")
        assert not folder.exists()
        assert runs.followed(visitor) == 0
        with pytest.raises(StremnError, match="has not been followed yet"):
            runs.found(visitor, "b.mp4", 0)
        runs.stop(visitor)
        runs.leave(visitor)
        runs.leave(visitor)
        assert not again.exists()
    assert (outside / "kept.txt").read_text(encoding="utf-8") == "kept"
    assert list(root.iterdir()) == []


# ---------------------------------------------------------------- the page


def test_without_gradio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingExtraError, match=r'pip install "stremn\[web\]"'):
        build_page()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A page that runs, with the shipped weights."""
    import gradio

    from stremn.web.page import launch, page_style

    blocks = build_page("small", device="cpu")
    yield launch(blocks, "127.0.0.1", None, style=page_style(gradio))
    blocks.close()
    with warnings.catch_warnings():  # what the page's own libraries left open, found here and now
        warnings.simplefilter("ignore")
        gc.collect()


@of_the_pages_libraries
@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 200),
        ("/", {"Host": "evil.example"}, 421),
        ("/", {"Origin": "http://evil.example"}, 403),
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


@of_the_pages_libraries
def test_the_whole_path_through_the_client(address: str, clip: Path, tmp_path: Path) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(address, verbose=False, analytics_enabled=False)
    video = handle_file(str(clip))
    shown, *_ = client.predict(video, api_name="/open")
    assert cv2.imread(str(shown)).shape == (HEIGHT, WIDTH, 3)
    write_mask(tmp_path / "m.png", disc(0).astype(np.uint8) * 7)
    client.predict(handle_file(str(tmp_path / "m.png")), api_name="/mask")
    overlay, strip, masks, summary = client.predict(
        video, 3, "learned", 128, 5, False, api_name="/follow"
    )
    copy = tmp_path / "overlay.mp4"
    shutil.copy(overlay["video"] if isinstance(overlay, dict) else overlay, copy)
    assert len(list(open_frames(copy))) == 5
    assert cv2.imread(str(strip)) is not None
    with zipfile.ZipFile(str(masks)) as archive:
        archive.extract("masks/00000.png", tmp_path)
    first = read_mask(tmp_path / "masks" / "00000.png")
    assert first.ids == (7,)
    assert str(summary).startswith("5 frames, 1 object")
    shown, words = client.predict(video, 3, api_name="/correct")
    assert cv2.imread(str(shown)).shape == (HEIGHT, WIDTH, 3)
    assert str(words).startswith("Frame 3. Clicks mend object 7")
    with pytest.raises(AppError, match="Frame 6 has not been followed yet"):
        client.predict(video, 6, api_name="/correct")


@of_the_pages_libraries
def test_mistakes_reach_the_client_in_words(address: str, clip: Path, tmp_path: Path) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(address, verbose=False, analytics_enabled=False)
    video = handle_file(str(clip))
    with pytest.raises(AppError, match="Upload a video first"):
        client.predict(video, 3, "learned", 128, 0, False, api_name="/follow")
    client.predict(video, api_name="/open")
    with pytest.raises(AppError, match="Say what to follow first"):
        client.predict(video, 3, "learned", 128, 0, False, api_name="/follow")
    write_mask(tmp_path / "m.png", np.ones((9, 30), np.uint8))
    with pytest.raises(AppError, match="it is 30x9 but the frame is 128x96"):
        client.predict(handle_file(str(tmp_path / "m.png")), api_name="/mask")


@pytest.mark.slow
@of_the_pages_libraries
def test_the_whole_path_in_a_browser(address: str, clip: Path) -> None:
    from playwright import sync_api as playwright

    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        pytest.skip(f"needs a browser: one of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1400})
        page.set_default_timeout(180_000)  # a loaded machine takes its time
        page.goto(address)
        page.set_input_files("#video input[type=file]", str(clip))
        image = page.locator("#drawing img")
        image.wait_for()
        before = image.get_attribute("src")
        size = image.bounding_box()

        def click(x: float, y: float) -> None:
            nonlocal before
            place = {"x": x * size["width"] / WIDTH, "y": y * size["height"] / HEIGHT}
            image.click(position=place)
            page.wait_for_function(
                "before => document.querySelector('#drawing img').src !== before", arg=before
            )
            before = image.get_attribute("src")

        click(25, 24)
        click(75, 73)
        page.get_by_label("Not the object").click()
        page.click("#run")
        page.wait_for_function(
            "() => document.querySelector('#summary').innerText.includes('frames, 1 object')"
        )
        assert page.locator("#overlay video").count() == 1
        assert page.locator("#strip img").count() == 1
        assert "masks.zip" in "".join(page.locator("#masks").inner_text().split())
        if "STREMN_SCREENSHOT" in os.environ:
            page.screenshot(path=os.environ["STREMN_SCREENSHOT"], full_page=True)
        browser.close()
