"""Disks that are full or read-only, inputs that vanish, memory that runs out: a sentence each time.

Runs have a mount namespace of their own, so that the small disk is theirs alone.
"""

import ctypes
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kills import make_clip
from kills_of_verbs import FORKS, check_whole, verbs

NO_NAMESPACE = 77
CLONE_NEWNS = 0x20000
MS_RDONLY, MS_REC, MS_PRIVATE = 0x1, 0x4000, 0x40000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return verbs(tmp_path_factory.mktemp("data"))


def small_disk(out: Path, options: str, flags: int = 0) -> None:
    """Put a small disk at `out`, for this process alone; exit where that is not allowed."""
    out.mkdir(exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.unshare(CLONE_NEWNS) == 0
    done = done and libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0
    if not done or libc.mount(b"tmpfs", str(out).encode(), b"tmpfs", flags, options.encode()):
        os._exit(NO_NAMESPACE)


def full(out: Path, kilobytes: int) -> None:
    small_disk(out, f"size={kilobytes}k")


def read_only(out: Path) -> None:
    small_disk(out, "size=1m", MS_RDONLY)


def little_memory(out: Path, megabytes: int) -> None:
    """Let the process take so much more memory, and no more."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def body(words: list[str], out: Path, said: Path, condition: Callable[..., None], how: Any) -> None:
    """In the forked process: the verb under a condition, then a look at what it left."""
    from stremn.cli import main

    with said.open("w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    condition(out, *how)
    sys.argv = ["stremn", *words, "-o", str(out)]
    code: Any = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    check_whole(out)
    os._exit(code or 0)


def run(words: list[str], out: Path, condition: Callable[..., None], *how: Any) -> tuple[int, str]:
    """Run a verb under a condition; return its exit code and what it said."""
    said = out.with_suffix(".txt")
    process = FORKS.Process(target=body, args=(words, out, said, condition, how))
    process.start()
    process.join()
    if process.exitcode == NO_NAMESPACE:
        pytest.skip("needs the right to make mount namespaces")
    return process.exitcode, said.read_text(encoding="utf-8")


VERBS = ("predict", "evaluate", "evaluate prediction", "tables", "train", "segment")


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kilobytes", [4, 48])
def test_a_full_disk(made: dict[str, list[str]], tmp_path: Path, verb: str, kilobytes: int) -> None:
    code, said = run(made[verb], tmp_path / "out", full, kilobytes)
    assert "Traceback" not in said, said
    if kilobytes == 4:
        assert code in (1, 2), said
    assert code == 0 or "The disk is full" in said, said


@pytest.mark.parametrize("verb", VERBS)
def test_a_read_only_folder(made: dict[str, list[str]], tmp_path: Path, verb: str) -> None:
    code, said = run(made[verb], tmp_path / "out", read_only)
    assert code in (1, 2), said
    assert "Read-only file system" in said, said
    assert "Traceback" not in said, said


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["predict", "train", "segment"])
@pytest.mark.parametrize("megabytes", [8, 40])
def test_little_memory(
    made: dict[str, list[str]], tmp_path: Path, verb: str, megabytes: int
) -> None:
    code, said = run(made[verb], tmp_path / "out", little_memory, megabytes)
    if code == -signal.SIGSEGV:  # a library that does not look at what it is given: no sentence,
        check_whole(tmp_path / "out")  # but what was written is whole
        return
    assert code in (0, 2), said
    assert "Traceback" not in said, said
    assert code == 0 or "memory" in said, said


def vanishing(out: Path, clip: Path) -> None:
    """Remove the input once the first mask is there."""
    import threading

    def watch() -> None:
        while not list(out.glob("masks/*.png")):
            time.sleep(0.005)
        shutil.rmtree(clip)

    threading.Thread(target=watch, daemon=True).start()


@pytest.mark.slow
def test_an_input_that_vanishes(tmp_path: Path) -> None:
    words = make_clip(tmp_path, 400)
    code, said = run(words, tmp_path / "out", vanishing, tmp_path / "clip")
    assert code == 2, said
    assert "Traceback" not in said, said
    assert "Use --resume to continue" in said, said
    assert (tmp_path / "out" / ".resume" / "progress.json").is_file()
