"""The workbench's routes: what they answer, and what they refuse."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from moving_disc import BOX, HEIGHT, WIDTH, disc, tools, write_clip
from stremn.errors import StremnError
from stremn.media.masks import write_mask
from stremn.web.pictures import colors
from stremn.web.projects import Limits, Projects
from stremn.web.workbench import routes

starlette = pytest.importorskip("starlette")


class Bench:
    """A visitor's browser with one video open."""

    def __init__(self, projects: Projects, video: Path, visitor: str = "me") -> None:
        from starlette.applications import Starlette
        from starlette.testclient import TestClient

        self.client = TestClient(Starlette(routes=routes(projects)))
        self.key = projects.open(visitor, video)

    def get(self, path: str) -> Any:
        return self.client.get(f"/workbench/project/{self.key}/{path}")

    def do(self, what: str, status: int = 200, **told: Any) -> dict[str, Any]:
        answer = self.client.post(f"/workbench/project/{self.key}/do/{what}", json=told)
        assert answer.status_code == status, answer.text
        return answer.json()

    def image(self, path: str) -> np.ndarray:
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        found = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert found is not None
        return found


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 12)


@pytest.fixture
def projects(tmp_path: Path) -> Projects:
    return Projects(tmp_path, tools(), Limits(visitors=2))


@pytest.fixture
def bench(projects: Projects, clip: Path) -> Iterator[Bench]:
    yield Bench(projects, clip)
    projects.leave("me")


def test_the_whole_way(bench: Bench) -> None:
    state = bench.get("state").json()
    assert (state["frames"], state["width"], state["height"]) == (12, WIDTH, HEIGHT)
    assert state["notice"] == ""
    assert state["objects"] == [{"id": 1, "name": "Object 1", "color": colors(1)}]
    assert bench.image("frame/3.jpg").shape == (HEIGHT, WIDTH, 3)
    assert not bench.image("mask/0.png").any()
    state = bench.do("mark", frame=0, object=1, mark=BOX)
    assert state["drawn"] == [0]
    mask = bench.image("mask/0.png")
    assert mask.shape == (HEIGHT, WIDTH, 4)
    assert mask[48, 50, 3] in range(1, 255)
    assert mask[5, 5, 3] == 0
    state = bench.do("follow", size=64, memory_slots=3)
    while state["status"]["running"]:
        time.sleep(0.05)
        state = bench.get("state").json()
    assert state["status"]["stage"] == "done"
    assert state["followed"] == [[0, 12]]
    memory = bench.get("memory/11").json()
    assert memory["bytes"] > 0
    assert len(memory["objects"][0]["slots"]) == 3
    assert bench.image("thumbnail/0/1.jpg").shape[0] == 90
    assert bench.get("memory/0").json()["objects"][0]["pinned"] == [True, False, False]
    assert bench.do("undo")["followed"] == []
    assert bench.do("redo")["followed"] == [[0, 12]]
    assert bench.do("name", object=1, name="<b>disc</b>")["objects"][0]["name"] == "<b>disc</b>"
    assert [one["id"] for one in bench.do("add", name="other")["objects"]] == [1, 2]
    assert [one["id"] for one in bench.do("remove", object=1)["objects"]] == [2]
    assert bench.do("clear", frame=0)["drawn"] == []
    assert bench.do("pause")["status"]["stage"] == "done"


