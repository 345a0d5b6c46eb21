"""Open image files safely: common formats only, and a limited number of pixels."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image

from stremn.errors import StremnError

FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "PPM", "GIF")
"""Formats that are read, whatever a file is called. Pillow knows others that start programs
(PostScript) or read other files."""

MOST_PIXELS = 2**26
"""Pixels of a picture, at most: 8192x8192. A small file can claim any number."""


@contextmanager
def opened_picture(source: Path | BytesIO, most: int = MOST_PIXELS) -> Iterator[Image.Image]:
    """Open an image and check its size before its pixels are decoded.

    Args:
        source: the file.
        most: pixels that it may have.

    Raises:
        OSError: no such file, no image of these formats, more pixels than `most`, or damage, found
            here or in the block.
    """
    try:
        with Image.open(source, formats=FORMATS) as image:
            check_pixels(*image.size, most)
            yield image
    except (OSError, StremnError, MemoryError):
        raise
    except Exception as error:  # damaged files raise whatever their decoder stumbles over
        raise OSError(f"it is damaged ({error})") from error


def check_pixels(width: int, height: int, most: int = MOST_PIXELS) -> None:
    """Raise OSError if a picture has more than `most` pixels, or none."""
    if width < 1 or height < 1:
        raise OSError(f"it has no pixels ({width}x{height})")
    if width * height > most:
        raise OSError(
            f"it is {width}x{height} pixels, more than the {most / 1e6:.0f} million that are read"
        )
