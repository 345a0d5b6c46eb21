"""Show pictures live in a window, where there is a display."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import numpy as np
from jaxtyping import UInt8
from PIL import Image

if TYPE_CHECKING:
    from PIL import ImageTk

_SHARE = 0.9
"""Of the screen's sides that a picture may take."""


class NoWindowError(Exception):
    """There is no display, it cannot be used, or Python was installed without tkinter."""


class LiveWindow:
    """A window with the newest picture; Escape, Q or its own button closes it.

    It is drawn by the thread that made it, whenever `show` is called.

    Attributes:
        closed: the user has closed it.
    """

    def __init__(self) -> None:
        """Open it; raises NoWindowError."""
        if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
            raise NoWindowError
        try:
            import tkinter
        except ImportError as error:  # a package of its own on Debian and Ubuntu
            raise NoWindowError from error
        try:
            self._root = tkinter.Tk(className="stremn")
        except tkinter.TclError as error:
            raise NoWindowError from error
        self.closed = False
        self._root.title("stremn")
        self._root.protocol("WM_DELETE_WINDOW", self._close)
        for key in ("<Escape>", "q"):
            self._root.bind(key, lambda _: self._close())
        self._picture = tkinter.Label(self._root, borderwidth=0)
        self._picture.pack()
        self._words = tkinter.Label(self._root)
        self._words.pack()
        self._photo: ImageTk.PhotoImage | None = None  # else it is collected while it is shown

    def show(self, draw: Callable[[], UInt8[np.ndarray, "rows columns 3"]], words: str) -> None:
        """Show another picture, RGB, and words below it."""
        from PIL import ImageTk

        image = Image.fromarray(draw())
        largest = self._root.winfo_screenwidth(), self._root.winfo_screenheight()
        image.thumbnail((int(largest[0] * _SHARE), int(largest[1] * _SHARE)))
        self._photo = ImageTk.PhotoImage(image, master=self._root)
        self._picture.configure(image=self._photo)
        self._words.configure(text=words)
        self._root.update()

    def close(self) -> None:
        """Close the window."""
        self._photo = None
        self._root.destroy()

    def _close(self) -> None:
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
