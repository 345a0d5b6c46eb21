"""Files that were compressed with loss: their pixels are near what was stored, not equal to it."""

from pathlib import Path

from PIL import Image

_LOSSY = frozenset({"JPEG", "MPO"})


def is_lossy(image: Image.Image, path: Path) -> bool:
    """Return whether an opened image file is a JPEG, or a WebP that is not of its lossless kind."""
    if image.format == "WEBP":
        return b"VP8L" not in path.read_bytes()
    return image.format in _LOSSY
