"""Results out: what is written, valid at any moment, and the same when resumed."""

import json
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from stremn.errors import StremnError
from stremn.media.codecs import H264
from stremn.media.encoding import join_videos, write_video
from stremn.media.files import JsonRows, make_folder, read_rows, write_whole, writing
from stremn.media.formats.coco import Coco
from stremn.media.formats.rows import RowsWriter
from stremn.media.frame_results import FrameResult
from stremn.media.frames import Frame, frame_name
from stremn.media.masks import read_mask
from stremn.media.overlap import WriteBehind
from stremn.media.presence import COLUMNS, PresenceTable
from stremn.media.results import ResultWriter
from stremn.media.rle import decode_rle, encode_rle
from stremn.media.video import open_frames

resource = pytest.importorskip("resource", reason="needs POSIX limits")
HEIGHT, WIDTH = 45, 61  # odd on purpose


def picture(index: int) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([(x * 3 + index) % 256, y * 4, x + y], axis=-1).astype(np.uint8)


def labels_at(index: int) -> np.ndarray:
    labels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    cv2.circle(labels, (15 + index, 20), 8, 2, cv2.FILLED)
    cv2.rectangle(labels, (40, 5), (50, 15), 5, cv2.FILLED)
    return labels


def result_at(index: int) -> FrameResult:
    frame = Frame(index, frame_name(index), picture(index))
    return FrameResult(frame, labels_at(index), {"slots": [[0, index]], "replaced": None})


def writer(out: Path, **changes: Any) -> ResultWriter:
    options: dict[str, Any] = {"fps": 25, "checkpoint_every": 4, "settings": {"memory_slots": 6}}
    return ResultWriter(out, **(options | changes))


def save_state(path: Path) -> None:
    path.write_bytes(b"state")


def run(out: Path, count: int, start: int = 0, **changes: Any) -> None:
    with writer(out, **changes) as results:
        assert results.next_frame == start
        for index in range(start, count):
            results.write(result_at(index))
            if results.checkpoint_due(index):
                results.checkpoint(save_state)
        results.finish()