def test_a_mask_file(bench: Bench, tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", disc(0).astype(np.uint8) * 7)
    path = f"/workbench/project/{bench.key}/mask-file/0"
    answer = bench.client.post(path, content=(tmp_path / "m.png").read_bytes())
    assert [one["id"] for one in answer.json()["objects"]] == [7]
    write_mask(tmp_path / "m.png", np.ones((9, 30), np.uint8))
    for content, words in [
        ((tmp_path / "m.png").read_bytes(), "it is 30x9 but the frame is 128x96"),
        (b"no picture", "The mask is not an image in a known format"),
        (b"", "The mask is not an image in a known format"),
    ]:
        answer = bench.client.post(path, content=content)
        assert answer.status_code == 422
        assert words in answer.json()["error"]
        assert str(tmp_path) not in answer.json()["error"]
    project = next(tmp_path.glob("project-*"))
    assert not list(project.glob("mask*"))


def test_requests_that_no_page_makes(bench: Bench) -> None:
    for what, told in [
        ("mark", {}),
        ("mark", {"frame": "0", "object": 1, "mark": BOX}),
        ("mark", {"frame": 0, "object": True, "mark": BOX}),
        ("mark", {"frame": -1, "object": 1, "mark": BOX}),
        ("mark", {"frame": 0, "object": 1, "mark": {"kind": "box"}}),
        ("follow", {"memory_slots": 10**9}),
        ("follow", {"device": "cuda"}),
        ("name", {"object": 1}),
        ("rmtree", {}),
    ]:
        assert bench.do(what, 422, **told)["error"]
    path = f"/workbench/project/{bench.key}/do/mark"
    for body in (b"[]", b"{", b"\xff", b"[" * 100_000, b'"' + b"x" * 3_000_000 + b'"'):
        answer = bench.client.post(path, content=body)
        assert answer.status_code == 422
        assert answer.json()["error"]
    for path in ("frame/99.jpg", "thumbnail/99/1.jpg", "frame/99999999999999999999.jpg"):
        assert bench.get(path).status_code == 422
    assert bench.get("memory/99").json()["objects"] == []
    assert bench.get("frame/-1.jpg").status_code == 404
    assert bench.get("frame/..%2f..%2fx.jpg").status_code == 404


def test_nobody_is_served_without_the_key(bench: Bench) -> None:
    for key in ("", "x", "..", bench.key[:-1], bench.key + "x"):
        for path in ("state", "frame/0.jpg", "mask/0.png"):
            assert bench.client.get(f"/workbench/project/{key}/{path}").status_code == 404
    assert bench.client.get("/workbench/static/main.js").status_code == 200
    assert bench.client.get("/workbench/static/..%2fproject.py").status_code == 404


def test_visitors_have_folders_of_their_own_that_go_with_them(
    projects: Projects, clip: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "kept.txt"
    outside.write_text("kept", encoding="utf-8")
    names = (str(tmp_path), "../outside", "..", ".", "", "/", "a/../../outside", "\0")
    for visitor in names:
        key = projects.open(visitor, clip)
        project = projects.get(key)
        assert project is not None
        assert project.folder.parent == tmp_path
        assert len(list(tmp_path.glob("project-*"))) <= 2, "the first that came go first"
    again = projects.open("\0", clip)
    assert again != key
    assert projects.get(key) is None
    for visitor in names:
        projects.leave(visitor)
        projects.leave(visitor)
    assert list(tmp_path.iterdir()) == [outside]


def test_what_is_no_video_leaves_the_one_before(
    bench: Bench, projects: Projects, tmp_path: Path, clip: Path
) -> None:
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:1,\nfile://{clip}\n", encoding="utf-8")
    (tmp_path / "x.mp4").write_bytes(b"no video")
    for name in ("list.m3u8", "x.mp4"):
        with pytest.raises(StremnError, match="cannot be opened as a video"):
            projects.open("me", tmp_path / name)
    assert bench.get("state").status_code == 200
    assert len(list(tmp_path.glob("project-*"))) == 1


def test_a_long_video_is_cut(tmp_path: Path, clip: Path) -> None:
    projects = Projects(tmp_path, tools(), Limits(frames=5))
    bench = Bench(projects, clip)
    state = bench.get("state").json()
    assert state["frames"] == 5
    assert state["notice"] == (
        "The video is cut after 5 of its 12 frames. To open all of it, start the page with "
        "--max-frames 12."
    )
    projects.leave("me")


def test_who_comes_back_in_time_finds_everything(tmp_path: Path, clip: Path) -> None:
    projects = Projects(tmp_path, tools(), Limits(absence=0.3))
    bench = Bench(projects, clip)
    projects.leave_later("nobody")
    projects.leave_later("me")
    time.sleep(0.2)
    assert bench.get("state").status_code == 200
    time.sleep(0.2)
    assert bench.get("state").status_code == 200, "it was used after the visitor seemed to leave"
    for _ in range(100):
        time.sleep(0.05)
        if not list(tmp_path.iterdir()):
            break
    assert list(tmp_path.iterdir()) == []
    assert bench.get("state").status_code == 404
