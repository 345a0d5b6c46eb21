"""A video of separate pictures."""

from collections.abc import Callable, Iterator

from stremn.errors import StremnError
from stremn.media.frames import Picture, Shot


class StoredPictures:
    """A recording (see `Recording`) of pictures that have no times."""

    def __init__(self, count: int, read: Callable[[int], Picture], label: str) -> None:
        """Take `count` pictures, which `read` gives by their index."""
        self._count = count
        self._read = read
        self._label = label

    def count(self) -> int:
        """Return how many there are."""
        return self._count

    def frame_at(self, seconds: float) -> int:
        """Refuse: pictures have no times; raises StremnError."""
        raise StremnError(
            f"{self._label} has no frame rate, so {seconds:g} seconds are at no frame of it. Give "
            "a frame number."
        )

    def forward(self, start: int) -> Iterator[Shot]:
        """Yield the pictures from `start` on."""
        return (Shot(self._read(index)) for index in range(start, self._count))

    def backward(self, first: int, last: int) -> Iterator[Shot]:
        """Yield the pictures from `last` down to `first`."""
        return (Shot(self._read(index)) for index in range(last, first - 1, -1))
