"""Folders of images, as every data set has them."""

from collections.abc import Sequence
from pathlib import Path

from stremn.media.video import IMAGE_SUFFIXES, natural_order


def images_in(folder: Path) -> list[Path]:
    """Return image files of a folder in natural order of their names; hidden files are left out."""
    files = (
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    return sorted(files, key=lambda path: (natural_order(path.stem), path.name))


def distinct(paths: Sequence[Path], at_least: int = 1) -> list[str]:
    """Name each path by its last parts: `at_least` that many, and enough to be unique."""
    parts = [path.resolve().parts for path in paths]

    def named(count: int) -> list[str]:
        return ["/".join(each[-count:]) for each in parts]

    count = at_least
    while len(set(named(count))) < len(set(parts)):
        count += 1
    return named(count)
