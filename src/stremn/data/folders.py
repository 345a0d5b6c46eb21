"""Folders of images, as every data set has them."""

from pathlib import Path

from stremn.media.video import IMAGE_SUFFIXES, natural_order


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder in natural order of their names; hidden files are left out."""
    files = (
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    return sorted(files, key=lambda path: (natural_order(path.stem), path.name))
