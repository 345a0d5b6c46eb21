"""An output folder of `segment`: one run at a time, whatever files lie in it, wherever it ended."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stremn.errors import StremnError
from stremn.media.formats.choosing import choose_formats
from stremn.media.frame_results import FrameResult
from stremn.media.frames import Frame
from stremn.media.results import ResultWriter
from stremn.media.video import open_frames
from stremn.networks.model import STReMN
from stremn.segmentation.pipeline import segment_video
from stremn.segmentation.sessions import SegmentationSession


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, 64, 64, 3), dtype=np.uint8)


def square() -> np.ndarray:
    labels = np.zeros((64, 64), np.uint8)
    labels[10:40, 10:40] = 3
    return labels


def segment(model: STReMN, out: Path, count: int, existing: str = "refuse") -> ResultWriter:
    """Segment a made video, resumable every four frames."""
    writer = ResultWriter(out, fps=10, existing=existing, checkpoint_every=4)  # type: ignore[arg-type]
    if writer.finished:
        writer.close()
        return writer
    options = {"device": "cpu", "precision": "float32", "size": 64, "memory_slots": 3}
    options |= {"policy": "learned", "reach": None}
    if writer.state_path is not None:
        session = SegmentationSession.load(writer.state_path, model, device="cpu")
    else:
        session = SegmentationSession(model, **options)
    source = open_frames(frames(count), start=writer.read_from)

    def mask_of(frame: Frame):  # type: ignore[no-untyped-def]
        from stremn.media.masks import label_map

        return label_map(square()) if frame.index == 0 else None

    segment_video(source, session, mask_of, writer)
    return writer


def contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def end_of_process(writer: ResultWriter) -> None:
    """What the system does for a killed process: close its files, give up its locks."""
    writer._memory.close()
    writer._lock.release()


class KilledError(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("count", [8, 10])
@pytest.mark.parametrize(
    "place", ["MemoryStrip.save", "ResultWriter.finish", "ResultWriter._remove_parts"]
)
def test_a_run_killed_at_its_end_is_completed(
    model: STReMN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, place: str
) -> None:
    """Even after the checkpoint on the very last frame (8 frames) nothing is missing."""
    segment(model, tmp_path / "whole", count)
    owner, _, method = place.partition(".")

    def kill(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        module = "stremn.segmentation.strip" if owner == "MemoryStrip" else "stremn.media.results"
        patch.setattr(f"{module}.{owner}.{method}", kill)
        if place == "MemoryStrip.save":  # a killed process does not join its overlay either
            patch.setattr("stremn.media.results.ResultWriter.close", end_of_process)
        with pytest.raises(KilledError):
            segment(model, tmp_path / "parts", count)
    (tmp_path / "parts" / "masks" / ".stremn-0123456789abcdef.tmp.png").write_bytes(b"half")
    segment(model, tmp_path / "parts", count, "resume")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_the_second_of_two_runs_into_a_folder_is_refused(tmp_path: Path) -> None:
    with ResultWriter(tmp_path / "out", fps=10) as first:
        for existing in ("refuse", "resume", "replace"):
            with pytest.raises(StremnError, match="Another run is writing into"):
                ResultWriter(tmp_path / "out", fps=10, existing=existing)  # type: ignore[arg-type]
        first.write(FrameResult(Frame(0, "00000", frames(1)[0]), square(), {}))
    ResultWriter(tmp_path / "out", fps=10, existing="replace").close()


def test_the_second_of_two_processes_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from stremn.media.results import ResultWriter\n"
        "ResultWriter(Path(sys.argv[1]), fps=10, existing='replace')"
    )
    with ResultWriter(tmp_path / "out", fps=10):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "out")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert "Another run is writing into" in done.stderr


def written(out: Path) -> Path:
    with ResultWriter(out, fps=10) as writer:
        for index in range(3):
            image = frames(1)[0]
            writer.write(FrameResult(Frame(index, f"{index:05d}", image), square(), {}))
        writer.checkpoint(lambda path: path.write_bytes(b"state"))
    return out


@pytest.mark.parametrize("name", ["../../precious", "/precious", "a/b", "..", "", 7, None, "a\0b"])
def test_overwriting_removes_nothing_outside_the_folder(tmp_path: Path, name: object) -> None:
    out = written(tmp_path / "deep" / "out")
    precious = tmp_path / "precious.png"
    Image.fromarray(square()).save(precious)
    (out / "memory.json").write_text("[\n" + json.dumps({"frame": 0, "name": name}) + "\n]\n")
    with pytest.raises(StremnError, match="names a frame"):
        ResultWriter(out, fps=10, existing="replace")
    assert precious.exists()
    assert (out / "masks" / "00000.png").exists()


@pytest.mark.parametrize("folder", ["masks", "probabilities", ".resume"])
@pytest.mark.parametrize("existing", ["refuse", "resume", "replace"])
def test_folders_that_are_links_are_refused(tmp_path: Path, folder: str, existing: str) -> None:
    out, elsewhere = written(tmp_path / "out"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "00000.png").write_text("precious")
    shutil.rmtree(out / folder, ignore_errors=True)
    (out / folder).symlink_to(elsewhere)
    with pytest.raises(StremnError, match="is a link"):
        ResultWriter(out, fps=10, existing=existing)  # type: ignore[arg-type]
    assert [path.name for path in elsewhere.iterdir()] == ["00000.png"]


def test_overwriting_a_run_removes_what_it_wrote_and_nothing_else(tmp_path: Path) -> None:
    out = written(tmp_path / "out")
    (out / "notes.txt").write_text("mine")
    ResultWriter(out, fps=10, existing="replace").close()
    names = [".resume", "masks", "memory.json", "notes.txt", "objects.csv"]
    assert sorted(p.name for p in out.iterdir()) == names
    assert not list((out / "masks").iterdir())


@pytest.mark.parametrize("existing", ["refuse", "resume", "replace"])
@pytest.mark.parametrize("name", ["masks/00000.png", "overlay.mp4", "objects.csv", "objects.json"])
def test_files_that_no_run_wrote_are_not_replaced(tmp_path: Path, name: str, existing: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("drawn by hand")
    with pytest.raises(StremnError, match=rf"{name} is there already, and no run wrote it"):
        ResultWriter(tmp_path, fps=10, existing=existing, formats=choose_formats(["coco"]))  # type: ignore[arg-type]
    assert contents(tmp_path) == {name: b"drawn by hand"}


def test_a_run_whose_progress_is_gone_is_not_begun_again(tmp_path: Path) -> None:
    out = written(tmp_path / "out")
    shutil.rmtree(out / ".resume")
    before = contents(out)
    with pytest.raises(
        StremnError, match=r"progress\.json is gone\. Use --overwrite to replace its 3"
    ):
        ResultWriter(out, fps=10, existing="resume")
    assert contents(out) == before
    ResultWriter(out, fps=10, existing="replace").close()


def test_a_refused_run_leaves_the_folder_to_others(tmp_path: Path) -> None:
    out = written(tmp_path / "out")
    try:
        ResultWriter(out, fps=10)
    except StremnError:  # it is still held here, and the refused writer with it
        with ResultWriter(out, fps=10, existing="resume") as writer:
            assert writer.next_frame == 3
    else:
        pytest.fail("not refused")


def test_overwriting_that_was_killed_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = written(tmp_path / "out")

    def kill(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("stremn.media.run_folder.shutil.rmtree", kill)
        with pytest.raises(KilledError):
            ResultWriter(out, fps=10, existing="replace")
    (out / "objects.csv").write_text("half removed")
    ResultWriter(out, fps=10, existing="replace").close()
    assert "half removed" not in (out / "objects.csv").read_text()


@pytest.mark.parametrize("name", ["run-10:30", "data:x", "concat:a"])
def test_folders_that_look_like_protocols_are_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    written(Path(name))
    assert len(list(open_frames(tmp_path / name / "overlay.mp4"))) == 3


def test_a_run_that_could_not_be_closed_is_not_finished(tmp_path: Path) -> None:
    """Its other formats are complete, and it can be resumed."""
    out = tmp_path / "out"
    writer = ResultWriter(out, fps=10, formats=choose_formats(["coco"]))
    writer.write(FrameResult(Frame(0, "00000", frames(1)[0]), square(), {}))
    writer.checkpoint(lambda path: path.write_bytes(b"state"))
    (out / "overlay.mp4").mkdir()
    with pytest.raises(StremnError, match=r"overlay\.mp4 cannot be written: it is a folder"):
        writer.finish()
    assert len(json.loads((out / "objects.json").read_text())["images"]) == 1
    (out / "overlay.mp4").rmdir()
    with pytest.raises(StremnError, match="cannot be finished: it was closed with an error"):
        writer.finish()
    with ResultWriter(out, fps=10, formats=choose_formats(["coco"]), existing="resume") as resumed:
        assert resumed.next_frame == 1
        resumed.finish()
    assert len(list(open_frames(out / "overlay.mp4"))) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"state": "../../../etc/passwd"},
        {"state": "/etc/passwd"},
        {"state": "state-000000099.safetensors"},
        {"frames": -1},
        {"frames": 4},
        {"frames": 1.5},
        {"frames": "2"},
        {"frames": True},
        {"frames": 2**70},
        {"finished": "yes"},
        {"settings": None},
        {"more": 1},
    ],
)
def test_a_damaged_progress_file_is_told(tmp_path: Path, change: dict[str, object]) -> None:
    out = written(tmp_path / "out")
    path = out / ".resume" / "progress.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(StremnError, match=r"progress\.json is damaged"):
        ResultWriter(out, fps=10, existing="resume")
    ResultWriter(out, fps=10, existing="replace").close()


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"[1]", b"nul", b"{}"])
def test_progress_that_is_no_json_is_told(tmp_path: Path, content: bytes) -> None:
    out = written(tmp_path / "out")
    (out / ".resume" / "progress.json").write_bytes(content)
    with pytest.raises(StremnError, match=r"progress\.json is damaged"):
        ResultWriter(out, fps=10, existing="resume")


@pytest.mark.parametrize("content", [b"\xff", b"[" * 100_000, b"[1]", b"[\n7\n]", b"x"])
def test_a_damaged_record_is_told(tmp_path: Path, content: bytes) -> None:
    out = written(tmp_path / "out")
    (out / "memory.json").write_bytes(content)
    for existing in ("refuse", "resume", "replace"):
        with pytest.raises(StremnError, match=r"memory\.json cannot be read"):
            ResultWriter(out, fps=10, existing=existing)  # type: ignore[arg-type]


def test_a_checkpoint_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks, their folder, the record and the overlay are on the disk before progress says so."""
    waited: set[str] = set()
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        waited.add(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    with ResultWriter(tmp_path / "out", fps=10) as writer:
        writer.write(FrameResult(Frame(0, "00000", frames(1)[0]), square(), {}))
        monkeypatch.setattr(os, "fsync", counted)
        writer.checkpoint(lambda path: path.write_bytes(b"state"))
        assert {"00000.png", "masks", "memory.json", "overlay-000000000.mp4"} <= waited
