"""The projects of all visitors, and their removal."""

from __future__ import annotations

import re
import secrets
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from stremn.web.project import Project, Tools


@dataclass(frozen=True)
class Limits:
    """Limits for visitors of a page.

    upload: bytes of a request.
    frames: of a video; a longer one is cut there, and a prediction observes no more.
    waiting: requests that wait for their turn; more are sent away.
    visitors: whose results are kept; the first that came go first.
    absence: seconds that the results of a visitor who left are kept; who comes back goes on.
    """

    upload: int = 2 * 10**9
    frames: int = 20_000
    waiting: int = 32
    visitors: int = 100
    absence: float = 3600.0


LIMITS = Limits()

_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,5}")


class Projects:
    """Projects by keys that cannot be guessed, each in a folder of its own below `root`.

    The browser names its visitor, so the name is a key of a dictionary and never part of a path.
    """

    def __init__(self, root: Path, tools: Tools, limits: Limits = LIMITS) -> None:
        self._root = root
        self._tools = tools
        self._limits = limits
        self._by_key: dict[str, Project] = {}
        self._keys: dict[str, str] = {}  # of visitors, the first that came first
        self._seen: dict[str, float] = {}  # when a key was used last
        self._lock = threading.Lock()

    def open(self, visitor: str, video: Path) -> str:
        """Open a visitor's project on a video, close the earlier one, and return the new key.

        Raises:
            StremnError: it cannot be read as a video; the one before stays.
        """
        folder = Path(mkdtemp(prefix="project-", dir=self._root))
        try:
            suffix = video.suffix if _SUFFIX.fullmatch(video.suffix) else ""
            own = folder / f"video{suffix}"  # uploads are removed after a day
            _keep(video, own)
            project = Project(own, folder, self._tools, self._limits.frames)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        key = secrets.token_urlsafe(24)
        self.leave(visitor)
        with self._lock:
            self._keys[visitor] = key
            self._by_key[key] = project
            old = list(self._keys)[: max(0, len(self._keys) - self._limits.visitors)]
        for one in old:
            self.leave(one)
        return key

    def get(self, key: str) -> Project | None:
        """Return the project of a key; None if there is none."""
        project = self._by_key.get(key)
        if project is not None:
            self._seen[key] = time.monotonic()
        return project

    def leave_later(self, visitor: str) -> None:
        """Remove a visitor's data when nothing was heard of the visitor for `Limits.absence`.

        A connection that breaks, or a page that is loaded again, thus loses nothing.
        """
        key = self._keys.get(visitor)
        if key is None:
            return
        wait = self._limits.absence

        def look_again() -> None:
            if self._keys.get(visitor) != key:
                return
            if time.monotonic() - self._seen.get(key, 0.0) >= wait:
                self.leave(visitor)
            else:
                self.leave_later(visitor)

        timer = threading.Timer(wait, look_again)
        timer.daemon = True
        timer.start()

    def leave(self, visitor: str) -> None:
        """Stop a visitor's run and remove all of the visitor's data."""
        with self._lock:
            key = self._keys.pop(visitor, None)
            project = None if key is None else self._by_key.pop(key, None)
            self._seen.pop(key or "", None)
        if project is not None:
            project.close()
            shutil.rmtree(project.folder, ignore_errors=True)


def _keep(video: Path, own: Path) -> None:
    """Keep a video under a new name, without a copy where possible."""
    try:
        own.hardlink_to(video)
    except OSError:  # on another disk
        shutil.copyfile(video, own)
