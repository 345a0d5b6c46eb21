"""Files are replaced whole; what is no file is never replaced; the dead leave nothing behind."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stremn.core.atomic_files import FolderLock, check_target, remove_leftovers, replacing, sync
from stremn.core.checkpoints import Checkpoint, write_checkpoint
from stremn.core.weights import save_weights
from stremn.errors import StremnError
from stremn.media.encoding import write_video
from stremn.media.files import write_whole
from stremn.media.masks import write_mask
from stremn.networks.model import STReMN
from stremn.prediction.sessions import PredictionSession
from stremn.segmentation.sessions import SegmentationSession
from tiny_predictor import tiny

Writer = Callable[[Path], object]


@pytest.fixture(
    params=["bytes", "mask", "video", "checkpoint", "session", "prediction session", "weights"]
)
def write(request: pytest.FixtureRequest, model: STReMN) -> Writer:
    """Each way in which the package writes a file that a user names."""
    picture = np.zeros((16, 16, 3), np.uint8)
    writers: dict[str, Writer] = {
        "bytes": lambda path: write_whole(path, b"new"),
        "mask": lambda path: write_mask(path, picture[..., 0]),
        "video": lambda path: write_video(path, [picture], 10),
        "checkpoint": lambda path: write_checkpoint(path, Checkpoint({"x": torch.ones(2)}, {})),
        "session": lambda path: SegmentationSession(model, device="cpu").save(path),
        "prediction session": lambda path: PredictionSession(tiny(), device="cpu").save(path),
        "weights": lambda path: save_weights(model, "segmentation", "{}", path),
    }
    return writers[request.param]


def test_only_files_are_replaced(write: Writer, tmp_path: Path) -> None:
    """Links, pipes and folders stay what they are, and so does what a link leads to."""
    target = tmp_path / "target.mp4"
    target.write_text("precious")
    places = {name: tmp_path / f"{name}.mp4" for name in ("link", "nowhere", "pipe", "folder")}
    places["link"].symlink_to(target)
    places["nowhere"].symlink_to(tmp_path / "missing.mp4")
    os.mkfifo(places["pipe"])
    places["folder"].mkdir()
    words = {"link": "is a link", "nowhere": "is a link", "pipe": "is a pipe", "folder": "folder"}
    for name, place in places.items():
        before = place.lstat()
        with pytest.raises(StremnError, match=words[name]):
            write(place)
        assert place.lstat().st_ino == before.st_ino, name
    assert target.read_text() == "precious"
    assert not (tmp_path / "missing.mp4").exists()
    assert not list(tmp_path.glob(".stremn-*"))


def test_devices_are_refused() -> None:
    """Asked of the check alone: were it wrong, writing would take the machine's device away."""
    with pytest.raises(StremnError, match="is a pipe, a socket or a device"):
        check_target(Path(os.devnull))


def test_a_file_is_replaced_and_nothing_else_stays(write: Writer, tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_text("old")
    write(path)
    assert path.read_bytes() != b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_has_the_rights_that_the_user_gives_new_files(write: Writer, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "x.mp4")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.mp4").stat().st_mode) == 0o640


def test_names_that_are_too_long_are_refused_in_a_sentence(write: Writer, tmp_path: Path) -> None:
    write(tmp_path / ("x" * 251 + ".mp4"))  # the temporary name is not longer
    with pytest.raises(StremnError, match="longer than 255 bytes"):
        write(tmp_path / ("x" * 252 + ".mp4"))
    with pytest.raises(StremnError, match="longer than 255 bytes"):
        write(tmp_path / ("é" * 130 + ".mp4"))


def test_links_at_guessable_temporary_names_are_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    for name in (".x.png.part", f".x.{os.getpid()}.tmp.png"):
        (tmp_path / name).symlink_to(target)
    write_mask(tmp_path / "x.png", np.zeros((4, 4), np.uint8))
    assert target.read_text() == "precious"


KILLED = """
import os, signal, sys
from pathlib import Path
from stremn.core.atomic_files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_and_live_files_are_not(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(list(tmp_path.glob(".stremn-*"))) == 1
    with replacing(path) as temporary:
        temporary.write_text("new")
        remove_leftovers(tmp_path)
        assert list(tmp_path.glob(".stremn-*")) == [temporary]
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_that_are_links_are_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / ".stremn-0.tmp").symlink_to(target)
    remove_leftovers(tmp_path)
    assert target.read_text() == "precious"


def test_one_run_at_a_time_writes_into_a_folder(tmp_path: Path) -> None:
    with FolderLock(tmp_path), pytest.raises(StremnError, match="Another run is writing into"):
        FolderLock(tmp_path)
    FolderLock(tmp_path).release()


def test_the_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File and folder both: a new name is the folder's content."""
    waited: list[bool] = []
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        waited.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    write_whole(tmp_path / "x", b"1")
    assert waited == [False, True]
    write_whole(tmp_path / "y", b"1", durable=False)
    assert waited == [False, True]
    sync([tmp_path / "x", tmp_path / "y", tmp_path / "gone"])
    assert waited == [False, True, False, False, True]