def contents(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


# ---------------------------------------------------------------- what is written


def test_everything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    run(out, 10)
    for index in range(10):
        found = read_mask(out / "masks" / f"{index:05d}.png", (HEIGHT, WIDTH))
        np.testing.assert_array_equal(found.labels, labels_at(index))
    rows = json.loads((out / "memory.json").read_text())
    assert [row["frame"] for row in rows] == list(range(10))
    assert rows[3] == {"frame": 3, "name": "00003", "slots": [[0, 3]], "replaced": None}
    assert sorted(path.name for path in out.iterdir()) == [
        ".resume", "masks", "memory.json", "objects.csv", "overlay.mp4",
    ]  # fmt: skip
    assert [path.name for path in (out / ".resume").iterdir()] == ["progress.json"]


def test_overlay_video_plays_and_shows_the_objects(tmp_path: Path) -> None:
    run(tmp_path / "out", 10)
    source = open_frames(tmp_path / "out" / "overlay.mp4")
    assert source.fps == pytest.approx(25)
    frames = [frame.image for frame in source]
    assert len(frames) == source.count == 10
    assert frames[0].shape == (HEIGHT + 1, WIDTH + 1, 3)
    for index in (0, 4, 9):  # first and second part, and the last frame
        shown = frames[index][:HEIGHT, :WIDTH].astype(int)
        background = cv2.dilate(labels_at(index), np.ones((9, 9))) == 0
        changed = np.abs(shown - picture(index)).mean(axis=-1)
        assert changed[background].mean() < 6
        assert changed[labels_at(index) > 0].mean() > 25


def test_overlay_is_h264_in_a_form_that_browsers_play(tmp_path: Path) -> None:
    run(tmp_path / "out", 9)
    with av.open(str(tmp_path / "out" / "overlay.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.pix_fmt == "yuv420p"
        ticks = [packet.pts for packet in container.demux(stream) if packet.pts is not None]
    steps = np.diff(sorted(ticks))
    assert (steps == steps[0]).all()
    head = (tmp_path / "out" / "overlay.mp4").read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")


@pytest.mark.parametrize("fps", [None, 29.97, 23.976023976, 12.5, 6])
def test_rates(tmp_path: Path, fps: float | None) -> None:
    run(tmp_path / "out", 5, fps=fps)
    source = open_frames(tmp_path / "out" / "overlay.mp4")
    assert source.fps == pytest.approx(fps or 25, rel=1e-3)


def test_names_follow_the_frames_and_wide_ids_are_16_bit(tmp_path: Path) -> None:
    labels = labels_at(0).astype(np.uint16) * 200
    with writer(tmp_path / "out") as results:
        results.write(FrameResult(Frame(0, "shot 7", picture(0)), labels, {}))
        results.finish()
    found = read_mask(tmp_path / "out" / "masks" / "shot 7.png")
    assert found.ids == (400, 1000)
    np.testing.assert_array_equal(found.labels, labels)


def test_names_of_other_bytes_than_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    for existing in ("refuse", "resume"):
        with writer(tmp_path, existing=existing) as results:
            if existing == "refuse":
                results.write(FrameResult(Frame(0, name, picture(0)), labels_at(0), {}))
                results.checkpoint(save_state)
    assert (tmp_path / "masks" / f"{name}.png").is_file()
    lines = (tmp_path / "objects.csv").read_bytes().splitlines()
    assert [line[:7] for line in lines] == [b"frame,n", b"0,caf\xe9,", b"0,caf\xe9,"]


def test_a_damaged_end_of_the_table_is_left_out(tmp_path: Path) -> None:
    PresenceTable(tmp_path / "t.csv")
    whole = (tmp_path / "t.csv").read_bytes() + b"0,00000,,1,9,1,1,3,3,2.00,2.00,\n"
    (tmp_path / "t.csv").write_bytes(whole + b"\xff\x80\0")
    PresenceTable(tmp_path / "t.csv", before=1)
    assert (tmp_path / "t.csv").read_bytes() == whole


def test_pictures_that_no_video_holds_are_told(tmp_path: Path) -> None:
    wide = np.zeros((2, 20_000), np.uint8)
    frame = Frame(0, "00000", np.zeros((2, 20_000, 3), np.uint8))
    with (
        writer(tmp_path) as results,
        pytest.raises(
            StremnError, match=r"up to 16384 pixels a side, and these are 20000x2\. --sc"
        ),
    ):
        results.write(FrameResult(frame, wide, {}))


def test_probabilities_are_kept_if_asked_for(tmp_path: Path) -> None:
    soft = np.random.default_rng(0).random((2, HEIGHT, WIDTH)).astype(np.float32)
    with writer(tmp_path / "out", probabilities=True) as results:
        base = result_at(0)
        results.write(FrameResult(base.frame, base.labels, {}, ids=(2, 5), probabilities=soft))
        results.finish()
    with np.load(tmp_path / "out" / "probabilities" / "00000.npz") as stored:
        assert stored["ids"].tolist() == [2, 5]
        np.testing.assert_allclose(stored["probabilities"], soft, atol=1e-3)


def test_coco_file(tmp_path: Path) -> None:
    run(tmp_path / "out", 6, formats=[Coco()])
    content = json.loads((tmp_path / "out" / "objects.json").read_text())
    assert [image["file_name"] for image in content["images"]] == [f"{i:05d}.png" for i in range(6)]
    assert [category["id"] for category in content["categories"]] == [2, 5]
    assert [item["id"] for item in content["annotations"]] == list(range(1, 13))
    for item in content["annotations"]:
        mask = labels_at(item["image_id"]) == item["category_id"]
        size = tuple(item["segmentation"]["size"])
        np.testing.assert_array_equal(decode_rle(item["segmentation"]["counts"], size), mask)
        assert item["area"] == mask.sum()
        assert item["bbox"] == list(cv2.boundingRect(mask.astype(np.uint8)))


def test_frames_must_come_in_order(tmp_path: Path) -> None:
    with writer(tmp_path / "out") as results:
        results.write(result_at(0))
        with pytest.raises(StremnError, match="expected 1, got 2"):
            results.write(result_at(2))


def test_writing_behind_gives_the_same_files(tmp_path: Path) -> None:
    run(tmp_path / "a", 10)
    with writer(tmp_path / "b") as results, WriteBehind(results.write, 3) as behind:
        for index in range(10):
            behind.put(result_at(index))
            if results.checkpoint_due(index):
                behind.flush()
                results.checkpoint(save_state)
        behind.flush()
        results.finish()
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


# ---------------------------------------------------------------- interruption


def stop_after(out: Path, count: int, **changes: Any) -> None:
    """A run that ends without `close` or `finish` after `count` frames."""
    results = writer(out, **changes)
    for index in range(results.next_frame, count):
        results.write(result_at(index))
        if results.checkpoint_due(index):
            results.checkpoint(save_state)
    results._memory.close()  # only so that Python does not warn of an open file
    for other in results._others._writers:
        if isinstance(other, RowsWriter):
            other._rows.close()


ENDLESS_RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_results import result_at, save_state, writer
results = writer(Path(sys.argv[1]))
for index in range(10_000):
    results.write(result_at(index))
    if results.checkpoint_due(index):
        results.checkpoint(save_state)
"""


def test_a_killed_process_leaves_valid_files_and_can_be_continued(tmp_path: Path) -> None:
    out = tmp_path / "broken"
    child = subprocess.Popen(
        [sys.executable, "-c", ENDLESS_RUN, str(out), str(Path(__file__).parent)]
    )
    while not (out / "masks" / "00009.png").exists() and child.poll() is None:
        time.sleep(0.01)
    child.kill()
    child.wait()
    written = len(json.loads((out / "memory.json").read_text()))
    assert written >= 9
    for index in range(written):
        read_mask(out / "masks" / f"{index:05d}.png", (HEIGHT, WIDTH))
    count = written + 3
    with writer(out, existing="resume") as results:
        start = results.next_frame
    assert start >= 8
    run(out, count, start=start, existing="resume")
    run(tmp_path / "whole", count)
    broken = contents(out)
    for name, content in contents(tmp_path / "whole").items():
        assert content == broken[name], name


@pytest.mark.parametrize("stop", [1, 3, 4, 5, 7, 8, 11])
def test_a_resumed_run_gives_the_same_files(tmp_path: Path, stop: int) -> None:
    run(tmp_path / "whole", 11, formats=[Coco()])
    stop_after(tmp_path / "broken", stop, formats=[Coco()])
    with writer(tmp_path / "broken", existing="resume", formats=[Coco()]) as results:
        resumed_at = results.next_frame
        state = results.state_path
    assert resumed_at == stop // 4 * 4
    assert (state is None) == (resumed_at == 0)
    if state is not None:
        assert state.read_bytes() == b"state"
    run(tmp_path / "broken", 11, start=resumed_at, existing="resume", formats=[Coco()])
    whole, broken = contents(tmp_path / "whole"), contents(tmp_path / "broken")
    assert whole.keys() == broken.keys()
    for name, content in whole.items():
        assert content == broken[name], name


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every path that a run flushes to the disk."""
    paths: list[Path] = []
    monkeypatch.setattr("stremn.media.results.sync", paths.extend)
    return paths


def test_each_part_of_the_overlay_is_flushed_once(tmp_path: Path, flushed: list[Path]) -> None:
    run(tmp_path / "out", 10, checkpoint_every=2)
    parts = [path.name for path in flushed if path.name.startswith("overlay-")]
    assert parts == [f"overlay-{first:09d}.mp4" for first in (0, 2, 4, 6, 8)]


@pytest.mark.parametrize("stop", [2, 5, 7, 8])
def test_a_run_stopped_between_checkpoints_gives_the_same_files(tmp_path: Path, stop: int) -> None:
    run(tmp_path / "whole", 11)
    with writer(tmp_path / "broken") as results:
        for index in range(stop):
            results.write(result_at(index))
            if results.checkpoint_due(index):
                results.checkpoint(save_state)
        results.checkpoint(save_state)
    assert len(list(open_frames(tmp_path / "broken" / "overlay.mp4"))) == stop
    with writer(tmp_path / "broken", existing="resume") as results:
        assert (results.read_from, results.next_frame) == (stop // 4 * 4, stop)
        for index in range(results.read_from, stop):
            results.redraw(result_at(index).frame)
        for index in range(stop, 11):
            results.write(result_at(index))
            if results.checkpoint_due(index):
                results.checkpoint(save_state)
        results.finish()
    assert contents(tmp_path / "whole") == contents(tmp_path / "broken")


def test_resuming_without_the_earlier_frames_still_gives_a_whole_overlay(tmp_path: Path) -> None:
    with writer(tmp_path / "out") as results:
        for index in range(6):
            results.write(result_at(index))
        results.checkpoint(save_state)
    run(tmp_path / "out", 11, start=6, existing="resume")
    assert len(list(open_frames(tmp_path / "out" / "overlay.mp4"))) == 11


def test_a_run_broken_twice_gives_the_same_files(tmp_path: Path) -> None:
    run(tmp_path / "whole", 11)
    stop_after(tmp_path / "broken", 6)
    stop_after(tmp_path / "broken", 9, existing="resume")
    run(tmp_path / "broken", 11, start=8, existing="resume")
    assert contents(tmp_path / "whole") == contents(tmp_path / "broken")


def test_memory_rows_and_masks_are_valid_after_a_kill(tmp_path: Path) -> None:
    stop_after(tmp_path / "out", 7)
    assert len(json.loads((tmp_path / "out" / "memory.json").read_text())) == 7
    assert len(list((tmp_path / "out" / "masks").glob("*.png"))) == 7
    for path in (tmp_path / "out" / "masks").iterdir():
        read_mask(path, (HEIGHT, WIDTH))


def test_a_failed_run_leaves_an_overlay_of_its_frames(tmp_path: Path) -> None:
    def fail() -> None:
        with writer(tmp_path / "out") as results:
            for index in range(6):
                results.write(result_at(index))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert len(list(open_frames(tmp_path / "out" / "overlay.mp4"))) == 6
    with writer(tmp_path / "out", existing="resume") as results:
        assert results.next_frame == 0


def test_resuming_a_finished_run_has_nothing_to_do(tmp_path: Path) -> None:
    run(tmp_path / "out", 5)
    before = contents(tmp_path / "out")
    with writer(tmp_path / "out", existing="resume") as results:
        assert results.finished
        assert results.next_frame == 5
        results.finish()
    assert contents(tmp_path / "out") == before


def test_resuming_with_other_settings_is_refused(tmp_path: Path) -> None:
    stop_after(tmp_path / "out", 5)
    before = contents(tmp_path / "out")
    with pytest.raises(StremnError, match="made with memory_slots 6, now memory_slots is 4"):
        writer(tmp_path / "out", existing="resume", settings={"memory_slots": 4})
    assert contents(tmp_path / "out") == before


def test_resuming_with_another_output_is_refused(tmp_path: Path) -> None:
    stop_after(tmp_path / "out", 5)
    with pytest.raises(StremnError, match=r"made with formats None, now formats is \[.coco.\]"):
        writer(tmp_path / "out", existing="resume", formats=[Coco()])


def test_resuming_from_nothing_starts_at_the_front(tmp_path: Path) -> None:
    run(tmp_path / "out", 5, existing="resume")
    assert len(read_rows(tmp_path / "out" / "memory.json")) == 5


def test_damaged_progress_is_said(tmp_path: Path) -> None:
    stop_after(tmp_path / "out", 5)
    (tmp_path / "out" / ".resume" / "progress.json").write_text("{")
    with pytest.raises(StremnError, match=r"progress\.json is damaged"):
        writer(tmp_path / "out", existing="resume")


# ---------------------------------------------------------------- an earlier run in the way


def test_an_earlier_run_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    run(tmp_path / "out", 9)
    before = contents(tmp_path / "out")
    with pytest.raises(StremnError, match=r"holds 9 frames of an earlier run. Add --resume"):
        writer(tmp_path / "out")
    assert contents(tmp_path / "out") == before
    (tmp_path / "out" / "masks" / "mine.png").write_bytes(b"kept")
    (tmp_path / "out" / "notes.txt").write_text("kept")
    run(tmp_path / "out", 3, existing="replace")
    names = sorted(path.name for path in (tmp_path / "out" / "masks").iterdir())
    assert names == ["00000.png", "00001.png", "00002.png", "mine.png"]
    assert (tmp_path / "out" / "notes.txt").read_text() == "kept"
    assert len(read_rows(tmp_path / "out" / "memory.json")) == 3


def test_a_run_that_wrote_no_frame_is_not_in_the_way(tmp_path: Path) -> None:
    writer(tmp_path).close()
    assert (tmp_path / "memory.json").exists()
    run(tmp_path, 2)
    assert len(read_rows(tmp_path / "memory.json")) == 2
    other = tmp_path / "other"
    writer(other).close()
    writer(other, existing="resume", settings={"memory_slots": 2}).close()


def test_replacing_nothing_is_a_new_run(tmp_path: Path) -> None:
    run(tmp_path / "out", 3, existing="replace")
    assert len(read_rows(tmp_path / "out" / "memory.json")) == 3


# ---------------------------------------------------------------- full disk, no permission


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel refuses to let any file grow beyond `size` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_keeps_the_frames_before(tmp_path: Path) -> None:
    results = writer(tmp_path / "out")
    results.write(result_at(0))
    results.write(result_at(1))
    limit = (tmp_path / "out" / "memory.json").stat().st_size + 10
    with largest_file(limit), pytest.raises(StremnError, match=r"disk is full: .*could not be"):
        results.write(result_at(2))
    assert len(read_rows(tmp_path / "out" / "memory.json")) == 2
    names = sorted(path.name for path in (tmp_path / "out" / "masks").iterdir())
    assert names[:2] == ["00000.png", "00001.png"]
    for name in names:
        read_mask(tmp_path / "out" / "masks" / name)
    results.close()


def test_full_disk_in_the_middle_of_a_row_leaves_valid_json(tmp_path: Path) -> None:
    rows = JsonRows(tmp_path / "rows.json")
    rows.append({"a": 1})
    with largest_file(40), pytest.raises(StremnError, match="disk is full"):
        rows.append({"long": "x" * 100})
    assert json.loads((tmp_path / "rows.json").read_text()) == [{"a": 1}]
    rows.append({"b": 2})
    rows.close()
    assert read_rows(tmp_path / "rows.json") == [{"a": 1}, {"b": 2}]


def test_full_disk_keeps_the_file_that_was_there(tmp_path: Path) -> None:
    write_whole(tmp_path / "f", b"old")
    with largest_file(10), pytest.raises(StremnError, match="disk is full"):
        write_whole(tmp_path / "f", b"new" * 100)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"


def test_output_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StremnError, match="a part of this path is a file, not a folder"):
        writer(tmp_path / "file")
    with pytest.raises(StremnError, match="a part of this path is a file, not a folder"):
        writer(tmp_path / "file" / "out")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)  # as root, no folder refuses
    with pytest.raises(StremnError, match="no permission to write"):
        make_folder(tmp_path / "out")


def test_refusals_of_the_system_in_words(tmp_path: Path) -> None:
    def refuse(error: OSError) -> None:
        with writing(tmp_path / "f"):
            raise error

    with pytest.raises(StremnError, match=r"no permission to write .*f\. Choose another"):
        refuse(PermissionError(13, "Permission denied"))
    with pytest.raises(StremnError, match="could not be written: Input/output error"):
        refuse(OSError(5, "Input/output error"))


# ---------------------------------------------------------------- rows


def test_rows_are_valid_after_every_append(tmp_path: Path) -> None:
    rows = JsonRows(tmp_path / "rows.json")
    assert json.loads((tmp_path / "rows.json").read_text()) == []
    for index in range(4):
        rows.append({"index": index, "text": "é\n"})
        stored = json.loads((tmp_path / "rows.json").read_text())
        assert stored == [{"index": i, "text": "é\n"} for i in range(index + 1)]
    rows.close()
    rows.close()
    kept = JsonRows(tmp_path / "rows.json", keep=2)
    assert kept.count == 2
    kept.append({"index": 9})
    kept.close()
    assert [row["index"] for row in read_rows(tmp_path / "rows.json")] == [0, 1, 9]
    assert (tmp_path / "rows.json").read_text().count("\n") == 5  # a row a line


def test_a_long_run_is_resumed_in_constant_memory(tmp_path: Path) -> None:
    rows = [json.dumps({"frame": index, "name": f"{index:05d}"}) for index in range(10_000)]
    (tmp_path / "rows.json").write_text("[\n" + ",\n".join(rows) + "\n]\n")
    table = [",".join(COLUMNS), *(f"{index},a,,1,9,1,1,3,3,2,2," for index in range(10_000))]
    (tmp_path / "table.csv").write_text("\n".join(table) + "\n")
    tracemalloc.start()
    JsonRows(tmp_path / "rows.json", keep=9_999).close()
    PresenceTable(tmp_path / "table.csv", before=9_999)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000
    assert (tmp_path / "rows.json").read_text() == "[\n" + ",\n".join(rows[:-1]) + "\n]\n"
    assert (tmp_path / "table.csv").read_text() == "\n".join(table[:-1]) + "\n"


def test_rows_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StremnError, match="There is no file"):
        read_rows(tmp_path / "rows.json")
    (tmp_path / "rows.json").write_text("[\n1\n]\n")
    with pytest.raises(StremnError, match="cannot be read as JSON rows"):
        read_rows(tmp_path / "rows.json")


# ---------------------------------------------------------------- videos


def test_joined_parts_equal_the_frames_of_the_parts(tmp_path: Path) -> None:
    for part in range(3):
        frames = [picture(7 * part + i) for i in range(3 + part)]
        write_video(tmp_path / f"{part}.mp4", frames, 30)
    parts = [tmp_path / f"{part}.mp4" for part in range(3)]
    times = [0, 0.5, 0.6, *range(1, 10)]
    join_videos(parts, tmp_path / "joined.mp4", times=times)
    assert [frame.time for frame in open_frames(tmp_path / "joined.mp4")] == times
    joined = [frame.image for frame in open_frames(tmp_path / "joined.mp4")]
    single = [frame.image for part in parts for frame in open_frames(part)]
    assert len(joined) == 12
    for got, expected in zip(joined, single, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_nothing_beside_the_picture_reaches_the_encoder() -> None:
    junk = [np.full(size, 255, np.uint8) for size in range(1000, 20000, 500)]
    del junk  # what the frame's memory held before
    image = np.pad(picture(0), ((0, 1), (0, 1), (0, 0)))
    frame = H264().frame(image)
    assert any(plane.line_size > plane.width for plane in frame.planes)
    for plane in frame.planes:
        rows = np.frombuffer(plane, dtype=np.uint8).reshape(-1, plane.line_size)
        assert rows[:, : plane.width].any()
        assert not rows[:, plane.width :].any()
    difference = frame.to_ndarray(format="rgb24").astype(int) - image
    assert np.abs(difference).mean() < 12


def test_a_part_that_was_cut_off_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "part.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(
        StremnError, match=r"joined\.mp4 could not be written: a part of it was cut"
    ):
        join_videos([tmp_path / "part.mp4"], tmp_path / "joined.mp4")


def test_video_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(StremnError, match="no image to write"):
        write_video(tmp_path / "v.mp4", [], 25)


# ---------------------------------------------------------------- run lengths


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_run_lengths_survive(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_rle(encode_rle(mask), mask.shape), mask)


def test_run_lengths_have_cocos_form() -> None:
    mask = np.zeros((4, 5), dtype=bool)
    mask[1:3, 1] = True
    mask[0:4, 3] = True
    # Down the columns: 5 off, 2 on, 5 off, 4 on, 4 off; then differences to two before.
    # 5 -> '5', 2 -> '2', 5 -> '5', 4 - 2 = 2 -> '2', 4 - 5 = -1 -> 31 + 48 = 'O'.
    assert encode_rle(mask) == "5252O"
    assert encode_rle(np.ones((1, 40), bool)) == "0X1"  # 40 = 8 + 32 * 1: 'X' (more), '1'


def test_run_lengths_of_another_size() -> None:
    with pytest.raises(StremnError, match="cover 4 pixels, expected 3x2 = 6"):
        decode_rle(encode_rle(np.ones((2, 2), bool)), (2, 3))


def test_masks_are_images_that_others_read(tmp_path: Path) -> None:
    run(tmp_path / "out", 2)
    with Image.open(tmp_path / "out" / "masks" / "00001.png") as image:
        assert image.mode == "P"
        assert image.size == (WIDTH, HEIGHT)
