"""Replace a file in one move: readers see the old file or the new one, never a part of it.

A new file is written under a random name beside its target, brought to the disk, and renamed. Only
a regular file, or nothing, is ever replaced: a link, a pipe or a device at the target is refused.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self
from weakref import finalize

from stremn.errors import StremnError

try:
    import fcntl
except ImportError:  # Windows: a temporary file that was left behind is not removed there
    fcntl = None  # type: ignore[assignment]

PREFIX = ".stremn-"
"""How the names of temporary files begin."""

_SUFFIX = ".tmp"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_LONGEST = 255  # bytes that a name may have on the usual file systems


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the operating system inside the block into a StremnError about `path`."""
    try:
        yield
    except PermissionError as error:
        raise StremnError(
            f"There is no permission to write {path}. Choose another output folder or change its "
            "rights."
        ) from error
    except IsADirectoryError as error:
        raise StremnError(
            f"{path} cannot be written: it is a folder. Give the name of a file."
        ) from error
    except (NotADirectoryError, FileExistsError) as error:
        raise StremnError(
            f"{path} cannot be written: a part of this path is a file, not a folder."
        ) from error
    except OSError as error:
        if error.errno in _FULL:
            raise StremnError(
                f"The disk is full: {path} could not be written. What was written before is "
                "complete; free some space and run again with --resume."
            ) from error
        reason = error.strerror or str(error)
        raise StremnError(f"{path} could not be written: {reason}.") from error


def check_target(path: Path) -> None:
    """Refuse a path that a file must not be put at.

    Raises:
        StremnError: a link, folder, pipe, socket or device lies there; its name is too long.
    """
    if len(os.fsencode(path.name)) > _LONGEST:
        raise StremnError(
            f"{path} cannot be written: its name is longer than {_LONGEST} bytes. Choose a shorter "
            "one."
        )
    with writing(path):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if stat.S_ISLNK(mode):
        raise StremnError(
            f"{path} is a link and is not replaced. Remove it, or give the path that it leads to."
        )
    if not stat.S_ISREG(mode):
        raise StremnError(
            f"{path} is a pipe, a socket or a device, not a file, and is not replaced. Choose "
            "another name."
        )


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary file beside `path` to write to, and put it in place if the block succeeds.

    Args:
        path: the target. Its folder must exist.
        durable: whether the content and the new name are on the disk when this returns, so that a
            power cut does not take them back. Without it, call `sync` later for many files.

    Raises:
        StremnError: `path` must not be replaced (see `check_target`), there is no permission, the
            disk is full. A file that was there is then unchanged, and no other is left behind.
    """
    check_target(path)
    with writing(path):
        temporary, held = _create(path)
    placed = False
    try:
        with writing(path):
            yield temporary
            if durable:
                _sync_file(temporary)  # by name: a writer may have put a file of its own there
            temporary.replace(path)
            placed = True
            if durable:
                _sync_folder(path.parent)
    finally:
        if not placed:
            temporary.unlink(missing_ok=True)
        os.close(held)


def sync(paths: Iterable[Path]) -> None:
    """Flush files and their names to the disk; skip those that no longer exist.

    Raises:
        StremnError: the disk does not take them.
    """
    folders = set()
    for path in paths:
        with writing(path), suppress(FileNotFoundError):
            _sync_file(path)
            folders.add(path.parent)
    for folder in folders:
        with writing(folder):
            _sync_folder(folder)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of processes that were killed; those being written are left alone."""
    if fcntl is None or not folder.is_dir():
        return
    for path in folder.glob(f"{PREFIX}*{_SUFFIX}*"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(descriptor)


class FolderLock:
    """Lock a folder against other runs until `release`, or the end of the process.

    Nothing is written, so nothing can be left behind.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock; the folder must exist.

        Raises:
            StremnError: another run has it.
        """
        self.release: Callable[[], object] = lambda: None
        if fcntl is None:
            return
        with writing(folder):
            descriptor = os.open(folder, os.O_RDONLY)
        self.release = finalize(self, os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise StremnError(
                f"Another run is writing into {folder}. Wait until it ends, or choose another "
                "output folder."
            ) from error
        except OSError:  # a file system without locks
            self.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """Make a folder for the results of one run, and lock it until the block ends.

    What killed runs left half written in it is removed. A folder that was made here and is still
    empty at the end is removed again.

    Raises:
        StremnError: another run is writing into it, or it cannot be made.
    """
    new = not path.exists()
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    with FolderLock(path):
        remove_leftovers(path)
        try:
            yield path
        finally:
            if new:
                with suppress(OSError):  # it holds results
                    path.rmdir()


def _create(path: Path) -> tuple[Path, int]:
    """Create a new empty file beside `path`, and hold a lock on it."""
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)
    # The suffix stays last: writers may choose the format by it.
    suffix = path.suffix if len(path.suffix) < 32 else ""
    while True:
        temporary = path.with_name(f"{PREFIX}{secrets.token_hex(8)}{_SUFFIX}{suffix}")
        descriptor = os.open(temporary, flags, 0o666)
        if fcntl is None:
            return temporary, descriptor
        with suppress(OSError):  # file systems without locks: nothing is removed there
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if temporary.exists():  # else `remove_leftovers` came before the lock
            return temporary, descriptor
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there, and need not be
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has no such call
            raise
    finally:
        os.close(descriptor)
