"""Zips for the data sets' servers, written and checked before they are uploaded.

A server answers a bad zip hours later, or with a score of zero. :func:`write_submission` refuses
what a server would refuse: missing or extra sequences and frames, label maps that are not palette
or gray PNGs, of another size, or with ids that were never given.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from stremn.core.atomic_files import replacing
from stremn.data.readers.sequences import SequenceSet, VideoSequence, label_ids
from stremn.errors import StremnError
from stremn.media.files import make_folder
from stremn.media.pictures import opened_picture

TOP_FOLDERS = {"davis": "", "youtube-vos": "Annotations", "lvos": "", "mose": ""}
"""Kind of server -> folder inside the zip that holds the sequences ("" = none)."""


_HEADER_BYTES = 1 << 16
"""Bytes of a label map's file that are no pixels, at most."""


@dataclass(frozen=True)
class Submission:
    """A checked zip.

    Attributes:
        path: the zip.
        sequences: number of sequences in it.
        masks: number of label maps in it.
        nbytes: its size.
    """

    path: Path
    sequences: int
    masks: int
    nbytes: int


def write_submission(
    data: SequenceSet, predictions: Path, path: Path, kind: str | None = None
) -> Submission:
    """Zip ``predictions/<sequence>/<frame name>.png`` as a server expects it, and check it.

    Args:
        data: the split the predictions are for.
        predictions: output folder of an evaluation.
        path: zip to write; an old one is replaced.
        kind: server, a key of ``TOP_FOLDERS``; by default the data set's own.

    Raises:
        StremnError: the data set has no server, or the predictions would be refused by it. An old
            zip is then unchanged, and no new one is left.
    """
    top = top_folder(data, kind)
    files = {
        _entry(top, s, index): predictions / s.name / f"{s.frame_name(index)}.png"
        for s in data
        for index in range(len(s))
        if s.submits(index)
    }
    missing = [
        str(PurePosixPath(p.parent.name) / p.name) for p in files.values() if not p.is_file()
    ]
    if missing:
        raise StremnError(
            f"{predictions} lacks {len(missing)} label maps of {data.name} {data.split}: "
            f"{', '.join(missing[:3])}. Run the evaluation to its end first."
        )
    make_folder(path.parent)
    with replacing(path) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, file in files.items():  # PNGs do not get smaller by deflating again
                archive.write(file, name)
        return _check(data, temporary, path, top)


def check_submission(data: SequenceSet, path: Path, kind: str | None = None) -> Submission:
    """Check a zip, made by any program, against a split: names, count, kind, sizes and ids.

    Args:
        data: the split the zip is for.
        path: the zip.
        kind: server, a key of ``TOP_FOLDERS``; by default the data set's own.

    Raises:
        StremnError: naming the first three offenders.
    """
    return _check(data, path, path, top_folder(data, kind))


def _check(data: SequenceSet, file: Path, path: Path, top: str) -> Submission:
    """Check a zip that lies in `file` and is, or will be, called `path`."""
    expected = {
        _entry(top, s, index): s for s in data for index in range(len(s)) if s.submits(index)
    }
    try:
        with zipfile.ZipFile(file) as archive:
            present = [name for name in archive.namelist() if not name.endswith("/")]
            _check_entries(path, present, list(expected), top)
            for sequence in data:
                names = [name for name, owner in expected.items() if owner is sequence]
                _check_masks(archive, path, sequence, names)
    except (StremnError, MemoryError):
        raise
    except Exception as error:  # encrypted, cut off, of another method: each raises its own kind
        raise StremnError(f"{path} cannot be read as a zip ({error}).") from error
    return Submission(path, len(data), len(expected), file.stat().st_size)


def top_folder(data: SequenceSet, kind: str | None = None) -> str:
    """Return the folder inside a zip that holds the sequences, "" for none.

    Args:
        data: the split the zip is for.
        kind: server, a key of ``TOP_FOLDERS``; by default the data set's own.

    Raises:
        StremnError: the data set has no server.
    """
    chosen = kind or data.submission
    if chosen not in TOP_FOLDERS:
        raise StremnError(
            f"{data.name} {data.split} has no server to submit to. Name the kind of zip: "
            f"{', '.join(TOP_FOLDERS)}."
        )
    return TOP_FOLDERS[chosen]


def _entry(top: str, sequence: VideoSequence, index: int) -> str:
    return str(PurePosixPath(top) / sequence.name / f"{sequence.frame_name(index)}.png")


def _check_entries(path: Path, present: Sequence[str], expected: Sequence[str], top: str) -> None:
    missing = sorted(set(expected) - set(present))
    if missing:
        raise StremnError(
            f"{path} lacks {len(missing)} of {len(expected)} label maps: "
            f"{', '.join(missing[:3])}. Expected {top + '/' if top else ''}<sequence>/<frame>.png."
        )
    twice = [name for name, count in Counter(present).items() if count > 1]
    if twice:
        raise StremnError(f"{path} holds {twice[0]} more than once. Write the zip again.")
    extra = sorted(set(present) - set(expected))
    if extra:
        raise StremnError(
            f"{path} holds {len(extra)} files that the server does not expect: "
            f"{', '.join(extra[:3])}. Remove them."
        )


@contextmanager
def _opened(archive: zipfile.ZipFile, path: Path, name: str) -> Iterator[Image.Image]:
    """Give an image of the zip; what cannot be read in it is that image's fault."""
    try:
        with opened_picture(BytesIO(archive.read(name))) as image:
            yield image
    except (OSError, SyntaxError) as error:
        raise StremnError(
            f"{path}: {name} cannot be read as an image. Write that label map again."
        ) from error


def _check_masks(
    archive: zipfile.ZipFile, path: Path, sequence: VideoSequence, names: Sequence[str]
) -> None:
    width, height = sequence.size()
    known = set(sequence.objects)
    for name in names:
        claimed = archive.getinfo(name).file_size
        if claimed > _HEADER_BYTES + 4 * width * height:
            raise StremnError(
                f"{path}: {name} unpacks to {claimed} bytes, more than any label map of "
                f"{width}x{height} pixels. Write that label map again."
            )
        with _opened(archive, path, name) as image:
            if image.format != "PNG" or image.mode not in ("P", "L"):
                raise StremnError(
                    f"{path}: {name} is {image.format} of mode {image.mode}; the server expects "
                    "8-bit palette PNGs."
                )
            if image.size != (width, height):
                raise StremnError(
                    f"{path}: {name} is {image.size[0]}x{image.size[1]} pixels but the video is "
                    f"{width}x{height}."
                )
            other = sorted(set(label_ids(np.asarray(image))) - known)
        if other:
            raise StremnError(
                f"{path}: {name} holds ids {other[:3]}; the objects are {sorted(known)}."
            )
